//! A step as it is written: what it does, how it is tried, what undoes it.

use std::time::Duration;

use serde_json::Value;

use super::Match;
use crate::core::expression::Expression;
use crate::core::outcome::Action;
use crate::core::template::{BodyTemplate, Template};

/// A unit of work with its undo.
#[derive(Debug)]
pub struct Step {
    /// Unique within the saga: `recalc_payments`.
    pub name: String,
    /// What it does.
    pub work: Work,
    /// Asked before it begins; false leaves it out. Absent means yes.
    pub when: Option<Expression>,
    /// Its place on the road of no return.
    pub kind: StepKind,
    /// What the compensation is given; absent means the reply's `context` object, else its whole body.
    pub context: Option<Vec<(String, Expression)>>,
    /// How often and how fast to try again.
    pub retry: Retry,
    /// Limit of one attempt of a call or function; for an asynchronous call, until its callback.
    pub timeout: Duration,
    /// Limit of the whole step, retries and all.
    pub deadline: Option<Duration>,
    /// Answers 202 and reports its end by a callback.
    pub asynchronous: bool,
    /// Longest silence between two heartbeats of an asynchronous step.
    pub heartbeat_timeout: Option<Duration>,
    /// Asked when nobody knows whether it was done.
    pub verify: Option<Verify>,
    /// What happens when its attempts are used up.
    pub on_exhausted: OnExhausted,
    /// How to undo it.
    pub compensate: Option<Compensate>,
    /// Outcomes that are undone.
    pub compensate_on: CompensateOn,
}

/// What a step does.
#[expect(clippy::large_enum_variant, reason = "made once for each revision, and never moved")]
#[derive(Debug)]
pub enum Work {
    /// `call`: an HTTP call.
    Call(Call),
    /// `sql`: a function of the database, in one transaction with its outcome.
    Sql(Sql),
    /// `emit`: publishes an event.
    Emit(Emit),
    /// `wait`: for an event.
    Wait(Wait),
    /// `delayMs`: for a time.
    Delay(Duration),
    /// `until`: for a point in time; the expression gives a timestamp, or text in RFC 3339.
    Until(Expression),
    /// `human`: for a person's decision.
    Human(Human),
    /// `saga`: runs another saga, named by its full id, with the same event.
    Saga(String),
}

/// `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Can be undone, as far as it says how.
    Plain,
    /// The point of no return: once it succeeded nothing is cancelled or undone any more.
    Pivot,
    /// Comes after the pivot and must succeed in the end.
    Retriable,
}

/// A function of the database: `schema.name`, from jsonb to jsonb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sql {
    /// As registered under `functions`.
    pub function: String,
}

/// An event to publish.
#[derive(Debug)]
pub struct Emit {
    /// Its type.
    pub kind: String,
    /// Its topic; `default` unless said.
    pub topic: Option<Template>,
    /// Its data; that of the saga's event unless said.
    pub data: Option<BodyTemplate>,
}

/// An event to wait for.
#[derive(Debug)]
pub struct Wait {
    /// The event's type.
    pub event: String,
    /// Which of those; absent means any.
    pub matching: Option<Match>,
    /// How long; absent means for ever.
    pub timeout: Option<Duration>,
    /// What then.
    pub on_timeout: Otherwise,
}

/// A decision to wait for.
#[derive(Debug)]
pub struct Human {
    /// The question.
    pub prompt: Template,
    /// Where it is asked; the saga's `hitl.queue` unless said.
    pub queue: Option<String>,
    /// What an approval must fill in: a JSON Schema.
    pub form: Option<Value>,
    /// Whom it is meant for.
    pub assignee: Option<Template>,
    /// Whoever published the event may not approve.
    pub four_eyes: bool,
    /// What a rejection means.
    pub on_reject: Otherwise,
    /// How long to wait; absent means for ever.
    pub timeout: Option<Duration>,
    /// What then.
    pub on_timeout: Otherwise,
}

/// What happens instead of a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// The step fails.
    Fail,
    /// The step fails, and a human decides how to go on.
    Hitl,
    /// The step is skipped.
    Continue,
}

/// Asks a service what became of a step.
#[derive(Debug)]
pub struct Verify {
    /// The call.
    pub call: Call,
    /// Gives `done`, `not_done` or `pending` from the response; absent means the reply's `outcome`.
    pub outcome: Option<Expression>,
}

/// `onExhausted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExhausted {
    /// The saga is undone.
    Compensate,
    /// The saga waits for a human.
    Hitl,
    /// The saga goes on without it.
    Continue,
}

/// `compensateOn`: the outcomes of a step that are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompensateOn {
    /// It was done.
    pub succeeded: bool,
    /// Nobody knows.
    pub unknown: bool,
    /// It was refused.
    pub failed: bool,
}

impl Default for CompensateOn {
    fn default() -> Self {
        Self { succeeded: true, unknown: true, failed: false }
    }
}

/// The undo of a step.
#[derive(Debug)]
pub struct Compensate {
    /// What undoes it.
    pub undo: Undo,
    /// Its own retries.
    pub retry: Retry,
    /// Limit of one attempt.
    pub timeout: Duration,
}

/// What undoes a step.
#[derive(Debug)]
pub enum Undo {
    /// An HTTP call.
    Call(Call),
    /// A function of the database, in one transaction with its outcome.
    Sql(Sql),
    /// The consumer of `saga.compensate`: its acknowledgement is the undo.
    Event,
}

impl Step {
    /// The call that does it, if a call does.
    #[must_use]
    pub fn call(&self) -> Option<&Call> {
        if let Work::Call(call) = &self.work { Some(call) } else { None }
    }

    /// Every call that it may make.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        let undo = self.compensate.as_ref().and_then(|compensate| if let Undo::Call(call) = &compensate.undo { Some(call) } else { None });
        self.call().into_iter().chain(undo).chain(self.verify.as_ref().map(|verify| &verify.call))
    }

    /// Whether it begins with nothing but its call.
    #[must_use]
    pub fn begins_plainly(&self) -> bool {
        self.when.is_none() && self.deadline.is_none() && !self.asynchronous
    }

    /// Whether a function of the database does that: what it did and its outcome are one.
    #[must_use]
    pub fn is_function(&self, action: Action) -> bool {
        match action {
            Action::Do => matches!(self.work, Work::Sql(_)),
            Action::Undo => self.compensate.as_ref().is_some_and(|compensate| matches!(compensate.undo, Undo::Sql(_))),
            Action::Verify => false,
        }
    }

    /// Whether anything is to be done to undo it.
    #[must_use]
    pub fn has_undo(&self) -> bool {
        self.compensate.is_some() || matches!(self.work, Work::Saga(_))
    }

    /// What metrics count it under: the service, else what it does.
    #[must_use]
    pub fn service(&self) -> &str {
        match &self.work {
            Work::Call(call) => &call.service,
            Work::Sql(_) => "sql",
            Work::Emit(_) => "emit",
            Work::Wait(_) => "wait",
            Work::Delay(_) | Work::Until(_) => "timer",
            Work::Human(_) => "human",
            Work::Saga(_) => "saga",
        }
    }
}

/// An HTTP call to a registered service.
#[derive(Debug)]
pub struct Call {
    /// Upper-case method; `POST` unless said.
    pub method: String,
    /// Name in the services registry.
    pub service: String,
    /// Path and query, starting with `/`; templates in it are percent-encoded.
    pub path: Template,
    /// Further headers.
    pub headers: Vec<(String, Template)>,
    /// Replaces the standard body.
    pub body: Option<BodyTemplate>,
}

/// Retry policy. `attempts` counts every call, the first included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Calls in total, at least 1.
    pub attempts: u32,
    /// Delay before the second call.
    pub backoff: Duration,
    /// Growth of the delay from call to call, at least 1.
    pub multiplier: f64,
    /// Upper limit of the delay.
    pub backoff_max: Duration,
    /// Share of the delay that is spread at random, 0 to 1.
    pub jitter: f64,
}
