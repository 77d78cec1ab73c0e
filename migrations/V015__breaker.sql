-- Services that are held back: by a breaker, after they failed, or by hand.
--
-- A row exists only while calls are held back; all workers go by it. Closing a breaker deletes its row, so a table that is
-- empty, as it is nearly always, costs one look with each heartbeat. One probe at a time over the whole pool: whoever sets
-- probe_at ahead, which is an update that finds it in the past, may probe.

create table syncor.breaker (
  service   text not null primary key,
  state     text not null,
  failures  int  not null default 0,
  probes    int  not null default 0,
  opened_at timestamptz not null default now(),
  probe_at  timestamptz,
  prober    int,
  reason    text,
  by        text not null default session_user,
  constraint breaker_state_known check (state in ('open', 'paused')),
  constraint breaker_open_is_probed check ((probe_at is not null) = (state = 'open')),
  constraint breaker_prober_probes check (prober is null or state = 'open'),
  constraint breaker_name_size check (length(service) between 1 and 255),
  constraint breaker_reason_size check (length(reason) <= 1000)
);
comment on table syncor.breaker is 'Services that calls are held back from; no row means that calls go';
comment on column syncor.breaker.service is 'Name in the services registry';
comment on column syncor.breaker.state is 'open: probed until it answers; paused: held back until somebody resumes it';
comment on column syncor.breaker.failures is 'Calls that failed in a row when it was opened';
comment on column syncor.breaker.probes is 'Probes made since';
comment on column syncor.breaker.opened_at is 'Since when calls are held back';
comment on column syncor.breaker.probe_at is 'When the next probe may be made; while one is under way, when it is given up';
comment on column syncor.breaker.prober is 'The worker whose probe is under way';
comment on column syncor.breaker.reason is 'What went wrong last, or why somebody paused it';
comment on column syncor.breaker.by is 'The worker that opened it, or who paused it';

-- Workers look at least once a second while anything is held back; this only makes them faster. A probe is no reason to wake anybody.
create function syncor.wake_for_breaker() returns trigger
language plpgsql
as $$
begin
  if current_setting('max_prepared_transactions') = '0' and pg_notification_queue_usage() < 0.5 then
    notify syncor_wake;
  end if;
  return null;
end
$$;
comment on function syncor.wake_for_breaker() is 'Wakes sleeping workers when a service is held back or taken up again';
create trigger breaker_wakes after insert or delete or update of state on syncor.breaker
  for each statement execute function syncor.wake_for_breaker();

alter table syncor.command drop constraint command_kind_known;
alter table syncor.command add constraint command_kind_known check (kind in ('deploy', 'retire', 'token', 'cancel', 'pause', 'resume', 'abort',
  'retry', 'skip', 'fork', 'decide', 'service')) not valid;
alter table syncor.command validate constraint command_kind_known;

create or replace view syncor.services as
  select s.key as name, s.value ->> 'url' as url, coalesce(s.value ->> 'audience', s.key) as audience,
         case jsonb_typeof(s.value -> 'allow')
           when 'array' then array(select jsonb_array_elements_text(s.value -> 'allow'))
           when 'string' then array[s.value ->> 'allow']
           else '{}' end as allow, d.id as definition, d.deployed_at,
         case when b.state is null then 'closed'
              when b.prober is not null and b.probe_at > now() then 'probing'
              else b.state end as state,
         b.opened_at as held_since, b.probe_at, b.reason
    from syncor.definition d
    cross join lateral jsonb_each(d.source -> 'services') s
    left join syncor.breaker b on b.service = s.key
   where d.kind = 'services' and d.state = 'active';
comment on column syncor.services.state is 'closed: calls go; open: held back after failures; probing: held back, a probe is under way; paused: held back by hand';
comment on column syncor.services.held_since is 'Since when calls are held back';
comment on column syncor.services.probe_at is 'When the next probe may be made';
comment on column syncor.services.reason is 'What went wrong last, or why somebody paused it';

revoke all on syncor.breaker from public;
revoke all on function syncor.wake_for_breaker() from public;
