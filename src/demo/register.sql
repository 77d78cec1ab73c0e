-- The agency's own systems, in one schema: who is insured, what they are paid, what they are told,
-- and which rule says so. Beside it the two tables that make a step service safe to call twice.
--
-- Everything is logged. Unlogged tables would save a second of the set-up and lose the story after
-- a crash: payments and notices are what the demo claims to keep.

create table made (
  claimants bigint not null,
  payments bigint not null,
  made_at timestamptz not null default now()
);
comment on table made is 'How large this demo was made';

create table register (
  claimant_id integer not null,
  region text not null,
  first_name text not null,
  last_name text not null
);
comment on table register is 'Everybody who must be told when a rule changes';

-- Half-filled pages leave room for the next version of each row beside it: a raise of all payments
-- is then done without touching the index.
create table payment (
  claimant_id integer not null,
  weekly_cents integer not null,
  updated_at timestamptz not null default now()
) with (fillfactor = 45);
comment on table payment is 'The weekly benefit of those who have one';

create table backup (
  id uuid primary key default gen_random_uuid(),
  do_key text not null unique,
  percent numeric not null,
  made_at timestamptz not null default now()
);
comment on table backup is 'One raise of payments that can still be taken back';

create table payment_backup (
  backup_id uuid not null,
  claimant_id integer not null,
  weekly_cents integer not null,
  primary key (backup_id, claimant_id)
);
comment on table payment_backup is 'What each payment was before a raise';

create table notice_batch (
  id integer primary key generated always as identity,
  do_key text not null unique,
  policy_id text not null,
  state text not null default 'queued' check (state in ('queued', 'cancelled')),
  notices bigint not null default 0,
  queued_at timestamptz not null default now(),
  cancelled_at timestamptz,
  check ((state = 'cancelled') = (cancelled_at is not null))
);
comment on table notice_batch is 'One broadcast; the sender skips the rows of a cancelled one';

-- No index and no foreign key: two million rows come at once and are read in one sweep. What is the
-- same for all of them is on the batch.
create table outbox_notice (
  batch_id integer not null,
  claimant_id integer not null
);
comment on table outbox_notice is 'A notice that waits to be sent';

create table rule (
  id text primary key,
  title text not null,
  document jsonb not null
);
comment on table rule is 'The rules in force';

create table rule_archive (
  id uuid primary key default gen_random_uuid(),
  do_key text not null unique,
  rule_id text not null references rule,
  snapshot jsonb not null,
  archived_at timestamptz not null default now()
);
comment on table rule_archive is 'Each rule as it was when a change of it was carried out';

create table handled (
  key text primary key,
  action text not null check (action in ('do', 'undo')),
  step text not null,
  reply jsonb,
  undone boolean not null default false,
  created_at timestamptz not null default now()
);
comment on table handled is 'One row per Idempotency-Key; the effect is in the same transaction';
comment on column handled.reply is 'What a repeat is answered; null where the do never landed';
comment on column handled.undone is 'This do was undone, or its undo came first: it is refused';

create table fence (
  key text primary key,
  highest bigint not null
);
comment on table fence is 'The highest Hms-Fence seen per saga, step and action';
