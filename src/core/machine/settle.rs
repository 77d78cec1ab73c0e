//! What the end of an attempt means for its step.

use super::{Attempt, Turn};
use crate::core::backoff;
use crate::core::definition::{OnExhausted, StepKind, Work};
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::saga::{Compensation, SagaState, StepStatus, Wait};
use crate::core::time::Timestamp;

impl Turn<'_> {
    /// Records the end of an attempt and what it means for its step.
    pub(super) fn settle(&mut self, seq: usize, action: Action, mut outcome: Outcome) {
        match outcome.class {
            Class::Parked => return self.park(seq, action, &outcome),
            Class::Accepted => return self.accepted(seq, action, &outcome),
            _ => {}
        }
        let step = &mut self.saga.steps[seq];
        // After an attempt of unknown effect, "conflict" and "too early" mean that it is still being worked on.
        if action == Action::Do && step.ambiguous && matches!(outcome.status, Some(409 | 425)) {
            outcome.class = Class::Unknown;
        }
        let attempt = Attempt {
            seq,
            action,
            number: step.attempt(action),
            fence: step.fence,
            started_at: step.called_at.unwrap_or(self.now),
            outcome: outcome.clone(),
        };
        (step.due_at, step.wait_until, step.wait) = (None, None, None);
        self.result.attempts.push(attempt);
        self.changed(seq);
        match action {
            Action::Do => self.settle_do(seq, outcome),
            Action::Undo => self.settle_undo(seq, outcome),
            Action::Verify => self.settle_verify(seq, outcome),
        }
    }

    /// A success that no call brought: what a person says was done.
    pub(super) fn note(&mut self, seq: usize, outcome: Outcome) {
        self.append(seq, outcome.clone());
        let step = &mut self.saga.steps[seq];
        (step.due_at, step.wait_until, step.wait) = (None, None, None);
        self.succeeded(seq, outcome);
    }

    /// Keeps in the ledger, as an attempt of its own, what was said of a step when no attempt was under way.
    pub(super) fn append(&mut self, seq: usize, outcome: Outcome) {
        let step = &mut self.saga.steps[seq];
        step.attempts += 1;
        self.result.attempts.push(Attempt { seq, action: Action::Do, number: step.attempts, fence: 0, started_at: self.now, outcome });
        self.changed(seq);
    }

    /// Nothing was sent: the attempt did not take place.
    fn park(&mut self, seq: usize, action: Action, outcome: &Outcome) {
        let now = self.clock();
        let step = &mut self.saga.steps[seq];
        step.due_at = Some(now.plus(outcome.retry_after.unwrap_or_default()));
        step.wait = Some(Wait::Service);
        match action {
            Action::Do => (step.attempts, step.status) = (step.attempts - 1, StepStatus::Waiting),
            Action::Undo => (step.undo_attempts, step.compensation) = (step.undo_attempts - 1, Compensation::Waiting),
            Action::Verify => (step.verifies, step.status) = (step.verifies - 1, StepStatus::Waiting),
        }
        self.changed(seq);
    }

    /// 202: a callback will tell.
    fn accepted(&mut self, seq: usize, action: Action, outcome: &Outcome) {
        let now = self.clock();
        let definition = &self.definition.steps[seq];
        let limit =
            if action == Action::Undo { definition.compensate.as_ref().map_or(definition.timeout, |undo| undo.timeout) } else { definition.timeout };
        let step = &mut self.saga.steps[seq];
        step.message.clone_from(&outcome.message);
        step.wait = Some(Wait::Callback);
        // From now on, not from the call: a pause between the two would count.
        step.wait_until = Some(now.plus(limit));
        step.due_at = definition.heartbeat_timeout.filter(|_| action == Action::Do).map(|silence| now.plus(silence));
        if action == Action::Undo {
            step.compensation = Compensation::Waiting;
        } else {
            step.status = StepStatus::Waiting;
        }
        self.changed(seq);
    }

    fn settle_do(&mut self, seq: usize, outcome: Outcome) {
        let definition = self.definition;
        let defined = &definition.steps[seq];
        if outcome.class == Class::Succeeded {
            self.succeeded(seq, outcome);
            return;
        }
        let (goes_forward, now) = (self.goes_forward(), self.clock());
        let step = &mut self.saga.steps[seq];
        step.message = outcome.message;
        step.error = outcome.error;
        // A function and its outcome are one transaction: a lost worker leaves no doubt.
        let unknown = outcome.class == Class::Unknown || outcome.class == Class::Lost && !matches!(defined.work, Work::Sql(_));
        step.ambiguous |= unknown;
        if outcome.class != Class::Lost && !outcome.free {
            step.spent += 1;
        }
        let retryable = matches!(outcome.class, Class::Unknown | Class::Lost | Class::Failed) && matches!(defined.work, Work::Call(_) | Work::Sql(_));
        let in_time = step.deadline_at.is_none_or(|deadline| deadline > now);
        if goes_forward && retryable && in_time && step.spent < defined.retry.attempts {
            step.status = StepStatus::Backoff;
            self.saga.steps[seq].due_at = Some(self.again_at(seq, Action::Do, outcome.class, outcome.retry_after));
            if self.saga.steps[seq].spent >= definition.hitl.after {
                self.tell_of_failure(seq);
            }
        } else {
            self.give_up(seq);
        }
    }

    /// Whether it goes forward, or did until it was paused.
    pub(super) fn is_going_forward(&self) -> bool {
        matches!(self.awake_state(), SagaState::Running | SagaState::Hitl)
    }

    /// Whether new attempts may follow: not once the saga is to be undone, or ended.
    fn goes_forward(&self) -> bool {
        self.is_going_forward() && self.saga.target.is_none()
    }

    fn again_at(&self, seq: usize, action: Action, class: Class, retry_after: Option<std::time::Duration>) -> Timestamp {
        let now = self.clock();
        if class == Class::Lost {
            return now;
        }
        let (defined, step) = (&self.definition.steps[seq], &self.saga.steps[seq]);
        let (retry, spent) = match (action, &defined.compensate) {
            (Action::Undo, Some(compensate)) => (&compensate.retry, step.undo_spent),
            (Action::Verify, _) => (&defined.retry, step.verify_spent),
            _ => (&defined.retry, step.spent),
        };
        now.plus(backoff::delay(retry, spent.max(1), self.chance, retry_after))
    }

    pub(super) fn succeeded(&mut self, seq: usize, outcome: Outcome) {
        let step = &mut self.saga.steps[seq];
        step.status = StepStatus::Succeeded;
        step.finished_at = Some(self.now);
        step.message = outcome.message;
        step.error = outcome.error;
        step.output = outcome.output;
        step.context = outcome.context;
        step.verifying = false;
        self.withdraw(seq);
        self.changed(seq);
    }

    /// No further attempt: if its effect is in doubt and somebody can be asked, that comes first.
    pub(super) fn give_up(&mut self, seq: usize) {
        let (may_ask, is_call) = {
            let defined = &self.definition.steps[seq];
            (defined.verify.is_some(), matches!(defined.work, Work::Call(_)))
        };
        let (aborting, now) = (self.saga.state == SagaState::Aborting, self.clock());
        let step = &mut self.saga.steps[seq];
        (step.due_at, step.wait_until, step.wait) = (None, None, None);
        if step.ambiguous && may_ask && is_call && !step.verifying && !aborting {
            step.verifying = true;
            step.verify_spent = 0;
            step.status = StepStatus::Backoff;
            step.due_at = Some(now);
        } else {
            step.verifying = false;
            step.status = match (step.ambiguous, step.attempts) {
                (true, _) => StepStatus::Unknown,
                // Its service was parked before its first call: it was never begun.
                (false, 0) => StepStatus::Cancelled,
                (false, _) => StepStatus::Failed,
            };
            step.finished_at = Some(self.now);
            if self.goes_forward() {
                self.tell_of_failure(seq);
            }
        }
        self.changed(seq);
    }

    fn settle_verify(&mut self, seq: usize, outcome: Outcome) {
        match outcome.class {
            Class::Succeeded => self.succeeded(seq, Outcome { error: None, ..outcome }),
            Class::NotDone => {
                self.saga.steps[seq].ambiguous = false;
                self.give_up(seq);
            }
            class => {
                let attempts = self.definition.steps[seq].retry.attempts;
                let now = self.clock();
                let step = &mut self.saga.steps[seq];
                if class != Class::Lost && !outcome.free {
                    step.verify_spent += 1;
                }
                let in_time = step.deadline_at.is_none_or(|deadline| deadline > now);
                if step.verify_spent < attempts && in_time && self.saga.state != SagaState::Aborting {
                    step.status = StepStatus::Backoff;
                    self.saga.steps[seq].due_at = Some(self.again_at(seq, Action::Verify, class, outcome.retry_after));
                } else {
                    self.give_up(seq);
                }
            }
        }
    }

    fn settle_undo(&mut self, seq: usize, outcome: Outcome) {
        let attempts = self.definition.steps[seq].compensate.as_ref().map_or(1, |compensate| compensate.retry.attempts);
        let is_child = matches!(self.definition.steps[seq].work, Work::Saga(_));
        let step = &mut self.saga.steps[seq];
        step.message = outcome.message;
        if outcome.class == Class::Succeeded || outcome.status == Some(410) {
            step.compensation = Compensation::Compensated;
            return;
        }
        step.error = outcome.error;
        if outcome.class != Class::Lost && !outcome.free {
            step.undo_spent += 1;
        }
        if outcome.status == Some(409) || is_child || step.undo_spent >= attempts {
            step.compensation = Compensation::Failed;
            return;
        }
        step.compensation = Compensation::Backoff;
        self.saga.steps[seq].due_at = Some(self.again_at(seq, Action::Undo, outcome.class, outcome.retry_after));
    }

    /// Whether a step that did not succeed lets the saga go on.
    pub(super) fn is_let_be(&self, seq: usize) -> bool {
        let defined = &self.definition.steps[seq];
        defined.on_exhausted == OnExhausted::Continue && defined.kind != StepKind::Pivot && !self.saga.steps[seq].for_human
    }
}
