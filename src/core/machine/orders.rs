//! What operators order. Each order is answered: applied, refused and why, or deferred.

use super::Turn;
use crate::core::definition::Work;
use crate::core::order::{Answer, Order};
use crate::core::saga::{Compensation, Paused, SagaState, StepStatus, Target, Wait};

pub(super) const BEING_UNDONE: &str = "is being undone";
pub(super) const PIVOT_PASSED: &str = "the point of no return is passed: it can only go on";
pub(super) const PIVOT_UNKNOWN: &str = "nobody knows whether the point of no return was passed: decide its human task first";

impl Turn<'_> {
    pub(super) fn order(&mut self, order: Order, reason: &str) -> Answer {
        match order {
            Order::Cancel => self.cancel(reason),
            Order::Pause => self.pause(),
            Order::Resume => self.resume(),
            Order::Abort if self.saga.state == SagaState::Aborting => refused("the saga is being aborted already"),
            Order::Abort => {
                self.abort(reason);
                applied("ends as it is")
            }
            Order::Retry(step) => self.retry(step),
            Order::Skip(step) => self.skip(step),
        }
    }

    fn cancel(&mut self, reason: &str) -> Answer {
        match (self.saga.state, self.awake_state()) {
            (SagaState::Pending | SagaState::LockWait, _) => {
                self.end_before_it_began(Target::Cancelled, reason);
                applied("cancelled before it began")
            }
            (SagaState::Draining | SagaState::Compensating, _) if self.saga.target == Some(Target::Cancelled) => applied(BEING_UNDONE),
            (_, SagaState::Running | SagaState::Hitl) => self.turn_back_by_order(Target::Cancelled, reason),
            (state, _) => refused(&format!("the saga is {}: there is nothing left to cancel", state.as_str())),
        }
    }

    /// Where a saga stands, or stood before it was paused.
    pub(super) fn awake_state(&self) -> SagaState {
        self.saga.paused.map_or(self.saga.state, |paused| paused.resume_to)
    }

    /// Turns a saga round that goes forward, as soon as the pivot is known.
    pub(super) fn turn_back_by_order(&mut self, target: Target, reason: &str) -> Answer {
        if self.saga.target.is_some() {
            return Answer::Deferred;
        }
        if self.pivot_passed() {
            return refused(PIVOT_PASSED);
        }
        if !self.is_reversible() {
            return refused(PIVOT_UNKNOWN);
        }
        self.thaw();
        self.turn_back(target, reason.to_owned());
        if self.saga.state == SagaState::Draining { applied(BEING_UNDONE) } else { Answer::Deferred }
    }

    fn pause(&mut self) -> Answer {
        match self.saga.state {
            SagaState::Running if self.saga.target.is_some() => refused("the saga is about to be undone"),
            state @ (SagaState::Running | SagaState::Compensating) => {
                self.saga.paused = Some(Paused { resume_to: state, at: self.now });
                self.saga.state = SagaState::Paused;
                applied("paused: what is in flight is still recorded")
            }
            state => refused(&format!("the saga is {}: only a running or compensating one can be paused", state.as_str())),
        }
    }

    fn resume(&mut self) -> Answer {
        if self.saga.state != SagaState::Paused {
            return refused(&format!("the saga is {}, not paused", self.saga.state.as_str()));
        }
        self.thaw();
        applied("goes on")
    }

    /// Ends a pause: the time that stood still is added to every limit.
    fn thaw(&mut self) {
        let Some(paused) = self.saga.paused.take() else { return };
        self.saga.state = paused.resume_to;
        let pause = self.now.since(paused.at);
        let shift = |time: &mut Option<crate::core::time::Timestamp>| *time = time.map(|time| time.plus(pause));
        shift(&mut self.saga.deadline_at);
        for (seq, step) in self.saga.steps.iter_mut().enumerate() {
            let before = (step.due_at, step.wait_until, step.deadline_at);
            // A point in time is where it is.
            if step.wait != Some(Wait::Timer) || !matches!(self.definition.steps[seq].work, Work::Until(_)) {
                shift(&mut step.due_at);
            }
            shift(&mut step.wait_until);
            shift(&mut step.deadline_at);
            if before != (step.due_at, step.wait_until, step.deadline_at) {
                self.result.steps.push(seq);
            }
        }
    }

    fn retry(&mut self, step: Option<usize>) -> Answer {
        let state = self.saga.state;
        let candidates = (0..self.saga.steps.len()).filter(|seq| step.is_none_or(|step| step == *seq));
        let retried: Vec<usize> = candidates.filter(|seq| self.retry_step(*seq, state, step.is_some())).collect();
        if retried.is_empty() {
            return refused("nothing there waits for another attempt");
        }
        applied(&format!("tried again: {}", self.names(&retried)))
    }

    /// Tries a step, or its undo, again now; false if it does not wait for that. One that failed while the saga goes on is tried
    /// again only if it is `named`.
    pub(super) fn retry_step(&mut self, seq: usize, state: SagaState, named: bool) -> bool {
        let (goes_on, now) = (self.saga.target.is_none(), self.now);
        let step = &mut self.saga.steps[seq];
        let waits_for_service = step.wait == Some(Wait::Service);
        match (state, step.status, step.compensation) {
            (SagaState::Running | SagaState::Hitl | SagaState::Draining, StepStatus::Backoff, _) => step.due_at = Some(now),
            (SagaState::Running | SagaState::Hitl | SagaState::Draining, StepStatus::Waiting, _) if waits_for_service => step.due_at = Some(now),
            (SagaState::Compensating, _, Compensation::Backoff) => step.due_at = Some(now),
            (SagaState::Compensating, _, Compensation::Waiting) if waits_for_service => step.due_at = Some(now),
            (SagaState::Hitl | SagaState::Running, StepStatus::Failed | StepStatus::Unknown, _) if goes_on && (named || state == SagaState::Hitl) => {
                self.begin_anew(seq);
                self.saga.state = SagaState::Running;
            }
            (SagaState::CompFailed | SagaState::Compensating, _, Compensation::Failed) if named || state == SagaState::CompFailed => {
                self.undo_anew(seq);
                self.saga.state = SagaState::Compensating;
            }
            _ => return false,
        }
        self.changed(seq);
        true
    }

    /// A step that is to be done again, with all its attempts and the same idempotency key.
    pub(super) fn begin_anew(&mut self, seq: usize) {
        self.withdraw(seq);
        let step = &mut self.saga.steps[seq];
        step.status = StepStatus::Pending;
        (step.spent, step.verify_spent) = (0, 0);
        (step.finished_at, step.due_at, step.wait_until, step.deadline_at, step.wait) = (None, None, None, None, None);
        (step.for_human, step.verifying) = (false, false);
        self.changed(seq);
    }

    fn undo_anew(&mut self, seq: usize) {
        self.withdraw(seq);
        let step = &mut self.saga.steps[seq];
        step.compensation = Compensation::Pending;
        step.undo_spent = 0;
        self.changed(seq);
    }

    fn skip(&mut self, step: Option<usize>) -> Answer {
        let can: Vec<usize> = (0..self.saga.steps.len()).filter(|seq| step.is_none_or(|step| step == *seq) && self.can_skip(*seq)).collect();
        match (can.as_slice(), step) {
            ([], Some(seq)) if self.definition.pivot() == Some(seq) && !self.is_reversible() => refused(PIVOT_UNKNOWN),
            ([], Some(seq)) if seq < self.saga.steps.len() => {
                let name = &self.definition.steps[seq].name;
                refused(&format!("step {name} cannot be skipped now: only one that failed, waits, or whose undo failed can be"))
            }
            ([], _) => refused("no step can be skipped now"),
            ([seq], _) => {
                self.skip_step(*seq);
                applied(&format!("skipped: {}", self.names(&can)))
            }
            _ => refused(&format!("say which step: {}", self.names(&can))),
        }
    }

    /// Whether a step may be left out now. The pivot may not while it is in doubt: everything before it would count as undoable.
    pub(super) fn can_skip(&self, seq: usize) -> bool {
        let step = &self.saga.steps[seq];
        let in_doubt = step.ambiguous && self.definition.pivot() == Some(seq);
        match self.saga.state {
            SagaState::Hitl if matches!(step.status, StepStatus::Failed | StepStatus::Unknown) => !in_doubt,
            SagaState::Running | SagaState::Hitl => match step.status {
                StepStatus::Backoff => !in_doubt,
                StepStatus::Waiting => !in_doubt && !matches!(step.wait, Some(Wait::Callback | Wait::Child)),
                _ => false,
            },
            SagaState::CompFailed => step.compensation == Compensation::Failed,
            SagaState::Compensating => {
                matches!(step.compensation, Compensation::Backoff | Compensation::Failed) || step.undo_waits_for() == Some(Wait::Service)
            }
            _ => false,
        }
    }

    pub(super) fn skip_step(&mut self, seq: usize) {
        if matches!(self.saga.state, SagaState::CompFailed | SagaState::Compensating) {
            self.withdraw(seq);
            let step = &mut self.saga.steps[seq];
            step.compensation = Compensation::Skipped;
            (step.due_at, step.wait_until, step.wait) = (None, None, None);
            self.saga.clean = false;
            self.saga.state = SagaState::Compensating;
            self.changed(seq);
            return;
        }
        self.leave_be(seq, "skipped by an operator");
    }

    fn names(&self, steps: &[usize]) -> String {
        steps.iter().map(|seq| self.definition.steps[*seq].name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

pub(super) fn applied(what: &str) -> Answer {
    Answer::Applied(what.to_owned())
}

pub(super) fn refused(why: &str) -> Answer {
    Answer::Refused(why.to_owned())
}
