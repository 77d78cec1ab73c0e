-- What people and programs read and call. The tables behind may change; these names and columns stay.

create view syncor.sagas with (security_barrier = false) as
  select s.id, d.id as definition, d.family, d.version, s.state, s.clean,
         case
           when s.finished_at is not null then null
           when s.waiting_for is not null then s.waiting_for
           when s.owner is null then 'worker'
           else null
         end as waiting_for,
         coalesce(s.next_due, (select min(t.due_at) from syncor.step t where t.saga_id = s.id and s.finished_at is null)) as wake_at, s.event_id, s.parent_id, s.correlation_id,
         (select e.data from syncor.events e where e.id = s.event_id and e.created_at = s.event_at) as data,
         null::text[] as lock_keys, coalesce(s.dedupe_key, s.event_id::text) as dedupe_key, s.reason,
         (select c.kind from syncor.command c where c.saga_id = s.id and c.status = 'pending' order by c.id limit 1) as pending_command,
         w.id as worker_id, s.started_at, s.finished_at,
         (extract(epoch from coalesce(s.finished_at, now()) - s.started_at) * 1000)::bigint as duration_ms
    from syncor.saga s
    join syncor.definition d on d.no = s.definition_no
    left join syncor.worker w on w.no = s.owner;
comment on view syncor.sagas is 'Instances of saga definitions';
comment on column syncor.sagas.id is 'Identity; sorts by start';
comment on column syncor.sagas.definition is 'Full id of the definition';
comment on column syncor.sagas.family is 'The id without .vN';
comment on column syncor.sagas.version is 'The N of .vN';
comment on column syncor.sagas.state is 'pending, lock_wait, running, hitl, draining, compensating, comp_failed, paused, aborting; then completed, failed, cancelled, aborted or rejected';
comment on column syncor.sagas.clean is 'Whether everything that was done, if it was to be undone, was';
comment on column syncor.sagas.waiting_for is 'What it waits for; null while a call is under way or when it is done';
comment on column syncor.sagas.wake_at is 'When it goes on, where that is known';
comment on column syncor.sagas.event_id is 'The event that started it';
comment on column syncor.sagas.parent_id is 'The saga that it is a step of';
comment on column syncor.sagas.correlation_id is 'The event''s correlation id';
comment on column syncor.sagas.data is 'The event''s data';
comment on column syncor.sagas.lock_keys is 'Keys of the object locks it holds';
comment on column syncor.sagas.dedupe_key is 'One saga per family and this key';
comment on column syncor.sagas.reason is 'Why it was undone or refused';
comment on column syncor.sagas.pending_command is 'An order that is not applied yet';
comment on column syncor.sagas.worker_id is 'The worker that runs it';
comment on column syncor.sagas.started_at is 'When it was started';
comment on column syncor.sagas.finished_at is 'When it reached its final state';
comment on column syncor.sagas.duration_ms is 'How long it took, or has taken so far, milliseconds';

create view syncor.steps as
  select s.id as saga_id, n.seq, n.name,
         case when t.status is not null then t.status
              when s.finished_at is null then 'pending'
              when s.state = 'completed' then 'skipped'
              else 'cancelled' end as status,
         coalesce(t.compensation, 'none') as compensation,
         coalesce(t.attempts, 0) as attempts,
         a.output,
         coalesce(a.context, case when jsonb_typeof(a.output -> 'context') = 'object' then a.output -> 'context' else a.output end) as context,
         null::jsonb as progress, t.message, t.error, t.started_at, t.finished_at
    from syncor.saga s
    join syncor.definition d on d.no = s.definition_no
    cross join lateral (
      select (i.ordinality - 1)::smallint as seq, i.value ->> 'name' as name
        from jsonb_array_elements(d.source -> 'steps') with ordinality i
    ) n
    left join syncor.step t on t.saga_id = s.id and t.seq = n.seq
    left join syncor.attempt a on a.saga_id = s.id and a.seq = n.seq and a.action = 'do' and a.attempt = t.attempts and a.outcome = 'succeeded';
comment on view syncor.steps is 'Steps of sagas, begun or not';
comment on column syncor.steps.saga_id is 'The saga';
comment on column syncor.steps.seq is 'Place in the definition, from 0';
comment on column syncor.steps.name is 'Name in the definition';
comment on column syncor.steps.status is 'pending, running, waiting, backoff, succeeded, failed, unknown, skipped or cancelled';
comment on column syncor.steps.compensation is 'none, pending, compensating, waiting, backoff, compensated, failed, skipped or not_needed';
comment on column syncor.steps.attempts is 'Calls made to do it';
comment on column syncor.steps.output is 'The reply''s body';
comment on column syncor.steps.context is 'What the undo is given';
comment on column syncor.steps.progress is 'How far a long step has come';
comment on column syncor.steps.message is 'What the service had to say';
comment on column syncor.steps.error is 'What went wrong last';
comment on column syncor.steps.started_at is 'When its first call was committed to';
comment on column syncor.steps.finished_at is 'When its status became final';

create view syncor.attempts as
  select a.saga_id, coalesce(t.name, a.seq::text) as step, a.action, a.attempt, a.fence, a.outcome, a.http_status, a.error,
         w.id as worker_id, a.started_at, a.finished_at
    from syncor.attempt a
    left join syncor.step t on t.saga_id = a.saga_id and t.seq = a.seq
    left join syncor.worker w on w.no = a.worker
  union all
  select t.saga_id, t.name, case when t.status = 'running' then 'do' else 'undo' end,
         case when t.status = 'running' then t.attempts else t.undo_attempts end,
         t.fence, null, null, null, w.id, t.called_at, null
    from syncor.step t
    join syncor.saga s on s.id = t.saga_id
    left join syncor.worker w on w.no = s.owner
   where t.status = 'running' or t.compensation = 'compensating';
comment on view syncor.attempts is 'Every call: the finished ones, and those under way';
comment on column syncor.attempts.saga_id is 'The saga';
comment on column syncor.attempts.step is 'The step';
comment on column syncor.attempts.action is 'do or undo';
comment on column syncor.attempts.attempt is 'Number of the attempt, from 1';
comment on column syncor.attempts.fence is 'The fence the call carried';
comment on column syncor.attempts.outcome is 'succeeded, failed, unknown, lost; null while under way';
comment on column syncor.attempts.http_status is 'Status of the reply, where one came';
comment on column syncor.attempts.error is 'What went wrong';
comment on column syncor.attempts.worker_id is 'The worker that recorded it';
comment on column syncor.attempts.started_at is 'When the call was committed to';
comment on column syncor.attempts.finished_at is 'When the outcome was recorded';

create view syncor.commands as
  select id, kind, saga_id, target, reason, requested_by, requested_at, status, result, settled_at from syncor.command;
comment on view syncor.commands is 'Orders: who, when, why, applied or refused';
comment on column syncor.commands.id is 'Identity';
comment on column syncor.commands.kind is 'What was ordered';
comment on column syncor.commands.saga_id is 'The saga it is about';
comment on column syncor.commands.target is 'What it is about otherwise';
comment on column syncor.commands.reason is 'Why';
comment on column syncor.commands.requested_by is 'The database role, or the API key';
comment on column syncor.commands.requested_at is 'When';
comment on column syncor.commands.status is 'pending, applied or refused';
comment on column syncor.commands.result is 'What came of it';
comment on column syncor.commands.settled_at is 'When it was applied or refused';

create view syncor.definitions as
  select d.id, d.kind, d.family, d.version, d.revision, d.state, d.source, d.deployed_at, d.deployed_by, d.retired_at
    from syncor.definition d;
comment on view syncor.definitions is 'Deployed files, one row per revision';
comment on column syncor.definitions.id is 'Full id';
comment on column syncor.definitions.kind is 'saga or services';
comment on column syncor.definitions.family is 'The id without .vN';
comment on column syncor.definitions.version is 'The N of .vN';
comment on column syncor.definitions.revision is 'SHA-256 of the meaning of the file';
comment on column syncor.definitions.state is 'active or retired';
comment on column syncor.definitions.source is 'The file as JSON';
comment on column syncor.definitions.deployed_at is 'When it was deployed';
comment on column syncor.definitions.deployed_by is 'Who deployed it';
comment on column syncor.definitions.retired_at is 'When it stopped starting sagas';

create view syncor.services as
  select s.key as name, s.value ->> 'url' as url, coalesce(s.value ->> 'audience', s.key) as audience,
         case jsonb_typeof(s.value -> 'allow')
           when 'array' then array(select jsonb_array_elements_text(s.value -> 'allow'))
           when 'string' then array[s.value ->> 'allow']
           else '{}' end as allow, d.id as definition, d.deployed_at
    from syncor.definition d
    cross join lateral jsonb_each(d.source -> 'services') s
   where d.kind = 'services' and d.state = 'active';
comment on view syncor.services is 'The places that calls can go to';
comment on column syncor.services.name is 'Name in saga files';
comment on column syncor.services.url is 'Base address';
comment on column syncor.services.audience is 'Who the step tokens are for';
comment on column syncor.services.allow is 'Networks that may be reached although they are loopback, private or link-local';
comment on column syncor.services.definition is 'The file it is from';
comment on column syncor.services.deployed_at is 'When it was deployed';

create view syncor.workers as
  select w.id, w.host, w.pid, w.version, w.slots, w.slots_used,
         case when w.died_at is not null then 'dead'
              when w.stopped_at is not null then 'stopped'
              when w.beat_at < now() - make_interval(secs => w.lease_ms / 1000.0) then 'silent'
              else 'alive' end as state,
         (select count(*) from syncor.saga s where s.owner = w.no and s.finished_at is null) as sagas,
         w.beat_at, w.started_at, coalesce(w.stopped_at, w.died_at) as ended_at
    from syncor.worker w;
comment on view syncor.workers is 'Worker processes, living and gone';
comment on column syncor.workers.id is 'Fresh at every start';
comment on column syncor.workers.host is 'Host name';
comment on column syncor.workers.pid is 'Process id on that host';
comment on column syncor.workers.version is 'Version of the program';
comment on column syncor.workers.slots is 'Calls it may have in flight';
comment on column syncor.workers.slots_used is 'Calls in flight at the last beat';
comment on column syncor.workers.state is 'alive, silent, stopped or dead';
comment on column syncor.workers.sagas is 'Sagas that it owns';
comment on column syncor.workers.beat_at is 'Last heartbeat';
comment on column syncor.workers.started_at is 'When it started';
comment on column syncor.workers.ended_at is 'When it stopped or was declared dead';

create view syncor.signing_keys as select kid, jwk, added_at, seen_at from syncor.signing_key;
comment on view syncor.signing_keys is 'Public keys that step tokens verify with';
comment on column syncor.signing_keys.kid is 'RFC 7638 thumbprint';
comment on column syncor.signing_keys.jwk is 'The public key as a JWK';
comment on column syncor.signing_keys.added_at is 'When a worker first signed with it';
comment on column syncor.signing_keys.seen_at is 'Last time a worker said that it signs with it';

create function syncor.emit(type text, data jsonb default '{}', topic text default 'default', subject text default null,
                            correlation_id text default null, dedupe_key text default null, source text default null)
returns uuid
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  v_id uuid;
begin
  insert into syncor.events (type, data, topic, subject, correlation_id, dedupe_key, source)
  values (emit.type, coalesce(emit.data, '{}'), coalesce(emit.topic, 'default'), emit.subject, emit.correlation_id, emit.dedupe_key,
          coalesce(emit.source, session_user))
  returning events.id into v_id;
  if v_id is null then
    select k.event_id into v_id from syncor.event_key k
     where k.source = coalesce(emit.source, session_user) and k.key = emit.dedupe_key;
  end if;
  return v_id;
end
$$;
comment on function syncor.emit(text, jsonb, text, text, text, text, text) is
  'Publishes an event in the caller''s transaction and returns its id; a repeat with the same dedupe key returns the first id';

-- Looks into tables that its callers may not read, and says nothing that the views do not.
create function syncor.why(id uuid) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  v_saga  record;
  v_step  record;
  v_event record;
  v_note  text;
  v_count bigint;
begin
  select s.*, d.id as definition into v_saga from syncor.saga s join syncor.definition d on d.no = s.definition_no where s.id = why.id;
  if found then
    if v_saga.finished_at is not null then
      return format('%s is %s since %s%s', v_saga.definition, v_saga.state, to_char(v_saga.finished_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'),
                    coalesce(': ' || v_saga.reason, ''));
    end if;
    select t.* into v_step from syncor.step t where t.saga_id = why.id
       and (t.status in ('running', 'backoff', 'waiting') or t.compensation in ('compensating', 'backoff', 'waiting', 'failed'))
     order by t.compensation = 'none', t.seq desc limit 1;
    if v_saga.state = 'comp_failed' then
      return format('%s waits for a human: the undo of %s failed for good (%s)', v_saga.definition, v_step.name, coalesce(v_step.error, 'no reason given'));
    end if;
    if v_saga.owner is null and (v_saga.next_due is null or v_saga.next_due <= now()) then
      select count(*) into v_count from syncor.worker w
       where w.died_at is null and w.stopped_at is null and w.beat_at > now() - make_interval(secs => w.lease_ms / 1000.0);
      return case v_count when 0 then format('%s waits for a worker: none is running; start one with `hms-orch up`', v_saga.definition)
                          else format('%s waits for a worker: all %s are busy', v_saga.definition, v_count) end;
    end if;
    if v_step.name is null then
      return format('%s is %s', v_saga.definition, v_saga.state);
    end if;
    if v_step.compensation = 'backoff' or v_step.status = 'backoff' then
      return format('%s waits until %s for attempt %s to %s %s: the last one failed (%s)', v_saga.definition,
                    to_char(v_step.due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'),
                    case when v_step.compensation = 'backoff' then v_step.undo_attempts + 1 else v_step.attempts + 1 end,
                    case when v_step.compensation = 'backoff' then 'undo' else 'do' end, v_step.name, coalesce(v_step.error, 'no reason given'));
    end if;
    return format('%s waits for the reply to attempt %s to %s %s, called %s s ago', v_saga.definition,
                  case when v_step.compensation = 'none' then v_step.attempts else v_step.undo_attempts end,
                  case when v_step.compensation = 'none' then 'do' else 'undo' end, v_step.name,
                  round(extract(epoch from now() - v_step.called_at)));
  end if;

  select e.* into v_event from syncor.events e where e.id = why.id limit 1;
  if not found then
    return format('no saga and no event has the id %s', why.id);
  end if;
  select count(*) into v_count from syncor.saga s where s.event_id = why.id;
  if v_count > 0 then
    return format('event %s started %s', v_event.type, (select string_agg(s.definition || ' (' || s.state || ')', ', ') from syncor.sagas s where s.event_id = why.id));
  end if;
  select n.note into v_note from syncor.event_note n where n.event_id = why.id;
  if v_note is not null then
    return format('event %s started nothing: %s', v_event.type, v_note);
  end if;
  if not exists (select from syncor.definition d where d.kind = 'saga' and d.state = 'active'
                  and (d.source -> 'trigger' = to_jsonb(v_event.type) or d.source -> 'trigger' @> jsonb_build_array(v_event.type))) then
    return format('event %s started nothing: no active definition has the trigger %s', v_event.type, v_event.type);
  end if;
  if not pg_visible_in_snapshot(v_event.tx, (select c.done from syncor.cursor c order by c.seq desc limit 1)) then
    return format('event %s is not routed yet: %s', v_event.type,
      case when exists (select from syncor.worker w where w.died_at is null and w.stopped_at is null and w.beat_at > now() - make_interval(secs => w.lease_ms / 1000.0))
           then 'the router will reach it shortly' else 'no worker is running; start one with `hms-orch up`' end);
  end if;
  return format('event %s started nothing: when it was routed no active definition matched it', v_event.type);
end
$$;
comment on function syncor.why(uuid) is 'One sentence: why this saga waits, or why this event started nothing';

revoke all on all tables in schema syncor from public;
revoke all on all functions in schema syncor from public;
grant execute on function syncor.uuid7() to public;
