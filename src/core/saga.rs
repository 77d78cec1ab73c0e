//! A saga as the machine knows it: where it stands and how far each step has come.
//!
//! ```text
//! pending ─► running ─► completed
//!               │
//!               ▼  a step is used up, or the deadline passed
//!            draining ─► compensating ─► failed
//!                             │  ▲
//!                             ▼  │ a human decides
//!                          comp_failed
//! ```
//! Invariants, each held by a property test in `tests/properties.rs`: steps are done in order; nothing is undone while a call
//! to do something is in flight; undos run in strictly reverse order, one at a time; a terminal state never changes.

use uuid::Uuid;

use super::outcome::Action;
use super::payload::Payload;
use super::time::Timestamp;

/// One instance of a definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Saga {
    /// Identity.
    pub id: Uuid,
    /// Where it stands.
    pub state: SagaState,
    /// How it will end once everything is undone.
    pub target: Option<Target>,
    /// Whether everything that was done, if it was to be undone, was.
    pub clean: bool,
    /// Why it was undone or refused.
    pub reason: Option<String>,
    /// When the forward run must be over.
    pub deadline_at: Option<Timestamp>,
    /// One per step of the definition, in its order.
    pub steps: Vec<StepProgress>,
}

/// Where a saga stands. The words are those of `sagas.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SagaState {
    /// Made, not begun.
    Pending,
    /// Queued for its object locks.
    LockWait,
    /// Going forward.
    Running,
    /// Going forward needs a human's decision.
    Hitl,
    /// Waiting for calls in flight before undoing.
    Draining,
    /// Undoing in reverse order.
    Compensating,
    /// An undo failed for good: waits for a human.
    CompFailed,
    /// Stopped by an operator.
    Paused,
    /// Being ended by force.
    Aborting,
    /// Every step succeeded or was skipped.
    Completed,
    /// Undone after a failure.
    Failed,
    /// Undone after a cancel.
    Cancelled,
    /// Ended without undo.
    Aborted,
    /// Never started.
    Rejected,
}

impl SagaState {
    /// Every state, in the order of the contract.
    pub const ALL: [Self; 14] = [
        Self::Pending,
        Self::LockWait,
        Self::Running,
        Self::Hitl,
        Self::Draining,
        Self::Compensating,
        Self::CompFailed,
        Self::Paused,
        Self::Aborting,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Aborted,
        Self::Rejected,
    ];

    /// The word used in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::LockWait => "lock_wait",
            Self::Running => "running",
            Self::Hitl => "hitl",
            Self::Draining => "draining",
            Self::Compensating => "compensating",
            Self::CompFailed => "comp_failed",
            Self::Paused => "paused",
            Self::Aborting => "aborting",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Aborted => "aborted",
            Self::Rejected => "rejected",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing will ever change again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Aborted | Self::Rejected)
    }
}

/// How a saga ends once everything is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// After a failure.
    Failed,
    /// After a cancel.
    Cancelled,
}

impl Target {
    /// The terminal state it stands for.
    #[must_use]
    pub fn state(self) -> SagaState {
        match self {
            Self::Failed => SagaState::Failed,
            Self::Cancelled => SagaState::Cancelled,
        }
    }

    /// Reads the word used in SQL.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Failed, Self::Cancelled].into_iter().find(|target| target.state().as_str() == word)
    }
}

/// How far a step has come. A default value is a step that was not begun.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepProgress {
    /// How far doing it has come.
    pub status: StepStatus,
    /// How far undoing it has come.
    pub compensation: Compensation,
    /// Whether an attempt to do it ended without anybody knowing its effect.
    pub ambiguous: bool,
    /// Calls made to do it.
    pub attempts: u32,
    /// Those that count against `retry.attempts`.
    pub spent: u32,
    /// Calls made to undo it.
    pub undo_attempts: u32,
    /// Those that count against `compensation.retry.attempts`.
    pub undo_spent: u32,
    /// The fence of the latest call; given by the database when the intent is committed.
    pub fence: i64,
    /// When the latest call was committed to.
    pub called_at: Option<Timestamp>,
    /// When the next attempt may be made.
    pub due_at: Option<Timestamp>,
    /// When the first call was committed to.
    pub started_at: Option<Timestamp>,
    /// When the status became final.
    pub finished_at: Option<Timestamp>,
    /// What the service had to say.
    pub message: Option<String>,
    /// What went wrong last.
    pub error: Option<String>,
    /// The reply of the attempt that succeeded.
    pub output: Option<Payload>,
    /// What the undo is given, where that is not the whole output.
    pub context: Option<Payload>,
}

/// How far doing a step has come. The words are those of `steps.status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StepStatus {
    /// Not begun.
    #[default]
    Pending,
    /// A call is in flight.
    Running,
    /// Waiting for something other than a reply.
    Waiting,
    /// Waiting for the next attempt.
    Backoff,
    /// Done.
    Succeeded,
    /// Not done, and known not to be.
    Failed,
    /// Nobody knows whether it was done.
    Unknown,
    /// Left out.
    Skipped,
    /// Never begun, because the saga turned round.
    Cancelled,
}

impl StepStatus {
    const ALL: [Self; 9] =
        [Self::Pending, Self::Running, Self::Waiting, Self::Backoff, Self::Succeeded, Self::Failed, Self::Unknown, Self::Skipped, Self::Cancelled];

    /// The word used in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Backoff => "backoff",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// How far undoing a step has come. The words are those of `steps.compensation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compensation {
    /// Not asked for.
    #[default]
    None,
    /// Its turn will come.
    Pending,
    /// A call is in flight.
    Compensating,
    /// Waiting for something other than a reply.
    Waiting,
    /// Waiting for the next attempt.
    Backoff,
    /// Undone.
    Compensated,
    /// Cannot be undone without a human.
    Failed,
    /// A human let it be.
    Skipped,
    /// The definition has no undo for it.
    NotNeeded,
}

impl Compensation {
    const ALL: [Self; 9] = [
        Self::None,
        Self::Pending,
        Self::Compensating,
        Self::Waiting,
        Self::Backoff,
        Self::Compensated,
        Self::Failed,
        Self::Skipped,
        Self::NotNeeded,
    ];

    /// The word used in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Compensating => "compensating",
            Self::Waiting => "waiting",
            Self::Backoff => "backoff",
            Self::Compensated => "compensated",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::NotNeeded => "not_needed",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compensation| compensation.as_str() == word)
    }
}

impl StepProgress {
    /// The call that is in flight, if one is.
    #[must_use]
    pub fn in_flight(&self) -> Option<Action> {
        match (self.status, self.compensation) {
            (StepStatus::Running, _) => Some(Action::Do),
            (_, Compensation::Compensating) => Some(Action::Undo),
            _ => None,
        }
    }

    /// Calls made for `action` so far: the number of the latest attempt.
    #[must_use]
    pub fn attempt(&self, action: Action) -> u32 {
        match action {
            Action::Do => self.attempts,
            Action::Undo => self.undo_attempts,
        }
    }

    /// What the compensation is given: the context, else the output. An unknown step has none.
    #[must_use]
    pub fn undo_context(&self) -> Option<&Payload> {
        self.context.as_ref().or(self.output.as_ref())
    }
}

impl Saga {
    /// A saga that was not begun.
    #[must_use]
    pub fn new(id: Uuid, steps: usize) -> Self {
        Self {
            id,
            state: SagaState::Pending,
            target: None,
            clean: true,
            reason: None,
            deadline_at: None,
            steps: std::iter::repeat_with(StepProgress::default).take(steps).collect(),
        }
    }

    /// Steps with a call in flight.
    pub fn in_flight(&self) -> impl Iterator<Item = (usize, Action)> + '_ {
        self.steps.iter().enumerate().filter_map(|(seq, step)| step.in_flight().map(|action| (seq, action)))
    }

    /// When something must be done although nobody says anything: the next attempt, or the deadline.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.state.is_terminal() || self.state == SagaState::CompFailed {
            return None;
        }
        let deadline = if self.state == SagaState::Running { self.deadline_at } else { None };
        let retries = self.steps.iter().filter_map(|step| {
            let waits = step.status == StepStatus::Backoff || step.compensation == Compensation::Backoff;
            if waits { step.due_at } else { None }
        });
        retries.chain(deadline).min()
    }

    /// What it waits for, in the word of `sagas.waiting_for`, if not for a reply.
    #[must_use]
    pub fn waiting_for(&self) -> Option<&'static str> {
        match self.state {
            SagaState::CompFailed | SagaState::Hitl => Some("human"),
            _ if self.state.is_terminal() || self.in_flight().next().is_some() => None,
            _ => self.next_due().map(|_| "retry"),
        }
    }
}
