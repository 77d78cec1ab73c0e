//! What happened in a scenario.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::story::Moment;
use crate::core::definition::Definition;
use crate::core::human::NewTask;
use crate::core::outcome::Action;
use crate::core::saga::Saga;

/// Everything that happened, as far as anybody can expect something of it.
#[derive(Debug)]
pub struct Record {
    /// Why no saga started, if none did.
    pub why_not: Option<String>,
    /// The saga as it was left.
    pub saga: Saga,
    /// The calls in the order they were made.
    pub calls: Vec<Made>,
    /// Steps in the order they were undone.
    pub undone: Vec<usize>,
    /// Events in the order they were published.
    pub published: Vec<Published>,
    /// Human tasks in the order they were opened.
    pub tasks: Vec<Task>,
    /// What became of orders and decisions.
    pub commands: Vec<Command>,
    /// What happened when, for people.
    pub story: Vec<Moment>,
    /// From the beginning to the end of the saga, or to the last thing that happened to it.
    pub elapsed: Duration,
    /// Why the scenario could not be played to its end.
    pub broken: Option<String>,
}

/// A call that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Place of the step.
    pub seq: usize,
    /// Do, undo or verify.
    pub action: Action,
    /// What was sent; null where a child was started, or an event stands for the call.
    pub request: Value,
}

/// An event that was published.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its type.
    pub kind: String,
    /// Its topic, where it has one of its own.
    pub topic: Option<String>,
    /// Its data.
    pub data: Value,
}

/// A human task.
#[derive(Clone, Debug)]
pub struct Task {
    /// As it was opened.
    pub task: NewTask,
    /// What became of it.
    pub status: TaskStatus,
    /// Who decided, and how.
    pub decided: Option<(String, &'static str)>,
}

/// The words of `human_tasks.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// Nobody has decided.
    Open,
    /// Somebody has.
    Decided,
    /// Nobody need decide any more.
    Withdrawn,
}

/// What became of an order or a decision.
#[derive(Clone, Debug)]
pub struct Command {
    /// Place among the scenario's deeds.
    pub deed: usize,
    /// Why it was refused, if it was.
    pub refused: Option<String>,
}

impl Published {
    /// As scenarios write it.
    #[must_use]
    pub fn as_json(&self) -> Value {
        let mut fields = Map::from_iter([("type".to_owned(), Value::from(self.kind.as_str())), ("data".to_owned(), self.data.clone())]);
        if let Some(topic) = &self.topic {
            fields.insert("topic".to_owned(), Value::from(topic.as_str()));
        }
        if let Some(name) = self.data.get("step").and_then(|step| step.get("name")) {
            fields.insert("step".to_owned(), name.clone());
        }
        Value::Object(fields)
    }
}

impl Task {
    /// As scenarios write it.
    #[must_use]
    pub fn as_json(&self, definition: &Definition) -> Value {
        let status = match self.status {
            TaskStatus::Open => "open",
            TaskStatus::Decided => "decided",
            TaskStatus::Withdrawn => "withdrawn",
        };
        let NewTask { kind, seq, queue, reason, prompt, assignee, .. } = &self.task;
        let (by, decision) = self.decided.as_ref().map_or((None, None), |(by, decision)| (Some(by), Some(*decision)));
        json!({
            "kind": kind.as_str(), "step": definition.steps[*seq].name, "queue": queue, "reason": reason, "prompt": prompt,
            "assignee": assignee, "status": status, "decision": decision, "by": by,
        })
    }
}

impl Record {
    /// A step as scenarios write it.
    #[must_use]
    pub fn step(&self, seq: usize) -> Value {
        let step = &self.saga.steps[seq];
        let payload = |payload: Option<&crate::core::payload::Payload>| payload.map_or(Value::Null, |payload| payload.value().clone());
        json!({
            "status": step.status.as_str(), "compensation": step.compensation.as_str(), "attempts": step.attempts, "message": step.message,
            "error": step.error, "output": payload(step.output.as_ref()), "context": payload(step.undo_context()),
        })
    }
}
