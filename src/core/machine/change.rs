//! What an input leads to.

use crate::core::emission::Publication;
use crate::core::human::{NewTask, TaskKind};
use crate::core::order::{Answer, Order};
use crate::core::outcome::{Action, Outcome};
use crate::core::saga::SagaState;
use crate::core::time::Timestamp;

/// What `advance` changed, and what follows from it once the change is committed.
#[derive(Debug, Default)]
pub struct Advance {
    /// Places of the steps whose rows changed, ascending.
    pub steps: Vec<usize>,
    /// Attempts that ended: to be appended to the ledger.
    pub attempts: Vec<Attempt>,
    /// Calls to make, each already counted in its step.
    pub calls: Vec<(usize, Action)>,
    /// Child sagas to start: those that do a step, and those that undo one.
    pub children: Vec<(usize, Action)>,
    /// Orders to the child sagas of steps.
    pub child_orders: Vec<(usize, Order)>,
    /// Events to publish, in order.
    pub emissions: Vec<Emission>,
    /// Human tasks that open, and those that nobody need answer any more.
    pub tasks: Vec<TaskChange>,
    /// What became of an order or a decision.
    pub answer: Option<Answer>,
    /// The input did not fit and changed nothing.
    pub stale: bool,
}

/// A finished attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The step's place in the definition.
    pub seq: usize,
    /// Do, undo or verify.
    pub action: Action,
    /// Its number, from 1.
    pub number: u32,
    /// The fence it carried.
    pub fence: i64,
    /// When it was committed to.
    pub started_at: Timestamp,
    /// What became of it.
    pub outcome: Outcome,
}

/// An event that a saga publishes.
#[derive(Clone, Debug, PartialEq)]
pub enum Emission {
    /// `saga.started`
    Started,
    /// `saga.compensate`: the undo of a step begins.
    Compensate(usize),
    /// `saga.compensation.failed`: a human is needed.
    CompensationFailed(usize),
    /// `saga.completed`, `saga.failed`, ...: the terminal state.
    Ended(SagaState),
    /// What an `emit` step says.
    Published(Box<Publication>),
}

/// A change in the queue of human tasks.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskChange {
    /// A new one.
    Open(Box<NewTask>),
    /// The open task of that kind and step is void.
    Withdraw {
        /// The step's place in the definition.
        seq: usize,
        /// Its kind.
        kind: TaskKind,
    },
}
