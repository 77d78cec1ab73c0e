//! The way back: what is in flight is waited for, then everything that was or may have been done is undone, in the reverse
//! order of its start, one at a time.

use std::time::Duration;

use super::{Emission, Turn};
use crate::core::definition::{OnCompensationFailure, Undo, Work};
use crate::core::human::TaskKind;
use crate::core::order::Order;
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::saga::{Compensation, SagaState, StepProgress, StepStatus, Target, Wait};

impl Turn<'_> {
    /// Waits for calls in flight; then everything that was or may have been done is to be undone.
    pub(super) fn drain(&mut self) -> bool {
        if self.stop_what_waits() {
            return true;
        }
        if self.saga.steps.iter().any(|step| matches!(step.status, StepStatus::Running | StepStatus::Waiting | StepStatus::Backoff)) {
            return false;
        }
        for seq in 0..self.saga.steps.len() {
            self.mark_for_undo(seq);
        }
        self.saga.state = SagaState::Compensating;
        true
    }

    fn mark_for_undo(&mut self, seq: usize) {
        let is_to_be_undone = self.is_to_be_undone(seq);
        let step = &mut self.saga.steps[seq];
        if step.compensation != Compensation::None {
            return;
        }
        if is_to_be_undone {
            step.compensation = Compensation::Pending;
        } else if matches!(step.status, StepStatus::Succeeded | StepStatus::Unknown) {
            step.compensation = Compensation::NotNeeded;
        } else {
            return;
        }
        (step.due_at, step.wait_until, step.wait) = (None, None, None);
        self.changed(seq);
    }

    fn is_to_be_undone(&self, seq: usize) -> bool {
        let defined = &self.definition.steps[seq];
        let asked = match self.saga.steps[seq].status {
            StepStatus::Succeeded => defined.compensate_on.succeeded,
            StepStatus::Unknown => defined.compensate_on.unknown,
            StepStatus::Failed => defined.compensate_on.failed,
            _ => false,
        };
        asked && defined.has_undo()
    }

    /// Starts nothing new: attempts that were to come are given up, waits that nobody else works on end. True if any did.
    fn stop_what_waits(&mut self) -> bool {
        let mut changed = false;
        for seq in 0..self.saga.steps.len() {
            let step = &self.saga.steps[seq];
            match (step.status, step.wait) {
                (StepStatus::Backoff, _) | (StepStatus::Waiting, Some(Wait::Service)) if step.verifying => {
                    self.call_again(seq);
                }
                (StepStatus::Backoff, _) | (StepStatus::Waiting, Some(Wait::Service)) => {
                    self.give_up(seq);
                    changed = true;
                }
                // A human wanted another attempt, and it was not made yet.
                (StepStatus::Pending, _) if step.ambiguous => {
                    self.give_up(seq);
                    changed = true;
                }
                (StepStatus::Waiting, Some(Wait::Callback)) => changed |= self.ring_callback(seq, Action::Do, false),
                (StepStatus::Waiting, Some(Wait::Child)) => {}
                (StepStatus::Waiting, _) => {
                    self.break_off(seq, "the saga turned round before it came");
                    changed = true;
                }
                _ => {}
            }
        }
        changed
    }

    /// A wait of which nobody else knows.
    fn break_off(&mut self, seq: usize, error: &str) {
        self.withdraw(seq);
        self.close(seq, Action::Do, Class::Refused, error);
        let step = &mut self.saga.steps[seq];
        step.status = StepStatus::Cancelled;
        step.finished_at = Some(self.now);
        (step.due_at, step.wait_until, step.wait) = (None, None, None);
        self.changed(seq);
    }

    /// Undoes the last step that is still to be undone; one at a time.
    pub(super) fn go_back(&mut self) -> bool {
        let failed = self.saga.latest(|step| step.compensation == Compensation::Failed);
        self.saga.clean = !self.saga.steps.iter().any(|step| matches!(step.compensation, Compensation::Failed | Compensation::Skipped));
        if failed.is_some() && self.definition.on_compensation_failure == OnCompensationFailure::Stop {
            return self.ask_about_undo();
        }
        // One at a time: what a human ordered to be tried again waits for the one that is under way.
        let under_way = |step: &StepProgress| matches!(step.compensation, Compensation::Compensating | Compensation::Waiting | Compensation::Backoff);
        let next = self.saga.latest(under_way).or_else(|| self.saga.latest(|step| step.compensation == Compensation::Pending));
        let Some(seq) = next else {
            if failed.is_some() {
                return self.ask_about_undo();
            }
            self.end(self.saga.target.unwrap_or(Target::Failed).state());
            return false;
        };
        let step = &self.saga.steps[seq];
        let due = step.due_at.is_none_or(|due| due <= self.now);
        match (step.compensation, step.wait) {
            (Compensation::Pending, _) => {
                self.result.emissions.push(Emission::Compensate(seq));
                self.undo(seq);
            }
            (Compensation::Backoff, _) | (Compensation::Waiting, Some(Wait::Service)) if due => {
                // Whoever is to acknowledge an undo is told of every attempt; it may have lost the first.
                if self.is_undone_by_event(seq) {
                    self.result.emissions.push(Emission::Compensate(seq));
                }
                self.undo(seq);
            }
            (Compensation::Waiting, Some(Wait::Callback)) => return self.ring_callback(seq, Action::Undo, false),
            (Compensation::Waiting, Some(Wait::Event)) if step.wait_until.is_some_and(|until| until <= self.now) => {
                let problem = format!("{}: nobody acknowledged saga.compensate", crate::core::failure::TIMED_OUT);
                self.settle(seq, Action::Undo, Outcome::without_reply(Class::Unknown, problem));
                return true;
            }
            _ => {}
        }
        false
    }

    pub(super) fn is_undone_by_event(&self, seq: usize) -> bool {
        self.definition.steps[seq].compensate.as_ref().is_some_and(|compensate| matches!(compensate.undo, Undo::Event))
    }

    /// Begins an attempt to undo a step.
    fn undo(&mut self, seq: usize) {
        if matches!(self.definition.steps[seq].work, Work::Saga(_)) {
            // A saga takes as long as it takes.
            self.await_undo(seq, Wait::Child, None);
            self.result.children.push((seq, Action::Undo));
        } else if self.is_undone_by_event(seq) {
            let limit = self.definition.steps[seq].compensate.as_ref().map(|compensate| compensate.timeout);
            self.await_undo(seq, Wait::Event, limit);
        } else {
            self.call(seq, Action::Undo);
        }
    }

    fn await_undo(&mut self, seq: usize, wait: Wait, limit: Option<Duration>) {
        self.count(seq, Action::Undo);
        let step = &mut self.saga.steps[seq];
        step.compensation = Compensation::Waiting;
        (step.wait, step.wait_until) = (Some(wait), limit.map(|limit| self.now.plus(limit)));
    }

    /// Stands still until people have decided about every undo that failed for good.
    fn ask_about_undo(&mut self) -> bool {
        self.saga.state = SagaState::CompFailed;
        for seq in 0..self.saga.steps.len() {
            let step = &self.saga.steps[seq];
            if step.compensation == Compensation::Failed && step.task != Some(TaskKind::CompFailed) {
                self.result.emissions.push(Emission::CompensationFailed(seq));
                self.open_task(seq, TaskKind::CompFailed);
            }
        }
        false
    }

    /// The saga exists to undo another one, whose steps it was given. One that has passed its point of no return is not undone.
    pub(super) fn undo_a_child(&mut self) {
        if !self.is_reversible() {
            self.reject("the point of no return of the saga that is to be undone is passed");
            return;
        }
        self.result.emissions.push(Emission::Started);
        self.saga.target = Some(Target::Cancelled);
        self.saga.reason = Some("undone with its parent".to_owned());
        for seq in 0..self.saga.steps.len() {
            self.mark_for_undo(seq);
        }
        self.saga.state = SagaState::Compensating;
    }

    /// Ends by force: no further call, but the record is to be true, so what is in flight is waited for.
    pub(super) fn wind_up(&mut self) -> bool {
        for seq in 0..self.saga.steps.len() {
            let step = &self.saga.steps[seq];
            match (step.status, step.wait) {
                (StepStatus::Backoff, _) | (StepStatus::Waiting, Some(Wait::Service)) => self.give_up(seq),
                (StepStatus::Pending, _) if step.ambiguous => self.give_up(seq),
                (StepStatus::Waiting, Some(Wait::Callback)) => {
                    self.settle(seq, Action::Do, Outcome::without_reply(Class::Unknown, "the saga was aborted before the callback came"));
                }
                (StepStatus::Waiting, Some(Wait::Child)) => {}
                (StepStatus::Waiting, _) => self.break_off(seq, "the saga was aborted before it came"),
                _ => {}
            }
        }
        let busy = self.saga.in_flight().next().is_some() || self.saga.steps.iter().any(|step| step.waits_for() == Some(Wait::Child));
        if busy {
            return false;
        }
        for seq in 0..self.saga.steps.len() {
            self.withdraw(seq);
            if matches!(self.saga.steps[seq].undo_waits_for(), Some(wait) if wait != Wait::Service) {
                self.close(seq, Action::Undo, Class::Unknown, "the saga was aborted before the undo was reported");
            }
            let step = &mut self.saga.steps[seq];
            if matches!(step.compensation, Compensation::Pending | Compensation::Backoff | Compensation::Waiting) {
                step.compensation = Compensation::Skipped;
                (step.due_at, step.wait_until, step.wait) = (None, None, None);
                self.changed(seq);
            }
        }
        let left = |seq: usize| self.is_to_be_undone(seq) && self.saga.steps[seq].compensation != Compensation::Compensated;
        self.saga.clean = !(0..self.saga.steps.len()).any(left);
        self.end(SagaState::Aborted);
        false
    }

    /// Orders the end by force.
    pub(super) fn abort(&mut self, reason: &str) {
        self.saga.reason = Some(reason.to_owned());
        if matches!(self.saga.state, SagaState::Pending | SagaState::LockWait) {
            self.end(SagaState::Aborted);
            return;
        }
        self.saga.state = SagaState::Aborting;
        self.saga.paused = None;
        self.order_children(Order::Abort);
    }
}
