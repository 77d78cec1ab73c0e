//! A saga as the machine knows it: where it stands and how far each step has come.
//!
//! ```text
//! pending ─► lock_wait ─► running ─► completed
//!    └────────────────────► │  ▲
//!                           │  ├─► hitl: a human decides how to go on
//!                           │  └─► paused, and back
//!                           ▼  a step is used up, the deadline passed, or it is cancelled
//!                        draining ─► compensating ─► failed or cancelled
//!                                         │  ▲
//!                                         ▼  │ a human decides
//!                                      comp_failed
//! ```
//! From everywhere: aborting ─► aborted. A saga that never got its locks is rejected.
//! Invariants, each held by a property test in `tests/properties.rs`: steps are done in the order of the flow; nothing is undone while a call
//! to do something is in flight; undos run in strictly reverse order, one at a time; a terminal state never changes.

use uuid::Uuid;

use super::outcome::Action;
use super::time::Timestamp;

pub use step::{Compensation, StepProgress, StepStatus, Wait};

mod step;

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
    /// How it stands with its object locks.
    pub locks: Locks,
    /// In `lock_wait`: when it gives up.
    pub lock_until: Option<Timestamp>,
    /// In `paused`: where it goes on, and since when its time stands still.
    pub paused: Option<Paused>,
    /// The completed saga that this one undoes, as a step of its parent's undo.
    pub undoes: Option<Uuid>,
    /// One per step of the definition, in its order.
    pub steps: Vec<StepProgress>,
    /// What was due until then was dealt with, or is held up by something else: it wakes nobody again. Not stored.
    pub looked_at: Option<Timestamp>,
}

/// How a saga stands with its object locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locks {
    /// It needs none.
    #[default]
    None,
    /// It stands in line.
    Queued,
    /// It holds them all.
    Held,
}

/// What a paused saga goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paused {
    /// `running` or `compensating`.
    pub resume_to: SagaState,
    /// When it was paused.
    pub at: Timestamp,
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
            locks: Locks::None,
            lock_until: None,
            paused: None,
            undoes: None,
            steps: std::iter::repeat_with(StepProgress::default).take(steps).collect(),
            looked_at: None,
        }
    }

    /// Steps with a call in flight.
    pub fn in_flight(&self) -> impl Iterator<Item = (usize, Action)> + '_ {
        self.steps.iter().enumerate().filter_map(|(seq, step)| step.in_flight().map(|action| (seq, action)))
    }

    /// When something must be done although nobody says anything: an attempt, a timer, a limit.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let of_saga = match self.state {
            SagaState::LockWait => self.lock_until,
            SagaState::Running | SagaState::Hitl => self.deadline_at,
            _ => None,
        };
        let of_steps = self.steps.iter().flat_map(|step| self.times(step)).flatten();
        of_steps.chain(of_saga).filter(|due| self.looked_at.is_none_or(|looked_at| *due > looked_at)).min()
    }

    /// The times at which something may happen to a step.
    fn times(&self, step: &StepProgress) -> [Option<Timestamp>; 3] {
        let waits = matches!(step.status, StepStatus::Backoff | StepStatus::Waiting);
        match self.state {
            SagaState::Running | SagaState::Hitl if waits => [step.due_at, step.wait_until, step.deadline_at],
            // What is still waited for on the way back: the end of a call, and of the question about it.
            SagaState::Draining if waits => [step.due_at, step.wait_until, None],
            SagaState::Compensating if matches!(step.compensation, Compensation::Backoff | Compensation::Waiting) => {
                [step.due_at, step.wait_until, None]
            }
            _ => [None; 3],
        }
    }

    /// What it waits for, in the word of `sagas.waiting_for`, if not for a reply.
    #[must_use]
    pub fn waiting_for(&self) -> Option<&'static str> {
        match self.state {
            SagaState::CompFailed | SagaState::Hitl => return Some("human"),
            SagaState::LockWait => return Some("lock"),
            SagaState::Paused => return Some("resume"),
            _ if self.state.is_terminal() || self.in_flight().next().is_some() => return None,
            _ => {}
        }
        let waits = self.steps.iter().filter_map(|step| step.waits_for().or(step.undo_waits_for()));
        // What a person can do something about comes first.
        let order = |wait: &Wait| match wait {
            Wait::Human => 0,
            Wait::Service => 1,
            Wait::Callback => 2,
            Wait::Child => 3,
            Wait::Event => 4,
            Wait::Timer => 5,
        };
        waits.min_by_key(order).map(Wait::as_str).or_else(|| self.next_due().map(|_| "retry"))
    }

    /// The step that was begun last, among those for which `pick` says so.
    #[must_use]
    pub fn latest(&self, pick: impl Fn(&StepProgress) -> bool) -> Option<usize> {
        self.steps.iter().enumerate().filter(|(_, step)| pick(step)).max_by_key(|(seq, step)| (step.order, *seq)).map(|(seq, _)| seq)
    }
}
