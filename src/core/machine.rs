//! The only place that decides what a saga does next.
//!
//! `advance` takes a saga and one input and returns what changed and what is to be done about it. It is total: an input that
//! does not fit the saga any more (a late reply, a timer that was overtaken) changes nothing and says so.

use super::definition::Definition;
use super::event::Event;
use super::human::Decided;
use super::order::{Answer, Order};
use super::outcome::{Action, Class, Outcome};
use super::saga::{Locks, Saga, SagaState, StepStatus, Wait};
use super::time::Timestamp;

pub use change::{Advance, Attempt, Emission, TaskChange};

mod back;
mod change;
mod decisions;
mod flow;
mod forward;
mod orders;
mod settle;
mod tasks;
mod waits;

/// Something that happened to a saga.
#[derive(Clone, Debug)]
pub enum Input {
    /// It was made: begin, or stand in line for its locks.
    Start,
    /// It holds all its locks now.
    Locked,
    /// An attempt ended. Ignored unless that attempt is the one in flight.
    Reply {
        /// The step's place in the definition.
        seq: usize,
        /// Do, undo or verify.
        action: Action,
        /// Number of the attempt.
        attempt: u32,
        /// What became of it.
        outcome: Box<Outcome>,
    },
    /// What a step waited for came: a callback, an event, the end of a child, the acknowledgement of an undo by event.
    Ended {
        /// The step's place in the definition.
        seq: usize,
        /// Do or undo.
        action: Action,
        /// What it was.
        wait: Wait,
        /// What became of it.
        outcome: Box<Outcome>,
    },
    /// Time has passed: an attempt, a timer or a limit may be due.
    Due,
    /// A service that was parked takes calls again.
    Reopened(String),
    /// Its worker died: whatever was in flight is lost.
    TakenOver,
    /// A human decided.
    Decided(Decided),
    /// An operator, or an event of `cancelOn`, ordered something.
    Ordered {
        /// What.
        order: Order,
        /// Why, in one line.
        reason: String,
    },
}

/// Applies one input. `now` is the database's time, `chance` in 0..1 decides the jitter of a retry.
pub fn advance(definition: &Definition, event: &Event, saga: &mut Saga, input: Input, now: Timestamp, chance: f64) -> Advance {
    apply(definition, event, saga, input, now, chance, true)
}

/// Applies one input without going on to the next call: for a worker that is about to stop. Whoever takes the saga over goes on.
pub fn record(definition: &Definition, event: &Event, saga: &mut Saga, input: Input, now: Timestamp, chance: f64) -> Advance {
    apply(definition, event, saga, input, now, chance, false)
}

fn apply(definition: &Definition, event: &Event, saga: &mut Saga, input: Input, now: Timestamp, chance: f64, go_on: bool) -> Advance {
    let mut turn = Turn { definition, event, saga, now, chance, result: Advance::default() };
    if turn.saga.state.is_terminal() {
        turn.result.stale = true;
        turn.result.answer = match input {
            Input::Decided(_) | Input::Ordered { .. } => Some(Answer::Refused(format!("the saga is {} already", turn.saga.state.as_str()))),
            _ => None,
        };
        return turn.result;
    }
    if !turn.accept(input) {
        turn.result.stale = true;
        return turn.result;
    }
    if go_on {
        turn.proceed();
        turn.saga.looked_at = Some(now);
    }
    turn.result.steps.sort_unstable();
    turn.result.steps.dedup();
    turn.result
}

/// One application of `advance`: the saga, and the changes so far.
struct Turn<'a> {
    definition: &'a Definition,
    event: &'a Event,
    saga: &'a mut Saga,
    now: Timestamp,
    chance: f64,
    result: Advance,
}

impl Turn<'_> {
    /// Takes the input in; false if it does not fit.
    fn accept(&mut self, input: Input) -> bool {
        match input {
            Input::Start => self.start(),
            Input::Locked => self.locked(),
            Input::Reply { seq, action, attempt, outcome } => {
                let fits = self.saga.steps.get(seq).is_some_and(|step| step.in_flight() == Some(action) && step.attempt(action) == attempt);
                if fits {
                    self.settle(seq, action, *outcome);
                }
                fits
            }
            Input::Ended { seq, action, wait, outcome } => self.ended(seq, action, wait, *outcome),
            Input::Due => self.saga.state != SagaState::Pending,
            Input::Reopened(service) => self.reopened(&service),
            Input::TakenOver => {
                let lost: Vec<_> = self.saga.in_flight().collect();
                for (seq, action) in lost {
                    self.settle(seq, action, Outcome::without_reply(Class::Lost, "the worker that made this call is gone"));
                }
                true
            }
            Input::Decided(decided) => {
                let answer = self.decide(&decided);
                self.answer(answer)
            }
            Input::Ordered { order, reason } => {
                let answer = self.order(order, &reason);
                self.answer(answer)
            }
        }
    }

    /// Answers an order or a decision; false if it was refused.
    fn answer(&mut self, answer: Answer) -> bool {
        let taken = !matches!(answer, Answer::Refused(_));
        self.result.answer = Some(answer);
        taken
    }

    fn start(&mut self) -> bool {
        if self.saga.state != SagaState::Pending {
            return false;
        }
        match (self.saga.locks, &self.definition.lock) {
            (Locks::Queued, Some(lock)) => self.stand_in_line(lock.mode, lock.timeout),
            _ => self.begin(),
        }
        true
    }

    fn locked(&mut self) -> bool {
        let waits = matches!(self.saga.state, SagaState::Pending | SagaState::LockWait);
        if waits {
            self.saga.locks = Locks::Held;
            self.begin();
        }
        waits
    }

    fn begin(&mut self) {
        self.saga.lock_until = None;
        if self.saga.undoes.is_some() {
            self.undo_a_child();
            return;
        }
        self.result.emissions.push(Emission::Started);
        self.saga.state = SagaState::Running;
        self.saga.deadline_at = self.definition.deadline.map(|limit| self.now.plus(limit));
    }

    /// Goes on until something outside must happen.
    fn proceed(&mut self) {
        loop {
            let go_on = match self.saga.state {
                SagaState::LockWait => self.give_up_the_line(),
                SagaState::Running => self.go_forward(),
                SagaState::Hitl => self.stand_still(),
                SagaState::Draining => self.drain(),
                SagaState::Compensating => self.go_back(),
                SagaState::Aborting => self.wind_up(),
                _ => false,
            };
            if !go_on {
                return;
            }
        }
    }

    /// The saga's own time, which stands still while it is paused: the end of the pause moves everything that was set by it.
    fn clock(&self) -> Timestamp {
        self.saga.paused.map_or(self.now, |paused| paused.at)
    }

    fn changed(&mut self, seq: usize) {
        self.result.steps.push(seq);
    }

    /// Commits to a call: it is counted here and made once this change is durable.
    fn call(&mut self, seq: usize, action: Action) {
        self.count(seq, action);
        self.result.calls.push((seq, action));
    }

    /// Counts an attempt.
    fn count(&mut self, seq: usize, action: Action) {
        let step = &mut self.saga.steps[seq];
        match action {
            Action::Do => {
                step.status = StepStatus::Running;
                step.attempts += 1;
                step.started_at.get_or_insert(self.now);
            }
            Action::Undo => {
                step.compensation = super::saga::Compensation::Compensating;
                step.undo_attempts += 1;
            }
            Action::Verify => {
                step.status = StepStatus::Running;
                step.verifies += 1;
            }
        }
        step.called_at = Some(self.now);
        (step.due_at, step.wait_until, step.wait) = (None, None, None);
        self.changed(seq);
    }

    /// An attempt that ends without a reply: what it waited for is of no interest any more.
    fn close(&mut self, seq: usize, action: Action, class: Class, error: &str) {
        let step = &self.saga.steps[seq];
        let started_at = step.called_at.unwrap_or(self.now);
        let outcome = Outcome::without_reply(class, error);
        self.result.attempts.push(Attempt { seq, action, number: step.attempt(action), fence: step.fence, started_at, outcome });
    }

    fn end(&mut self, state: SagaState) {
        self.saga.state = state;
        self.saga.paused = None;
        self.result.emissions.push(Emission::Ended(state));
    }
}
