//! What operators order and people decide. Each is answered: applied, refused and why, or deferred.

use super::Turn;
use crate::core::definition::{Otherwise, Work};
use crate::core::human::{Decided, Decision, TaskKind};
use crate::core::order::{Answer, Order};
use crate::core::outcome::{Action, Outcome};
use crate::core::saga::{Compensation, Paused, SagaState, StepStatus, Target, Wait};

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
        let running = self.saga.paused.is_some_and(|paused| paused.resume_to == SagaState::Running);
        match self.saga.state {
            SagaState::Pending | SagaState::LockWait => {
                self.end_before_it_began(Target::Cancelled, reason);
                applied("cancelled before it began")
            }
            // Asked again once the pivot is known.
            SagaState::Running if self.saga.target.is_some() => Answer::Deferred,
            SagaState::Draining | SagaState::Compensating if self.saga.target == Some(Target::Cancelled) => applied("is being undone"),
            SagaState::Running | SagaState::Hitl | SagaState::Paused if running || self.saga.state != SagaState::Paused => {
                if self.pivot_passed() {
                    return refused("the point of no return is passed: it can only go on");
                }
                if !self.is_reversible() {
                    return refused("nobody knows whether the point of no return was passed: decide its human task first");
                }
                self.thaw();
                self.turn_back(Target::Cancelled, reason.to_owned());
                if self.saga.state == SagaState::Draining { applied("is being undone") } else { Answer::Deferred }
            }
            state => refused(&format!("the saga is {}: there is nothing left to cancel", state.as_str())),
        }
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
            shift(&mut step.due_at);
            shift(&mut step.wait_until);
            shift(&mut step.deadline_at);
            if before != (step.due_at, step.wait_until, step.deadline_at) {
                self.result.steps.push(seq);
            }
        }
    }

    fn retry(&mut self, step: Option<usize>) -> Answer {
        let candidates: Vec<usize> = (0..self.saga.steps.len()).filter(|seq| step.is_none_or(|step| step == *seq)).collect();
        let retried: Vec<usize> = candidates.into_iter().filter(|seq| self.retry_step(*seq)).collect();
        if retried.is_empty() {
            return refused("nothing there waits for another attempt");
        }
        applied(&format!("tried again: {}", self.names(&retried)))
    }

    /// Tries a step, or its undo, again now; false if it does not wait for that.
    fn retry_step(&mut self, seq: usize) -> bool {
        let step = &mut self.saga.steps[seq];
        let waits_for_service = step.wait == Some(Wait::Service);
        match (self.saga.state, step.status, step.compensation) {
            (SagaState::Running | SagaState::Hitl | SagaState::Draining, StepStatus::Backoff, _) => step.due_at = Some(self.now),
            (SagaState::Running | SagaState::Hitl | SagaState::Draining, StepStatus::Waiting, _) if waits_for_service => step.due_at = Some(self.now),
            (SagaState::Compensating, _, Compensation::Backoff) => step.due_at = Some(self.now),
            (SagaState::Compensating, _, Compensation::Waiting) if waits_for_service => step.due_at = Some(self.now),
            (SagaState::Hitl, StepStatus::Failed | StepStatus::Unknown, _) => {
                self.begin_anew(seq);
                self.saga.state = SagaState::Running;
            }
            (SagaState::CompFailed, _, Compensation::Failed) => {
                self.undo_anew(seq);
                self.saga.state = SagaState::Compensating;
            }
            _ => return false,
        }
        self.changed(seq);
        true
    }

    /// A step that is to be done again, with all its attempts and the same idempotency key.
    fn begin_anew(&mut self, seq: usize) {
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
            ([], Some(seq)) => {
                let name = &self.definition.steps[seq].name;
                refused(&format!("step {name} cannot be skipped now: only one that failed, waits, or whose undo failed can be"))
            }
            ([], None) => refused("no step can be skipped now"),
            ([seq], _) => {
                self.skip_step(*seq);
                applied(&format!("skipped: {}", self.names(&can)))
            }
            _ => refused(&format!("say which step: {}", self.names(&can))),
        }
    }

    fn can_skip(&self, seq: usize) -> bool {
        let step = &self.saga.steps[seq];
        match self.saga.state {
            SagaState::Hitl if matches!(step.status, StepStatus::Failed | StepStatus::Unknown) => true,
            SagaState::Running | SagaState::Hitl => match step.status {
                StepStatus::Backoff => true,
                StepStatus::Waiting => !matches!(step.wait, Some(Wait::Callback | Wait::Child)),
                _ => false,
            },
            SagaState::CompFailed => step.compensation == Compensation::Failed,
            SagaState::Compensating => step.compensation == Compensation::Backoff,
            _ => false,
        }
    }

    fn skip_step(&mut self, seq: usize) {
        if matches!(self.saga.state, SagaState::CompFailed | SagaState::Compensating) {
            self.withdraw(seq);
            let step = &mut self.saga.steps[seq];
            step.compensation = Compensation::Skipped;
            step.due_at = None;
            self.saga.clean = false;
            self.saga.state = SagaState::Compensating;
            self.changed(seq);
            return;
        }
        self.leave_be(seq);
    }

    /// Leaves a step out that had begun.
    fn leave_be(&mut self, seq: usize) {
        self.withdraw(seq);
        let step = &mut self.saga.steps[seq];
        step.status = StepStatus::Skipped;
        step.finished_at = Some(self.now);
        (step.due_at, step.wait_until, step.wait) = (None, None, None);
        (step.for_human, step.verifying) = (false, false);
        self.changed(seq);
        if self.saga.state == SagaState::Hitl {
            self.saga.state = SagaState::Running;
        }
    }

    /// What a human decided about a task.
    pub(super) fn decide(&mut self, decided: &Decided) -> Answer {
        if !decided.kind.decisions().contains(&decided.decision) {
            return refused(&format!("a task of kind {} does not take `{}`", decided.kind.as_str(), decided.decision.as_str()));
        }
        let Some(seq) = decided.seq.filter(|seq| *seq < self.saga.steps.len()) else {
            return if decided.decision == Decision::Acknowledge { applied("seen") } else { refused("the task is about no step of this saga") };
        };
        match decided.kind {
            TaskKind::Approval => self.decide_approval(seq, decided),
            TaskKind::StepFailed | TaskKind::PivotUnknown => self.decide_step(seq, decided),
            TaskKind::CompFailed => self.decide_undo(seq, decided),
            _ => applied("seen"),
        }
    }

    fn decide_approval(&mut self, seq: usize, decided: &Decided) -> Answer {
        let definition = self.definition;
        let Work::Human(human) = &definition.steps[seq].work else { return refused("the step asks nobody") };
        if self.saga.steps[seq].waits_for() != Some(Wait::Human) || self.saga.state == SagaState::Aborting {
            return refused("the step does not wait for a decision any more");
        }
        self.saga.steps[seq].task = None;
        if decided.decision == Decision::Approve {
            let message = Some(format!("approved by {}", decided.by));
            self.settle(seq, Action::Do, Outcome { message, ..Outcome::success(decided.output.clone()) });
            return applied("approved");
        }
        let error = format!("{} {}: {}", crate::core::failure::REJECTED_BY, decided.by, decided.note);
        self.otherwise(seq, human.on_reject, &error);
        if human.on_reject == Otherwise::Continue { applied("rejected: goes on without it") } else { applied("rejected") }
    }

    fn decide_step(&mut self, seq: usize, decided: &Decided) -> Answer {
        let open = match self.saga.state {
            SagaState::Hitl => matches!(self.saga.steps[seq].status, StepStatus::Failed | StepStatus::Unknown | StepStatus::Backoff),
            SagaState::Running => self.saga.steps[seq].status == StepStatus::Backoff,
            _ => false,
        };
        if decided.decision == Decision::Compensate
            && matches!(self.saga.state, SagaState::Draining | SagaState::Compensating | SagaState::CompFailed)
        {
            self.saga.steps[seq].task = None;
            self.changed(seq);
            return applied("is being undone already");
        }
        if decided.decision == Decision::Abort {
            self.saga.steps[seq].task = None;
            self.abort(&decided.note);
            return applied("ends as it is");
        }
        if !open {
            return refused(&format!("step {} is not waiting for a decision any more", self.definition.steps[seq].name));
        }
        if decided.decision == Decision::Compensate && !self.is_reversible() {
            return refused("the point of no return is passed: it can only go on");
        }
        self.saga.steps[seq].task = None;
        match decided.decision {
            Decision::Retry => {
                self.retry_step(seq);
                applied("tried again")
            }
            Decision::Skip => {
                self.leave_be(seq);
                applied("skipped")
            }
            Decision::Done => {
                let message = Some(format!("done, says {}", decided.by));
                self.note(seq, Outcome { message, ..Outcome::success(decided.output.clone()) });
                self.saga.steps[seq].for_human = false;
                self.go_on_running();
                applied("counts as done")
            }
            Decision::NotDone => {
                let step = &mut self.saga.steps[seq];
                (step.status, step.ambiguous, step.for_human) = (StepStatus::Failed, false, false);
                self.changed(seq);
                self.go_on_running();
                applied("counts as not done")
            }
            _ => {
                self.turn_back(Target::Failed, decided.note.clone());
                applied("is being undone")
            }
        }
    }

    fn go_on_running(&mut self) {
        if self.saga.state == SagaState::Hitl {
            self.saga.state = SagaState::Running;
        }
    }

    fn decide_undo(&mut self, seq: usize, decided: &Decided) -> Answer {
        if self.saga.state != SagaState::CompFailed || self.saga.steps[seq].compensation != Compensation::Failed {
            return refused(&format!("the undo of {} is not waiting for a decision any more", self.definition.steps[seq].name));
        }
        self.saga.steps[seq].task = None;
        match decided.decision {
            Decision::Retry => {
                self.retry_step(seq);
                applied("the undo is tried again")
            }
            Decision::Undone => {
                let step = &mut self.saga.steps[seq];
                step.compensation = Compensation::Compensated;
                step.message = Some(format!("undone, says {}", decided.by));
                self.saga.state = SagaState::Compensating;
                self.changed(seq);
                applied("counts as undone")
            }
            Decision::Skip => {
                self.skip_step(seq);
                applied("stays as it is")
            }
            _ => {
                self.abort(&decided.note);
                applied("ends as it is")
            }
        }
    }

    fn names(&self, steps: &[usize]) -> String {
        steps.iter().map(|seq| self.definition.steps[*seq].name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

fn applied(what: &str) -> Answer {
    Answer::Applied(what.to_owned())
}

fn refused(why: &str) -> Answer {
    Answer::Refused(why.to_owned())
}
