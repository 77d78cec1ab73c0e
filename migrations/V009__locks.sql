-- Object locks: no two sagas work on one object at a time.
--
-- A saga draws one number for all its keys and stands in the queue of each. It holds them all once it heads all its queues: first
-- come, first served, and no two sagas can wait for each other. What it drew is gone with the write that ends it.
-- Whoever changes a queue holds the row of its key, taken in the order of the keys, so a number that is drawn is higher than
-- every number in the queue, and what a queue shows does not change under its reader.

create table syncor.object_lock (
  key text collate "C" primary key,
  constraint object_lock_key_size check (octet_length(key) between 1 and 1024)
);
comment on table syncor.object_lock is 'One row per key that was ever asked for: whoever changes its queue locks the row';
comment on column syncor.object_lock.key is 'Names the object';

create sequence syncor.ticket;
comment on sequence syncor.ticket is 'Numbers of the queues for object locks: they rise, with gaps';

create table syncor.lock_ticket (
  key        text collate "C" not null,
  no         bigint not null,
  saga_id    uuid not null,
  asked_at   timestamptz not null default now(),
  granted_at timestamptz,
  primary key (key, no)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index lock_ticket_saga_idx on syncor.lock_ticket (saga_id);
comment on table syncor.lock_ticket is 'Who holds or wants which object, in the order they asked';
comment on column syncor.lock_ticket.key is 'The object';
comment on column syncor.lock_ticket.no is 'Place in its queue: the lowest comes first; one number for all keys of a saga';
comment on column syncor.lock_ticket.saga_id is 'The saga';
comment on column syncor.lock_ticket.asked_at is 'When it asked';
comment on column syncor.lock_ticket.granted_at is 'When it got all its keys; null while it waits';

revoke all on syncor.object_lock, syncor.lock_ticket from public;
