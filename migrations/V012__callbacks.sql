-- Callbacks: how the end of an asynchronous step is told.
--
-- A token stands for one action of one step; only its digest is kept. It is good for one end, from the first attempt until the
-- step settles. The same end again is answered the same; what comes too late is kept, because somebody has to know of it.

create table syncor.callback (
  digest     bytea primary key,
  saga_id    uuid     not null,
  seq        smallint not null,
  action     text     not null,
  made_at    timestamptz not null default now(),
  settled_at timestamptz,
  ended_at   timestamptz,
  ended      jsonb,
  late       boolean not null default false,
  beat_at    timestamptz,
  progress   jsonb,
  constraint callback_digest_size check (octet_length(digest) = 32),
  constraint callback_action_known check (action in ('do', 'undo')),
  constraint callback_end_has_time check ((ended is null) = (ended_at is null))
) with (fillfactor = 70);
create index callback_step_idx on syncor.callback (saga_id, seq);
comment on table syncor.callback is 'Tokens of asynchronous steps, and what was told with them';
comment on column syncor.callback.digest is 'SHA-256 of the token';
comment on column syncor.callback.saga_id is 'The saga';
comment on column syncor.callback.seq is 'The step, by its place';
comment on column syncor.callback.action is 'do or undo';
comment on column syncor.callback.made_at is 'When it was made';
comment on column syncor.callback.settled_at is 'When the step did not wait for it any more';
comment on column syncor.callback.ended_at is 'When the end was told';
comment on column syncor.callback.ended is 'What was told: status, context, output, message, error';
comment on column syncor.callback.late is 'Whether it was told after the step had settled';
comment on column syncor.callback.beat_at is 'When it was last heard of before its end';
comment on column syncor.callback.progress is 'How far it was then: done, total, message';

-- An effect of which nobody knew when its saga ended: no worker will tell people of it.
create function syncor.tell_late_effect(p_saga uuid, p_seq smallint, p_action text, p_end jsonb) returns void
language plpgsql
as $$
declare
  v_task uuid;
begin
  if p_action <> 'do' or p_end ->> 'status' <> 'ok'
     or exists (select from syncor.step t where t.saga_id = p_saga and t.seq = p_seq and t.status = 'succeeded') then
    return;
  end if;
  insert into syncor.task (saga_id, seq, step, kind, queue, reason)
  select s.id, p_seq, d.steps[p_seq + 1], 'late_effect', coalesce(d.source -> 'hitl' ->> 'queue', 'default'),
         format('%s reported success after it had been given up, and the saga is %s', d.steps[p_seq + 1], s.state)
    from syncor.saga s join syncor.definition d on d.no = s.definition_no
   where s.id = p_saga
  on conflict do nothing
  returning id into v_task;
  if v_task is not null then
    perform syncor.publish_task(v_task);
  end if;
end
$$;
comment on function syncor.tell_late_effect(uuid, smallint, text, jsonb) is 'Opens a task about a success that came after the end of its saga';

-- What the engine publishes about its tasks, for those that no engine opens or settles. The saga's id keeps the row triggers of
-- the ledger away, so what they fill in is complete here.
create function syncor.publish_task(p_task uuid) returns void
language plpgsql
as $$
begin
  insert into syncor.events (type, source, subject, correlation_id, causation_id, depth, saga_id, data)
  select case k.status when 'open' then 'human.task.opened' else 'human.task.decided' end,
         '/hms/sagas/' || s.id, e.subject, s.correlation_id, s.event_id, coalesce(e.depth, 0) + 1, s.id,
         jsonb_build_object('sagaId', s.id, 'definition', d.id, 'reason', coalesce(k.note, k.reason),
           'step', case when k.step is not null then jsonb_build_object('name', k.step, 'context', null) end,
           'task', jsonb_build_object('id', k.id, 'kind', k.kind)
             || case k.status when 'open' then jsonb_build_object('queue', k.queue, 'prompt', k.prompt, 'assignee', k.assignee)
                              else jsonb_build_object('decision', k.decision, 'by', k.decided_by, 'note', k.note) end)
    from syncor.task k
    join syncor.saga s on s.id = k.saga_id
    join syncor.definition d on d.no = s.definition_no
    left join syncor.events e on e.id = s.event_id and e.created_at = s.event_at
   where k.id = p_task;
  perform syncor.wake();
end
$$;
comment on function syncor.publish_task(uuid) is 'Publishes human.task.opened or human.task.decided about a task that no worker has in hand';

-- One printable line of bounded length, as core::reply makes them.
create function syncor.line(p_text text) returns text
language sql immutable
as $$ select nullif(trim(left(regexp_replace(p_text, '[[:cntrl:]]', ' ', 'g'), 500)), '') $$;
comment on function syncor.line(text) is 'Cuts what others say to one printable line';

create function syncor.complete(token text, status text, context jsonb default null, output jsonb default null, message text default null,
                                error text default null) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  v_call  syncor.callback;
  v_end   jsonb;
  v_ended boolean;
  v_late  boolean;
begin
  if complete.status is null or complete.status not in ('ok', 'error') then
    raise exception 'the status of a callback is ok or error' using errcode = 'invalid_parameter_value';
  end if;
  if octet_length(complete.context::text) > 16384 then
    raise exception 'the context has % bytes, more than 16 KiB', octet_length(complete.context::text)
      using errcode = 'invalid_parameter_value', hint = 'store the document, give its address';
  end if;
  if octet_length(complete.output::text) > 262144 then
    raise exception 'the output has % bytes, more than 256 KiB', octet_length(complete.output::text)
      using errcode = 'invalid_parameter_value', hint = 'store the document, give its address';
  end if;
  v_end := jsonb_build_object('status', complete.status)
    || case when complete.context is null then '{}' else jsonb_build_object('context', complete.context) end
    || case when complete.output is null then '{}' else jsonb_build_object('output', complete.output) end
    || jsonb_strip_nulls(jsonb_build_object('message', syncor.line(complete.message), 'error', syncor.line(complete.error)));
  -- Of two ends at once the second waits here and finds the first.
  select c.* into v_call from syncor.callback c where c.digest = sha256(convert_to(complete.token, 'UTF8')) for update;
  if not found then
    raise exception 'no such callback token' using errcode = 'no_data_found';
  end if;
  if v_call.ended is not null then
    return case when v_call.ended <> v_end then 'conflict' when v_call.late then 'late' else 'repeated' end;
  end if;
  select s.finished_at is not null into v_ended from syncor.saga s where s.id = v_call.saga_id;
  v_late := v_call.settled_at is not null or coalesce(v_ended, true);
  update syncor.callback c set ended = v_end, ended_at = clock_timestamp(), late = v_late where c.digest = v_call.digest;
  -- A late end has a key of its own: it must not keep out the end of the attempt that is under way now.
  insert into syncor.input (saga_id, kind, key, seq, action, payload)
  values (v_call.saga_id, 'callback',
          format('callback:%s:%s', v_call.seq, v_call.action) || case when v_late then ':' || left(encode(v_call.digest, 'hex'), 16) else '' end,
          v_call.seq, v_call.action, v_end)
  on conflict do nothing;
  if not v_late then
    return 'accepted';
  end if;
  if v_ended then
    perform syncor.tell_late_effect(v_call.saga_id, v_call.seq, v_call.action, v_end);
  end if;
  return 'late';
end
$$;
comment on function syncor.complete(text, text, jsonb, jsonb, text, text) is
  'Ends an asynchronous step with its callback token: accepted, repeated, conflict with the end that was given, or late';

create function syncor.beat(token text, done bigint default null, total bigint default null, message text default null) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  v_open boolean;
begin
  update syncor.callback c
     set beat_at = clock_timestamp(),
         -- A heartbeat that says nothing new leaves what was said.
         progress = coalesce(nullif(jsonb_strip_nulls(jsonb_build_object('done', beat.done, 'total', beat.total, 'message', syncor.line(beat.message))),
                                    '{}'), c.progress)
   where c.digest = sha256(convert_to(beat.token, 'UTF8')) and c.settled_at is null and c.ended is null;
  if found then
    return 'accepted';
  end if;
  if exists (select from syncor.callback c where c.digest = sha256(convert_to(beat.token, 'UTF8'))) then
    return 'late';
  end if;
  raise exception 'no such callback token' using errcode = 'no_data_found';
end
$$;
comment on function syncor.beat(text, bigint, bigint, text) is 'A heartbeat of an asynchronous step, and how far it has come: accepted, or late';

-- The acknowledgement of saga.compensate, for undos that are an event.
create function syncor.undone(saga uuid, step text, ok boolean, error text default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  v_seq int;
begin
  select array_position(d.steps, undone.step) - 1 into v_seq
    from syncor.saga s join syncor.definition d on d.no = s.definition_no where s.id = undone.saga;
  if not found then
    raise exception 'no saga has the id %', undone.saga using errcode = 'no_data_found';
  end if;
  if v_seq is null then
    raise exception 'saga % has no step %', undone.saga, undone.step using errcode = 'no_data_found';
  end if;
  insert into syncor.input (saga_id, kind, key, seq, action, payload)
  values (undone.saga, 'undone', 'undone:' || v_seq, v_seq, 'undo',
          jsonb_strip_nulls(jsonb_build_object('ok', coalesce(undone.ok, false), 'error', syncor.line(undone.error))))
  on conflict do nothing;
end
$$;
comment on function syncor.undone(uuid, text, boolean, text) is 'Says that the consumer of saga.compensate has undone a step, or could not';

revoke all on syncor.callback from public;
revoke all on all functions in schema syncor from public;
grant execute on function syncor.uuid7() to public;
