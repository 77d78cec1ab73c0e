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
