//! Scenario tests of sagas: an event, what every call answers, what happens when, and what must come of it.
//!
//! They run in virtual time on the machine that the engine runs on, so a timeout of a day takes no time at all.
//! `definition_file` reads the files; `run` plays one scenario, `judge` compares what happened with what was expected.

use std::time::Duration;

use serde_json::Value;

use super::definition::Definition;
use super::event::Event;
use super::human::{Decision, TaskKind};
use super::order::Order;
use super::outcome::Action;
use super::payload::Payload;
use super::reply::CallbackEnd;
use super::saga::SagaState;

mod answer;
pub mod capture;
mod compare;
mod deeds;
mod events;
mod judge;
mod record;
mod story;
mod tasks;
mod world;

pub use judge::{Difference, judge};
pub use record::{Command, Made, Published, Record, Task, TaskStatus};
pub use story::Moment;
pub use world::run;

/// The scenarios of one file.
#[derive(Debug)]
pub struct Suite {
    /// In the order of the file.
    pub scenarios: Vec<Scenario>,
}

/// One scenario.
#[derive(Debug)]
pub struct Scenario {
    /// What it shows, in words.
    pub name: String,
    /// Where it begins in the file.
    pub line: usize,
    /// The event that the saga is asked about; its time is the beginning of the scenario.
    pub event: Event,
    /// Another saga holds its locks.
    pub lock_busy: bool,
    /// What calls answer, where that is not a plain success.
    pub answers: Vec<Answers>,
    /// What happens besides, in the order of the file.
    pub deeds: Vec<Deed>,
    /// What must come of it.
    pub expect: Expect,
}

/// The answers to the calls of one step and action.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Place of the step.
    pub seq: usize,
    /// Do, undo or verify.
    pub action: Action,
    /// One per attempt; the last one repeats. Never empty.
    pub list: Vec<Answer>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How long it takes.
    pub delay: Duration,
    /// What it is.
    pub what: What,
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum What {
    /// A reply of a service.
    Reply {
        /// HTTP status.
        status: u16,
        /// Headers, names in lower case.
        headers: Vec<(String, String)>,
        /// The body; nothing for an empty one.
        body: Option<Value>,
        /// `Retry-After`.
        retry_after: Option<Duration>,
        /// How an asynchronous step ends.
        callback: Option<Box<Callback>>,
        /// What is heard of it until then.
        heartbeats: Option<Heartbeats>,
    },
    /// Nothing, until the limit of the attempt.
    Silence,
    /// The connection broke after the call was sent.
    Reset,
    /// The service was not reached.
    Unreachable,
    /// A function returned this.
    Returns(Value),
    /// A function failed, and was undone with its transaction.
    Raises(String),
    /// A child saga ended.
    Ends {
        /// Its terminal state.
        state: SagaState,
        /// Whether everything was undone.
        clean: bool,
        /// Why it did not complete.
        reason: Option<String>,
    },
    /// The consumer of `saga.compensate` said so.
    Acknowledged {
        /// Undone, or not.
        ok: bool,
        /// Why not.
        error: Option<String>,
    },
}

/// The end of an asynchronous step.
#[derive(Clone, Debug)]
pub struct Callback {
    /// After the reply.
    pub after: Duration,
    /// What it says.
    pub end: CallbackEnd,
}

/// Signs of life of an asynchronous step.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeats {
    /// Time between two of them.
    pub every: Duration,
    /// After the reply; from then on there is silence.
    pub until: Duration,
}

/// Something that happens at a time of its own.
#[derive(Clone, Debug)]
pub struct Deed {
    /// After the beginning.
    pub after: Duration,
    /// Where it stands in the file.
    pub line: usize,
    /// What.
    pub what: Doing,
    /// It is expected to be refused, with this in the reason.
    pub refused: Option<String>,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Doing {
    /// A person decides.
    Decide {
        /// About the task of this step.
        seq: usize,
        /// Of this kind, where several are open.
        kind: Option<TaskKind>,
        /// How.
        decision: Decision,
        /// Who.
        by: String,
        /// Why.
        note: String,
        /// What the form is filled in with.
        output: Option<Payload>,
    },
    /// An operator orders.
    Order {
        /// What.
        order: Order,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An event arrives.
    Event(Box<Event>),
    /// It is its turn: all its locks are its own.
    LockGranted,
    /// The worker dies, and another one takes the saga over.
    WorkerDies,
    /// A service is parked: its calls wait.
    Park(String),
    /// It takes calls again.
    Unpark(String),
}

/// A value with the line that it stands on.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The line.
    pub line: usize,
    /// The value.
    pub value: T,
}

/// What must come of a scenario. Absent means anything.
#[derive(Debug, Default)]
pub struct Expect {
    /// Whether a saga starts; true unless said.
    pub started: Option<At<bool>>,
    /// Part of the reason why none starts.
    pub why: Option<At<String>>,
    /// Where the saga stands in the end.
    pub state: Option<At<SagaState>>,
    /// Whether everything was undone.
    pub clean: Option<At<bool>>,
    /// Part of the reason why it did not complete.
    pub reason: Option<At<String>>,
    /// What it waits for, if it does not end.
    pub waiting_for: Option<At<String>>,
    /// Every call in the order it was made, as `step`, `step.undo` or `step.verify`.
    pub calls: Option<At<Vec<String>>>,
    /// Parts of requests: by call, for each of its attempts, or the same for all.
    pub requests: Vec<At<(String, Requests)>>,
    /// Steps in the order they were undone.
    pub undone: Option<At<Vec<String>>>,
    /// Parts of the events that were published, of all the types named here, in order.
    pub emitted: Option<At<Vec<Value>>>,
    /// Parts of the human tasks, all of them, in the order they were opened.
    pub tasks: Option<At<Vec<Value>>>,
    /// Parts of steps, by name.
    pub steps: Vec<At<(String, Value)>>,
    /// How long it took.
    pub elapsed: Option<At<Elapsed>>,
}

/// Parts of the requests of one call.
#[derive(Clone, Debug)]
pub enum Requests {
    /// Of each attempt.
    All(Value),
    /// Of the first, the second and so on.
    Each(Vec<Value>),
}

/// Limits of a time.
#[derive(Clone, Copy, Debug)]
pub struct Elapsed {
    /// At least.
    pub least: Option<Duration>,
    /// At most.
    pub most: Option<Duration>,
}

/// What a call is named in scenarios: the step, or the step with `.undo` or `.verify`.
#[must_use]
pub fn call_name(definition: &Definition, seq: usize, action: Action) -> String {
    let name = &definition.steps[seq].name;
    match action {
        Action::Do => name.clone(),
        Action::Undo | Action::Verify => format!("{name}.{}", action.as_str()),
    }
}

#[cfg(test)]
mod tests;
