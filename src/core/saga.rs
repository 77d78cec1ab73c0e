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
//! Invariants, each held by a property test in `tests/properties.rs`: steps are done in order; nothing is undone while a call
//! to do something is in flight; undos run in strictly reverse order, one at a time; a terminal state never changes.

use uuid::Uuid;

use super::human::TaskKind;
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
    /// When the next attempt may be made, the timer rings, or the next heartbeat is missed.
    pub due_at: Option<Timestamp>,
    /// When it is given up to wait.
    pub wait_until: Option<Timestamp>,
    /// When the whole step must be over.
    pub deadline_at: Option<Timestamp>,
    /// What it waits for, while its status or its compensation is `waiting`.
    pub wait: Option<Wait>,
    /// Its place in the order of starts, from 1: undos run in the reverse of it. 0 while not begun.
    pub order: u32,
    /// Whether `verify` is being asked.
    pub verifying: bool,
    /// Times it was asked.
    pub verifies: u32,
    /// Those that count against `retry.attempts`.
    pub verify_spent: u32,
    /// A human decides how to go on, whatever the definition says of exhausted steps.
    pub for_human: bool,
    /// The human task that is open for it.
    pub task: Option<TaskKind>,
    /// The saga that did it, where that was another one: this one is its fork, or undoes it.
    pub done_by: Option<Uuid>,
    /// The last heartbeat of an asynchronous step, as the database had it when the saga was loaded.
    pub beat_at: Option<Timestamp>,
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

/// What a waiting step waits for. The words are those of `sagas.waiting_for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The end of an asynchronous call.
    Callback,
    /// An event.
    Event,
    /// A point in time.
    Timer,
    /// A person's decision.
    Human,
    /// Another saga.
    Child,
    /// Its service, which is parked.
    Service,
}

impl Wait {
    const ALL: [Self; 6] = [Self::Callback, Self::Event, Self::Timer, Self::Human, Self::Child, Self::Service];

    /// The word used in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::Event => "event",
            Self::Timer => "timer",
            Self::Human => "human",
            Self::Child => "child",
            Self::Service => "service",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|wait| wait.as_str() == word)
    }
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
    /// Every status.
    pub const ALL: [Self; 9] =
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
    /// Every word.
    pub const ALL: [Self; 9] = [
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
            (StepStatus::Running, _) if self.verifying => Some(Action::Verify),
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
            Action::Verify => self.verifies,
        }
    }

    /// What it waits for on the way forward.
    #[must_use]
    pub fn waits_for(&self) -> Option<Wait> {
        if self.status == StepStatus::Waiting { self.wait } else { None }
    }

    /// What its undo waits for.
    #[must_use]
    pub fn undo_waits_for(&self) -> Option<Wait> {
        if self.compensation == Compensation::Waiting { self.wait } else { None }
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
            locks: Locks::None,
            lock_until: None,
            paused: None,
            undoes: None,
            steps: std::iter::repeat_with(StepProgress::default).take(steps).collect(),
        }
    }

    /// Steps with a call in flight.
    pub fn in_flight(&self) -> impl Iterator<Item = (usize, Action)> + '_ {
        self.steps.iter().enumerate().filter_map(|(seq, step)| step.in_flight().map(|action| (seq, action)))
    }

    /// When something must be done although nobody says anything: an attempt, a timer, a limit.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        match self.state {
            SagaState::LockWait => self.lock_until,
            SagaState::Running | SagaState::Hitl => {
                let forward = self.steps.iter().filter_map(|step| match step.status {
                    StepStatus::Backoff | StepStatus::Waiting => [step.due_at, step.wait_until, step.deadline_at].into_iter().flatten().min(),
                    _ => None,
                });
                forward.chain(if self.state == SagaState::Running { self.deadline_at } else { None }).min()
            }
            SagaState::Draining | SagaState::Aborting => {
                let forward = self.steps.iter().filter_map(|step| match (step.status, step.wait) {
                    (StepStatus::Waiting, Some(Wait::Callback)) => [step.due_at, step.wait_until].into_iter().flatten().min(),
                    (StepStatus::Backoff, _) => step.due_at,
                    _ => None,
                });
                forward.min()
            }
            SagaState::Compensating => {
                let undo = self.steps.iter().filter_map(|step| match step.compensation {
                    Compensation::Backoff | Compensation::Waiting => [step.due_at, step.wait_until].into_iter().flatten().min(),
                    _ => None,
                });
                undo.min()
            }
            _ => None,
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
