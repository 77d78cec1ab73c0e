//! A saga definition as the machine runs it: validated, compiled, immutable.
//!
//! `definition_file` reads what people write and is the only maker of these types.

use std::time::Duration;

use super::expression::Expression;

mod step;

pub use step::{Call, Compensate, CompensateOn, Emit, Human, OnExhausted, Otherwise, Retry, Sql, Step, StepKind, Undo, Verify, Wait, Work};

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
    Sequence(Vec<Self>),
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
