-- Waits for events, and the events that somebody may wait for.
--
-- The router numbers every event of a type that some saga waits for or once will. A wait looks from the number at which its saga
-- was started: an event that came before the step was begun is found as well. A wait that was just written is `fresh`: the
-- arrivals since its saga's start are looked through once; from then on each arrival looks for its waits.

create table syncor.wait (
  saga_id    uuid     not null,
  seq        smallint not null,
  event_type text     not null,
  key        text     not null default '',
  since      bigint   not null,
  fresh      boolean  not null default true,
  at         timestamptz not null default now(),
  primary key (saga_id, seq),
  -- It is in an index: the values of long keys are hashed by whoever writes them.
  constraint wait_key_size check (octet_length(key) <= 1024)
);
create index wait_event_idx on syncor.wait (event_type, key);
create index wait_fresh_idx on syncor.wait (event_type) where fresh;
comment on table syncor.wait is 'Events that sagas wait for';
comment on column syncor.wait.saga_id is 'The saga';
comment on column syncor.wait.seq is 'The step that waits; below zero it is number -1-seq of cancelOn';
comment on column syncor.wait.event_type is 'The type of the event';
comment on column syncor.wait.key is 'What it must hold, as path=value; empty for any';
comment on column syncor.wait.since is 'Arrivals up to this number are too old';
comment on column syncor.wait.fresh is 'Whether the arrivals that are there were not looked through yet';
comment on column syncor.wait.at is 'When it was written';

create table syncor.arrival (
  no         bigint primary key,
  event_id   uuid not null,
  created_at timestamptz not null,
  type       text not null,
  keys       text[] not null default '{}',
  at         timestamptz not null default now()
);
create index arrival_type_idx on syncor.arrival (type, no);
comment on table syncor.arrival is 'Events that somebody may wait for, in the order the router met them';
comment on column syncor.arrival.no is 'That order';
comment on column syncor.arrival.event_id is 'The event';
comment on column syncor.arrival.created_at is 'When it was published: finds its partition';
comment on column syncor.arrival.type is 'Its type';
comment on column syncor.arrival.keys is 'What it holds at the paths that are waited for, as path=value';
comment on column syncor.arrival.at is 'When the router met it';

revoke all on syncor.wait, syncor.arrival from public;
