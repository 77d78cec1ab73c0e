//! What a saga waits for besides replies: timers, limits, events, callbacks, children, locks.

use std::time::Duration;

use super::{Attempt, TaskChange, Turn};
use crate::core::definition::{LockMode, Otherwise, Undo, Work};
use crate::core::failure;
use crate::core::human::TaskKind;
use crate::core::order::Order;
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::payload::Payload;
use crate::core::saga::{Compensation, SagaState, StepStatus, Target, Wait};

impl Turn<'_> {
    /// Some other saga holds a key.
    pub(super) fn stand_in_line(&mut self, mode: LockMode, limit: Option<Duration>) {
        match mode {
            LockMode::Wait => {
                self.saga.state = SagaState::LockWait;
                self.saga.lock_until = limit.map(|limit| self.now.plus(limit));
            }
            LockMode::Abort => self.reject(failure::LOCK_BUSY),
        }
    }

    pub(super) fn give_up_the_line(&mut self) -> bool {
        if self.saga.lock_until.is_some_and(|until| until <= self.now) {
            self.reject(failure::LOCK_TIMEOUT);
        }
        false
    }

    pub(super) fn reject(&mut self, reason: &str) {
        self.saga.reason = Some(reason.to_owned());
        self.end(SagaState::Rejected);
    }

    /// Ends the waits whose time has come; true if anything changed.
    pub(super) fn ring(&mut self) -> bool {
        let mut changed = false;
        for seq in 0..self.saga.steps.len() {
            changed |= match self.saga.steps[seq].status {
                StepStatus::Waiting => self.ring_wait(seq),
                StepStatus::Backoff if !self.saga.steps[seq].verifying && self.is_past_deadline(seq) => {
                    self.give_up(seq);
                    true
                }
                _ => false,
            };
        }
        changed
    }

    fn is_past_deadline(&self, seq: usize) -> bool {
        self.saga.steps[seq].deadline_at.is_some_and(|deadline| deadline <= self.now)
    }

    fn ring_wait(&mut self, seq: usize) -> bool {
        let step = &self.saga.steps[seq];
        let past = |time: Option<crate::core::time::Timestamp>| time.is_some_and(|time| time <= self.now);
        let (due, over, dead) = (past(step.due_at), past(step.wait_until), past(step.deadline_at));
        match step.wait {
            Some(Wait::Timer) if due => self.settle(seq, Action::Do, Outcome::success(None)),
            Some(Wait::Callback) => return self.ring_callback(seq, Action::Do, dead),
            Some(Wait::Event | Wait::Human) if over => self.waited_too_long(seq),
            Some(Wait::Child) if dead && !step.for_human => {
                // Said once: the child undoes itself, and its end is waited for.
                self.saga.steps[seq].deadline_at = None;
                self.result.child_orders.push((seq, Order::Cancel));
                self.changed(seq);
            }
            Some(Wait::Service) if dead && !step.verifying => {
                // The call that it was parked for is not made any more: that is how it ends.
                self.count(seq, Action::Do);
                self.settle(seq, Action::Do, Outcome::without_reply(Class::Refused, failure::STEP_DEADLINE));
            }
            Some(Wait::Timer | Wait::Event | Wait::Human) if dead => {
                self.withdraw(seq);
                self.settle(seq, Action::Do, Outcome::without_reply(Class::Refused, failure::STEP_DEADLINE));
            }
            _ => return false,
        }
        true
    }

    /// The limits of an asynchronous call: the whole of it, and the silence between heartbeats.
    pub(super) fn ring_callback(&mut self, seq: usize, action: Action, dead: bool) -> bool {
        let silence = self.definition.steps[seq].heartbeat_timeout.filter(|_| action == Action::Do);
        let step = &mut self.saga.steps[seq];
        if let (Some(silence), Some(beat)) = (silence, step.beat_at.take()) {
            // Heartbeats do not wake anybody: they are looked at when one would be missed.
            step.due_at = step.due_at.max(Some(beat.plus(silence)));
            self.result.steps.push(seq);
        }
        let past = |time: Option<crate::core::time::Timestamp>| time.is_some_and(|time| time <= self.now);
        let step = &self.saga.steps[seq];
        let problem = if past(step.wait_until) || dead {
            format!("{}: no callback", failure::TIMED_OUT)
        } else if past(step.due_at) {
            format!("{}: no heartbeat for {} ms", failure::TIMED_OUT, silence.unwrap_or_default().as_millis())
        } else {
            return false;
        };
        self.settle(seq, action, Outcome::without_reply(Class::Unknown, problem));
        true
    }

    fn waited_too_long(&mut self, seq: usize) {
        let definition = self.definition;
        let (what, otherwise) = match &definition.steps[seq].work {
            Work::Human(human) => ("nobody decided", human.on_timeout),
            Work::Wait(wait) => ("no such event came", wait.on_timeout),
            _ => return,
        };
        self.withdraw(seq);
        self.otherwise(seq, otherwise, &format!("{}: {what}", failure::TIMED_OUT));
    }

    /// A step that did not get what it waited for.
    pub(super) fn otherwise(&mut self, seq: usize, otherwise: Otherwise, error: &str) {
        let outcome = Outcome::without_reply(Class::Refused, error);
        match otherwise {
            Otherwise::Continue => {
                let step = &mut self.saga.steps[seq];
                let number = step.attempts;
                let started_at = step.called_at.unwrap_or(self.now);
                step.error.clone_from(&outcome.error);
                step.status = StepStatus::Skipped;
                step.finished_at = Some(self.now);
                (step.due_at, step.wait_until, step.wait) = (None, None, None);
                self.result.attempts.push(Attempt { seq, action: Action::Do, number, fence: 0, started_at, outcome });
                self.changed(seq);
            }
            Otherwise::Fail => self.settle(seq, Action::Do, outcome),
            Otherwise::Hitl => {
                self.saga.steps[seq].for_human = true;
                self.settle(seq, Action::Do, outcome);
            }
        }
    }

    /// What a step waited for came; false if it does not wait for that.
    pub(super) fn ended(&mut self, seq: usize, action: Action, wait: Wait, outcome: Outcome) -> bool {
        // A person decides, and a service is asked again: neither comes to an end this way.
        let Some(step) = self.saga.steps.get(seq).filter(|_| !matches!(wait, Wait::Human | Wait::Service)) else {
            return false;
        };
        let is_callback = wait == Wait::Callback && self.definition.steps[seq].asynchronous;
        // It may come before the reply that announces it, or from an attempt that was thought lost: it ends the step all the same.
        let (waits, goes_on) = match action {
            // What is broken off when the saga turns round comes too late from then on: it might be the point of no return.
            Action::Do if matches!(wait, Wait::Event | Wait::Timer) && !self.is_going_forward() => (false, false),
            Action::Do => (step.waits_for() == Some(wait), is_callback && step.attempts > 0 && !step.status.is_final()),
            Action::Undo => {
                let comes_late = match self.definition.steps[seq].compensate.as_ref().map(|compensate| &compensate.undo) {
                    Some(Undo::Call(_)) => is_callback,
                    Some(Undo::Event) => wait == Wait::Event,
                    _ => false,
                };
                (step.undo_waits_for() == Some(wait), comes_late && step.undo_attempts > 0 && step.compensation.is_under_way())
            }
            Action::Verify => (false, false),
        };
        if !waits && !goes_on {
            return is_callback && action == Action::Do && outcome.class == Class::Succeeded && self.late_success(seq, outcome);
        }
        if !waits && step.in_flight() != Some(action) {
            self.attempt_unasked(seq, action);
        }
        self.settle(seq, action, outcome);
        true
    }

    /// An end that belongs to no attempt that is under way is an attempt of its own.
    fn attempt_unasked(&mut self, seq: usize, action: Action) {
        if self.saga.steps[seq].in_flight() == Some(Action::Verify) {
            self.close(seq, Action::Verify, Class::Unknown, "the callback came first");
        }
        self.saga.steps[seq].verifying = false;
        self.count(seq, action);
    }

    /// A step that was given up reports success, once: its undo is told of it, or a human is.
    fn late_success(&mut self, seq: usize, outcome: Outcome) -> bool {
        let step = &mut self.saga.steps[seq];
        let given_up = matches!(step.status, StepStatus::Failed | StepStatus::Unknown | StepStatus::Skipped | StepStatus::Cancelled);
        if !given_up || step.context.is_some() {
            return false;
        }
        let context = outcome.context.clone().or_else(|| outcome.output.clone()).or_else(|| Some(Payload::trusted("null".into())));
        step.context.clone_from(&context);
        let undo_follows = step.status == StepStatus::Unknown && matches!(step.compensation, Compensation::None | Compensation::Pending);
        if !undo_follows {
            // It is told of, not waited for: the step's own task stays as it is.
            let task = self.task_about(seq, TaskKind::LateEffect);
            self.result.tasks.push(TaskChange::Open(Box::new(task)));
        }
        self.append(seq, Outcome { context, ..outcome });
        true
    }

    /// Steps whose service is no longer parked may be tried at once.
    pub(super) fn reopened(&mut self, service: &str) -> bool {
        let (mut changed, now) = (false, self.clock());
        for (seq, step) in self.saga.steps.iter_mut().enumerate() {
            let waits = step.waits_for() == Some(Wait::Service) || step.undo_waits_for() == Some(Wait::Service);
            if waits && self.definition.steps[seq].calls().any(|call| call.service == service) {
                step.due_at = Some(now);
                self.result.steps.push(seq);
                changed = true;
            }
        }
        changed
    }

    /// Ends the saga before it began.
    pub(super) fn end_before_it_began(&mut self, target: Target, reason: &str) {
        (self.saga.target, self.saga.reason) = (Some(target), Some(reason.to_owned()));
        self.end(target.state());
    }
}
