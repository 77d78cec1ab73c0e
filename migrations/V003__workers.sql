-- Workers: one row per started process. The lease belongs to the worker, not to a step: a saga is owned until its worker dies.
--
-- A worker is dead when its beat stood still for a whole lease by an observer's own clock, or its recorded session is gone.
-- Death is one compare-and-set of died_at: a worker that finds its tombstone drops everything and starts anew.

create table syncor.worker (
  no             int generated always as identity primary key,
  id             uuid not null unique,
  host           text not null,
  pid            int  not null,
  version        text not null,
  slots          int  not null,
  slots_used     int  not null default 0,
  lease_ms       int  not null,
  beat           bigint not null default 0,
  beat_at        timestamptz not null default now(),
  session_pid    int,
  started_at     timestamptz not null default now(),
  stopped_at     timestamptz,
  died_at        timestamptz,
  constraint worker_ended_once check (stopped_at is null or died_at is null)
) with (fillfactor = 20);
comment on table syncor.worker is 'Worker processes, living and gone';
comment on column syncor.worker.no is 'Short number that sagas are owned by';
comment on column syncor.worker.id is 'Fresh at every start';
comment on column syncor.worker.host is 'Host name';
comment on column syncor.worker.pid is 'Process id on that host';
comment on column syncor.worker.version is 'Version of the program';
comment on column syncor.worker.slots is 'Calls it may have in flight';
comment on column syncor.worker.slots_used is 'Calls in flight at the last beat';
comment on column syncor.worker.lease_ms is 'How long it may be silent before others take over, milliseconds';
comment on column syncor.worker.beat is 'Counts heartbeats; standing still means death';
comment on column syncor.worker.beat_at is 'Last heartbeat, by the database''s clock';
comment on column syncor.worker.session_pid is 'Its listening session: if that is gone, so is the worker';
comment on column syncor.worker.started_at is 'When it started';
comment on column syncor.worker.stopped_at is 'When it stopped cleanly';
comment on column syncor.worker.died_at is 'When another worker declared it dead';

create table syncor.cursor (
  seq       bigint primary key,
  done      pg_snapshot not null,
  target    pg_snapshot,
  after_tx  xid8,
  after_pos bigint,
  worker    int,
  at        timestamptz not null default now(),
  constraint cursor_page_whole check ((target is null) = (after_tx is null) and (target is null) = (after_pos is null))
);
-- A snapshot that sees nothing: the first worker ever starts at the first event.
insert into syncor.cursor (seq, done) values (1, '3:3:');
comment on table syncor.cursor is 'How far the router has read, one row per batch; the primary key fences a second router';
comment on column syncor.cursor.seq is 'Number of the batch';
comment on column syncor.cursor.done is 'Events visible in this snapshot are handled';
comment on column syncor.cursor.target is 'Set while a large interval is read in pages: the snapshot at its end';
comment on column syncor.cursor.after_tx is 'Last transaction handled of that interval';
comment on column syncor.cursor.after_pos is 'Last position handled within it';
comment on column syncor.cursor.worker is 'The worker that wrote the batch';
comment on column syncor.cursor.at is 'When';

create table syncor.event_note (
  event_id uuid primary key,
  note     text not null,
  at       timestamptz not null default now()
);
comment on table syncor.event_note is 'Why an event with a matching type started nothing: syncor.why reads it';
comment on column syncor.event_note.event_id is 'The event';
comment on column syncor.event_note.note is 'The reason, one clause per definition';
comment on column syncor.event_note.at is 'When it was routed';
