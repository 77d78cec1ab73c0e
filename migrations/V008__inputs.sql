-- Inputs: what reaches a saga from outside its worker, kept until the write that takes it in.
--
-- Whoever has something for a saga (a callback, an event, an officer, a saga that let go of a lock) adds a row and wakes the
-- pool. The worker of the saga deletes it in the transaction that holds what came of it: nothing is taken in twice or lost.
-- A saga that ends while a row is on its way leaves it behind: syncor.sweep_inputs settles those.

create table syncor.input (
  id         bigint generated always as identity primary key,
  saga_id    uuid not null,
  kind       text not null,
  key        text not null,
  seq        smallint,
  action     text,
  payload    jsonb not null default '{}',
  command_id uuid,
  at         timestamptz not null default now(),
  constraint input_once unique (saga_id, key),
  constraint input_kind_known check (kind in ('locked', 'event', 'callback', 'child', 'undone', 'order', 'decide')),
  constraint input_action_known check (action in ('do', 'undo'))
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
comment on table syncor.input is 'What sagas are still to take in';
comment on column syncor.input.id is 'Order of insertion';
comment on column syncor.input.saga_id is 'The saga';
comment on column syncor.input.kind is 'locked, event, callback, child, undone, order or decide';
comment on column syncor.input.key is 'What may be there only once for a saga';
comment on column syncor.input.seq is 'The step that it is about; for an event below zero the number of cancelOn';
comment on column syncor.input.action is 'Whether it is about doing or undoing that step';
comment on column syncor.input.payload is 'What happened';
comment on column syncor.input.command_id is 'The command to be answered';
comment on column syncor.input.at is 'When it was added';

-- The same caution as for events: nobody's transaction waits or fails because the pool is to be woken.
create function syncor.wake() returns void
language plpgsql
as $$
begin
  if current_setting('syncor.engine', true) is distinct from 'on'
     and current_setting('max_prepared_transactions') = '0'
     and pg_notification_queue_usage() < 0.5 then
    notify syncor_wake;
  end if;
end
$$;
comment on function syncor.wake() is 'Wakes the workers, unless the caller is one or a notification could do harm';

create function syncor.skip_input() returns trigger
language plpgsql
as $$
begin
  -- Without a lock on the saga: it may end before this row is visible. What is left behind then is swept.
  if exists (select from syncor.saga s where s.id = new.saga_id and s.finished_at is null) then
    return new;
  end if;
  return null;
end
$$;
comment on function syncor.skip_input() is 'Leaves out what is meant for a saga that has ended';
create trigger input_for_the_living before insert on syncor.input
  for each row execute function syncor.skip_input();

create function syncor.wake_for_input() returns trigger
language plpgsql
as $$
begin
  perform syncor.wake();
  return null;
end
$$;
comment on function syncor.wake_for_input() is 'Wakes the workers when something is there for a saga';
create trigger input_wakes after insert on syncor.input
  for each statement execute function syncor.wake_for_input();

revoke all on syncor.input from public;
revoke all on all functions in schema syncor from public;
grant execute on function syncor.uuid7() to public;
