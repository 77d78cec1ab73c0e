//! The human tasks of a scenario.

use serde_json::{Value, json};

use super::record::{Published, Task, TaskStatus};
use super::world::World;
use crate::core::human::{NewTask, TaskKind};
use crate::core::machine::TaskChange;
use crate::core::outcome::Action;
use crate::core::saga::StepStatus;

impl World<'_> {
    /// What people are told of a task goes into the ledger as well.
    pub(super) fn publish_task(&mut self, kind: &str, seq: usize, reason: &str, task: &Value) {
        let step = json!({"name": self.definition.steps[seq].name, "context": null});
        let data = json!({"sagaId": self.record.saga.id, "definition": self.definition.id, "reason": reason, "step": step, "task": task});
        self.record.published.push(Published { kind: kind.to_owned(), topic: None, data });
    }

    pub(super) fn change_task(&mut self, change: TaskChange) {
        match change {
            TaskChange::Open(task) => {
                let told = json!({"kind": task.kind.as_str(), "queue": task.queue, "prompt": task.prompt, "assignee": task.assignee});
                self.publish_task("human.task.opened", task.seq, &task.reason, &told);
                let asks = task.prompt.as_deref().unwrap_or(&task.reason);
                let line = format!("opens a human task: {} ({asks})", task.kind.as_str());
                self.tell(&self.definition.steps[task.seq].name, line);
                let at = self.since_the_beginning();
                self.record.tasks.push(Task { task: *task, at, status: TaskStatus::Open, decided: None });
            }
            TaskChange::Withdraw { seq, kind } => {
                if let Some(index) = self.open_task(seq, |open| open == kind) {
                    self.record.tasks[index].status = TaskStatus::Withdrawn;
                    self.tell(&self.definition.steps[seq].name, format!("the task {} is withdrawn", kind.as_str()));
                }
            }
        }
    }

    /// A success that comes when the saga has ended is a question to people, as the database asks it.
    pub(super) fn tell_of_late_effect(&mut self, seq: usize, action: Action, ok: bool) {
        let done = self.record.saga.steps[seq].status == StepStatus::Succeeded;
        if !ok || action != Action::Do || done || self.open_task(seq, |kind| kind == TaskKind::LateEffect).is_some() {
            return;
        }
        let (name, state) = (&self.definition.steps[seq].name, self.record.saga.state.as_str());
        let task = NewTask {
            kind: TaskKind::LateEffect,
            seq,
            queue: self.definition.hitl.queue.clone(),
            reason: format!("{name} reported success after it had been given up, and the saga is {state}"),
            prompt: None,
            form: None,
            assignee: None,
            four_eyes: false,
            due_at: None,
        };
        self.change_task(TaskChange::Open(Box::new(task)));
    }

    /// The open task of a step, of a kind that will do.
    pub(super) fn open_task(&self, seq: usize, fits: impl Fn(TaskKind) -> bool) -> Option<usize> {
        self.record.tasks.iter().rposition(|task| task.status == TaskStatus::Open && task.task.seq == seq && fits(task.task.kind))
    }
}
