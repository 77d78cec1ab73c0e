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

revoke all on syncor.callback from public;
