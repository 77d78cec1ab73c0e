//! What a saga is told, in words of the tests, and how the machine is told the same.

use std::time::Duration;

use syncor::core::human::{Decided, Decision, TaskKind};
use syncor::core::machine::Input;
use syncor::core::order::Order;
use syncor::core::outcome::{Action, Class, Outcome};
use syncor::core::payload::Payload;
use syncor::core::reply::class_of;
use syncor::core::saga::Wait;
use syncor::core::time::Timestamp;
use uuid::Uuid;

use super::chance::Chance;

/// What an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    Do,
    Undo,
    Ask,
}

impl Act {
    pub const ALL: [Self; 3] = [Self::Do, Self::Undo, Self::Ask];

    pub fn action(self) -> Action {
        match self {
            Self::Do => Action::Do,
            Self::Undo => Action::Undo,
            Self::Ask => Action::Verify,
        }
    }

    pub fn of(action: Action) -> Self {
        Self::ALL.into_iter().find(|act| act.action() == action).expect("an act")
    }
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// An HTTP status.
    Status(u16),
    /// A 2xx whose reply cannot be kept.
    Unkept,
    /// Refused, DNS, TLS, or a function that was rolled back.
    NotSent,
    /// A timeout or a reset.
    Broken,
    /// Its service is parked for so many milliseconds.
    Parked(u32),
    /// 202 of an asynchronous step.
    Accepted,
    /// A `verify` says that it was not done.
    NotDone,
    /// A `verify` says that it is still at work.
    StillAtWork,
}

/// How something ends that a step waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Good,
    Bad,
    Never,
    Doubt,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told {
    Start { queued: bool },
    Locked,
    Answer { seq: usize, act: Act, number: u32, answer: Answer, wish: u32, free: bool },
    Came { seq: usize, act: Act, what: &'static str, end: End },
    Time,
    Reopened,
    TakenOver,
    Order { order: &'static str, step: Option<usize> },
    Decision { seq: Option<usize>, kind: &'static str, word: &'static str },
}

pub const ORDERS: [&str; 6] = ["cancel", "pause", "resume", "abort", "retry", "skip"];
pub const WAITS: [&str; 6] = ["callback", "event", "child", "timer", "human", "service"];
pub const DECISIONS: [&str; 10] = ["approve", "reject", "retry", "skip", "done", "not_done", "compensate", "undone", "abort", "acknowledge"];
pub const KINDS: [&str; 7] = ["approval", "policy", "step_failed", "comp_failed", "pivot_unknown", "late_effect", "consecutive_failures"];

impl Answer {
    pub fn draw(chance: &mut Chance) -> Self {
        if chance.happens(50) {
            return Self::Status(chance.one_of(&[200, 201, 204, 299]));
        }
        if chance.happens(12) {
            return Self::Parked(chance.one_of(&[10, 1000, 30_000]));
        }
        let statuses = [500, 408, 425, 429, 503, 599, 502, 504, 409, 425, 410, 301, 400, 404, 422];
        let all = [Self::Unkept, Self::NotSent, Self::Broken, Self::Broken, Self::NotDone, Self::NotDone, Self::StillAtWork];
        if chance.happens(40) { chance.one_of(&all) } else { Self::Status(chance.one_of(&statuses)) }
    }

    /// What this kind of call can answer.
    pub fn fitting(self, act: Act, is_async: bool, is_function: bool, chance: &mut Chance) -> Self {
        match self {
            Self::Status(200..=299) if is_async && act != Act::Ask && chance.happens(70) => Self::Accepted,
            Self::NotDone | Self::StillAtWork if act != Act::Ask => Self::Broken,
            answer @ Self::Status(200..=299 | 400..=407 | 409..=422) => answer,
            _ if is_function && act != Act::Ask => Self::NotSent,
            answer => answer,
        }
    }

    pub fn outcome(self, wish: u32, free: bool) -> Outcome {
        let of = |class, what: &str| Outcome::without_reply(class, what);
        let mut outcome = match self {
            Self::Status(status) => Outcome { status: Some(status), ..of(class_of(status), &format!("HTTP {status}")) },
            Self::Unkept => Outcome { status: Some(200), ..of(Class::Unknown, "too large") },
            Self::NotSent => of(Class::Failed, "refused"),
            Self::Broken => of(Class::Unknown, "timed out"),
            Self::Parked(_) => of(Class::Parked, "parked"),
            Self::Accepted => Outcome { status: Some(202), ..of(Class::Accepted, "accepted") },
            Self::NotDone => Outcome { status: Some(200), ..of(Class::NotDone, "not done") },
            Self::StillAtWork => Outcome { status: Some(200), ..of(Class::Failed, "still pending") },
        };
        if matches!(outcome.class, Class::Succeeded | Class::Accepted) {
            outcome.error = None;
        }
        let wish = if let Self::Parked(pause) = self { pause } else { wish };
        outcome.retry_after = (wish > 0).then(|| Duration::from_millis(wish.into()));
        outcome.free = free || self == Self::StillAtWork;
        outcome
    }
}

impl End {
    fn outcome(self) -> Outcome {
        match self {
            Self::Good => Outcome::success(None),
            Self::Bad => Outcome::without_reply(Class::Failed, "bad"),
            Self::Never => Outcome::without_reply(Class::Refused, "never"),
            Self::Doubt => Outcome::without_reply(Class::Unknown, "in doubt"),
        }
    }
}

impl Told {
    pub fn input(self) -> Input {
        match self {
            Self::Start { .. } => Input::Start,
            Self::Locked => Input::Locked,
            Self::Answer { seq, act, number, answer, wish, free } => {
                Input::Reply { seq, action: act.action(), attempt: number, outcome: Box::new(answer.outcome(wish, free)) }
            }
            Self::Came { seq, act, what, end } => {
                Input::Ended { seq, action: act.action(), wait: Wait::parse(what).expect("a wait"), outcome: Box::new(end.outcome()) }
            }
            Self::Time => Input::Due,
            Self::Reopened => Input::Reopened("svc".to_owned()),
            Self::TakenOver => Input::TakenOver,
            Self::Order { order, step } => Input::Ordered { order: Order::parse(order, step).expect("an order"), reason: "because".to_owned() },
            Self::Decision { seq, kind, word } => Input::Decided(Decided {
                task: Uuid::nil(),
                kind: TaskKind::parse(kind).expect("a kind"),
                seq,
                decision: Decision::parse(word).expect("a decision"),
                by: "somebody".to_owned(),
                note: "because".to_owned(),
                output: Some(Payload::trusted("{}".into())),
            }),
        }
    }
}

/// Microseconds.
pub fn at(time: i64) -> Timestamp {
    Timestamp(time)
}
