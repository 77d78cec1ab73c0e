-- Definitions: what people deployed. A revision never changes; activating and retiring is all that happens to it.

create table syncor.definition (
  no           int generated always as identity primary key,
  kind         text not null,
  id           text not null,
  family       text not null,
  version      int  not null,
  revision     text not null,
  source       jsonb not null,
  state        text not null default 'active',
  deployed_at  timestamptz not null default now(),
  deployed_by  text not null default session_user,
  retired_at   timestamptz,
  constraint definition_kind_known check (kind in ('saga', 'services')),
  constraint definition_state_known check (state in ('active', 'retired')),
  constraint definition_retired_has_time check ((state = 'retired') = (retired_at is not null)),
  constraint definition_revision_once unique (kind, id, revision)
);
create unique index definition_active_idx on syncor.definition (kind, id) where state = 'active';

comment on table syncor.definition is 'Deployed files, one row per revision';
comment on column syncor.definition.no is 'Short number that sagas are pinned to';
comment on column syncor.definition.kind is 'saga or services';
comment on column syncor.definition.id is 'Full id, such as dol.benefit.increase.v1';
comment on column syncor.definition.family is 'The id without .vN';
comment on column syncor.definition.version is 'The N of .vN';
comment on column syncor.definition.revision is 'SHA-256 of the meaning of the file';
comment on column syncor.definition.source is 'The file as JSON';
comment on column syncor.definition.state is 'active: starts sagas; retired: only finishes those it started';
comment on column syncor.definition.deployed_at is 'When it was deployed';
comment on column syncor.definition.deployed_by is 'The database role, or the API key, that deployed it';
comment on column syncor.definition.retired_at is 'When it stopped starting sagas';

create table syncor.catalog (
  one      boolean primary key default true check (one),
  revision bigint not null
);
insert into syncor.catalog (revision) values (1);
comment on table syncor.catalog is 'One row: rises with every change of the definitions, so that workers notice';
comment on column syncor.catalog.one is 'Always true';
comment on column syncor.catalog.revision is 'Number of changes so far';

create function syncor.guard_definition() returns trigger
language plpgsql
as $$
begin
  if tg_op = 'DELETE' then
    raise exception 'definition % is kept: sagas are pinned to it', old.id
      using errcode = 'insufficient_privilege', hint = 'retire it instead';
  end if;
  if (new.no, new.kind, new.id, new.family, new.version, new.revision, new.source, new.deployed_at, new.deployed_by)
     is distinct from (old.no, old.kind, old.id, old.family, old.version, old.revision, old.source, old.deployed_at, old.deployed_by) then
    raise exception 'revision % of % never changes', left(old.revision, 12), old.id
      using errcode = 'insufficient_privilege', hint = 'deploy the changed file: it becomes a new revision';
  end if;
  return new;
end
$$;
comment on function syncor.guard_definition() is 'Keeps revisions immutable';
create trigger definition_immutable before update or delete on syncor.definition
  for each row execute function syncor.guard_definition();

create function syncor.bump_catalog() returns trigger
language plpgsql
as $$
begin
  update syncor.catalog set revision = revision + 1;
  -- Deploying is rare: it always wakes, so that new definitions are read at once.
  if current_setting('max_prepared_transactions') = '0' and pg_notification_queue_usage() < 0.5 then
    notify syncor_wake;
  end if;
  return null;
end
$$;
comment on function syncor.bump_catalog() is 'Tells the workers that definitions changed';
create trigger definition_changed after insert or update on syncor.definition
  for each statement execute function syncor.bump_catalog();
