-- What people and programs read, for the whole saga language. Columns are only added, at the end.

create or replace view syncor.commands as
  select id, kind, saga_id, target, reason, requested_by, requested_at, status, result, settled_at, step, task_id, decision, output, new_saga_id
    from syncor.command;
comment on column syncor.commands.target is 'What it is about otherwise';
comment on column syncor.commands.step is 'The step that it is about';
comment on column syncor.commands.task_id is 'The human task that it decides';
comment on column syncor.commands.decision is 'What was decided';
comment on column syncor.commands.output is 'What came with the decision';
comment on column syncor.commands.new_saga_id is 'The saga that a fork made';

create or replace view syncor.steps as
  select s.id as saga_id, n.seq, n.name,
         case when t.status is not null then t.status
              when s.finished_at is null then 'pending'
              when s.state = 'completed' then 'skipped'
              else 'cancelled' end as status,
         coalesce(t.compensation, 'none') as compensation,
         coalesce(t.attempts, 0) as attempts,
         a.output,
         coalesce(t.detail -> 'context', a.context, case when jsonb_typeof(a.output -> 'context') = 'object' then a.output -> 'context' else a.output end) as context,
         c.progress, t.message, t.error, t.started_at, t.finished_at
    from syncor.saga s
    join syncor.definition d on d.no = s.definition_no
    cross join lateral (select (i.ordinality - 1)::smallint as seq, i.name from unnest(d.steps) with ordinality i(name, ordinality)) n
    left join syncor.step t on t.saga_id = s.id and t.seq = n.seq
    -- Whoever did it: the saga itself, the one it is a fork of, or the one it undoes. Nothing succeeds twice.
    left join lateral (select a.output, a.context from syncor.attempt a
                        where a.saga_id = coalesce((t.detail ->> 'doneBy')::uuid, t.saga_id) and a.seq = t.seq
                          and a.action in ('do', 'verify') and a.outcome = 'succeeded' and t.status = 'succeeded' limit 1) a on true
    left join lateral (select c.progress from syncor.callback c where c.saga_id = t.saga_id and c.seq = t.seq
                        order by c.made_at desc limit 1) c on true;
