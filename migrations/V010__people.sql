-- Human tasks: what people are asked, and what they decided.
--
-- A task is opened and withdrawn by the worker of its saga, in the write that needs or no longer needs an answer; it is decided by
-- syncor.decide_as, which takes the row's lock: of two officers one decides, the other is told who did.

create table syncor.task (
  id         uuid primary key default syncor.uuid7(),
  saga_id    uuid,
  seq        smallint,
  step       text,
  kind       text not null,
  queue      text not null default 'default',
  reason     text not null,
  prompt     text,
  form       jsonb,
  assignee   text,
  four_eyes  boolean not null default false,
  status     text not null default 'open',
  due_at     timestamptz,
  decision   text,
  decided_by text,
  note       text,
  output     jsonb,
  opened_at  timestamptz not null default now(),
  decided_at timestamptz,
  family     text,
  constraint task_kind_known check (kind in ('approval', 'policy', 'step_failed', 'comp_failed', 'pivot_unknown', 'late_effect',
    'consecutive_failures')),
  constraint task_status_known check (status in ('open', 'decided', 'withdrawn')),
  constraint task_decided_whole check ((status = 'decided') = (decided_at is not null)
    and (status = 'decided') = (decision is not null) and (status = 'decided') = (decided_by is not null))
);
create unique index task_open_idx on syncor.task (saga_id, seq, kind) where status = 'open';
create unique index task_open_family_idx on syncor.task (family, kind) where status = 'open' and family is not null;
create index task_saga_idx on syncor.task (saga_id);
create index task_queue_idx on syncor.task (queue, opened_at) where status = 'open';
comment on table syncor.task is 'Questions to people; read them through syncor.human_tasks';
comment on column syncor.task.id is 'Identity; sorts by time';
comment on column syncor.task.saga_id is 'The saga that it is about';
comment on column syncor.task.seq is 'The step that it is about, by its place';
comment on column syncor.task.step is 'That step''s name';
comment on column syncor.task.kind is 'Why it exists: approval, policy, step_failed, comp_failed, pivot_unknown, late_effect or consecutive_failures';
comment on column syncor.task.queue is 'Where it is asked';
comment on column syncor.task.reason is 'What happened, in one line';
comment on column syncor.task.prompt is 'The question';
comment on column syncor.task.form is 'What an approval must fill in: a JSON Schema';
comment on column syncor.task.assignee is 'Whom it is meant for';
comment on column syncor.task.four_eyes is 'Whether the publisher of the event may not decide it';
comment on column syncor.task.status is 'open, decided or withdrawn';
comment on column syncor.task.due_at is 'When the question is given up, as of its opening';
comment on column syncor.task.decision is 'What was decided';
comment on column syncor.task.decided_by is 'By whom: the database role, or the API key';
comment on column syncor.task.note is 'Why';
comment on column syncor.task.output is 'What the form was filled in with, or what the step is to have answered';
comment on column syncor.task.opened_at is 'When it was opened';
comment on column syncor.task.decided_at is 'When it was decided';
comment on column syncor.task.family is 'For consecutive_failures: the family of definitions';

create table syncor.streak (
  family   text primary key,
  failures int not null default 0,
  since    timestamptz not null default now(),
  constraint streak_counts check (failures >= 0)
) with (fillfactor = 50);
comment on table syncor.streak is 'How many sagas of a family failed one after the other';
comment on column syncor.streak.family is 'Definition id without its version';
comment on column syncor.streak.failures is 'Failures since the last one that completed';
comment on column syncor.streak.since is 'When the first of them failed';

create view syncor.human_tasks as
  select k.id, k.saga_id, k.step, k.kind, k.queue, k.reason, k.prompt, k.form, k.status, k.assignee,
         -- A pause moves the limit of the step, not the task's row.
         case when k.status = 'open' and k.kind = 'approval' then coalesce(t.wait_until, k.due_at) else k.due_at end as due_at,
         k.decision, k.decided_by, k.note, k.output, k.opened_at, k.decided_at
    from syncor.task k
    left join syncor.step t on t.saga_id = k.saga_id and t.seq = k.seq;
comment on view syncor.human_tasks is 'What people are asked, and what they decided';
comment on column syncor.human_tasks.id is 'Identity; sorts by time';
comment on column syncor.human_tasks.saga_id is 'The saga that it is about';
comment on column syncor.human_tasks.step is 'The step that it is about';
comment on column syncor.human_tasks.kind is 'Why it exists: approval, policy, step_failed, comp_failed, pivot_unknown, late_effect or consecutive_failures';
comment on column syncor.human_tasks.queue is 'Where it is asked';
comment on column syncor.human_tasks.reason is 'What happened, in one line';
comment on column syncor.human_tasks.prompt is 'The question';
comment on column syncor.human_tasks.form is 'What an approval must fill in: a JSON Schema';
comment on column syncor.human_tasks.status is 'open, decided or withdrawn';
comment on column syncor.human_tasks.assignee is 'Whom it is meant for';
comment on column syncor.human_tasks.due_at is 'When the question is given up';
comment on column syncor.human_tasks.decision is 'What was decided';
comment on column syncor.human_tasks.decided_by is 'By whom: the database role, or the API key';
comment on column syncor.human_tasks.note is 'Why';
comment on column syncor.human_tasks.output is 'What the form was filled in with, or what the step is to have answered';
comment on column syncor.human_tasks.opened_at is 'When it was opened';
comment on column syncor.human_tasks.decided_at is 'When it was decided';

revoke all on syncor.task, syncor.streak, syncor.human_tasks from public;
