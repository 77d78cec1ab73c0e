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

create or replace view syncor.sagas with (security_barrier = false) as
  select s.id, d.id as definition, d.family, d.version, s.state, s.clean,
         case
           when s.finished_at is not null then null
           when s.owner is null and (s.next_due <= now() or s.waiting_for is null) then 'worker'
           else s.waiting_for
         end as waiting_for,
         -- In a pause all limits stand still.
         case when s.finished_at is null and s.state <> 'paused' then
           coalesce(s.next_due, s.lock_until,
                    (select min(least(t.due_at, t.wait_until)) from syncor.step t
                      where t.saga_id = s.id and (t.status in ('waiting', 'backoff') or t.compensation in ('waiting', 'backoff'))))
         end as wake_at, s.event_id, s.parent_id, s.correlation_id,
         (select e.data from syncor.events e where e.id = s.event_id and e.created_at = s.event_at) as data,
         s.lock_keys, coalesce(s.dedupe_key, s.event_id::text) as dedupe_key, s.reason,
         (select c.kind from syncor.command c where c.saga_id = s.id and c.status = 'pending' order by c.id limit 1) as pending_command,
         w.id as worker_id, s.started_at, s.finished_at,
         (extract(epoch from coalesce(s.finished_at, now()) - s.started_at) * 1000)::bigint as duration_ms,
         s.fork_of
    from syncor.saga s
    join syncor.definition d on d.no = s.definition_no
    left join syncor.worker w on w.no = s.owner;
comment on column syncor.sagas.waiting_for is 'lock, human, callback, event, timer, child, service, retry, resume or worker; null while a call is under way or when it is done';
comment on column syncor.sagas.lock_keys is 'Keys of the object locks that it holds, or waits for, until it ends';
comment on column syncor.sagas.fork_of is 'The ended saga that it was forked from';

create or replace view syncor.attempts as
  select a.saga_id, coalesce(t.name, a.seq::text) as step, a.action, a.attempt, a.fence, a.outcome, a.http_status, a.error,
         w.id as worker_id, a.started_at, a.finished_at
    from syncor.attempt a
    left join syncor.step t on t.saga_id = a.saga_id and t.seq = a.seq
    left join syncor.worker w on w.no = a.worker
  union all
  -- A wait is an attempt as well, from its beginning to what ends it; a parked service has not been called.
  select t.saga_id, t.name, u.action,
         case u.action when 'do' then t.attempts when 'undo' then t.undo_attempts else (t.detail ->> 'verifies')::int end,
         t.fence, null, null, null, w.id, t.called_at, null
    from syncor.step t
    join syncor.saga s on s.id = t.saga_id
    left join syncor.worker w on w.no = s.owner
   cross join lateral (select case when t.status in ('running', 'waiting') then
                                     case when coalesce((t.detail ->> 'verifying')::boolean, false) then 'verify' else 'do' end
                                   else 'undo' end as action) u
   where s.finished_at is null
     and (t.status = 'running' or t.compensation = 'compensating'
          or ((t.status = 'waiting' or t.compensation = 'waiting') and t.wait is distinct from 'service'));
comment on column syncor.attempts.action is 'do, undo or verify';
comment on column syncor.attempts.worker_id is 'The worker that recorded it; for a call under way, the one that makes it';

create function syncor.moment(p_at timestamptz) returns text
language sql immutable
as $$ select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"') $$;
comment on function syncor.moment(timestamptz) is 'A time as syncor.why says it';

create function syncor.why_lock(p_saga uuid) returns text
language sql stable
as $$
  -- Of the queues that it does not head, the one with the most before it.
  select format('for the object lock %s, held by %s %s (%s) since %s%s; place %s of %s in the queue%s', mine.key,
                d.id, h.id, h.state, syncor.moment(coalesce(first.granted_at, first.asked_at)),
                case when first.granted_at is null then ', which waits for other locks itself' else '' end,
                q.before, q.total,
                coalesce('; gives up at ' || syncor.moment(s.lock_until), ''))
    from syncor.lock_ticket mine
    join syncor.saga s on s.id = mine.saga_id
   cross join lateral (select count(*) filter (where o.no < mine.no) as before, count(*) - 1 as total from syncor.lock_ticket o where o.key = mine.key) q
   cross join lateral (select o.* from syncor.lock_ticket o where o.key = mine.key order by o.no limit 1) first
    join syncor.saga h on h.id = first.saga_id
    join syncor.definition d on d.no = h.definition_no
   where mine.saga_id = p_saga and mine.granted_at is null and q.before > 0
   order by q.before desc, mine.key limit 1
$$;
comment on function syncor.why_lock(uuid) is 'Which object lock a saga waits for, and who holds it';

create function syncor.why_service(p_node jsonb, p_undo boolean) returns text
language plpgsql stable
as $$
declare
  v_call    jsonb := case when p_undo then p_node -> 'compensate' else p_node -> 'call' end;
  v_name    text;
  v_breaker jsonb;
begin
  v_name := substring(case when jsonb_typeof(v_call) = 'object' then v_call ->> 'url' else v_call #>> '{}' end from '^(?:[A-Z]+ +)?([^:/ ]+):');
  if to_regclass('syncor.breaker') is not null then
    execute 'select to_jsonb(b) from syncor.breaker b where b.service = $1' into v_breaker using v_name;
  end if;
  return coalesce('the service ' || v_name, 'its service') || case
    when v_breaker is null then ', which was parked'
    when v_breaker ->> 'state' = 'paused' then
      format(', paused%s since %s%s', coalesce(' by ' || (v_breaker ->> 'by'), ''), syncor.moment((v_breaker ->> 'opened_at')::timestamptz),
             coalesce(' (' || (v_breaker ->> 'reason') || ')', ''))
    else format(', parked since %s%s%s', syncor.moment((v_breaker ->> 'opened_at')::timestamptz), coalesce(' (' || (v_breaker ->> 'reason') || ')', ''),
                coalesce('; next probe at ' || syncor.moment((v_breaker ->> 'probe_at')::timestamptz), '')) end;
end
$$;
comment on function syncor.why_service(jsonb, boolean) is 'Why the service of a step takes no calls';

create function syncor.why_human(p_saga uuid, p_seq smallint, p_kinds text[]) returns text
language sql stable
as $$
  select string_agg(format('%s (human task %s in the queue %s%s: %s%s)', coalesce(k.prompt, k.reason), k.id, k.queue,
                           coalesce(' for ' || k.assignee, ''), array_to_string(syncor.decisions(k.kind), ', '),
                           coalesce('; until ' || syncor.moment(h.due_at), '')), ', and about ' order by k.id)
    from syncor.task k
    join syncor.human_tasks h on h.id = k.id
   where k.saga_id = p_saga and k.status = 'open' and k.kind = any(p_kinds) and (p_seq is null or k.seq = p_seq)
$$;
comment on function syncor.why_human(uuid, smallint, text[]) is 'What people are asked about a saga';

-- One clause for each step that is under way: "for the reply to attempt 2 to do pay, called 3 s ago".
create function syncor.why_steps(p_saga uuid) returns text[]
language sql stable
as $$
  select array_agg(case
      when u.how = 'calling' and u.verifying then format('for the answer to question %s of verify of %s, asked %s s ago', t.detail ->> 'verifies', t.name, u.ago)
      when u.how = 'calling' then format('for the reply to attempt %s to %s %s, called %s s ago', u.attempt, u.action, t.name, u.ago)
      when u.how = 'backoff' and u.verifying then format('until %s to ask verify of %s again', syncor.moment(t.due_at), t.name)
      when u.how = 'backoff' then
        format('until %s for attempt %s to %s %s: the last one failed (%s)', syncor.moment(t.due_at), u.attempt + 1, u.action, t.name,
               coalesce(t.error, 'no reason given'))
      when t.wait = 'callback' then
        format('for the callback of attempt %s to %s %s since %s%s%s', u.attempt, u.action, t.name, syncor.moment(t.called_at),
               coalesce(', until ' || syncor.moment(t.wait_until), ''),
               coalesce((select format('; last heard of at %s%s', syncor.moment(c.beat_at),
                                       coalesce(format(' (%s)', concat_ws(', ', nullif(concat_ws(' of ', c.progress ->> 'done', c.progress ->> 'total'), ''),
                                                                          c.progress ->> 'message')), ''))
                           from syncor.callback c
                          where c.saga_id = t.saga_id and c.seq = t.seq and c.action = u.action and c.beat_at is not null
                          order by c.made_at desc limit 1), ''))
      when t.wait = 'event' and u.action = 'undo' then
        format('for somebody to undo %s and say so (saga.compensate was published at %s)%s', t.name, syncor.moment(t.called_at),
               coalesce(', until ' || syncor.moment(t.wait_until), ''))
      when t.wait = 'event' then
        format('for an event%s in %s since %s%s',
               coalesce((select format(' %s%s', w.event_type, case when w.key = '' then '' else format(' with %s', w.key) end)
                           from syncor.wait w where w.saga_id = t.saga_id and w.seq = t.seq), ''),
               t.name, syncor.moment(t.called_at), coalesce(', until ' || syncor.moment(t.wait_until), ''))
      when t.wait = 'timer' then format('until %s in %s', syncor.moment(t.due_at), t.name)
      when t.wait = 'human' then
        format('for a person''s decision in %s: %s', t.name, coalesce(syncor.why_human(t.saga_id, t.seq, '{approval,policy}'), 'nobody was asked yet'))
      when t.wait = 'child' then
        coalesce((select format('for the saga %s %s (%s), which %s %s', d.id, c.id, c.state, case u.action when 'do' then 'does' else 'undoes' end, t.name)
                    from syncor.saga c join syncor.definition d on d.no = c.definition_no
                   where c.parent_id = t.saga_id and c.parent_seq = t.seq and c.parent_action = u.action
                   order by c.id desc limit 1), format('for the saga of %s to be started', t.name))
      when t.wait = 'service' then
        format('for %s, to %s %s%s', syncor.why_service((select n.node from syncor.step_nodes(d.source) n where n.seq = t.seq), u.action = 'undo'), u.action, t.name,
               coalesce('; tried again at ' || syncor.moment(t.due_at), ''))
    end order by t.ordinal, t.seq)
    from syncor.step t
    join syncor.saga s on s.id = t.saga_id
    join syncor.definition d on d.no = s.definition_no
   cross join lateral (
     select f.action, case f.action when 'do' then t.attempts else t.undo_attempts end as attempt,
            case when t.status = 'running' or t.compensation = 'compensating' then 'calling'
                 when t.status = 'backoff' or t.compensation = 'backoff' then 'backoff' else 'waiting' end as how,
            round(extract(epoch from now() - t.called_at)) as ago,
            f.action = 'do' and coalesce((t.detail ->> 'verifying')::boolean, false) as verifying
       from (select case when t.status in ('running', 'waiting', 'backoff') then 'do' else 'undo' end) f(action)) u
   where t.saga_id = p_saga
     and (t.status in ('running', 'waiting', 'backoff') or t.compensation in ('compensating', 'waiting', 'backoff'))
$$;
comment on function syncor.why_steps(uuid) is 'What the steps of a saga wait for';

create function syncor.why_worker(p_saga uuid) returns text
language plpgsql stable
as $$
declare
  v_saga  record;
  v_alive bigint;
begin
  select s.owner, s.state, s.next_due, w.died_at is not null or w.stopped_at is not null as gone, w.beat_at, w.lease_ms into v_saga
    from syncor.saga s left join syncor.worker w on w.no = s.owner where s.id = p_saga;
  if v_saga.owner is not null and not v_saga.gone and v_saga.beat_at > now() - make_interval(secs => v_saga.lease_ms / 1000.0) then
    return null;
  end if;
  if v_saga.owner is null and (v_saga.next_due > now() or (v_saga.next_due is null and v_saga.state <> 'pending'))
     and not exists (select from syncor.input i where i.saga_id = p_saga) then
    return null;
  end if;
  select count(*) into v_alive from syncor.worker w
   where w.died_at is null and w.stopped_at is null and w.beat_at > now() - make_interval(secs => w.lease_ms / 1000.0);
  if v_alive = 0 then
    return 'for a worker: none is running; start one with `hms-orch up`';
  end if;
  return case when v_saga.owner is null then format('for a worker: all %s are busy', v_alive)
              else format('for another worker to take over: its own was last heard of at %s', syncor.moment(v_saga.beat_at)) end;
end
$$;
comment on function syncor.why_worker(uuid) is 'Why nobody runs a saga that could go on; null if that is not what it waits for';

create function syncor.why_saga(p_saga uuid) returns text
language plpgsql stable
as $$
declare
  v_saga    record;
  v_command record;
  v_waits   text;
  v_said    text;
  v_pivot   text;
begin
  select s.*, d.id as definition, d.source into v_saga from syncor.saga s join syncor.definition d on d.no = s.definition_no where s.id = p_saga;
  if v_saga.finished_at is not null then
    return format('%s is %s since %s%s', v_saga.definition, v_saga.state, syncor.moment(v_saga.finished_at), coalesce(': ' || v_saga.reason, ''));
  end if;
  select c.* into v_command from syncor.command c
   where c.saga_id = p_saga and c.kind = 'pause' and c.status = 'applied' order by c.id desc limit 1;
  v_waits := array_to_string(syncor.why_steps(p_saga), ', and ');
  v_said := case v_saga.state
    when 'paused' then
      format('is paused since %s%s until somebody resumes it%s', syncor.moment(v_saga.paused_at),
             coalesce(format(' by %s (%s)', v_command.requested_by, v_command.reason), ''),
             coalesce('; it had been waiting ' || v_waits, ''))
    when 'comp_failed' then
      coalesce('waits for a human to decide about ' || syncor.why_human(p_saga, null, '{comp_failed}'),
               (select format('waits for a human: the undo of %s failed for good (%s)', string_agg(t.name, ', '), coalesce(max(t.error), 'no reason given'))
                  from syncor.step t where t.saga_id = p_saga and t.compensation = 'failed'))
    when 'hitl' then
      coalesce('waits for a human to decide about ' || syncor.why_human(p_saga, null, '{step_failed,pivot_unknown,policy}'), 'waits for a human')
    else coalesce('waits ' || syncor.why_worker(p_saga), case v_saga.state
      when 'lock_wait' then coalesce('waits ' || syncor.why_lock(p_saga), 'has got its locks and is about to begin')
      when 'draining' then
        format('is to be undone (%s) and first waits %s', coalesce(v_saga.reason, 'no reason given'), coalesce(v_waits, 'for its worker'))
      when 'compensating' then
        format('is being undone (%s) and waits %s', coalesce(v_saga.reason, 'no reason given'), coalesce(v_waits, 'for its worker'))
      when 'aborting' then
        format('is being ended without undo (%s) and first waits %s', coalesce(v_saga.reason, 'no reason given'), coalesce(v_waits, 'for its worker'))
      else coalesce('waits ' || v_waits, 'is ' || v_saga.state) end) end;
  if v_saga.state = 'running' and v_saga.target is not null then
    select n.node ->> 'name' into v_pivot from syncor.step_nodes(v_saga.source) n where n.node ->> 'kind' = 'pivot';
    v_said := format('%s; it is to be undone (%s) unless it turns out that %s, its point of no return, was done', v_said,
                     coalesce(v_saga.reason, 'no reason given'), coalesce(v_pivot, 'the pivot'));
  elsif v_saga.state = 'running' and v_saga.deadline_at is not null then
    v_said := format('%s; its deadline is %s', v_said, syncor.moment(v_saga.deadline_at));
  end if;
  select c.* into v_command from syncor.command c
   where c.saga_id = p_saga and c.status = 'pending' and c.kind <> 'decide' order by c.id limit 1;
  if found then
    v_said := format('%s; the order %s of %s (%s) is not carried out yet', v_said, v_command.kind, v_command.requested_by, v_command.reason);
  end if;
  return v_saga.definition || ' ' || v_said;
end
$$;
comment on function syncor.why_saga(uuid) is 'One sentence: why this saga waits';

create function syncor.why_event(p_event uuid) returns text
language plpgsql stable
as $$
declare
  v_event record;
  v_note  text;
begin
  select e.* into v_event from syncor.events e where e.id = p_event limit 1;
  if not found then
    return format('no saga and no event has the id %s', p_event);
  end if;
  if exists (select from syncor.saga s where s.event_id = p_event) then
    return format('event %s started %s', v_event.type,
                  (select string_agg(s.definition || ' (' || s.state || ')', ', ' order by s.id) from syncor.sagas s where s.event_id = p_event));
  end if;
  select n.note into v_note from syncor.event_note n where n.event_id = p_event;
  if v_note is not null then
    return format('event %s started nothing: %s', v_event.type, v_note);
  end if;
  if not exists (select from syncor.definition d where d.kind = 'saga' and d.state = 'active'
                  and (d.source -> 'trigger' = to_jsonb(v_event.type) or d.source -> 'trigger' @> jsonb_build_array(v_event.type))) then
    return format('event %s started nothing: no active definition has the trigger %s', v_event.type, v_event.type);
  end if;
  if not pg_visible_in_snapshot(v_event.tx, (select c.done from syncor.cursor c order by c.seq desc limit 1)) then
    return format('event %s is not routed yet: %s', v_event.type,
      case when exists (select from syncor.worker w where w.died_at is null and w.stopped_at is null and w.beat_at > now() - make_interval(secs => w.lease_ms / 1000.0))
           then 'the router will reach it shortly' else 'no worker is running; start one with `hms-orch up`' end);
  end if;
  return format('event %s started nothing: when it was routed no active definition matched it', v_event.type);
end
$$;
comment on function syncor.why_event(uuid) is 'One sentence: what this event started, or why it started nothing';

-- Looks into tables that its callers may not read, and says nothing that the views do not.
create or replace function syncor.why(id uuid) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if exists (select from syncor.saga s where s.id = why.id) then
    return syncor.why_saga(why.id);
  end if;
  return syncor.why_event(why.id);
end
$$;

revoke all on all tables in schema syncor from public;
revoke all on all functions in schema syncor from public;
grant execute on function syncor.uuid7() to public;
