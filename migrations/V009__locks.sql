-- Object locks: no two sagas work on one object at a time.
--
-- A saga draws one number for all its keys and stands in the queue of each. It holds them all once it heads all its queues: first
-- come, first served, and no two sagas can wait for each other. What it drew is gone with the write that ends it.
-- Whoever changes a queue holds the row of its key, taken in the order of the keys, so a number that is drawn is higher than
-- every number in the queue, and what a queue shows does not change under its reader. Statements in here are planned anew each
-- time: a plan that was made while the tables were empty would read all of them for ever.

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

-- Locks the rows of these keys, and of those that these sagas have tickets for, in the order of the keys: two transactions that
-- each ask once cannot wait for each other. Whoever takes or releases for several sagas in one transaction asks for all first.
create function syncor.hold_keys(p_sagas uuid[], p_keys text[]) returns text[]
language plpgsql set plan_cache_mode = force_custom_plan
as $$
declare
  v_keys text[];
begin
  -- With one snapshot for the whole transaction the queues would be those of its beginning, whatever is locked here.
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'object locks cannot be taken in a % transaction', current_setting('transaction_isolation')
      using errcode = 'invalid_transaction_state', hint = 'begin it with `isolation level read committed`';
  end if;
  select coalesce(array_agg(distinct k.key), '{}') into v_keys
    from (select t.key from syncor.lock_ticket t where t.saga_id = any(p_sagas)
          union select unnest(p_keys) collate "C") k;
  -- New keys first and in order as well: an insert waits for another transaction that is making the same row.
  insert into syncor.object_lock (key)
  select k.key from unnest(v_keys) k(key) where not exists (select from syncor.object_lock o where o.key = k.key collate "C")
   order by k.key collate "C"
  on conflict do nothing;
  perform from syncor.object_lock o where o.key = any(v_keys) order by o.key for update;
  return v_keys;
end
$$;
comment on function syncor.hold_keys(uuid[], text[]) is 'Locks keys, and those of sagas, in the order of the keys; returns them';

create function syncor.take_locks(p_saga uuid, p_root uuid, p_keys text[]) returns text
language plpgsql set plan_cache_mode = force_custom_plan
as $$
declare
  v_no   bigint;
  v_busy boolean;
  v_now  timestamptz;
begin
  if coalesce(cardinality(p_keys), 0) = 0 then
    return 'held';
  end if;
  if exists (select from unnest(p_keys) k(key) where k.key is null or octet_length(k.key) not between 1 and 1024) then
    return 'refused';
  end if;
  -- A child works under the locks of the saga at the top. It must not queue for others: the one who holds them might wait for us.
  if exists (select from syncor.lock_ticket t where t.saga_id = p_root) then
    return case when exists (select from unnest(p_keys) k(key)
                              where not exists (select from syncor.lock_ticket t
                                                 where t.saga_id = p_root and t.key = k.key collate "C" and t.granted_at is not null))
                then 'refused' else 'held' end;
  end if;
  -- Each statement of this function sees what was committed before it: from here on nobody else changes these queues.
  perform syncor.hold_keys('{}', p_keys);
  select bool_or(t.granted_at is null) into v_busy from syncor.lock_ticket t where t.saga_id = p_saga;
  if v_busy is not null then
    return case when v_busy then 'queued' else 'held' end;
  end if;
  v_busy := exists (select from syncor.lock_ticket t where t.key = any(p_keys));
  v_no := nextval('syncor.ticket');
  v_now := clock_timestamp();
  insert into syncor.lock_ticket (key, no, saga_id, asked_at, granted_at)
  select distinct k.key collate "C", v_no, p_saga, v_now, case when not v_busy then v_now end from unnest(p_keys) k(key);
  return case when v_busy then 'queued' else 'held' end;
end
$$;
comment on function syncor.take_locks(uuid, uuid, text[]) is
  'Asks for all keys of a saga: held, queued, or refused to a child whose root does not hold them';

-- In the transaction that ends these sagas, after their rows are written: what they hold goes to those who come next.
create function syncor.release_locks(p_sagas uuid[]) returns int
language plpgsql set plan_cache_mode = force_custom_plan
as $$
declare
  v_ended   uuid[];
  v_keys    text[];
  v_granted uuid[];
begin
  select coalesce(array_agg(s.id), '{}') into v_ended
    from syncor.saga s
   where s.id = any(p_sagas) and s.finished_at is not null
     and exists (select from syncor.lock_ticket t where t.saga_id = s.id);
  if cardinality(v_ended) = 0 then
    return 0;
  end if;
  v_keys := syncor.hold_keys(v_ended, '{}');
  delete from syncor.lock_ticket t where t.saga_id = any(v_ended);
  -- Whoever heads one of these queues now may still stand in another one, whose head is being released by somebody else at this
  -- moment: neither would see the other's deletion. So both lock the tickets of the one who comes next, in the order of the
  -- numbers; the second to get them looks again, and sees both.
  perform from syncor.lock_ticket t
    where t.granted_at is null
      and t.saga_id = any(array(select h.saga_id from unnest(v_keys) k(key)
                                cross join lateral (select h.saga_id from syncor.lock_ticket h
                                                     where h.key = k.key collate "C" order by h.no limit 1) h))
    order by t.no, t.key for update;
  with granted as (
    update syncor.lock_ticket t set granted_at = clock_timestamp()
     where t.granted_at is null
       and t.saga_id = any(array(select h.saga_id from unnest(v_keys) k(key)
                                 cross join lateral (select h.saga_id from syncor.lock_ticket h
                                                      where h.key = k.key collate "C" order by h.no limit 1) h))
       and not exists (select from syncor.lock_ticket mine
                         join syncor.lock_ticket before on before.key = mine.key and before.no < mine.no
                        where mine.saga_id = t.saga_id)
    returning t.saga_id)
  select coalesce(array_agg(distinct g.saga_id), '{}') into v_granted from granted g;
  insert into syncor.input (saga_id, kind, key) select unnest(v_granted), 'locked', 'locked' on conflict do nothing;
  return cardinality(v_granted);
end
$$;
comment on function syncor.release_locks(uuid[]) is 'Takes the tickets of those sagas that have ended and grants what is free then; returns how many got their locks';

create view syncor.object_locks as
  select t.key, t.saga_id, d.id as definition, case when t.granted_at is null then 'waiting' else 'held' end as state,
         (select count(*) from syncor.lock_ticket b where b.key = t.key and b.no < t.no)::int as place,
         t.asked_at, t.granted_at
    from syncor.lock_ticket t
    join syncor.saga s on s.id = t.saga_id
    join syncor.definition d on d.no = s.definition_no;
comment on view syncor.object_locks is 'Who holds or wants which object';
comment on column syncor.object_locks.key is 'The object';
comment on column syncor.object_locks.saga_id is 'The saga';
comment on column syncor.object_locks.definition is 'Its definition';
comment on column syncor.object_locks.state is 'held, or waiting';
comment on column syncor.object_locks.place is 'How many are before it in the queue of this object: none before the one who holds it';
comment on column syncor.object_locks.asked_at is 'When it asked';
comment on column syncor.object_locks.granted_at is 'When it got all its objects';

revoke all on syncor.object_lock, syncor.lock_ticket, syncor.object_locks from public;
revoke all on all functions in schema syncor from public;
grant execute on function syncor.uuid7() to public;
