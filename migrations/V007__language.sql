-- The whole saga language in the rows of sagas and steps: pauses, parents, forks, the order of starts, and what a step waits for.
--
-- Only additions: a worker of the last version goes on beside this one, and what it writes is complete by the defaults.
-- Checks are added without looking at the rows that are there: they satisfy them, and nobody has to wait for the reading.

alter table syncor.saga
  add column resume_to     text,
  add column paused_at     timestamptz,
  add column lock_until    timestamptz,
  add column lock_keys     text[],
  add column nesting       smallint not null default 0,
  add column parent_seq    smallint,
  add column parent_action text,
  add column undoes        uuid,
  add column fork_of       uuid,
  add column arrived       bigint,
  add constraint saga_resume_to_known check (resume_to in ('running', 'compensating')) not valid,
  add constraint saga_paused_has_time check (state <> 'paused' or (resume_to is not null and paused_at is not null)) not valid,
  add constraint saga_parent_action_known check (parent_action in ('do', 'undo')) not valid,
  add constraint saga_parent_whole check ((parent_id is null) = (parent_seq is null) and (parent_id is null) = (parent_action is null)) not valid,
  add constraint saga_nesting_range check (nesting between 0 and 8) not valid;

comment on column syncor.saga.resume_to is 'While it is paused: the state it goes back to';
comment on column syncor.saga.paused_at is 'While it is paused: since when its limits stand still';
comment on column syncor.saga.lock_until is 'While it queues for its locks: when it gives up';
comment on column syncor.saga.lock_keys is 'Keys of the object locks that it needs from start to end; null means none';
comment on column syncor.saga.nesting is 'How many sagas are above it';
comment on column syncor.saga.parent_seq is 'The parent''s step that started it, by its place';
comment on column syncor.saga.parent_action is 'Whether it does that step or undoes it';
comment on column syncor.saga.undoes is 'The completed saga that it undoes';
comment on column syncor.saga.fork_of is 'The ended saga whose outcomes it was given';
comment on column syncor.saga.arrived is 'The router''s number of the event that started it: its waits look back to that';

-- Written once at the start and null for most: small, and no reason for an update to leave its page.
create index saga_parent_idx on syncor.saga (parent_id) where parent_id is not null;

alter table syncor.step
  add column ordinal    int not null default 0,
  add column wait       text,
  add column wait_until timestamptz,
  add column detail     jsonb,
  add constraint step_wait_known check (wait in ('callback', 'event', 'timer', 'human', 'child', 'service')) not valid,
  add constraint step_waiting_has_wait check (wait is not null or (status <> 'waiting' and compensation <> 'waiting')) not valid,
  -- A step that was given up while its service was parked was never called.
  drop constraint step_running_has_call,
  add constraint step_running_has_call check (attempts > 0 or status not in ('running', 'backoff', 'unknown')) not valid;

comment on column syncor.step.ordinal is 'Place in the order of starts, from 1: undos run in the reverse of it; 0 while not begun';
comment on column syncor.step.wait is 'What it waits for while doing or undoing it is waiting';
comment on column syncor.step.wait_until is 'When that wait is given up';
comment on column syncor.step.detail is 'What few steps need: deadlineAt (microseconds), verifying, verifies, verifySpent, forHuman, task, doneBy, context';

alter table syncor.attempt
  drop constraint attempt_action_known,
  add constraint attempt_action_known check (action in ('do', 'undo', 'verify')) not valid;
comment on column syncor.attempt.action is 'do, undo or verify';

-- The steps of a file, groups opened out, in the order they are written: a step is known by its place in here.
create function syncor.step_nodes(p_source jsonb) returns table (seq int, node jsonb)
language sql immutable
as $$
  with recursive part (value, path) as (
    select p_source -> 'steps', '{}'::bigint[]
    union all
    select i.value, part.path || i.ordinality
      from part
     cross join lateral jsonb_array_elements(
       case when jsonb_typeof(part.value) = 'array' then part.value
            when jsonb_typeof(part.value -> 'steps') = 'array' then part.value -> 'steps'
            else '[]' end) with ordinality i
  )
  select (row_number() over (order by part.path) - 1)::int, part.value
    from part where jsonb_typeof(part.value) = 'object' and part.value ? 'name' and not part.value ? 'steps'
$$;
comment on function syncor.step_nodes(jsonb) is 'All steps of a saga file with their places, as they are written';

create function syncor.step_names(p_source jsonb) returns text[]
language sql immutable
as $$ select coalesce(array_agg(n.node ->> 'name' order by n.seq), '{}') from syncor.step_nodes(p_source) n $$;
comment on function syncor.step_names(jsonb) is 'Names of all steps of a saga file, in the order they are written';

alter table syncor.definition add column steps text[] not null default '{}';
comment on column syncor.definition.steps is 'Names of all steps, in the order they are written';
update syncor.definition set steps = syncor.step_names(source) where kind = 'saga';

create or replace function syncor.guard_definition() returns trigger
language plpgsql
as $$
begin
  if tg_op = 'DELETE' then
    raise exception 'definition % is kept: sagas are pinned to it', old.id
      using errcode = 'insufficient_privilege', hint = 'retire it instead';
  end if;
  if (new.no, new.kind, new.id, new.family, new.version, new.revision, new.source, new.steps, new.deployed_at, new.deployed_by)
     is distinct from
     (old.no, old.kind, old.id, old.family, old.version, old.revision, old.source, old.steps, old.deployed_at, old.deployed_by) then
    raise exception 'revision % of % never changes', left(old.revision, 12), old.id
      using errcode = 'insufficient_privilege', hint = 'deploy the changed file: it becomes a new revision';
  end if;
  return new;
end
$$;

create function syncor.name_steps() returns trigger
language plpgsql
as $$
begin
  new.steps := syncor.step_names(new.source);
  return new;
end
$$;
comment on function syncor.name_steps() is 'Fills in the names of the steps for those who deploy without them';
create trigger definition_named before insert on syncor.definition
  for each row when (new.kind = 'saga' and new.steps = '{}') execute function syncor.name_steps();

-- Legal moves anew, as from>to. One write may pass through several states that last no time: a saga that gets its locks, whose
-- only step is left out, goes from lock_wait to completed. So these are the moves of the machine, and what several of them in
-- a row lead to. What ended never moves again.
drop trigger saga_legal_move on syncor.saga;
create trigger saga_legal_move before update of state on syncor.saga for each row
  when (old.state is distinct from new.state and old.finished_at is null and old.state || '>' || new.state <> all (array[
    'pending>running', 'pending>lock_wait', 'pending>rejected', 'pending>cancelled', 'pending>aborted', 'pending>completed',
    'pending>hitl', 'pending>draining', 'pending>compensating', 'pending>failed',
    'lock_wait>running', 'lock_wait>rejected', 'lock_wait>cancelled', 'lock_wait>aborted', 'lock_wait>completed',
    'lock_wait>hitl', 'lock_wait>draining', 'lock_wait>compensating', 'lock_wait>failed',
    'running>completed', 'running>draining', 'running>compensating', 'running>hitl', 'running>paused', 'running>aborting',
    'running>failed', 'running>cancelled', 'running>aborted',
    'hitl>running', 'hitl>draining', 'hitl>compensating', 'hitl>failed', 'hitl>cancelled', 'hitl>completed', 'hitl>aborting', 'hitl>aborted',
    'draining>compensating', 'draining>failed', 'draining>cancelled', 'draining>aborting', 'draining>aborted',
    'compensating>failed', 'compensating>cancelled', 'compensating>comp_failed', 'compensating>paused', 'compensating>aborting', 'compensating>aborted',
    'comp_failed>compensating', 'comp_failed>failed', 'comp_failed>cancelled', 'comp_failed>aborting', 'comp_failed>aborted',
    'paused>running', 'paused>compensating', 'paused>comp_failed', 'paused>draining', 'paused>hitl', 'paused>aborting', 'paused>aborted',
    'paused>failed', 'paused>cancelled', 'paused>completed',
    'aborting>aborted']))
  execute function syncor.refuse_move();

drop trigger step_legal_move on syncor.step;
create trigger step_legal_move before update of status on syncor.step for each row
  when (old.status is distinct from new.status and old.status || '>' || new.status <> all (array[
    'pending>running', 'pending>waiting', 'pending>backoff', 'pending>succeeded', 'pending>failed', 'pending>unknown', 'pending>skipped',
    'pending>cancelled',
    'running>succeeded', 'running>waiting', 'running>backoff', 'running>failed', 'running>unknown', 'running>cancelled',
    'waiting>running', 'waiting>backoff', 'waiting>succeeded', 'waiting>failed', 'waiting>unknown', 'waiting>skipped', 'waiting>cancelled',
    'backoff>running', 'backoff>waiting', 'backoff>succeeded', 'backoff>failed', 'backoff>unknown', 'backoff>skipped',
    'failed>pending', 'failed>running', 'failed>waiting', 'failed>skipped', 'failed>succeeded',
    'unknown>pending', 'unknown>running', 'unknown>waiting', 'unknown>backoff', 'unknown>skipped', 'unknown>succeeded', 'unknown>failed']))
  execute function syncor.refuse_move();

drop trigger step_legal_undo on syncor.step;
create trigger step_legal_undo before update of compensation on syncor.step for each row
  when (old.compensation is distinct from new.compensation and old.compensation || '>' || new.compensation <> all (array[
    'none>pending', 'none>compensating', 'none>waiting', 'none>not_needed', 'none>skipped',
    'pending>compensating', 'pending>waiting', 'pending>skipped',
    'compensating>compensated', 'compensating>waiting', 'compensating>backoff', 'compensating>failed', 'compensating>skipped',
    'waiting>compensating', 'waiting>backoff', 'waiting>compensated', 'waiting>failed', 'waiting>skipped',
    'backoff>compensating', 'backoff>waiting', 'backoff>compensated', 'backoff>failed', 'backoff>skipped',
    'failed>pending', 'failed>compensating', 'failed>waiting', 'failed>compensated', 'failed>skipped', 'pending>compensated', 'pending>failed']))
  execute function syncor.refuse_move();

revoke all on all functions in schema syncor from public;
grant execute on function syncor.uuid7() to public;
