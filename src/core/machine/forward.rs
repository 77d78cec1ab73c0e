//! The way forward: steps begin, and what a failure among them means.

use super::flow::Progress;
use super::{Emission, TaskChange, Turn};
use crate::core::definition::{Human, OnExhausted, StepKind, Work};
use crate::core::expression::EvaluationError;
use crate::core::failure;
use crate::core::human::{NewTask, TaskKind};
use crate::core::order::Order;
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::request::{publication, scope, steps_scope};
use crate::core::saga::{SagaState, StepProgress, StepStatus, Target, Wait};
use crate::core::time::Timestamp;

impl Turn<'_> {
    /// One round on the way forward; true if there may be more to do at once.
    pub(super) fn go_forward(&mut self) -> bool {
        if self.ring() {
            return true;
        }
        if let Some(target) = self.saga.target {
            return self.await_the_pivot(target);
        }
        if self.is_late() {
            return self.turn_back(Target::Failed, failure::DEADLINE_PASSED.to_owned());
        }
        match self.look(&self.definition.flow) {
            Progress::Failed => self.fail(),
            Progress::Done => {
                self.saga.clean = true;
                self.end(SagaState::Completed);
                false
            }
            Progress::Going => self.begin_what_may(),
        }
    }

    /// Waits for people. The limits go on: a saga that runs out of time, or another of whose steps is to be undone, turns round.
    pub(super) fn stand_still(&mut self) -> bool {
        if self.ring() {
            return true;
        }
        if self.is_late() {
            return self.turn_back(Target::Failed, failure::DEADLINE_PASSED.to_owned());
        }
        let undoing = self.failed().find(|seq| !self.needs_human(*seq));
        if let Some(seq) = undoing {
            return self.turn_back_after(seq);
        }
        self.open_questions();
        false
    }

    fn is_late(&self) -> bool {
        self.saga.deadline_at.is_some_and(|deadline| deadline <= self.now) && self.is_reversible()
    }

    /// Whether the point of no return lies ahead and no human must say whether it was passed.
    pub(super) fn is_reversible(&self) -> bool {
        self.definition.pivot().is_none_or(|pivot| !matches!(self.saga.steps[pivot].status, StepStatus::Succeeded | StepStatus::Unknown))
    }

    pub(super) fn pivot_passed(&self) -> bool {
        self.definition.pivot().is_some_and(|pivot| self.saga.steps[pivot].status == StepStatus::Succeeded)
    }

    /// Whether somebody else may be passing the pivot right now. A timer, an event or a person's decision is not: the wait for it
    /// can be broken off.
    fn pivot_under_way(&self) -> bool {
        let under_way = |step: &StepProgress| match (step.status, step.wait) {
            (StepStatus::Running | StepStatus::Backoff, _) | (StepStatus::Waiting, Some(Wait::Callback | Wait::Child)) => true,
            // It is to be tried again: parked, or by order of a human.
            (StepStatus::Waiting, Some(Wait::Service)) => step.attempts > 0,
            (StepStatus::Pending, _) => step.ambiguous,
            _ => false,
        };
        self.definition.pivot().is_some_and(|pivot| under_way(&self.saga.steps[pivot]))
    }

    /// The saga is to be undone as soon as the pivot is known not to have been passed.
    fn await_the_pivot(&mut self, target: Target) -> bool {
        let Some(pivot) = self.definition.pivot() else { return self.turn_back(target, String::new()) };
        let step = &self.saga.steps[pivot];
        match (step.status, step.wait) {
            (StepStatus::Backoff, _) | (StepStatus::Waiting, Some(Wait::Service)) if step.verifying => self.call_again(pivot),
            (StepStatus::Backoff, _) | (StepStatus::Waiting, Some(Wait::Service)) => {
                self.give_up(pivot);
                true
            }
            (StepStatus::Pending, _) if step.ambiguous => {
                self.give_up(pivot);
                true
            }
            (StepStatus::Running | StepStatus::Waiting, _) => false,
            // Too late: the point of no return is passed, so it goes on; or a human must say whether it was, and then decides anew.
            (StepStatus::Succeeded | StepStatus::Unknown, _) => {
                (self.saga.target, self.saga.reason) = (None, None);
                true
            }
            _ => {
                let reason = self.saga.reason.take().unwrap_or_default();
                self.turn_back(target, reason)
            }
        }
    }

    pub(super) fn is_due(&self, seq: usize) -> bool {
        self.saga.steps[seq].due_at.is_none_or(|due| due <= self.now)
    }

    fn begin_what_may(&mut self) -> bool {
        let mut found = Vec::new();
        self.reach(&self.definition.flow, &mut found);
        let mut at_once = false;
        for seq in found {
            if self.saga.steps[seq].status == StepStatus::Pending {
                self.begin_step(seq);
            } else {
                self.call_again(seq);
            }
            let status = self.saga.steps[seq].status;
            // A wait may be over as soon as it begins.
            at_once |= !matches!(status, StepStatus::Running | StepStatus::Backoff);
            if matches!(status, StepStatus::Failed | StepStatus::Unknown) {
                // What failed at once decides before anything else begins.
                break;
            }
        }
        at_once
    }

    /// The next attempt of a step, or the next question of its `verify`.
    pub(super) fn call_again(&mut self, seq: usize) -> bool {
        if !self.is_due(seq) {
            return false;
        }
        let action = if self.saga.steps[seq].verifying { Action::Verify } else { Action::Do };
        self.call(seq, action);
        false
    }

    fn begin_step(&mut self, seq: usize) {
        let definition = self.definition;
        let defined = &definition.steps[seq];
        let order = self.saga.steps.iter().map(|step| step.order).max().unwrap_or(0) + 1;
        let step = &mut self.saga.steps[seq];
        step.order = order;
        step.deadline_at = defined.deadline.map(|limit| self.now.plus(limit));
        // A step that may have been done already is not left out any more: it would not be undone.
        let asked = defined.when.as_ref().filter(|_| !step.ambiguous);
        let wanted = asked.map_or(Ok(true), |when| {
            let views = steps_scope(definition, self.saga);
            when.test(&scope(definition, self.saga, self.event, &views))
        });
        match wanted {
            Ok(true) => {}
            Ok(false) => return self.leave_out(seq),
            Err(error) => return self.refuse(seq, &format!("`when` cannot be evaluated: {error}")),
        }
        match &defined.work {
            Work::Call(_) | Work::Sql(_) => self.call(seq, Action::Do),
            Work::Delay(time) => self.sleep(seq, self.now.plus(*time)),
            Work::Until(time) => match self.time_of(time) {
                Ok(at) => self.sleep(seq, at),
                Err(error) => self.refuse(seq, &format!("`until` cannot be evaluated: {error}")),
            },
            Work::Wait(wait) => self.wait(seq, Wait::Event, wait.timeout.map(|limit| self.now.plus(limit))),
            Work::Human(human) => self.ask(seq, human),
            Work::Saga(_) => {
                self.wait(seq, Wait::Child, None);
                self.result.children.push((seq, Action::Do));
            }
            Work::Emit(emit) => match publication(definition, self.saga, self.event, emit) {
                Ok(publication) => {
                    self.count(seq, Action::Do);
                    self.result.emissions.push(Emission::Published(Box::new(publication)));
                    self.settle(seq, Action::Do, Outcome::success(None));
                }
                Err(error) => self.refuse(seq, &format!("the event cannot be made: {error}")),
            },
        }
    }

    fn leave_out(&mut self, seq: usize) {
        let step = &mut self.saga.steps[seq];
        step.status = StepStatus::Skipped;
        step.finished_at = Some(self.now);
        (step.due_at, step.wait_until, step.wait) = (None, None, None);
        step.verifying = false;
        self.withdraw(seq);
        self.changed(seq);
    }

    /// A step that cannot even begin.
    fn refuse(&mut self, seq: usize, error: &str) {
        self.count(seq, Action::Do);
        self.settle(seq, Action::Do, Outcome::without_reply(Class::Refused, crate::core::reply::line(error)));
    }

    fn sleep(&mut self, seq: usize, until: Timestamp) {
        self.wait(seq, Wait::Timer, None);
        self.saga.steps[seq].due_at = Some(until);
    }

    fn wait(&mut self, seq: usize, wait: Wait, until: Option<Timestamp>) {
        self.count(seq, Action::Do);
        let step = &mut self.saga.steps[seq];
        step.status = StepStatus::Waiting;
        (step.wait, step.wait_until) = (Some(wait), until);
    }

    fn time_of(&self, expression: &crate::core::expression::Expression) -> Result<Timestamp, EvaluationError> {
        let views = steps_scope(self.definition, self.saga);
        let value = expression.evaluate(&scope(self.definition, self.saga, self.event, &views))?;
        value
            .as_str()
            .and_then(Timestamp::parse)
            .ok_or_else(|| EvaluationError { message: "it is no time in RFC 3339, such as 2026-07-01T08:00:00Z".to_owned(), missing: false })
    }

    fn ask(&mut self, seq: usize, human: &Human) {
        let asked = {
            let views = steps_scope(self.definition, self.saga);
            let scope = scope(self.definition, self.saga, self.event, &views);
            let assignee = human.assignee.as_ref().map(|assignee| assignee.render_text(&scope)).transpose();
            human.prompt.render_text(&scope).and_then(|prompt| Ok((prompt, assignee?)))
        };
        let (prompt, assignee) = match asked {
            Ok(asked) => asked,
            Err(error) => return self.refuse(seq, &format!("the question cannot be made: {error}")),
        };
        let due_at = human.timeout.map(|limit| self.now.plus(limit));
        self.wait(seq, Wait::Human, due_at);
        self.saga.steps[seq].task = Some(TaskKind::Approval);
        let task = NewTask {
            kind: TaskKind::Approval,
            seq,
            queue: human.queue.clone().unwrap_or_else(|| self.definition.hitl.queue.clone()),
            reason: format!("{} asks", self.definition.steps[seq].name),
            prompt: Some(prompt),
            form: human.form.clone(),
            assignee: assignee.filter(|name| !name.is_empty()),
            four_eyes: human.four_eyes,
            due_at,
        };
        self.result.tasks.push(TaskChange::Open(Box::new(task)));
    }

    /// A step failed: back, or a human decides.
    fn fail(&mut self) -> bool {
        let undoing = self.failed().find(|seq| !self.needs_human(*seq));
        if let Some(seq) = undoing {
            return self.turn_back_after(seq);
        }
        // Calls in flight are waited for first.
        if self.saga.in_flight().next().is_none() {
            self.saga.state = SagaState::Hitl;
            self.open_questions();
        }
        false
    }

    /// Steps whose failure stops the saga.
    fn failed(&self) -> impl Iterator<Item = usize> + '_ {
        let failed = |seq: &usize| matches!(self.saga.steps[*seq].status, StepStatus::Failed | StepStatus::Unknown) && !self.is_let_be(*seq);
        (0..self.saga.steps.len()).filter(failed)
    }

    fn turn_back_after(&mut self, seq: usize) -> bool {
        let defined = &self.definition.steps[seq];
        let reason = failure::describe(&defined.name, &self.saga.steps[seq], &defined.retry);
        self.turn_back(Target::Failed, reason)
    }

    fn needs_human(&self, seq: usize) -> bool {
        let (defined, step) = (&self.definition.steps[seq], &self.saga.steps[seq]);
        !self.is_reversible() || step.for_human || defined.on_exhausted == OnExhausted::Hitl || defined.kind == StepKind::Retriable
    }

    /// Every step whose failure stops the saga is a question to people.
    fn open_questions(&mut self) {
        for seq in self.failed().collect::<Vec<_>>() {
            let is_pivot = self.definition.steps[seq].kind == StepKind::Pivot;
            let in_doubt = is_pivot && self.saga.steps[seq].status == StepStatus::Unknown;
            self.open_task(seq, if in_doubt { TaskKind::PivotUnknown } else { TaskKind::StepFailed });
        }
    }

    /// Begins the way back, or waits for the pivot to be known.
    pub(super) fn turn_back(&mut self, target: Target, reason: String) -> bool {
        self.saga.target = Some(target);
        self.saga.reason = Some(reason);
        if self.pivot_under_way() {
            self.saga.state = SagaState::Running;
            return true;
        }
        self.saga.state = SagaState::Draining;
        self.order_children(Order::Cancel);
        true
    }

    /// Tells the child sagas that are under way.
    pub(super) fn order_children(&mut self, order: Order) {
        let children = self.saga.steps.iter().enumerate().filter(|(_, step)| step.waits_for() == Some(Wait::Child));
        self.result.child_orders.extend(children.map(|(seq, _)| (seq, order)));
    }
}
