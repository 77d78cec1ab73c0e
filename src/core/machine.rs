//! The only place that decides what a saga does next.
//!
//! `advance` takes a saga and one input and returns what changed and what is to be done about it. It is total: an input that
//! does not fit the saga any more (a late reply, a timer that was overtaken) changes nothing and says so.

use super::backoff;
use super::definition::{Definition, OnCompensationFailure};
use super::failure;
use super::outcome::{Action, Class, Outcome};
use super::saga::{Compensation, Saga, SagaState, StepProgress, StepStatus, Target};
use super::time::Timestamp;

/// Something that happened to a saga.
#[derive(Clone, Debug)]
pub enum Input {
    /// It was made: begin.
    Start,
    /// An attempt ended. Ignored unless that attempt is the one in flight.
    Reply {
        /// The step's place in the definition.
        seq: usize,
        /// Do or undo.
        action: Action,
        /// Number of the attempt.
        attempt: u32,
        /// What became of it.
        outcome: Box<Outcome>,
    },
    /// Time has passed: a retry or the deadline may be due.
    Due,
    /// Its worker died: whatever was in flight is lost.
    TakenOver,
}

/// What `advance` changed, and what follows from it once the change is committed.
#[derive(Debug, Default)]
pub struct Advance {
    /// Places of the steps whose rows changed, ascending.
    pub steps: Vec<usize>,
    /// Attempts that ended: to be appended to the ledger.
    pub attempts: Vec<Attempt>,
    /// Calls to make, each already counted in its step.
    pub calls: Vec<(usize, Action)>,
    /// Events to publish, in order.
    pub emissions: Vec<Emission>,
    /// The input did not fit and changed nothing.
    pub stale: bool,
}

/// A finished attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The step's place in the definition.
    pub seq: usize,
    /// Do or undo.
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

/// An event that a saga publishes about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// `saga.started`
    Started,
    /// `saga.compensate`: the undo of a step begins.
    Compensate(usize),
    /// `saga.compensation.failed`: a human is needed.
    CompensationFailed(usize),
    /// `saga.completed`, `saga.failed`, ...: the terminal state.
    Ended(SagaState),
}

/// Applies one input. `now` is the database's time, `chance` in 0..1 decides the jitter of a retry.
pub fn advance(definition: &Definition, saga: &mut Saga, input: Input, now: Timestamp, chance: f64) -> Advance {
    apply(definition, saga, input, now, chance, true)
}

/// Applies one input without going on to the next call: for a worker that is about to stop. Whoever takes the saga over goes on.
pub fn record(definition: &Definition, saga: &mut Saga, input: Input, now: Timestamp, chance: f64) -> Advance {
    apply(definition, saga, input, now, chance, false)
}

fn apply(definition: &Definition, saga: &mut Saga, input: Input, now: Timestamp, chance: f64, go_on: bool) -> Advance {
    let mut turn = Turn { definition, saga, now, chance, result: Advance::default() };
    if turn.saga.state.is_terminal() || !turn.accept(input) {
        turn.result.stale = true;
        return turn.result;
    }
    if go_on {
        turn.proceed();
    }
    turn.result.steps.sort_unstable();
    turn.result.steps.dedup();
    turn.result
}

/// One application of `advance`: the saga, and the changes so far.
struct Turn<'a> {
    definition: &'a Definition,
    saga: &'a mut Saga,
    now: Timestamp,
    chance: f64,
    result: Advance,
}

impl Turn<'_> {
    /// Takes the input in; false if it does not fit.
    fn accept(&mut self, input: Input) -> bool {
        match input {
            Input::Start => self.begin(),
            Input::Reply { seq, action, attempt, outcome } => {
                let fits = self.saga.steps.get(seq).is_some_and(|step| step.in_flight() == Some(action) && step.attempt(action) == attempt);
                if fits {
                    self.settle(seq, action, *outcome);
                }
                fits
            }
            Input::Due => self.saga.state != SagaState::Pending,
            Input::TakenOver => {
                let lost: Vec<_> = self.saga.in_flight().collect();
                for (seq, action) in lost {
                    self.settle(seq, action, Outcome::without_reply(Class::Lost, "the worker that made this call is gone"));
                }
                true
            }
        }
    }

    fn begin(&mut self) -> bool {
        if self.saga.state != SagaState::Pending {
            return false;
        }
        self.saga.state = SagaState::Running;
        self.saga.deadline_at = self.definition.deadline.map(|limit| self.now.plus(limit));
        self.result.emissions.push(Emission::Started);
        true
    }

    /// Records the end of the attempt in flight and what it means for its step.
    fn settle(&mut self, seq: usize, action: Action, mut outcome: Outcome) {
        let step = &mut self.saga.steps[seq];
        // After an attempt of unknown effect, "conflict" and "too early" mean that it is still being worked on.
        if action == Action::Do && step.ambiguous && matches!(outcome.status, Some(409 | 425)) {
            outcome.class = Class::Unknown;
        }
        self.result.attempts.push(Attempt {
            seq,
            action,
            number: step.attempt(action),
            fence: step.fence,
            started_at: step.called_at.unwrap_or(self.now),
            outcome: outcome.clone(),
        });
        self.result.steps.push(seq);
        match action {
            Action::Do => self.settle_do(seq, outcome),
            Action::Undo => self.settle_undo(seq, outcome),
        }
    }

    fn settle_do(&mut self, seq: usize, outcome: Outcome) {
        let retry = self.definition.steps[seq].retry;
        let forward = self.saga.state == SagaState::Running;
        let step = &mut self.saga.steps[seq];
        step.message = outcome.message;
        step.error = outcome.error;
        if outcome.class == Class::Succeeded {
            step.status = StepStatus::Succeeded;
            step.finished_at = Some(self.now);
            step.output = outcome.output;
            step.context = outcome.context;
            return;
        }
        let unknown = matches!(outcome.class, Class::Unknown | Class::Lost);
        step.ambiguous |= unknown;
        if outcome.class != Class::Lost {
            step.spent += 1;
        }
        let retryable = unknown || outcome.class == Class::Failed;
        if forward && retryable && step.spent < retry.attempts {
            step.status = StepStatus::Backoff;
            step.due_at = Some(if outcome.class == Class::Lost {
                self.now
            } else {
                self.now.plus(backoff::delay(&retry, step.spent, self.chance, outcome.retry_after))
            });
        } else {
            give_up(step, self.now);
        }
    }

    fn settle_undo(&mut self, seq: usize, outcome: Outcome) {
        let Some(compensate) = &self.definition.steps[seq].compensate else {
            return;
        };
        let step = &mut self.saga.steps[seq];
        step.message = outcome.message;
        if outcome.class == Class::Succeeded || outcome.status == Some(410) {
            step.compensation = Compensation::Compensated;
            step.due_at = None;
            return;
        }
        step.error = outcome.error;
        if outcome.class != Class::Lost {
            step.undo_spent += 1;
        }
        if outcome.status == Some(409) || step.undo_spent >= compensate.retry.attempts {
            step.compensation = Compensation::Failed;
            step.due_at = None;
            self.saga.clean = false;
            return;
        }
        step.compensation = Compensation::Backoff;
        step.due_at = Some(if outcome.class == Class::Lost {
            self.now
        } else {
            self.now.plus(backoff::delay(&compensate.retry, step.undo_spent, self.chance, outcome.retry_after))
        });
    }

    /// Goes on until something outside must happen.
    fn proceed(&mut self) {
        if self.saga.state == SagaState::Running {
            self.go_forward();
        }
        if self.saga.state == SagaState::Draining {
            self.drain();
        }
        if self.saga.state == SagaState::Compensating {
            self.go_back();
        }
    }

    fn go_forward(&mut self) {
        if self.saga.deadline_at.is_some_and(|deadline| deadline <= self.now) && self.current().is_some() {
            self.turn_round(Target::Failed, failure::DEADLINE_PASSED.to_owned());
            return;
        }
        let Some(seq) = self.current() else {
            self.end(SagaState::Completed);
            return;
        };
        let step = &self.saga.steps[seq];
        match step.status {
            StepStatus::Pending => self.call(seq, Action::Do),
            StepStatus::Backoff if step.due_at.is_none_or(|due| due <= self.now) => self.call(seq, Action::Do),
            StepStatus::Failed | StepStatus::Unknown => {
                let reason = failure::describe(&self.definition.steps[seq].name, step, &self.definition.steps[seq].retry);
                self.turn_round(Target::Failed, reason);
            }
            _ => {}
        }
    }

    /// The first step that is neither done nor left out.
    fn current(&self) -> Option<usize> {
        self.saga.steps.iter().position(|step| !matches!(step.status, StepStatus::Succeeded | StepStatus::Skipped))
    }

    fn turn_round(&mut self, target: Target, reason: String) {
        self.saga.state = SagaState::Draining;
        self.saga.target = Some(target);
        self.saga.reason = Some(reason);
    }

    /// Waits for calls in flight; then everything that was or may have been done is to be undone.
    fn drain(&mut self) {
        for (seq, step) in self.saga.steps.iter_mut().enumerate() {
            if step.status == StepStatus::Backoff {
                give_up(step, self.now);
                self.result.steps.push(seq);
            }
        }
        if self.saga.in_flight().next().is_some() {
            return;
        }
        for (seq, step) in self.saga.steps.iter_mut().enumerate() {
            if matches!(step.status, StepStatus::Succeeded | StepStatus::Unknown) {
                let undo = self.definition.steps[seq].compensate.is_some();
                step.compensation = if undo { Compensation::Pending } else { Compensation::NotNeeded };
                step.due_at = None;
                self.result.steps.push(seq);
            }
        }
        self.saga.state = SagaState::Compensating;
    }

    /// Undoes the last step that is still to be undone; one at a time.
    fn go_back(&mut self) {
        let failed = self.saga.steps.iter().position(|step| step.compensation == Compensation::Failed);
        if let (Some(seq), OnCompensationFailure::Stop) = (failed, self.definition.on_compensation_failure) {
            self.ask_human(seq);
            return;
        }
        let next = self.saga.steps.iter().rposition(|step| {
            matches!(step.compensation, Compensation::Pending | Compensation::Compensating | Compensation::Waiting | Compensation::Backoff)
        });
        let Some(seq) = next else {
            match failed {
                Some(seq) => self.ask_human(seq),
                None => self.end(self.saga.target.unwrap_or(Target::Failed).state()),
            }
            return;
        };
        let step = &self.saga.steps[seq];
        match step.compensation {
            Compensation::Pending => {
                self.result.emissions.push(Emission::Compensate(seq));
                self.call(seq, Action::Undo);
            }
            Compensation::Backoff if step.due_at.is_none_or(|due| due <= self.now) => self.call(seq, Action::Undo),
            _ => {}
        }
    }

    fn ask_human(&mut self, seq: usize) {
        self.saga.state = SagaState::CompFailed;
        self.result.emissions.push(Emission::CompensationFailed(seq));
    }

    fn end(&mut self, state: SagaState) {
        self.saga.state = state;
        self.result.emissions.push(Emission::Ended(state));
    }

    /// Commits to a call: it is counted here and made once this change is durable.
    fn call(&mut self, seq: usize, action: Action) {
        let step = &mut self.saga.steps[seq];
        match action {
            Action::Do => {
                step.status = StepStatus::Running;
                step.attempts += 1;
                step.started_at.get_or_insert(self.now);
            }
            Action::Undo => {
                step.compensation = Compensation::Compensating;
                step.undo_attempts += 1;
            }
        }
        step.called_at = Some(self.now);
        step.due_at = None;
        self.result.steps.push(seq);
        self.result.calls.push((seq, action));
    }
}

/// Ends a step that did not succeed: `unknown` if any attempt may have had its effect.
fn give_up(step: &mut StepProgress, now: Timestamp) {
    step.status = if step.ambiguous { StepStatus::Unknown } else { StepStatus::Failed };
    step.finished_at = Some(now);
    step.due_at = None;
}
