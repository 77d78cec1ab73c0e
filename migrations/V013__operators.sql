-- Orders of operators and decisions of officers.
--
-- Every order is a row of syncor.command, whether it is carried out or not, and one input of its saga in the same transaction.
-- The functions ending in _as are for programs that know who asks; those that people call pass on their session's role.

alter table syncor.command
  add column step        text,
  add column task_id     uuid,
  add column decision    text,
  add column output      jsonb,
  add column new_saga_id uuid;
comment on column syncor.command.step is 'The step that it is about';
comment on column syncor.command.task_id is 'The human task that it decides';
comment on column syncor.command.decision is 'What was decided';
comment on column syncor.command.output is 'What came with the decision';
comment on column syncor.command.new_saga_id is 'The saga that a fork made';

create index command_saga_idx on syncor.command (saga_id, id) where saga_id is not null;

create function syncor.order_as(p_by text, p_kind text, p_saga uuid, p_step text, p_reason text) returns uuid
language plpgsql
as $$
declare
  v_saga    record;
  v_seq     int;
  v_refusal text;
  v_command uuid := syncor.uuid7();
begin
  if p_kind is null or p_kind not in ('cancel', 'pause', 'resume', 'abort', 'retry', 'skip') then
    raise exception 'there is no order `%`', p_kind
      using errcode = 'invalid_parameter_value', hint = 'orders are cancel, pause, resume, abort, retry and skip';
  end if;
  select s.state, s.finished_at, d.id as definition, d.steps into v_saga
    from syncor.saga s join syncor.definition d on d.no = s.definition_no where s.id = p_saga;
  if not found then
    raise exception 'no saga has the id %', p_saga using errcode = 'no_data_found';
  end if;
  v_seq := array_position(v_saga.steps, p_step) - 1;
  v_refusal := case
    when p_step is not null and p_kind not in ('retry', 'skip') then format('the order %s is about a whole saga: it takes no step', p_kind)
    when p_step is not null and v_seq is null then format('%s has no step %s', v_saga.definition, p_step)
    when v_saga.finished_at is not null then
      format('the saga is %s already%s', v_saga.state,
             case when p_kind in ('retry', 'skip') then ': fork it to run steps again in a new one' else '' end)
    else syncor.refuse_reason(p_reason) end;
  insert into syncor.command (id, kind, saga_id, step, reason, requested_by, status, result, settled_at)
  values (v_command, p_kind, p_saga, p_step, p_reason, p_by, case when v_refusal is null then 'pending' else 'refused' end, v_refusal,
          case when v_refusal is not null then now() end);
  if v_refusal is null then
    insert into syncor.input (saga_id, kind, key, seq, command_id, payload)
    values (p_saga, 'order', 'order:' || v_command, v_seq, v_command,
            jsonb_build_object('order', p_kind, 'step', v_seq, 'reason', p_reason, 'by', p_by));
    if not found then
      update syncor.command set status = 'refused', result = 'the saga has ended meanwhile', settled_at = now() where id = v_command;
    end if;
  end if;
  return v_command;
end
$$;
comment on function syncor.order_as(text, text, uuid, text, text) is 'Orders something of a saga in somebody''s name; returns the command';

-- An order that nobody can account for later is no order.
create function syncor.refuse_reason(p_reason text) returns text
language sql immutable
as $$
  select case when coalesce(p_reason, '') !~ '[^[:space:]]' then 'say why: a reason is required'
              when char_length(p_reason) > 1000 then 'the reason is longer than 1000 characters' end
$$;
comment on function syncor.refuse_reason(text) is 'What is wrong with a reason; null if nothing is';

create function syncor.decisions(p_kind text) returns text[]
language sql immutable
as $$
  select case p_kind
    when 'approval' then array['approve', 'reject']
    when 'policy' then array['approve', 'reject']
    when 'step_failed' then array['retry', 'skip', 'done', 'compensate', 'abort']
    when 'comp_failed' then array['retry', 'undone', 'skip', 'abort']
    when 'pivot_unknown' then array['done', 'not_done', 'retry']
    else array['acknowledge'] end
$$;
comment on function syncor.decisions(text) is 'What may be decided about a task of this kind';

create function syncor.decide_as(p_by text, p_task uuid, p_decision text, p_note text, p_output jsonb) returns uuid
language plpgsql
as $$
declare
  v_task    syncor.task;
  v_saga    record;
  v_refusal text;
  v_at_once boolean;
  v_command uuid := syncor.uuid7();
begin
  -- Of two officers the second waits here, and then sees what the first decided.
  select k.* into v_task from syncor.task k where k.id = p_task for update;
  if not found then
    raise exception 'no human task has the id %', p_task using errcode = 'no_data_found';
  end if;
  select s.state, s.finished_at, e.source into v_saga
    from syncor.saga s left join syncor.events e on e.id = s.event_id and e.created_at = s.event_at where s.id = v_task.saga_id;
  v_at_once := v_task.kind in ('late_effect', 'consecutive_failures') or v_saga.finished_at is not null;
  v_refusal := case
    when v_task.status = 'decided' then format('decided already by %s: %s', v_task.decided_by, v_task.decision)
    when v_task.status <> 'open' then format('the task is %s: nobody waits for the answer any more', v_task.status)
    when p_decision is null or p_decision <> all (syncor.decisions(v_task.kind)) then
      format('a task of kind %s takes %s', v_task.kind, array_to_string(syncor.decisions(v_task.kind), ', '))
    when v_task.four_eyes and v_saga.source = p_by then format('four eyes: %s published the event and may not decide about it', p_by)
    when v_saga.finished_at is not null and p_decision not in ('compensate', 'acknowledge') then
      format('the saga is %s already: fork it to run steps again in a new one%s', v_saga.state,
             case when v_task.kind = 'step_failed' then '; `compensate` takes the task off the queue' else '' end)
    when octet_length(p_output::text) > 262144 then 'the output is larger than 256 KiB'
    else syncor.refuse_reason(p_note) end;
  insert into syncor.command (id, kind, saga_id, step, task_id, decision, output, reason, requested_by, status, result, settled_at)
  values (v_command, 'decide', v_task.saga_id, v_task.step, p_task, p_decision, p_output, p_note, p_by,
          case when v_refusal is not null then 'refused' when v_at_once then 'applied' else 'pending' end,
          case when v_refusal is not null then v_refusal when v_at_once then 'seen' end,
          case when v_refusal is not null or v_at_once then now() end);
  if v_refusal is not null then
    return v_command;
  end if;
  if not v_at_once then
    insert into syncor.input (saga_id, kind, key, seq, command_id, payload)
    values (v_task.saga_id, 'decide', 'decide:' || p_task, v_task.seq, v_command,
            jsonb_build_object('taskId', p_task, 'kind', v_task.kind, 'decision', p_decision, 'by', p_by, 'note', p_note, 'output', p_output));
    if not found then
      update syncor.command set status = 'refused', result = 'the saga has ended meanwhile', settled_at = now() where id = v_command;
      return v_command;
    end if;
  end if;
  update syncor.task
     set status = 'decided', decision = p_decision, decided_by = p_by, note = p_note, output = p_output, decided_at = now()
   where id = p_task;
  if v_at_once then
    perform syncor.publish_task(p_task);
  end if;
  return v_command;
end
$$;
comment on function syncor.decide_as(text, uuid, text, text, jsonb) is 'Decides about a human task in somebody''s name; returns the command';

create function syncor.fork_as(p_by text, p_saga uuid, p_from_step text, p_reason text) returns uuid
language plpgsql
as $$
declare
  v_saga    record;
  v_key     record;
  v_key_of  text;
  v_from    int;
  v_refusal text;
  v_new     uuid := syncor.uuid7();
  v_command uuid := syncor.uuid7();
begin
  select s.*, d.id as definition, d.family, d.steps, coalesce(s.dedupe_key, s.event_id::text) as key into v_saga
    from syncor.saga s join syncor.definition d on d.no = s.definition_no where s.id = p_saga;
  if not found then
    raise exception 'no saga has the id %', p_saga using errcode = 'no_data_found';
  end if;
  v_from := case when p_from_step is null then 0 else array_position(v_saga.steps, p_from_step) - 1 end;
  -- Of two forks at once the second waits here. Then it looks again, in a statement of its own: a join in this one would still
  -- show the saga that the key led to before.
  -- A saga that was a step of another one has no key: that of its event belongs to whatever the event itself started.
  v_key_of := case when v_saga.parent_id is null then v_saga.key end;
  perform from syncor.saga_key k where k.family = v_saga.family and k.key = v_key_of for update;
  select k.saga_id, k.again, o.state, o.finished_at into v_key
    from syncor.saga_key k left join syncor.saga o on o.id = k.saga_id
   where k.family = v_saga.family and k.key = v_key_of;
  v_refusal := case
    when v_from is null then format('%s has no step %s', v_saga.definition, p_from_step)
    when v_saga.finished_at is null then format('the saga is %s: only one that has ended can be forked', v_saga.state)
    when v_saga.undoes is not null then format('the saga undoes %s: there is nothing to run again', v_saga.undoes)
    when v_key.saga_id <> p_saga and v_key.state is not null and v_key.finished_at is null then
      format('saga %s has the same dedupe key and is %s', v_key.saga_id, v_key.state)
    when v_key.saga_id <> p_saga and v_key.state = 'completed' and v_key.again is distinct from 'terminal' then
      format('saga %s has the same dedupe key and is completed: fork that one', v_key.saga_id)
    else syncor.refuse_reason(p_reason) end;
  if v_refusal is not null then
    insert into syncor.command (id, kind, saga_id, step, reason, requested_by, status, result, settled_at)
    values (v_command, 'fork', p_saga, p_from_step, p_reason, p_by, 'refused', v_refusal, now());
    return v_command;
  end if;
  update syncor.saga_key k set saga_id = v_new where k.family = v_saga.family and k.key = v_key_of;
  insert into syncor.saga (id, definition_no, state, next_due, event_id, event_at, correlation_id, dedupe_key, lock_keys, fork_of, arrived)
  values (v_new, v_saga.definition_no, 'pending', now(), v_saga.event_id, v_saga.event_at, v_saga.correlation_id, v_saga.dedupe_key,
          v_saga.lock_keys, p_saga, v_saga.arrived);
  perform syncor.take_locks(v_new, null, v_saga.lock_keys);
  -- What was done and is still done. What was undone is to be done again.
  insert into syncor.step (saga_id, seq, ordinal, name, status, attempts, fence, started_at, finished_at, message, detail)
  select v_new, t.seq, t.ordinal, t.name, t.status, t.attempts, 0, t.started_at, t.finished_at, t.message,
         jsonb_build_object('doneBy', coalesce(t.detail ->> 'doneBy', p_saga::text))
           || case when t.detail ? 'context' then jsonb_build_object('context', t.detail -> 'context') else '{}' end
    from syncor.step t
   where t.saga_id = p_saga and t.seq < v_from and t.status in ('succeeded', 'skipped') and t.compensation <> 'compensated';
  insert into syncor.command (id, kind, saga_id, step, reason, requested_by, status, result, new_saga_id, settled_at)
  values (v_command, 'fork', p_saga, p_from_step, p_reason, p_by, 'applied', 'forked as ' || v_new, v_new, now());
  perform syncor.wake();
  return v_command;
end
$$;
comment on function syncor.fork_as(text, uuid, text, text) is
  'Starts a saga anew from a step in somebody''s name, with what the ended one had done; returns the command';

-- What was on its way when its saga ended: no worker takes it in.
create function syncor.settle_input(p_input bigint) returns void
language plpgsql
as $$
declare
  v_input record;
begin
  select i.*, s.state into strict v_input from syncor.input i join syncor.saga s on s.id = i.saga_id where i.id = p_input;
  if v_input.kind = 'callback' then
    perform syncor.tell_late_effect(v_input.saga_id, v_input.seq, v_input.action, v_input.payload);
  elsif v_input.kind = 'decide' and v_input.payload ->> 'decision' = 'compensate' then
    update syncor.command set status = 'applied', result = format('seen: the saga is %s', v_input.state), settled_at = now()
     where id = v_input.command_id and status = 'pending';
    perform syncor.publish_task((v_input.payload ->> 'taskId')::uuid);
  elsif v_input.kind in ('order', 'decide') then
    update syncor.command set status = 'refused', result = format('the saga is %s already', v_input.state), settled_at = now()
     where id = v_input.command_id and status = 'pending';
    -- A failed step stays on the queue until somebody has seen it; nothing else is left to be decided.
    update syncor.task
       set status = case when kind = 'step_failed' then 'open' else 'withdrawn' end,
           decision = null, decided_by = null, note = null, output = null, decided_at = null
     where v_input.kind = 'decide' and id = (v_input.payload ->> 'taskId')::uuid and status = 'decided';
  end if;
  delete from syncor.input where id = p_input;
end
$$;
comment on function syncor.settle_input(bigint) is 'Says what became of an input of a saga that has ended, and deletes it';

-- The write that ends a saga settles what it can see. What was committed at the same moment is found here, now and then.
create function syncor.sweep_inputs(p_limit int default 200) returns int
language plpgsql
as $$
declare
  v_id    bigint;
  v_count int := 0;
begin
  for v_id in
    select i.id from syncor.input i join syncor.saga s on s.id = i.saga_id
     where s.finished_at is not null
     order by i.id limit p_limit for update of i skip locked
  loop
    perform syncor.settle_input(v_id);
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
comment on function syncor.sweep_inputs(int) is 'Settles what reached sagas too late; returns how many inputs that were';

-- What people call. session_user is the role that logged in, also within a function that runs with our rights.
create function syncor.cancel(saga uuid, reason text) returns uuid
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select syncor.order_as(session_user, 'cancel', cancel.saga, null, cancel.reason) $$;
comment on function syncor.cancel(uuid, text) is 'Orders that a saga is undone and ends as cancelled; returns the command';

create function syncor.pause(saga uuid, reason text) returns uuid
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select syncor.order_as(session_user, 'pause', pause.saga, null, pause.reason) $$;
comment on function syncor.pause(uuid, text) is 'Orders that a saga starts nothing new and its limits stand still; returns the command';

create function syncor.resume(saga uuid, reason text) returns uuid
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select syncor.order_as(session_user, 'resume', resume.saga, null, resume.reason) $$;
comment on function syncor.resume(uuid, text) is 'Orders that a paused saga goes on; returns the command';

create function syncor.abort(saga uuid, reason text) returns uuid
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select syncor.order_as(session_user, 'abort', abort.saga, null, abort.reason) $$;
comment on function syncor.abort(uuid, text) is 'Orders that a saga ends as it is, without undo; returns the command';

create function syncor.retry(saga uuid, step text default null, reason text default null) returns uuid
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select syncor.order_as(session_user, 'retry', retry.saga, retry.step, retry.reason) $$;
comment on function syncor.retry(uuid, text, text) is 'Orders that what failed, or one step, is tried again now; returns the command';

create function syncor.skip(saga uuid, step text default null, reason text default null) returns uuid
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select syncor.order_as(session_user, 'skip', skip.saga, skip.step, skip.reason) $$;
comment on function syncor.skip(uuid, text, text) is 'Orders that a step, or its undo, is left be; returns the command';

create function syncor.decide(task uuid, decision text, note text, output jsonb default null) returns uuid
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select syncor.decide_as(session_user, decide.task, decide.decision, decide.note, decide.output) $$;
comment on function syncor.decide(uuid, text, text, jsonb) is 'Decides about a human task; returns the command';

create function syncor.fork(saga uuid, from_step text, reason text) returns uuid
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select syncor.fork_as(session_user, fork.saga, fork.from_step, fork.reason) $$;
comment on function syncor.fork(uuid, text, text) is 'Starts an ended saga anew from a step, with what it had done before that; returns the command';

revoke all on all functions in schema syncor from public;
grant execute on function syncor.uuid7() to public;
