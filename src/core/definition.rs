//! A saga definition as the machine runs it: validated, compiled, immutable.
//!
//! `definition_file` reads what people write and is the only maker of these types.

use std::time::Duration;

use serde_json::Value;

use super::expression::Expression;
use super::outcome::Action;
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
    /// The objects that no two sagas may work on at once.
    pub lock: Option<Lock>,
    /// Events that cancel it.
    pub cancel_on: Vec<CancelOn>,
    /// When people are told of failures, and where.
    pub hitl: Hitl,
    /// All steps, in the order they are written; never empty. A step is known by its place in here.
    pub steps: Vec<Step>,
    /// How the steps follow each other: every step is in it once.
    pub flow: Node,
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

/// `lock`: the keys are taken when the saga starts, all at once, and kept until it ends.
#[derive(Debug)]
pub struct Lock {
    /// Each is evaluated to one key; never empty.
    pub keys: Vec<Expression>,
    /// What to do when another saga holds one of them.
    pub mode: LockMode,
    /// How long to wait in `wait` mode; absent means for ever.
    pub timeout: Option<Duration>,
}

/// What a saga does that finds a key taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Queues, first come first served.
    Wait,
    /// Is rejected.
    Abort,
}

/// An event that cancels the saga.
#[derive(Debug)]
pub struct CancelOn {
    /// The event's type.
    pub event: String,
    /// Which of those; absent means any.
    pub matching: Option<Match>,
}

/// `match`: an equality that finds candidates by an index, and the whole condition.
#[derive(Debug)]
pub struct Match {
    /// The left side, below `async`: `["data", "batch"]`.
    pub path: Vec<String>,
    /// The other side of the equality: evaluated when the wait begins.
    pub value: Expression,
    /// The whole condition, asked of each candidate.
    pub condition: Expression,
}

/// `hitl`: when people are told of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hitl {
    /// Failed attempts of one step that open a human task.
    pub after: u32,
    /// The queue of this saga's tasks.
    pub queue: String,
}

/// How steps follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// One step, by its place.
    Step(usize),
    /// One after the other.
    Sequence(Vec<Node>),
    /// Side by side.
    Parallel(Group),
}

/// A parallel group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What runs side by side; never empty.
    pub branches: Vec<Node>,
    /// Branches under way at once, at most.
    pub max: usize,
    /// What a failed branch means for the others.
    pub on_branch_failure: OnBranchFailure,
}

/// `onBranchFailure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBranchFailure {
    /// The others start nothing new; what is in flight is waited for.
    Drain,
    /// The others go on to their ends first.
    Wait,
}

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

impl Definition {
    /// The place of the first step, if the saga begins with a call, alone.
    #[must_use]
    pub fn flow_start(&self) -> Option<usize> {
        match &self.flow {
            Node::Step(seq) => Some(*seq),
            Node::Sequence(nodes) => match nodes.first() {
                Some(Node::Step(seq)) => Some(*seq),
                _ => None,
            },
            Node::Parallel(_) => None,
        }
        .filter(|seq| matches!(self.steps[*seq].work, Work::Call(_)))
    }

    /// Whether the step at `seq` is the point of no return.
    #[must_use]
    pub fn pivot(&self) -> Option<usize> {
        self.steps.iter().position(|step| step.kind == StepKind::Pivot)
    }

    /// Event types that one of its sagas may wait for, and which of them.
    pub fn awaited(&self) -> impl Iterator<Item = (&str, Option<&Match>)> {
        let waits = self
            .steps
            .iter()
            .filter_map(|step| if let Work::Wait(wait) = &step.work { Some((wait.event.as_str(), wait.matching.as_ref())) } else { None });
        waits.chain(self.cancel_on.iter().map(|cancel| (cancel.event.as_str(), cancel.matching.as_ref())))
    }
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
