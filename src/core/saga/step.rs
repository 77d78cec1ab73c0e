//! How far one step of a saga has come: doing it, waiting for it, undoing it.

use uuid::Uuid;

use crate::core::human::TaskKind;
use crate::core::outcome::Action;
use crate::core::payload::Payload;
use crate::core::time::Timestamp;

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
    /// Whether nothing more is done about it, unless a human says so.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Unknown | Self::Skipped | Self::Cancelled)
    }

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
    /// Whether it was asked for and has not come to an end.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Pending | Self::Compensating | Self::Waiting | Self::Backoff)
    }

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
