-- The ledger: what happened, in rows that are only ever added.
--
-- Anybody publishes by inserting into syncor.events; a row trigger completes the row and wakes a sleeping worker.
-- `tx` is the inserting transaction: the router reads by snapshot ("what became visible since"), never by id, because
-- id order is not commit order. Nothing here may fail, wait or slow down because of the orchestrator's own state:
-- a default partition always exists, the wake-up never waits, and NOTIFY is skipped where it could hurt.

create function syncor.uuid7() returns uuid
language sql volatile parallel safe
as $$
  -- 48 bits of milliseconds, then version 7, then random bits: ids that sort by time keep indexes narrow.
  select encode(
    set_bit(set_bit(
      overlay(uuid_send(gen_random_uuid())
              placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
              from 1 for 6),
      52, 1), 53, 1), 'hex')::uuid
$$;
comment on function syncor.uuid7() is 'A UUID of version 7: sorts by the time it was made';

create table syncor.events (
  pos            bigint generated always as identity,
  tx             xid8        not null default pg_current_xact_id(),
  id             uuid        not null default syncor.uuid7(),
  created_at     timestamptz not null default now(),
  depth          smallint    not null default 0,
  causation_id   uuid,
  saga_id        uuid,
  type           text        not null,
  topic          text        not null default 'default',
  source         text        not null default session_user,
  subject        text,
  correlation_id text        not null,
  dedupe_key     text,
  data           jsonb       not null default '{}',
  primary key (id, created_at),
  constraint events_type_length check (char_length(type) between 1 and 255),
  constraint events_topic_length check (char_length(topic) between 1 and 255),
  constraint events_source_length check (char_length(source) between 1 and 1024),
  constraint events_subject_length check (char_length(subject) <= 1024),
  constraint events_correlation_length check (char_length(correlation_id) <= 1024),
  constraint events_dedupe_length check (char_length(dedupe_key) <= 1024),
  constraint events_depth_range check (depth >= 0),
  -- The text is what is measured: the stored size of a document that was copied from another table is the compressed one.
  constraint events_data_size check (octet_length(data::text) <= 262144)
) partition by range (created_at);

create index events_tx_pos_idx on syncor.events (tx, pos);
create index events_correlation_idx on syncor.events (correlation_id);

comment on table syncor.events is 'The ledger of events: insert to publish; rows are never changed or deleted';
comment on column syncor.events.pos is 'Order of insertion; not the order of commit';
comment on column syncor.events.tx is 'The transaction that inserted the row; the router reads by it';
comment on column syncor.events.id is 'Identity of the event';
comment on column syncor.events.created_at is 'When the publishing transaction began';
comment on column syncor.events.depth is 'How many events stand between this one and the outside world';
comment on column syncor.events.causation_id is 'The event that caused this one';
comment on column syncor.events.saga_id is 'The saga that emitted it; null for published events';
comment on column syncor.events.type is 'What happened, such as policy.changed';
comment on column syncor.events.topic is 'Where it was published';
comment on column syncor.events.source is 'Who published it: the database role, or a CloudEvents source';
comment on column syncor.events.subject is 'The business object it is about';
comment on column syncor.events.correlation_id is 'Ties everything one fact caused; the subject, else the id, unless given';
comment on column syncor.events.dedupe_key is 'The publisher''s own key: one event per (source, key)';
comment on column syncor.events.data is 'What there is to know, at most 256 KiB: store large documents elsewhere and publish their address';

create table syncor.event_key (
  source     text  not null,
  key        text  not null,
  event_id   uuid  not null,
  digest     bytea not null,
  created_at timestamptz not null default now(),
  primary key (source, key)
);
comment on table syncor.event_key is 'One row per (source, dedupe key): makes publishing repeatable';
comment on column syncor.event_key.source is 'The publisher';
comment on column syncor.event_key.key is 'Its key';
comment on column syncor.event_key.event_id is 'The first event with that key';
comment on column syncor.event_key.digest is 'SHA-256 of type and data: the same key with other content is refused';
comment on column syncor.event_key.created_at is 'When the key was first used';

-- Fires for what others publish; the engine's own events arrive complete and wake by other means.
create function syncor.complete_event() returns trigger
language plpgsql
as $$
begin
  if new.correlation_id is null then
    new.correlation_id := coalesce(new.subject, new.id::text);
  end if;
  -- The shared probe fails only while the pool's sentinel holds the lock exclusively, that is, sleeps. A writer that
  -- gets it holds it until its commit is visible, so the sentinel cannot fall asleep over a row about to appear.
  -- With prepared transactions enabled neither is done: PREPARE refuses a transaction that has notified.
  if current_setting('max_prepared_transactions') = '0'
     and not pg_try_advisory_xact_lock_shared(1399152195, 1)
     and pg_notification_queue_usage() < 0.5 then
    notify syncor_wake;
  end if;
  return new;
end
$$;
comment on function syncor.complete_event() is 'Fills in the correlation id and wakes sleeping workers';

create function syncor.claim_event_key() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_digest bytea := sha256(convert_to(new.type || chr(10) || new.data::text, 'UTF8'));
  v_first  bytea;
begin
  insert into syncor.event_key (source, key, event_id, digest)
  values (new.source, new.dedupe_key, new.id, v_digest)
  on conflict do nothing;
  if found then
    return new;
  end if;
  select k.digest into v_first from syncor.event_key k where k.source = new.source and k.key = new.dedupe_key;
  if v_first is distinct from v_digest then
    raise exception 'dedupe key % of source % was used for another event', new.dedupe_key, new.source
      using errcode = 'unique_violation', hint = 'use a new dedupe_key for a new event, or repeat the first one unchanged',
            constraint = 'event_key_pkey';
  end if;
  return null;
end
$$;
comment on function syncor.claim_event_key() is 'Skips a repeated event; refuses the same key with other content';

-- A fact with a cause is one further from the outside world: that is how a loop through an outside publisher is stopped.
create function syncor.deepen_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  new.depth := coalesce((select e.depth + 1 from syncor.events e where e.id = new.causation_id limit 1), new.depth);
  return new;
end
$$;
comment on function syncor.deepen_event() is 'Sets the depth of an event that names its cause';

-- Names decide the order of firing: first complete, then deepen, then claim.
create trigger event_1_complete before insert on syncor.events
  for each row when (new.saga_id is null) execute function syncor.complete_event();
create trigger event_2_deepen before insert on syncor.events
  for each row when (new.causation_id is not null and new.saga_id is null) execute function syncor.deepen_event();
create trigger event_3_claim_key before insert on syncor.events
  for each row when (new.dedupe_key is not null) execute function syncor.claim_event_key();

create function syncor.refuse_change() returns trigger
language plpgsql
as $$
begin
  raise exception '% on %.% refused: the ledger is append-only', lower(tg_op), tg_table_schema, tg_table_name
    using errcode = 'insufficient_privilege', hint = 'publish a new event that corrects the old one';
end
$$;
comment on function syncor.refuse_change() is 'Keeps the ledger append-only, for its owner too';

create trigger event_no_change before update or delete on syncor.events
  for each row execute function syncor.refuse_change();
create trigger event_no_truncate before truncate on syncor.events
  for each statement execute function syncor.refuse_change();

create table syncor.events_default (like syncor.events including defaults including constraints including comments);
alter table syncor.events attach partition syncor.events_default default;
comment on table syncor.events_default is 'Events whose month has no partition of its own: an insert never fails for want of one';
create trigger event_no_truncate before truncate on syncor.events_default
  for each statement execute function syncor.refuse_change();

-- Made apart and attached: creating a partition in place would queue every insert behind one long writer.
create function syncor.add_event_partition(p_month date) returns boolean
language plpgsql
as $$
declare
  v_from date := date_trunc('month', p_month)::date;
  v_to   date := (date_trunc('month', p_month) + interval '1 month')::date;
  v_name text := 'events_' || to_char(p_month, 'YYYY_MM');
  v_column record;
begin
  if to_regclass('syncor.' || v_name) is not null
     or exists (select from only syncor.events_default d where d.created_at >= v_from and d.created_at < v_to) then
    return false;
  end if;
  execute format('create table syncor.%I (like syncor.events including defaults including constraints including comments)', v_name);
  execute format('comment on table syncor.%I is %L', v_name, 'Events of ' || to_char(p_month, 'YYYY-MM'));
  execute format('create trigger event_no_truncate before truncate on syncor.%I for each statement execute function syncor.refuse_change()', v_name);
  execute format('alter table syncor.events attach partition syncor.%I for values from (%L) to (%L)', v_name, v_from, v_to);
  return true;
end
$$;
comment on function syncor.add_event_partition(date) is 'Adds the partition of a month; false if it exists or the default partition holds its rows';

select syncor.add_event_partition((now() + make_interval(months => m))::date) from generate_series(0, 2) m;
