-- Orders of people, and the keys that people and services are known by.

create table syncor.command (
  id           uuid primary key default syncor.uuid7(),
  kind         text not null,
  saga_id      uuid,
  target       text,
  reason       text,
  requested_by text not null default session_user,
  requested_at timestamptz not null default now(),
  status       text not null default 'pending',
  result       text,
  settled_at   timestamptz,
  constraint command_kind_known check (kind in ('deploy', 'retire', 'token', 'cancel', 'pause', 'resume', 'abort', 'retry', 'skip', 'fork', 'decide')),
  constraint command_status_known check (status in ('pending', 'applied', 'refused')),
  constraint command_settled_has_time check ((status = 'pending') = (settled_at is null)),
  constraint command_refusal_explains check (status <> 'refused' or result is not null)
);
comment on table syncor.command is 'Orders: who, when, why, applied or refused';
comment on column syncor.command.id is 'Identity; sorts by time';
comment on column syncor.command.kind is 'What was ordered';
comment on column syncor.command.saga_id is 'The saga it is about';
comment on column syncor.command.target is 'What it is about otherwise: a definition, a step, a key';
comment on column syncor.command.reason is 'Why';
comment on column syncor.command.requested_by is 'The database role, or the API key';
comment on column syncor.command.requested_at is 'When';
comment on column syncor.command.status is 'pending, applied or refused';
comment on column syncor.command.result is 'What came of it';
comment on column syncor.command.settled_at is 'When it was applied or refused';

create function syncor.guard_command() returns trigger
language plpgsql
as $$
begin
  raise exception 'command % is %: it never changes again', old.id, old.status using errcode = 'insufficient_privilege';
end
$$;
comment on function syncor.guard_command() is 'Keeps settled commands as they are';
create trigger command_settled_is_final before update on syncor.command
  for each row when (old.status <> 'pending') execute function syncor.guard_command();
create trigger command_kept before delete on syncor.command
  for each row execute function syncor.guard_command();

create table syncor.api_key (
  id         text primary key,
  digest     bytea not null unique,
  role       text not null,
  name       text not null,
  created_at timestamptz not null default now(),
  created_by text not null default session_user,
  expires_at timestamptz,
  revoked_at timestamptz,
  constraint api_key_role_known check (role in ('viewer', 'publisher', 'operator', 'admin')),
  constraint api_key_digest_size check (octet_length(digest) = 32)
);
comment on table syncor.api_key is 'Keys of HTTP clients; the key itself is never stored';
comment on column syncor.api_key.id is 'The public part of the key';
comment on column syncor.api_key.digest is 'SHA-256 of the whole key';
comment on column syncor.api_key.role is 'viewer, publisher, operator or admin';
comment on column syncor.api_key.name is 'Who or what uses it';
comment on column syncor.api_key.created_at is 'When it was made';
comment on column syncor.api_key.created_by is 'Who made it';
comment on column syncor.api_key.expires_at is 'When it stops working';
comment on column syncor.api_key.revoked_at is 'When it was withdrawn';

create table syncor.signing_key (
  kid      text primary key,
  jwk      jsonb not null,
  seen_at  timestamptz not null default now(),
  added_at timestamptz not null default now()
);
comment on table syncor.signing_key is 'Public halves of the keys that sign step tokens';
comment on column syncor.signing_key.kid is 'RFC 7638 thumbprint';
comment on column syncor.signing_key.jwk is 'The public key as a JWK';
comment on column syncor.signing_key.seen_at is 'Last time a worker said that it signs with it';
comment on column syncor.signing_key.added_at is 'When a worker first signed with it';
