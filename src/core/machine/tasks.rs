//! What people are asked about a saga.

use super::{TaskChange, Turn};
use crate::core::definition::{StepKind, Work};
use crate::core::human::{NewTask, TaskKind};
use crate::core::saga::StepStatus;

impl Turn<'_> {
    /// Tells people of a step that fails, once. The saga does not wait for them.
    pub(super) fn tell_of_failure(&mut self, seq: usize) {
        // A person who says no knows, and a pivot in doubt is a question of its own.
        let is_human = matches!(self.definition.steps[seq].work, Work::Human(_)) && !self.saga.steps[seq].for_human;
        let in_doubt = self.definition.steps[seq].kind == StepKind::Pivot && self.saga.steps[seq].status == StepStatus::Unknown;
        if self.saga.steps[seq].task.is_none() && !is_human && !in_doubt {
            self.open_task(seq, TaskKind::StepFailed);
        }
    }

    /// Opens a task about a step that failed.
    pub(super) fn open_task(&mut self, seq: usize, kind: TaskKind) {
        let step = &mut self.saga.steps[seq];
        if step.task == Some(kind) {
            return;
        }
        if let Some(kind) = step.task.replace(kind) {
            self.result.tasks.push(TaskChange::Withdraw { seq, kind });
        }
        let task = self.task_about(seq, kind);
        self.result.tasks.push(TaskChange::Open(Box::new(task)));
        self.changed(seq);
    }

    /// What people are told about a step that failed.
    pub(super) fn task_about(&self, seq: usize, kind: TaskKind) -> NewTask {
        let (defined, step) = (&self.definition.steps[seq], &self.saga.steps[seq]);
        let error = step.error.as_deref().unwrap_or("no reason given");
        let reason = match kind {
            TaskKind::CompFailed => format!("the undo of {} failed for good: {error} (attempt {})", defined.name, step.undo_attempts),
            TaskKind::PivotUnknown => format!("nobody knows whether {} was done, and nothing can be undone if it was: {error}", defined.name),
            TaskKind::LateEffect => format!("{} reported success after it had been given up", defined.name),
            _ => format!("{} failed: {error} (attempt {} of {})", defined.name, step.attempts, defined.retry.attempts.max(step.attempts)),
        };
        NewTask {
            kind,
            seq,
            queue: self.definition.hitl.queue.clone(),
            reason,
            prompt: None,
            form: None,
            assignee: None,
            four_eyes: false,
            due_at: None,
        }
    }

    /// The open task of a step is void.
    pub(super) fn withdraw(&mut self, seq: usize) {
        if let Some(kind) = self.saga.steps[seq].task.take() {
            self.result.tasks.push(TaskChange::Withdraw { seq, kind });
            self.changed(seq);
        }
    }
}
