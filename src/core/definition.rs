//! A saga definition as the machine runs it: validated, compiled, immutable.
//!
//! `definition_file` reads what people write and is the only maker of these types.

use std::time::Duration;

use super::expression::Expression;
use super::template::{BodyTemplate, Template};

/// One deployed revision of a saga.
#[derive(Debug)]
pub struct Definition {
    /// Full id with its version: `dol.benefit.increase.v1`.
    pub id: String,
    /// The id without `.vN`.
    pub family: String,
    /// The version, 1 unless said.
    pub version: u32,
    /// SHA-256 of the file's meaning (its canonical JSON), lower-case hex: what a saga is pinned to.
    pub revision: String,
    /// Event types that may start it; never empty.
    pub trigger: Vec<String>,
    /// Topics it listens to; empty for all.
    pub topics: Vec<String>,
    /// Asked of each event; absent means yes.
    pub filter: Option<Expression>,
    /// One saga per (family, key).
    pub dedupe: Dedupe,
    /// The steps in order; never empty.
    pub steps: Vec<Step>,
    /// Limit of the whole forward run.
    pub deadline: Option<Duration>,
    /// What happens to the other undos when one fails for good.
    pub on_compensation_failure: OnCompensationFailure,
}

/// Which events count as the same request.
#[derive(Debug)]
pub struct Dedupe {
    /// The key; absent means the event's id.
    pub key: Option<Expression>,
    /// When the same key may start again.
    pub after: DedupeAfter,
}

/// When a dedupe key may start another saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DedupeAfter {
    /// Not while the first event is kept.
    Never,
    /// When the earlier saga failed, was cancelled, aborted or rejected.
    Failed,
    /// When the earlier saga has ended, however it ended.
    Terminal,
}

/// `compensation.onFailure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCompensationFailure {
    /// Earlier steps wait for the human.
    Stop,
    /// Earlier steps are undone first; then the human is asked.
    Continue,
}

/// A unit of work with its undo.
#[derive(Debug)]
pub struct Step {
    /// Unique within the saga: `recalc_payments`.
    pub name: String,
    /// The call that does it.
    pub call: Call,
    /// What the compensation is given; absent means the reply's `context` object, else its whole body.
    pub context: Option<Vec<(String, Expression)>>,
    /// How often and how fast to try again.
    pub retry: Retry,
    /// Limit of one attempt.
    pub timeout: Duration,
    /// The call that undoes it.
    pub compensate: Option<Compensate>,
}

/// The undo of a step.
#[derive(Debug)]
pub struct Compensate {
    /// The call.
    pub call: Call,
    /// Its own retries.
    pub retry: Retry,
    /// Limit of one attempt.
    pub timeout: Duration,
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
