//! What became of one attempt. A value, never an error: a step that fails is this program's daily work.

use std::time::Duration;

use super::payload::Payload;

/// Whether an attempt does a step or undoes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// The step's `call`.
    Do,
    /// The step's `compensate`.
    Undo,
    /// The step's `verify`: what became of it?
    Verify,
}

impl Action {
    /// The word used in SQL, JSON and idempotency keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
            Self::Verify => "verify",
        }
    }
}

/// The result of one attempt, as `dispatch` reports it and `machine` judges it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What is known about the effect.
    pub class: Class,
    /// The HTTP status, where a reply came.
    pub status: Option<u16>,
    /// The reply's `message`, shown to people.
    pub message: Option<String>,
    /// The reply's body as JSON, where the attempt succeeded and there was one.
    pub output: Option<Payload>,
    /// What the compensation will be given; `None` for the whole output.
    pub context: Option<Payload>,
    /// What went wrong, in one line, for an attempt that did not succeed.
    pub error: Option<String>,
    /// The service's own wish for the next attempt (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// Not held against the step: its service is known to be down, or still at work.
    pub free: bool,
}

/// What is known about the effect of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 2xx: done.
    Succeeded,
    /// An answered refusal that another attempt may change (408, 425, 429, 5xx but 502 and 504), or a call that was never sent.
    Failed,
    /// An answered refusal for good (3xx, other 4xx), or an expression of the definition that failed.
    Refused,
    /// The effect may or may not have happened: timeout, reset after sending, 502, 504, an unusable reply.
    Unknown,
    /// The worker that made the call is gone: unknown, and the attempt is not held against the step.
    Lost,
    /// 202 of an asynchronous step: a callback will tell.
    Accepted,
    /// Nothing was sent, because its service is parked: ask again after `retry_after`. No attempt.
    Parked,
    /// The answer to a `verify`: it was not done.
    NotDone,
}

impl Outcome {
    /// An outcome with nothing but its class and the reason for it.
    #[must_use]
    pub fn without_reply(class: Class, error: impl Into<String>) -> Self {
        Self { class, status: None, message: None, output: None, context: None, error: Some(error.into()), retry_after: None, free: false }
    }

    /// A success without a reply: a timer that rang, an event that came.
    #[must_use]
    pub fn success(output: Option<Payload>) -> Self {
        Self { class: Class::Succeeded, status: None, message: None, output, context: None, error: None, retry_after: None, free: false }
    }

    /// The word kept in `attempts.outcome`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self.class {
            Class::Succeeded => "succeeded",
            Class::Accepted | Class::Parked => "pending",
            Class::Failed | Class::Refused | Class::NotDone => "failed",
            Class::Unknown => "unknown",
            Class::Lost => "lost",
        }
    }
}
