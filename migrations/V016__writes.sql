-- What a worker's write brings along beside the rows of its saga: children, parents, locks, the end of everything that waited.
--
-- These functions run inside the one transaction of that write, after its main statement, and only for sagas whose write has
-- landed there. They are the worker's own: nobody else is granted them.

alter table syncor.input drop constraint if exists input_kind_known;
alter table syncor.input add constraint input_kind_known
  check (kind in ('locked', 'event', 'callback', 'child', 'undone', 'failed', 'order', 'decide'));

-- True if the row has exactly the rev that the write has made: a zombie's write never gets there.
create function syncor.landed(p_doc jsonb) returns boolean
language sql stable
as $$
  select exists (select from syncor.saga s
                  where s.id = (p_doc ->> 'saga_id')::uuid and s.epoch = (p_doc ->> 'epoch')::int and s.rev = (p_doc ->> 'rev')::int)
$$;
comment on function syncor.landed(jsonb) is 'Whether the write that this belongs to is the one that made the saga what it is';

create function syncor.root_of(p_saga uuid) returns uuid
language sql stable
as $$
  with recursive up as (
    select s.id, s.parent_id from syncor.saga s where s.id = p_saga
    union all
    select s.id, s.parent_id from up join syncor.saga s on s.id = up.parent_id)
  select up.id from up where up.parent_id is null limit 1
$$;
comment on function syncor.root_of(uuid) is 'The outermost saga that this one is a part of';

-- Starts the child saga of a step, or the saga that undoes one; what cannot be started is told to the parent as an input.
create function syncor.start_child(p_doc jsonb) returns boolean
language plpgsql
as $$
declare
  v_parent syncor.saga;
  v_child  uuid := (p_doc ->> 'child')::uuid;
  v_undone syncor.saga;
  v_keys   text[];
  v_lock   text;
  v_error  text := p_doc ->> 'error';
begin
  select s.* into strict v_parent from syncor.saga s where s.id = (p_doc ->> 'saga_id')::uuid;
  if v_error is null and p_doc ->> 'undoes' is not null then
    select s.* into v_undone from syncor.saga s where s.id = (p_doc ->> 'undoes')::uuid;
    if not found then
      v_error := 'the saga that did this step is gone';
    else
      insert into syncor.saga (id, definition_no, state, next_due, event_id, event_at, parent_id, parent_seq, parent_action, nesting, correlation_id,
                               dedupe_key, lock_keys, arrived, undoes)
      values (v_child, v_undone.definition_no, 'pending', now(), v_undone.event_id, v_undone.event_at, v_parent.id, (p_doc ->> 'seq')::smallint, 'undo',
              v_parent.nesting + 1, v_parent.correlation_id, v_parent.id || '/' || (p_doc ->> 'seq') || '/undo', v_undone.lock_keys, v_undone.arrived,
              v_undone.id)
      on conflict do nothing;
      if not found then
        return false;
      end if;
      insert into syncor.step (saga_id, seq, ordinal, name, status, compensation, ambiguous, attempts, spent, fence, called_at, started_at, finished_at, message, detail)
      select v_child, t.seq, t.ordinal, t.name, t.status, 'none', t.ambiguous, t.attempts, t.spent, t.fence, t.called_at, t.started_at, t.finished_at, t.message,
             jsonb_strip_nulls(jsonb_build_object('doneBy', coalesce(t.detail ->> 'doneBy', t.saga_id::text), 'context', t.detail -> 'context'))
        from syncor.step t
       where t.saga_id = v_undone.id and t.finished_at is not null and t.compensation not in ('compensated');
    end if;
  elsif v_error is null then
    v_keys := case when jsonb_typeof(p_doc -> 'keys') = 'array' then array(select jsonb_array_elements_text(p_doc -> 'keys')) end;
    insert into syncor.saga (id, definition_no, state, next_due, event_id, event_at, parent_id, parent_seq, parent_action, nesting, correlation_id,
                             dedupe_key, lock_keys, arrived)
    values (v_child, (p_doc ->> 'definition_no')::int, 'pending', now(), v_parent.event_id, v_parent.event_at, v_parent.id, (p_doc ->> 'seq')::smallint, 'do',
            v_parent.nesting + 1, v_parent.correlation_id, v_parent.id || '/' || (p_doc ->> 'seq') || '/do', v_keys, v_parent.arrived)
    on conflict do nothing;
    if not found then
      return false;
    end if;
  end if;
  v_keys := coalesce(v_keys, v_undone.lock_keys);
  if v_error is null and v_keys is not null then
    v_lock := syncor.take_locks(v_child, syncor.root_of(v_parent.id), v_keys);
    if v_lock = 'refused' then
      -- Waiting for more while its root holds some could be a deadlock.
      v_error := 'it needs lock keys that its outermost saga does not hold: name them in the lock of that one';
      update syncor.saga set state = 'rejected', finished_at = now(), next_due = null, reason = v_error where id = v_child;
      insert into syncor.events (type, source, subject, correlation_id, causation_id, depth, saga_id, data)
      select 'saga.rejected', '/hms/sagas/' || v_child, e.subject, v_parent.correlation_id, v_parent.event_id, coalesce(e.depth, 0) + 1, v_child,
             jsonb_build_object('sagaId', v_child, 'reason', v_error,
                                'definition', (select d.id from syncor.definition d where d.no = (p_doc ->> 'definition_no')::int))
        from (select 1) x left join syncor.events e on e.id = v_parent.event_id and e.created_at = v_parent.event_at;
    end if;
  end if;
  if v_error is not null then
    insert into syncor.input (saga_id, kind, key, seq, action, payload)
    values (v_parent.id, 'failed', 'failed:' || (p_doc ->> 'seq') || ':' || (p_doc ->> 'action'), (p_doc ->> 'seq')::smallint, p_doc ->> 'action',
            jsonb_build_object('error', v_error))
    on conflict do nothing;
  end if;
  return v_error is null;
end
$$;
comment on function syncor.start_child(jsonb) is 'Starts a child saga in the write of its parent';

-- A saga has ended: nothing of it waits any more, and its parent is told.
create function syncor.close_saga(p_doc jsonb) returns void
language plpgsql
as $$
declare
  v_saga syncor.saga;
begin
  select s.* into strict v_saga from syncor.saga s where s.id = (p_doc ->> 'saga_id')::uuid;
  if v_saga.finished_at is null then
    return;
  end if;
  delete from syncor.wait w where w.saga_id = v_saga.id;
  update syncor.callback c set settled_at = now() where c.saga_id = v_saga.id and c.settled_at is null;
  -- An approval has nobody to answer to; of a failure people may still want to know.
  update syncor.task t set status = 'withdrawn'
   where t.saga_id = v_saga.id and t.status = 'open' and t.kind in ('approval', 'policy', 'comp_failed', 'pivot_unknown');
  perform syncor.settle_input(i.id) from syncor.input i where i.saga_id = v_saga.id order by i.id;
  if v_saga.parent_id is not null then
    insert into syncor.input (saga_id, kind, key, seq, action, payload)
    values (v_saga.parent_id, 'child', 'child:' || v_saga.parent_seq || ':' || v_saga.parent_action || ':' || v_saga.id, v_saga.parent_seq, v_saga.parent_action,
            jsonb_build_object('sagaId', v_saga.id, 'state', v_saga.state, 'clean', v_saga.clean, 'reason', v_saga.reason,
                               'definition', (select d.id from syncor.definition d where d.no = v_saga.definition_no)))
    on conflict do nothing;
  end if;
end
$$;
comment on function syncor.close_saga(jsonb) is 'Closes what an ended saga leaves behind';

-- Counts how many sagas of a family failed one after the other; at three, once, a human is told.
create function syncor.count_ends(p_ends jsonb) returns boolean
language plpgsql
as $$
declare
  v_end      record;
  v_failures int;
begin
  for v_end in
    select x.doc ->> 'family' as family, (x.doc ->> 'failed')::boolean as failed, (x.doc ->> 'saga_id')::uuid as saga_id, x.doc ->> 'reason' as reason
      from jsonb_array_elements(p_ends) with ordinality as x(doc, n) order by x.n
  loop
    if not v_end.failed then
      delete from syncor.streak k where k.family = v_end.family;
      continue;
    end if;
    insert into syncor.streak as k (family, failures, since) values (v_end.family, 1, now())
    on conflict (family) do update set failures = k.failures + 1
    returning k.failures into v_failures;
    if v_failures = 3 then
      insert into syncor.task (id, saga_id, kind, queue, reason, status, family)
      values (syncor.uuid7(), v_end.saga_id, 'consecutive_failures', 'default',
              format('three sagas of %s failed one after the other, the last one because %s', v_end.family, coalesce(v_end.reason, 'of no known reason')),
              'open', v_end.family);
    end if;
  end loop;
  return exists (select from syncor.streak);
end
$$;
comment on function syncor.count_ends(jsonb) is 'Counts consecutive failures of families; true while any family has some';

revoke all on function syncor.landed(jsonb), syncor.root_of(uuid), syncor.start_child(jsonb), syncor.close_saga(jsonb), syncor.count_ends(jsonb) from public;
