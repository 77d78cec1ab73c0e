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
  floor_pos bigint not null default 0,
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
comment on column syncor.cursor.floor_pos is 'Events up to here came with a restore: their transactions mean nothing here, syncor.backlog has those still to be handled';
comment on column syncor.cursor.worker is 'The worker that wrote the batch';
comment on column syncor.cursor.at is 'When';

create table syncor.backlog (
  event_id   uuid primary key,
  created_at timestamptz not null
);
comment on table syncor.backlog is 'Events that a restore brought along unhandled; the router takes them first';
comment on column syncor.backlog.event_id is 'The event';
comment on column syncor.backlog.created_at is 'When it was published: finds its partition';

create table syncor.origin (
  one               boolean primary key default true check (one),
  system_identifier text not null
);
comment on table syncor.origin is 'The database cluster that the transaction numbers in here belong to';
comment on column syncor.origin.one is 'Always true';
comment on column syncor.origin.system_identifier is 'As pg_control_system() tells it';

-- Transaction numbers of another cluster say nothing here. After a restore elsewhere, what was handled there stays handled,
-- what was not is put into the backlog, and reading by snapshot begins anew above everything that came along.
create function syncor.adopt() returns boolean
language plpgsql
as $$
declare
  v_here   text := (select c.system_identifier::text from pg_control_system() c);
  v_cursor syncor.cursor;
begin
  if exists (select from syncor.origin o where o.system_identifier = v_here) then
    return false;
  end if;
  insert into syncor.origin (system_identifier) values (v_here) on conflict do nothing;
  if found then
    return false;
  end if;
  select c.* into strict v_cursor from syncor.cursor c order by c.seq desc limit 1;
  insert into syncor.backlog (event_id, created_at)
  select e.id, e.created_at
    from syncor.events e
   where e.pos > v_cursor.floor_pos
     and not pg_visible_in_snapshot(e.tx, v_cursor.done)
     and not coalesce(pg_visible_in_snapshot(e.tx, v_cursor.target) and (e.tx, e.pos) <= (v_cursor.after_tx, v_cursor.after_pos), false)
  on conflict do nothing;
  insert into syncor.cursor (seq, done, floor_pos)
  values (v_cursor.seq + 1, pg_current_snapshot(), (select coalesce(max(e.pos), 0) from syncor.events e));
  update syncor.worker set died_at = now() where died_at is null and stopped_at is null;
  update syncor.origin set system_identifier = v_here;
  return true;
end
$$;
comment on function syncor.adopt() is 'After a restore into another cluster: makes the read position meaningful again; true if that was so';

create table syncor.event_note (
  event_id uuid primary key,
  note     text not null,
  at       timestamptz not null default now()
);
comment on table syncor.event_note is 'Why an event with a matching type started nothing: syncor.why reads it';
comment on column syncor.event_note.event_id is 'The event';
comment on column syncor.event_note.note is 'The reason, one clause per definition';
comment on column syncor.event_note.at is 'When it was routed';
