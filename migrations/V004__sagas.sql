-- Sagas, their steps and the attempts to do and undo them.
--
-- A saga row has one writer: the worker in `owner`, fenced by (owner, epoch, rev). Every write adds one to rev; every change of
-- owner adds one to epoch. No column that changes on the way is in an index, so the updates stay on their page (HOT).
-- A step row is written before its call is made (the intent, with the fence the call carries) and again when the outcome
-- is known; the outcome itself is an append-only attempt. What is not needed on the way (data) stays in the event.

create table syncor.saga (
  id             uuid not null primary key,
  definition_no  int  not null,
  owner          int,
  epoch          int  not null default 0,
  rev            int  not null default 0,
  takeovers      smallint not null default 0,
  clean          boolean not null default true,
  state          text not null,
  target         text,
  waiting_for    text,
  next_due       timestamptz,
  deadline_at    timestamptz,
  started_at     timestamptz not null default now(),
  finished_at    timestamptz,
  event_id       uuid not null,
  event_at       timestamptz not null,
  parent_id      uuid,
  correlation_id text not null,
  dedupe_key     text,
  reason         text,
  constraint saga_state_known check (state in ('pending', 'lock_wait', 'running', 'hitl', 'draining', 'compensating', 'comp_failed',
    'paused', 'aborting', 'completed', 'failed', 'cancelled', 'aborted', 'rejected')),
  constraint saga_finished_has_time check ((finished_at is not null) = (state in ('completed', 'failed', 'cancelled', 'aborted', 'rejected'))),
  constraint saga_finished_has_no_owner check (finished_at is null or owner is null),
  constraint saga_due_has_no_owner check (next_due is null or owner is null),
  constraint saga_target_known check (target in ('failed', 'cancelled')),
  constraint saga_undo_has_target check (target is not null or state not in ('draining', 'compensating', 'comp_failed', 'failed', 'cancelled'))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create index saga_owner_idx on syncor.saga (owner) where finished_at is null;
create index saga_due_idx on syncor.saga (next_due) where owner is null and finished_at is null;
create index saga_correlation_idx on syncor.saga (correlation_id);
create index saga_event_idx on syncor.saga (event_id);
create index saga_trouble_idx on syncor.saga (state, id) where state in ('comp_failed', 'hitl', 'failed', 'cancelled', 'aborted', 'rejected');

comment on table syncor.saga is 'Instances of saga definitions, one row each; read them through syncor.sagas';
comment on column syncor.saga.id is 'Identity; sorts by start';
comment on column syncor.saga.definition_no is 'The revision it is pinned to';
comment on column syncor.saga.owner is 'The worker that runs it; null while it waits or is done';
comment on column syncor.saga.epoch is 'Rises with every change of owner';
comment on column syncor.saga.rev is 'Rises with every write of its owner';
comment on column syncor.saga.takeovers is 'Times it was taken from a dead worker since it last made progress';
comment on column syncor.saga.clean is 'Whether everything that was done, if it was to be undone, was';
comment on column syncor.saga.state is 'Where it stands';
comment on column syncor.saga.target is 'How it will end once everything is undone';
comment on column syncor.saga.waiting_for is 'What it waits for, if not for a call';
comment on column syncor.saga.next_due is 'When a worker must pick it up, while nobody owns it';
comment on column syncor.saga.deadline_at is 'When the forward run must be over';
comment on column syncor.saga.started_at is 'When it was started';
comment on column syncor.saga.finished_at is 'When it reached its final state';
comment on column syncor.saga.event_id is 'The event that started it';
comment on column syncor.saga.event_at is 'When that event was published: finds its partition';
comment on column syncor.saga.parent_id is 'The saga that it is a step of';
comment on column syncor.saga.correlation_id is 'The event''s correlation id';
comment on column syncor.saga.dedupe_key is 'The key under which it started; null means the event''s id';
comment on column syncor.saga.reason is 'Why it was undone or refused, in one line';

create table syncor.saga_key (
  family   text not null,
  key      text not null,
  saga_id  uuid not null,
  again    text,
  primary key (family, key),
  constraint saga_key_again_known check (again in ('failed', 'terminal'))
);
comment on table syncor.saga_key is 'One saga per (family, dedupe key)';
comment on column syncor.saga_key.family is 'Definition id without its version';
comment on column syncor.saga_key.key is 'The dedupe key';
comment on column syncor.saga_key.saga_id is 'The latest saga with that key';
comment on column syncor.saga_key.again is 'When the key may start another saga: after a failed one, after any; null means never';

create table syncor.step (
  saga_id       uuid     not null,
  seq           smallint not null,
  ambiguous     boolean  not null default false,
  attempts      int      not null default 0,
  spent         int      not null default 0,
  undo_attempts int      not null default 0,
  undo_spent    int      not null default 0,
  fence         bigint   not null,
  called_at     timestamptz,
  due_at        timestamptz,
  started_at    timestamptz,
  finished_at   timestamptz,
  name          text not null,
  status        text not null,
  compensation  text not null default 'none',
  message       text,
  error         text,
  primary key (saga_id, seq),
  constraint step_status_known check (status in ('pending', 'running', 'waiting', 'backoff', 'succeeded', 'failed', 'unknown', 'skipped', 'cancelled')),
  constraint step_compensation_known check (compensation in ('none', 'pending', 'compensating', 'waiting', 'backoff', 'compensated', 'failed', 'skipped', 'not_needed')),
  constraint step_started_has_time check (started_at is not null or status in ('pending', 'skipped', 'cancelled')),
  constraint step_finished_has_time check ((finished_at is not null) = (status in ('succeeded', 'failed', 'unknown', 'skipped', 'cancelled'))),
  constraint step_backoff_has_time check (due_at is not null or (status <> 'backoff' and compensation <> 'backoff')),
  constraint step_running_has_call check (attempts > 0 or status not in ('running', 'backoff', 'succeeded', 'failed', 'unknown')),
  constraint step_undo_follows_do check (compensation = 'none' or status in ('succeeded', 'failed', 'unknown', 'skipped', 'cancelled'))
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create sequence syncor.fence;
comment on sequence syncor.fence is 'Rises with every attempt of every saga; goes out as Hms-Fence';

comment on table syncor.step is 'Steps that were begun, one row each; read them through syncor.steps';
comment on column syncor.step.saga_id is 'The saga';
comment on column syncor.step.seq is 'Place in the definition, from 0';
comment on column syncor.step.ambiguous is 'Whether an attempt ended without anybody knowing its effect';
comment on column syncor.step.attempts is 'Calls made to do it';
comment on column syncor.step.spent is 'Calls that count against retry.attempts: those of lost workers do not';
comment on column syncor.step.undo_attempts is 'Calls made to undo it';
comment on column syncor.step.undo_spent is 'Those that count against compensation.retry.attempts';
comment on column syncor.step.fence is 'The fence of its latest call';
comment on column syncor.step.called_at is 'When that call was committed to';
comment on column syncor.step.due_at is 'When the next attempt may be made';
comment on column syncor.step.started_at is 'When its first call was committed to';
comment on column syncor.step.finished_at is 'When its status became final';
comment on column syncor.step.name is 'Name in the definition';
comment on column syncor.step.status is 'How far doing it has come';
comment on column syncor.step.compensation is 'How far undoing it has come';
comment on column syncor.step.message is 'What the service had to say';
comment on column syncor.step.error is 'What went wrong last';

create table syncor.attempt (
  saga_id     uuid     not null,
  seq         smallint not null,
  http_status smallint,
  attempt     int      not null,
  worker      int      not null,
  fence       bigint   not null,
  started_at  timestamptz not null,
  finished_at timestamptz not null default now(),
  action      text     not null,
  outcome     text     not null,
  error       text,
  output      jsonb,
  context     jsonb,
  primary key (saga_id, seq, action, attempt),
  constraint attempt_action_known check (action in ('do', 'undo')),
  constraint attempt_outcome_known check (outcome in ('succeeded', 'failed', 'unknown', 'lost')),
  constraint attempt_error_explains check (outcome = 'succeeded' or error is not null),
  constraint attempt_number_positive check (attempt > 0)
);
comment on table syncor.attempt is 'Finished attempts, append-only: part of the ledger';
comment on column syncor.attempt.saga_id is 'The saga';
comment on column syncor.attempt.seq is 'The step''s place in the definition';
comment on column syncor.attempt.http_status is 'Status of the reply, where one came';
comment on column syncor.attempt.attempt is 'Number of the attempt, from 1';
comment on column syncor.attempt.worker is 'The worker that recorded it';
comment on column syncor.attempt.fence is 'The fence the call carried';
comment on column syncor.attempt.started_at is 'When the call was committed to';
comment on column syncor.attempt.finished_at is 'When the outcome was recorded';
comment on column syncor.attempt.action is 'do or undo';
comment on column syncor.attempt.outcome is 'succeeded, failed, unknown, or lost with its worker';
comment on column syncor.attempt.error is 'What went wrong';
comment on column syncor.attempt.output is 'The reply''s body';
comment on column syncor.attempt.context is 'What the undo will be given, where that is not the whole body';

-- Legal moves, written as from>to. A write may pass through a state that lasts no time (running>failed has nothing to undo).
create function syncor.refuse_move() returns trigger
language plpgsql
as $$
begin
  if tg_table_name = 'saga' then
    raise exception 'saga %: % to % is no legal move', old.id, old.state, new.state using errcode = 'check_violation';
  end if;
  raise exception 'step % of saga %: %/% to %/% is no legal move', old.name, old.saga_id, old.status, old.compensation, new.status, new.compensation
    using errcode = 'check_violation';
end
$$;
comment on function syncor.refuse_move() is 'Refuses transitions that the state machine does not have';

create trigger saga_legal_move before update of state on syncor.saga for each row
  when (old.state is distinct from new.state and old.finished_at is null and old.state || '>' || new.state <> all (array[
    'pending>running', 'pending>lock_wait', 'pending>rejected', 'pending>cancelled', 'pending>aborted', 'pending>completed',
    'pending>draining', 'pending>compensating', 'pending>failed',
    'lock_wait>running', 'lock_wait>rejected', 'lock_wait>cancelled', 'lock_wait>aborted',
    'running>completed', 'running>draining', 'running>compensating', 'running>comp_failed', 'running>hitl', 'running>paused', 'running>aborting',
    'running>failed', 'running>cancelled', 'running>aborted',
    'hitl>running', 'hitl>draining', 'hitl>compensating', 'hitl>failed', 'hitl>cancelled', 'hitl>completed', 'hitl>paused', 'hitl>aborting', 'hitl>aborted',
    'draining>compensating', 'draining>comp_failed', 'draining>failed', 'draining>cancelled', 'draining>aborting', 'draining>aborted',
    'compensating>failed', 'compensating>cancelled', 'compensating>comp_failed', 'compensating>paused', 'compensating>aborting', 'compensating>aborted',
    'comp_failed>compensating', 'comp_failed>failed', 'comp_failed>cancelled', 'comp_failed>aborting', 'comp_failed>aborted',
    'paused>running', 'paused>compensating', 'paused>draining', 'paused>hitl', 'paused>aborting', 'paused>aborted', 'paused>failed', 'paused>cancelled', 'paused>completed',
    'aborting>aborted']))
  execute function syncor.refuse_move();

create trigger step_legal_move before update of status on syncor.step for each row
  when (old.status is distinct from new.status and old.status || '>' || new.status <> all (array[
    'pending>running', 'pending>waiting', 'pending>skipped', 'pending>cancelled', 'pending>failed',
    'running>succeeded', 'running>waiting', 'running>backoff', 'running>failed', 'running>unknown',
    'waiting>succeeded', 'waiting>backoff', 'waiting>failed', 'waiting>unknown', 'waiting>running', 'waiting>cancelled',
    'backoff>running', 'backoff>failed', 'backoff>unknown', 'backoff>waiting',
    'failed>pending', 'failed>running', 'failed>skipped', 'failed>succeeded',
    'unknown>pending', 'unknown>running', 'unknown>skipped', 'unknown>succeeded', 'unknown>failed']))
  execute function syncor.refuse_move();

create trigger step_legal_undo before update of compensation on syncor.step for each row
  when (old.compensation is distinct from new.compensation and old.compensation || '>' || new.compensation <> all (array[
    'none>pending', 'none>compensating', 'none>not_needed', 'none>failed',
    'pending>compensating', 'pending>skipped', 'pending>failed',
    'compensating>compensated', 'compensating>waiting', 'compensating>backoff', 'compensating>failed',
    'waiting>compensated', 'waiting>backoff', 'waiting>failed', 'waiting>compensating',
    'backoff>compensating', 'backoff>failed', 'backoff>compensated', 'backoff>skipped',
    'failed>pending', 'failed>compensating', 'failed>compensated', 'failed>skipped']))
  execute function syncor.refuse_move();

create function syncor.guard_finished() returns trigger
language plpgsql
as $$
begin
  if tg_op = 'DELETE' and old.finished_at is not null and current_setting('syncor.retention', true) = 'on' then
    return old;
  end if;
  raise exception 'saga % % refused', old.id, case when tg_op = 'DELETE' then 'deletion' when old.finished_at is null then 'change' else 'is ' || old.state || ': a change is' end
    using errcode = 'insufficient_privilege', hint = 'finished sagas never change; retention is the only thing that removes them';
end
$$;
comment on function syncor.guard_finished() is 'Keeps finished sagas as they ended';
create trigger saga_finished_is_final before update on syncor.saga
  for each row when (old.finished_at is not null) execute function syncor.guard_finished();
create trigger saga_kept before delete on syncor.saga
  for each row execute function syncor.guard_finished();
create trigger saga_no_truncate before truncate on syncor.saga
  for each statement execute function syncor.refuse_change();

create function syncor.guard_attempt() returns trigger
language plpgsql
as $$
begin
  if tg_op = 'DELETE' and current_setting('syncor.retention', true) = 'on' then
    return old;
  end if;
  raise exception '% on syncor.attempt refused: the ledger is append-only', lower(tg_op) using errcode = 'insufficient_privilege';
end
$$;
comment on function syncor.guard_attempt() is 'Keeps attempts append-only';
create trigger attempt_no_change before update or delete on syncor.attempt
  for each row execute function syncor.guard_attempt();
create trigger attempt_no_truncate before truncate on syncor.attempt
  for each statement execute function syncor.refuse_change();
