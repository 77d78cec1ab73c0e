//! What people decide about their tasks. A decision about a task that is not open any more is refused.
//!
//! One that is applied withdraws the task, although whoever decided has closed it: by now the same question may have been asked anew.

use super::Turn;
use super::orders::{BEING_UNDONE, applied, refused};
use crate::core::definition::{Otherwise, Work};
use crate::core::failure;
use crate::core::form;
use crate::core::human::{Decided, Decision, TaskKind};
use crate::core::order::Answer;
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::payload::Payload;
use crate::core::saga::{Compensation, SagaState, StepStatus, Target, Wait};

impl Turn<'_> {
    /// What a human decided about a task.
    pub(super) fn decide(&mut self, decided: &Decided) -> Answer {
        if !decided.kind.decisions().contains(&decided.decision) {
            return refused(&format!("a task of kind {} does not take `{}`", decided.kind.as_str(), decided.decision.as_str()));
        }
        if decided.decision == Decision::Acknowledge {
            return applied("seen");
        }
        let Some(seq) = decided.seq.filter(|seq| *seq < self.saga.steps.len()) else {
            return refused("the task is about no step of this saga");
        };
        if self.saga.steps[seq].task != Some(decided.kind) {
            return refused(&format!("step {} is not waiting for this decision any more", self.definition.steps[seq].name));
        }
        match decided.kind {
            TaskKind::Approval => self.decide_approval(seq, decided),
            TaskKind::CompFailed => self.decide_undo(seq, decided),
            _ => self.decide_step(seq, decided),
        }
    }

    fn decide_approval(&mut self, seq: usize, decided: &Decided) -> Answer {
        let definition = self.definition;
        let Work::Human(human) = &definition.steps[seq].work else { return refused("the step asks nobody") };
        if self.saga.steps[seq].waits_for() != Some(Wait::Human) || !self.is_going_forward() {
            return refused("the step does not wait for a decision any more");
        }
        if let (Decision::Approve, Some(form)) = (decided.decision, &human.form)
            && let Err(findings) = form::validate(form, decided.output.as_ref().map(Payload::value))
        {
            return refused(&format!("the form is not filled in: {}", findings.join("; ")));
        }
        self.withdraw(seq);
        if decided.decision == Decision::Approve {
            let message = Some(format!("approved by {}", decided.by));
            self.settle(seq, Action::Do, Outcome { message, ..Outcome::success(decided.output.clone()) });
            return applied("approved");
        }
        let error = format!("{} {}: {}", failure::REJECTED_BY, decided.by, decided.note);
        self.otherwise(seq, human.on_reject, &error);
        if human.on_reject == Otherwise::Continue { applied("rejected: goes on without it") } else { applied("rejected") }
    }

    /// Whether a step that failed, or keeps failing, can be decided about: not while a call is in flight.
    fn is_decidable(&self, seq: usize) -> bool {
        let step = &self.saga.steps[seq];
        let stands = match step.status {
            StepStatus::Failed | StepStatus::Unknown | StepStatus::Backoff => true,
            _ => step.waits_for() == Some(Wait::Service),
        };
        stands && matches!(self.saga.state, SagaState::Running | SagaState::Hitl)
    }

    fn decide_step(&mut self, seq: usize, decided: &Decided) -> Answer {
        match decided.decision {
            Decision::Abort if self.saga.state == SagaState::Aborting => refused("the saga is being aborted already"),
            Decision::Abort => {
                self.withdraw(seq);
                self.abort(&decided.note);
                applied("ends as it is")
            }
            Decision::Compensate => self.decide_to_undo(seq, decided),
            _ if self.saga.state == SagaState::Paused => refused("the saga is paused: resume it first"),
            _ if !self.is_decidable(seq) => refused(&format!("step {} is not waiting for a decision any more", self.definition.steps[seq].name)),
            Decision::Retry => {
                if !self.retry_step(seq, self.saga.state, true) {
                    return refused("the saga is about to be undone");
                }
                self.withdraw(seq);
                applied("tried again")
            }
            Decision::Skip if self.saga.steps[seq].ambiguous && self.definition.pivot() == Some(seq) => refused(super::orders::PIVOT_UNKNOWN),
            Decision::Skip => {
                self.leave_be(seq, &format!("skipped by {}", decided.by));
                applied("skipped")
            }
            Decision::Done => {
                let message = Some(format!("done, says {}", decided.by));
                self.note(seq, Outcome { message, ..Outcome::success(decided.output.clone()) });
                self.saga.steps[seq].for_human = false;
                self.go_on_running();
                applied("counts as done")
            }
            _ => {
                self.withdraw(seq);
                let step = &mut self.saga.steps[seq];
                (step.status, step.ambiguous, step.for_human) = (StepStatus::Failed, false, false);
                self.go_on_running();
                applied("counts as not done")
            }
        }
    }

    /// `compensate`: the saga turns round. For one that did so of itself it only says that the failure was seen.
    fn decide_to_undo(&mut self, seq: usize, decided: &Decided) -> Answer {
        let answer = match self.awake_state() {
            SagaState::Draining | SagaState::Compensating | SagaState::CompFailed => applied(BEING_UNDONE),
            SagaState::Running | SagaState::Hitl => self.turn_back_by_order(Target::Failed, &decided.note),
            state => refused(&format!("the saga is {}", state.as_str())),
        };
        if matches!(answer, Answer::Applied(_)) {
            self.withdraw(seq);
        }
        answer
    }

    /// Leaves a step out that had begun.
    pub(super) fn leave_be(&mut self, seq: usize, why: &str) {
        self.withdraw(seq);
        if matches!(self.saga.steps[seq].waits_for(), Some(wait) if wait != Wait::Service) {
            self.close(seq, Action::Do, Class::Refused, why);
        }
        let step = &mut self.saga.steps[seq];
        step.status = StepStatus::Skipped;
        step.finished_at = Some(self.now);
        (step.due_at, step.wait_until, step.wait) = (None, None, None);
        (step.for_human, step.verifying) = (false, false);
        self.changed(seq);
        self.go_on_running();
    }

    fn go_on_running(&mut self) {
        if self.saga.state == SagaState::Hitl {
            self.saga.state = SagaState::Running;
        }
    }

    fn decide_undo(&mut self, seq: usize, decided: &Decided) -> Answer {
        // With `onFailure: continue` one failed undo can be decided while another is being tried again.
        let stands = matches!(self.saga.state, SagaState::CompFailed | SagaState::Compensating);
        if !stands || self.saga.steps[seq].compensation != Compensation::Failed {
            return refused(&format!("the undo of {} is not waiting for a decision any more", self.definition.steps[seq].name));
        }
        self.withdraw(seq);
        match decided.decision {
            Decision::Retry => {
                self.retry_step(seq, self.saga.state, true);
                applied("the undo is tried again")
            }
            Decision::Undone => {
                let step = &mut self.saga.steps[seq];
                step.compensation = Compensation::Compensated;
                step.message = Some(format!("undone, says {}", decided.by));
                self.saga.state = SagaState::Compensating;
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
}
