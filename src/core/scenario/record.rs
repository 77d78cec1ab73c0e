//! What happened in a scenario.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::story::Moment;
use crate::core::call::Sending;
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
    /// Attempts in the order they ended.
    pub finished: Vec<Finished>,
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
    /// Number of the attempt.
    pub number: u32,
    /// When, after the beginning.
    pub at: Duration,
    /// What was sent; null where a child was started, or an event stands for the call.
    pub request: Value,
}

/// An attempt that ended.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Place of the step.
    pub seq: usize,
    /// Do, undo or verify.
    pub action: Action,
    /// Its number.
    pub number: u32,
    /// When, after the beginning.
    pub at: Duration,
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
    /// When, after the beginning.
    pub at: Duration,
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

/// A request as scenarios write it, the line that tells of it, and the limit of the attempt.
pub(super) fn shown(sending: &Sending) -> (Value, String, Duration) {
    let document = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes)));
    match sending {
        Sending::Call(call) => {
            let headers: serde_json::Map<_, _> = call.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
            let request = json!({
                "service": call.service, "method": call.method, "path": call.path, "headers": headers, "body": document(&call.body),
            });
            (request, format!("{} {}:{}", call.method, call.service, call.path), call.timeout)
        }
        Sending::Function(call) => {
            let request = json!({"function": call.function, "body": document(call.argument.as_bytes())});
            (request, call.function.clone(), call.timeout)
        }
    }
}
