-- What must be true of the tables whatever happened: each query finds what breaks it, one line a finding.
-- They hold at every moment, in the middle of a saga as well; those that need the service's own journal say nothing without one.
-- A line with a hash sign after its dashes begins a query; what stands before the first of them prepares.

-- Every step of every definition, with its way through the groups and whether those are parallel.
drop table if exists inv_call, inv_step, inv_pair, inv_node;
create temp table inv_node as
with recursive part as (
  select d.no, d.source, d.source -> 'steps' as value, '{}'::bigint[] as path, '{}'::boolean[] as modes,
         coalesce((d.source ->> 'parallel')::boolean, false) as beside
    from syncor.definition d where d.kind = 'saga'
  union all
  select p.no, p.source, i.value, p.path || i.ordinality, p.modes || m.parallel, false
    from part p
   cross join lateral (select case when jsonb_typeof(p.value) = 'array' then p.value
                                   when jsonb_typeof(p.value -> 'steps') = 'array' then p.value -> 'steps' else '[]' end as items) c
   cross join lateral (select p.beside or coalesce((p.value ->> 'parallel')::boolean, false)
                              or exists (select from jsonb_array_elements(c.items) e
                                          where (e ->> 'parallel')::boolean and not e ? 'steps' and not e ? 'name') as parallel) m
   cross join lateral jsonb_array_elements(c.items) with ordinality i
)
select no, source, (row_number() over (partition by no order by path) - 1)::smallint as seq, value ->> 'name' as name, value as node, path, modes,
       value ? 'compensate' or value ? 'saga' as has_undo,
       coalesce(value -> 'compensateOn', source -> 'compensateOn', '["succeeded", "unknown"]') as undone_after,
       coalesce(value ->> 'onExhausted' = 'continue', false) as may_fail
  from part where jsonb_typeof(value) = 'object' and value ? 'name' and not value ? 'steps';

create index on inv_node (no, seq);
analyze inv_node;

-- Steps of which the second begins after the first has ended.
create temp table inv_pair as
select a.no, a.seq as first, b.seq as second
  from inv_node a join inv_node b on b.no = a.no and b.path > a.path
 where not a.modes[(select min(i) from generate_subscripts(a.path, 1) i where a.path[i] is distinct from b.path[i])];

analyze inv_pair;

-- Steps that were begun, with all that is known about them.
create temp table inv_step as
select s.id, s.state, s.finished_at as ended_at, s.clean as saga_clean, s.undoes, s.definition_no, t.*, n.node, n.source, n.has_undo, n.undone_after, n.may_fail,
       format('step %s of saga %s', t.name, s.id) as who
  from syncor.step t
  join syncor.saga s on s.id = t.saga_id
  join inv_node n on n.no = s.definition_no and n.seq = t.seq;

create index on inv_step (id, seq);
analyze inv_step;

-- Attempts that went out with a fence of their own. An asynchronous step may end an attempt that was thought lost.
create temp table inv_call as
select a.*, t.who, t.name, t.ordinal, t.source, t.node, coalesce((t.node ->> 'async')::boolean, false) as may_repeat
  from syncor.attempt a
  join inv_step t on t.saga_id = a.saga_id and t.seq = a.seq
 where case a.action when 'do' then t.node ?| array['call', 'sql']
                     when 'undo' then t.node ? 'compensate' and t.node ->> 'compensate' is distinct from 'event' else true end;
create index on inv_call (saga_id, seq);
analyze inv_call;

--# I5 one saga for an event and a key, and only for events that trigger it
select format('%s sagas of %s for the key %s', count(*), d.family, coalesce(s.dedupe_key, s.event_id::text))
  from syncor.saga s join syncor.definition d on d.no = s.definition_no
  left join syncor.saga_key k on k.family = d.family and k.key = coalesce(s.dedupe_key, s.event_id::text)
 where s.parent_id is null and s.fork_of is null and s.undoes is null and k.again is null
 group by d.family, coalesce(s.dedupe_key, s.event_id::text) having count(*) > 1
union all
select format('saga %s was started by %s', s.id, e.type)
  from syncor.saga s join syncor.definition d on d.no = s.definition_no join syncor.events e on e.id = s.event_id and e.created_at = s.event_at
 where s.parent_id is null and s.undoes is null
   and not (d.source -> 'trigger' = to_jsonb(e.type) or d.source -> 'trigger' @> to_jsonb(array[e.type]))

--# I6 nothing waits for what nobody will bring
select format('saga %s is %s and nobody is asked', s.id, s.state)
  from syncor.saga s
 where s.state in ('hitl', 'comp_failed') and not exists (select from syncor.task k where k.saga_id = s.id and k.status = 'open')
   and not exists (select from syncor.input i where i.saga_id = s.id)
union all
select format('saga %s is in lock_wait and in no queue', s.id)
  from syncor.saga s
 where s.state = 'lock_wait' and not exists (select from syncor.lock_ticket t where t.saga_id = s.id and t.granted_at is null)
   and not exists (select from syncor.input i where i.saga_id = s.id)
union all
select format('saga %s is %s, nobody runs it and nothing will wake it', s.id, s.state)
  from syncor.saga s
 where s.finished_at is null and s.owner is null and s.next_due is null and s.state not in ('hitl', 'comp_failed', 'lock_wait', 'paused')
   and not exists (select from syncor.step t where t.saga_id = s.id and (t.status = 'waiting' or t.compensation = 'waiting') and t.wait <> 'service')
   and not exists (select from syncor.input i where i.saga_id = s.id)
union all
select format('%s waits for %s, and there is none', t.who, t.wait)
  from inv_step t
 where t.ended_at is null and (t.status = 'waiting' or t.compensation = 'waiting')
   and not exists (select from syncor.input i where i.saga_id = t.saga_id and i.seq = t.seq)
   and case t.wait
         when 'human' then not exists (select from syncor.task k where k.saga_id = t.saga_id and k.seq = t.seq and k.status = 'open')
         when 'child' then not exists (select from syncor.saga c where c.parent_id = t.saga_id and c.parent_seq = t.seq and c.finished_at is null)
         when 'callback' then not exists (select from syncor.callback c where c.saga_id = t.saga_id and c.seq = t.seq and c.settled_at is null)
         when 'event' then t.status = 'waiting' and not exists (select from syncor.wait w where w.saga_id = t.saga_id and w.seq = t.seq)
         else false end

--# I7 a completed saga has done every step and undone none
select format('saga %s is completed with %s of %s steps', s.id, count(*) filter (where t.status in ('succeeded', 'skipped') or (t.may_fail and t.status in ('failed', 'unknown'))), cardinality(d.steps))
  from syncor.saga s join syncor.definition d on d.no = s.definition_no left join inv_step t on t.saga_id = s.id
 where s.state = 'completed' and s.undoes is null
 group by s.id, d.steps
having count(*) filter (where (t.status in ('succeeded', 'skipped') or (t.may_fail and t.status in ('failed', 'unknown'))) and t.compensation = 'none')
       <> cardinality(d.steps)

--# I8 a saga that was rolled back cleanly has undone all that was or may have been done
select format('%s is %s and its undo %s, but the saga is clean', t.who, t.status, t.compensation)
  from inv_step t
 where t.state in ('failed', 'cancelled') and t.saga_clean and t.has_undo and t.undone_after ? t.status and t.compensation <> 'compensated'
union all
select format('saga %s is not clean, but nothing was left', s.id)
  from syncor.saga s
 where s.state in ('failed', 'cancelled') and not s.clean
   and not exists (select from syncor.step t where t.saga_id = s.id and t.compensation in ('failed', 'skipped'))

--# I9 undos are called in the reverse order of the starts
select format('%s was undone before %s', a.who, b.name)
  from inv_call a join inv_call b on b.saga_id = a.saga_id and b.ordinal > a.ordinal
 where a.action = 'undo' and b.action = 'undo' and a.fence < b.fence
   and a.source -> 'compensation' ->> 'onFailure' is distinct from 'continue'

--# I10 a step is called after those before it are done
select format('%s was called before %s was done', b.who, a.name)
  from inv_pair p
  join syncor.saga s on s.definition_no = p.no
  join inv_call a on a.saga_id = s.id and a.seq = p.first and a.action <> 'undo'
  join inv_call b on b.saga_id = s.id and b.seq = p.second and b.action <> 'undo' and b.fence < a.fence
  join inv_node n on n.no = p.no and n.seq = p.first and not n.may_fail
union all
select format('%s has begun, but %s is %s', b.who, p.first, coalesce(a.status, 'not begun'))
  from inv_pair p
  join inv_step b on b.definition_no = p.no and b.seq = p.second and b.status not in ('pending', 'cancelled') and b.undoes is null
  join inv_node n on n.no = p.no and n.seq = p.first and not n.may_fail
  left join syncor.step a on a.saga_id = b.saga_id and a.seq = p.first
 where coalesce(a.status, '') not in ('succeeded', 'skipped')

--# I11 nothing succeeds twice
select format('%s succeeded %s times', a.who, count(*))
  from inv_call a where a.outcome = 'succeeded' group by a.who, a.action = 'undo' having count(*) > 1
union all
select format('%s was called again after it had succeeded', a.who)
  from inv_call a join syncor.attempt b on b.saga_id = a.saga_id and b.seq = a.seq and b.action = a.action and b.attempt > a.attempt
 where a.outcome = 'succeeded'

--# I12 fences rise with the attempts and belong to one call
select format('attempt %s to %s %s has the fence %s after %s', a.attempt, a.action, a.who, a.fence, a.before)
  from (select c.*, lag(c.fence) over (partition by c.saga_id, c.seq, c.action order by c.attempt) as before from inv_call c) a
 where a.fence < a.before or (a.fence = a.before and not a.may_repeat)
union all
select format('the fence %s was given %s times', c.fence, count(*))
  from inv_call c where not c.may_repeat group by c.fence having count(*) > 1
union all
select format('%s stands at the fence %s, before its attempts', t.who, t.fence)
  from inv_step t where t.fence < (select max(c.fence) from inv_call c where c.saga_id = t.saga_id and c.seq = t.seq)

--# I13 the states of a saga and of its steps fit together
select format('%s is %s/%s, but the saga is %s', t.who, t.status, t.compensation, t.state)
  from inv_step t
 where (t.ended_at is not null and (t.status in ('running', 'waiting', 'backoff') or t.compensation in ('pending', 'compensating', 'waiting', 'backoff')))
    or (t.state in ('running', 'hitl', 'draining') and t.compensation <> 'none')
    or (t.state in ('compensating', 'comp_failed') and t.status in ('running', 'waiting', 'backoff'))
    or (t.state in ('pending', 'lock_wait', 'rejected') and t.undoes is null and t.detail ->> 'doneBy' is null)
union all
select format('saga %s undoes %s steps at once', t.saga_id, count(*))
  from inv_step t where t.compensation in ('compensating', 'waiting', 'backoff') group by t.saga_id having count(*) > 1

--# I14 a step stands where its attempts have led it
select format('%s has %s attempts, and %s are in the ledger', t.who, t.attempts, n.done)
  from inv_step t
 cross join lateral (select count(*) as done from syncor.attempt a where a.saga_id = t.saga_id and a.seq = t.seq and a.action = 'do') n
 where t.detail ->> 'doneBy' is null
   and (n.done not in (t.attempts, t.attempts - 1) or (n.done <> t.attempts and t.status in ('succeeded', 'failed', 'unknown', 'backoff')))
union all
select format('%s has %s attempts to undo it, and %s are in the ledger', t.who, t.undo_attempts, n.done)
  from inv_step t
 cross join lateral (select count(*) as done from syncor.attempt a where a.saga_id = t.saga_id and a.seq = t.seq and a.action = 'undo') n
 where n.done not in (t.undo_attempts, t.undo_attempts - 1) or (n.done <> t.undo_attempts and t.compensation in ('compensated', 'failed', 'backoff'))
union all
select format('%s succeeded, and no attempt did', t.who)
  from inv_step t
 where t.status = 'succeeded'
   and not exists (select from syncor.attempt a where a.saga_id = coalesce((t.detail ->> 'doneBy')::uuid, t.saga_id) and a.seq = t.seq
                      and a.action in ('do', 'verify') and a.outcome = 'succeeded')
   and not exists (select from syncor.command c where c.kind = 'decide' and c.decision = 'done' and c.step = t.name and c.status = 'applied'
                      and c.saga_id in (t.saga_id, (t.detail ->> 'doneBy')::uuid))

--# I15 one holder for a key, the first in the queue, and only while it lives
select format('%s hold the key %s', count(*), t.key) from syncor.lock_ticket t where t.granted_at is not null group by t.key having count(*) > 1
union all
select format('saga %s holds the key %s before its turn', t.saga_id, t.key)
  from syncor.lock_ticket t join syncor.lock_ticket b on b.key = t.key and b.no < t.no where t.granted_at is not null
union all
select format('saga %s has ended and keeps the key %s', t.saga_id, t.key)
  from syncor.lock_ticket t join syncor.saga s on s.id = t.saga_id where s.finished_at is not null
union all
select format('saga %s is %s without its key %s', s.id, s.state, k.key)
  from syncor.saga s cross join lateral unnest(s.lock_keys) k(key)
 where s.finished_at is null and s.parent_id is null and s.state not in ('pending', 'lock_wait')
   and not exists (select from syncor.lock_ticket t where t.saga_id = s.id and t.key = k.key collate "C" and t.granted_at is not null)
union all
select format('sagas %s and %s worked under the key of both at once', a.id, b.id)
  from (select s.id, s.lock_keys, min(c.fence) as low, max(c.fence) as high from syncor.saga s join inv_call c on c.saga_id = s.id
         where s.parent_id is null and s.lock_keys is not null group by s.id) a
  join (select s.id, s.lock_keys, min(c.fence) as low, max(c.fence) as high from syncor.saga s join inv_call c on c.saga_id = s.id
         where s.parent_id is null and s.lock_keys is not null group by s.id) b on b.id > a.id and b.lock_keys && a.lock_keys
 where a.low <= b.high and b.low <= a.high

--# I16 every call that the service saw was committed to before
select format('a call of step %s of saga %s, attempt %s to %s, fence %s, is in no ledger', j.step, j.saga, j.attempt, j.action, j.fence)
  from inv_journal j
 where not exists (select from syncor.attempts a where a.saga_id = j.saga and a.step = j.step and a.action = j.action and a.attempt = j.attempt
                      and a.fence = j.fence)

--# I17 what succeeded was called, and not again
select format('%s is said to have been answered with %s', c.who, c.http_status)
  from inv_call c
 where c.outcome = 'succeeded' and c.http_status is not null and exists (select from inv_journal)
   and not exists (select from inv_journal j where j.saga = c.saga_id and j.step = c.name and j.action = c.action and j.attempt = c.attempt
                      and j.status = c.http_status)
union all
select format('%s was called after it had succeeded', c.who)
  from inv_call c join inv_journal j on j.saga = c.saga_id and j.step = c.name and j.action = c.action and j.attempt > c.attempt
 where c.outcome = 'succeeded'

--# I18 of a saga that was rolled back cleanly nothing is left at the services
select format('%s had an effect that is still there', t.who)
  from inv_step t
 where t.state in ('failed', 'cancelled') and t.saga_clean and t.node ? 'compensate' and t.node ->> 'compensate' is distinct from 'event'
   and exists (select from inv_journal j where j.saga = t.saga_id and j.step = t.name and j.action = 'do' and j.status between 200 and 299
                  -- Work that was only accepted has the effect that its callback tells of.
                  and (j.status <> 202 or t.status <> 'failed'))
   and not exists (select from inv_journal j where j.saga = t.saga_id and j.step = t.name and j.action = 'undo'
                      and (j.status between 200 and 299 or j.status = 410))
   and not exists (select from syncor.command c where c.saga_id = t.saga_id and c.step = t.name and c.decision in ('undone', 'not_done') and c.status = 'applied')

--# I19 one idempotency key for all attempts, and for nothing else
select format('step %s of saga %s was called with %s keys', j.step, j.saga, count(distinct j.key))
  from inv_journal j group by j.saga, j.step, j.action having count(distinct j.key) > 1
union all
select format('the key %s was used for %s', j.key, string_agg(distinct j.step || ' ' || j.action, ', '))
  from inv_journal j group by j.key having count(distinct (j.saga, j.step, j.action)) > 1

--# I20 every call carried a token for itself and for nothing else
select format('the token of step %s of saga %s is for another call', j.step, j.saga) from inv_journal j where not j.sound
union all
select format('the token %s was used %s times', j.jti, count(*)) from inv_journal j group by j.jti having count(*) > 1

--# I21 attempts are as many and as far apart as was declared
select format('%s spent %s attempts', t.who, t.spent)
  from inv_step t
 where t.spent > coalesce(greatest((t.node -> 'retry' ->> 'attempts')::int, (t.source -> 'retry' ->> 'attempts')::int), 3)
union all
select format('%s spent %s attempts to undo it', t.who, t.undo_spent)
  from inv_step t
 where t.undo_spent > coalesce(greatest((case when jsonb_typeof(t.node -> 'compensate') = 'object' then t.node -> 'compensate' -> 'retry' ->> 'attempts' end)::int,
                                        (t.source -> 'compensation' -> 'retry' ->> 'attempts')::int), 10)
union all
-- The clock of the worker and the moment of the commit are not the same: half a second is forgiven.
select format('%s was tried again after %s', b.who, b.started_at - a.finished_at)
  from inv_call a join inv_call b on b.saga_id = a.saga_id and b.seq = a.seq and b.action = a.action and b.attempt = a.attempt + 1
 where a.action = 'do' and a.outcome in ('failed', 'unknown')
   and b.started_at - a.finished_at + interval '500 ms' <
       make_interval(secs => (1 - coalesce(greatest((a.node -> 'retry' ->> 'jitter')::float, (a.source -> 'retry' ->> 'jitter')::float), 0.1))
                             * coalesce(least((a.node -> 'retry' ->> 'backoffMs')::float, (a.source -> 'retry' ->> 'backoffMs')::float), 1000) / 1000)
   and not exists (select from syncor.command c where c.saga_id = a.saga_id and c.kind in ('retry', 'decide'))

--# I22 people are asked when they should be, and answer by name
select format('task %s was decided by %s without a command', k.id, k.decided_by)
  from syncor.task k
 where k.status = 'decided' and not exists (select from syncor.command c where c.task_id = k.id and c.kind = 'decide' and c.status <> 'refused'
                                               and c.decision = k.decision and c.requested_by = k.decided_by and c.reason <> '')
union all
select format('task %s was decided by the publisher %s', k.id, k.decided_by)
  from syncor.task k join syncor.saga s on s.id = k.saga_id join syncor.events e on e.id = s.event_id and e.created_at = s.event_at
 where k.status = 'decided' and k.four_eyes and k.decided_by = e.source
union all
select format('task %s is open, but its saga has ended', k.id)
  from syncor.task k join syncor.saga s on s.id = k.saga_id
 where k.status = 'open' and s.finished_at is not null and k.kind in ('approval', 'policy', 'comp_failed', 'pivot_unknown')
union all
select format('people were asked about %s after %s failures', t.who, n.failed)
  from syncor.task k join inv_step t on t.saga_id = k.saga_id and t.seq = k.seq
 cross join lateral (select count(*) as failed from syncor.attempt a where a.saga_id = k.saga_id and a.seq = k.seq and a.action in ('do', 'verify')
                        and a.outcome in ('failed', 'unknown')) n
 where k.kind = 'step_failed' and k.status = 'open' and t.status in ('running', 'backoff') and n.failed < coalesce((t.source -> 'hitl' ->> 'after')::int, 3)
   and not exists (select from syncor.command c where c.saga_id = k.saga_id and c.kind in ('retry', 'decide'))

--# I23 one event tells of the end, published by what ended it
select format('saga %s is %s and published %s ends', s.id, s.state, n.ends)
  from syncor.saga s
 cross join lateral (select count(*) as ends, count(*) filter (where e.type = 'saga.' || s.state) as fitting,
                            bool_and(mod(e.tx::text::numeric, 4294967296) = s.xmin::text::numeric) as together
                       from syncor.events e
                      where e.saga_id = s.id and e.type in ('saga.completed', 'saga.failed', 'saga.cancelled', 'saga.aborted', 'saga.rejected')) n
 where case when s.finished_at is null then n.ends > 0 else n.ends <> 1 or n.fitting <> 1 or not n.together end
