//! What people are asked, and what they may answer.

use super::payload::Payload;
use super::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

/// Why a human task exists. The words are those of `human_tasks.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// A `human` step asks.
    Approval,
    /// A policy wants a human's consent.
    Policy,
    /// A step failed.
    StepFailed,
    /// An undo failed for good.
    CompFailed,
    /// Nobody knows whether the point of no return was passed.
    PivotUnknown,
    /// A success was reported after the step had been given up.
    LateEffect,
    /// Sagas of one family failed one after the other.
    ConsecutiveFailures,
}

impl TaskKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Approval, Self::Policy, Self::StepFailed, Self::CompFailed, Self::PivotUnknown, Self::LateEffect, Self::ConsecutiveFailures];

    /// The word used in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Policy => "policy",
            Self::StepFailed => "step_failed",
            Self::CompFailed => "comp_failed",
            Self::PivotUnknown => "pivot_unknown",
            Self::LateEffect => "late_effect",
            Self::ConsecutiveFailures => "consecutive_failures",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The decisions that it takes.
    #[must_use]
    pub fn decisions(self) -> &'static [Decision] {
        use Decision::{Abort, Acknowledge, Approve, Compensate, Done, NotDone, Reject, Retry, Skip, Undone};
        match self {
            Self::Approval | Self::Policy => &[Approve, Reject],
            Self::StepFailed => &[Retry, Skip, Done, Compensate, Abort],
            Self::CompFailed => &[Retry, Undone, Skip, Abort],
            Self::PivotUnknown => &[Done, NotDone, Retry],
            Self::LateEffect | Self::ConsecutiveFailures => &[Acknowledge],
        }
    }
}

/// What a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Yes.
    Approve,
    /// No.
    Reject,
    /// Try the step, or its undo, again.
    Retry,
    /// Leave the step, or its undo, be.
    Skip,
    /// The step was done.
    Done,
    /// The step was not done.
    NotDone,
    /// Undo the saga.
    Compensate,
    /// The step was undone by hand.
    Undone,
    /// End the saga as it is.
    Abort,
    /// Seen.
    Acknowledge,
}

impl Decision {
    /// Every decision.
    pub const ALL: [Self; 10] = [
        Self::Approve,
        Self::Reject,
        Self::Retry,
        Self::Skip,
        Self::Done,
        Self::NotDone,
        Self::Compensate,
        Self::Undone,
        Self::Abort,
        Self::Acknowledge,
    ];

    /// The word used in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Done => "done",
            Self::NotDone => "not_done",
            Self::Compensate => "compensate",
            Self::Undone => "undone",
            Self::Abort => "abort",
            Self::Acknowledge => "acknowledge",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|decision| decision.as_str() == word)
    }
}

/// A decision that somebody made about a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// The task.
    pub task: Uuid,
    /// Its kind.
    pub kind: TaskKind,
    /// The step that it is about.
    pub seq: Option<usize>,
    /// What was decided.
    pub decision: Decision,
    /// By whom.
    pub by: String,
    /// Why.
    pub note: String,
    /// What the form was filled in with, or what the step is to have answered.
    pub output: Option<Payload>,
}

/// A task to open. Its id is given when it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    /// Why it exists.
    pub kind: TaskKind,
    /// The step that it is about.
    pub seq: usize,
    /// Where it is asked.
    pub queue: String,
    /// What happened, in one line.
    pub reason: String,
    /// The question.
    pub prompt: Option<String>,
    /// What an approval must fill in: a JSON Schema.
    pub form: Option<Value>,
    /// Whom it is meant for.
    pub assignee: Option<String>,
    /// Whoever published the event may not decide.
    pub four_eyes: bool,
    /// When the question is given up.
    pub due_at: Option<Timestamp>,
}
