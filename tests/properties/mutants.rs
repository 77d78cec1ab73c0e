//! Machines with one mistake each. The check must find every one of them, or it proves nothing.

use syncor::core::definition::Definition;
use syncor::core::machine::{Advance, Emission, Input, advance, record};
use syncor::core::outcome::{Action, Class};
use syncor::core::saga::{Compensation, Saga, SagaState, StepStatus};
use syncor::core::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mistake {
    SkipsUndoOfUnknown,
    UndoesForwards,
    RetriesOnceTooOften,
    RetriesUndoAfterConflict,
    ForgetsThatItIsNotClean,
    SaysFailedBeforeTheLastUndo,
    CountsLostAttempts,
    IgnoresTheDeadline,
    UndoesWhileACallIsInFlight,
    AcceptsAStaleReply,
    RetriesAtOnce,
    ForgetsToWriteAStep,
    GoesOnWhileStopping,
    ForgetsTheDoubt,
}

impl Mistake {
    pub const ALL: [Self; 14] = [
        Self::SkipsUndoOfUnknown,
        Self::UndoesForwards,
        Self::RetriesOnceTooOften,
        Self::RetriesUndoAfterConflict,
        Self::ForgetsThatItIsNotClean,
        Self::SaysFailedBeforeTheLastUndo,
        Self::CountsLostAttempts,
        Self::IgnoresTheDeadline,
        Self::UndoesWhileACallIsInFlight,
        Self::AcceptsAStaleReply,
        Self::RetriesAtOnce,
        Self::ForgetsToWriteAStep,
        Self::GoesOnWhileStopping,
        Self::ForgetsTheDoubt,
    ];

    /// Only the model can tell: seen alone, such a saga is in order.
    pub fn needs_model(self) -> bool {
        matches!(self, Self::RetriesUndoAfterConflict | Self::CountsLostAttempts)
    }

    /// `advance` or `record` with this mistake.
    pub fn run(self, definition: &Definition, saga: &mut Saga, mut input: Input, now: Timestamp, chance: f64, go_on: bool) -> Advance {
        self.spoil_before(definition, saga, &mut input);
        let step = if go_on || self == Self::GoesOnWhileStopping { advance } else { record };
        let was = saga.state;
        let mut result = step(definition, saga, input, now, chance);
        self.spoil_after(definition, saga, &mut result, was, now);
        result
    }

    fn spoil_before(self, definition: &Definition, saga: &mut Saga, input: &mut Input) {
        match (self, input) {
            (Self::RetriesOnceTooOften, Input::Reply { seq, action: Action::Do, outcome, .. }) => {
                let (Some(step), Some(defined)) = (saga.steps.get_mut(*seq), definition.steps.get(*seq)) else { return };
                let last = step.attempts == defined.retry.attempts && step.spent + 1 == step.attempts;
                if last && step.spent > 0 && outcome.class == Class::Failed && step.status == StepStatus::Running {
                    step.spent -= 1;
                }
            }
            (Self::RetriesUndoAfterConflict, Input::Reply { action: Action::Undo, outcome, .. }) if outcome.status == Some(409) => {
                outcome.status = Some(400);
            }
            (Self::AcceptsAStaleReply, Input::Reply { seq, action, attempt, .. }) => {
                if let Some(step) = saga.steps.get(*seq).filter(|step| step.in_flight() == Some(*action)) {
                    *attempt = step.attempt(*action);
                }
            }
            (Self::CountsLostAttempts, Input::TakenOver) => {
                for step in saga.steps.iter_mut().filter(|step| step.in_flight() == Some(Action::Do)) {
                    step.spent += 1;
                }
            }
            (Self::IgnoresTheDeadline, _) => saga.deadline_at = None,
            (Self::ForgetsTheDoubt, _) => saga.steps.iter_mut().for_each(|step| step.ambiguous = false),
            _ => {}
        }
    }

    fn spoil_after(self, definition: &Definition, saga: &mut Saga, result: &mut Advance, was: SagaState, now: Timestamp) {
        match self {
            Self::SkipsUndoOfUnknown => {
                let called =
                    result.calls.iter().copied().find(|(seq, action)| *action == Action::Undo && saga.steps[*seq].status == StepStatus::Unknown);
                if let Some((seq, _)) = called {
                    let step = &mut saga.steps[seq];
                    (step.compensation, step.undo_attempts) = (Compensation::NotNeeded, 0);
                    result.calls.clear();
                    result.emissions.retain(|emission| *emission != Emission::Compensate(seq));
                    let more = advance(definition, saga, Input::Due, now, 0.5);
                    result.calls.extend(more.calls);
                    result.emissions.extend(more.emissions);
                    result.steps.extend(more.steps);
                    result.steps.sort_unstable();
                    result.steps.dedup();
                }
            }
            Self::UndoesForwards => {
                let first = saga.steps.iter().position(|step| step.compensation == Compensation::Pending);
                if let (Some(first), Some((seq, Action::Undo))) = (first, result.calls.first().copied())
                    && saga.steps[seq].undo_attempts == 1
                {
                    let [taken, given] = saga.steps.get_disjoint_mut([seq, first]).expect("two steps");
                    (taken.compensation, taken.undo_attempts) = (Compensation::Pending, 0);
                    (given.compensation, given.undo_attempts, given.called_at) = (Compensation::Compensating, 1, taken.called_at);
                    result.calls = vec![(first, Action::Undo)];
                    result.emissions.iter_mut().filter(|e| **e == Emission::Compensate(seq)).for_each(|e| *e = Emission::Compensate(first));
                    result.steps = (0..saga.steps.len()).collect();
                }
            }
            Self::ForgetsThatItIsNotClean => saga.clean = true,
            Self::SaysFailedBeforeTheLastUndo => {
                let pending = saga.steps.iter().any(|step| step.compensation == Compensation::Pending);
                if !pending && result.emissions.iter().any(|emission| matches!(emission, Emission::Compensate(_))) {
                    result.emissions.push(Emission::Ended(SagaState::Failed));
                } else if was == SagaState::Compensating {
                    result.emissions.retain(|emission| !matches!(emission, Emission::Ended(_)));
                }
            }
            Self::UndoesWhileACallIsInFlight => {
                if saga.state == SagaState::Draining
                    && let Some(seq) =
                        saga.steps.iter().position(|step| step.status == StepStatus::Succeeded && step.compensation == Compensation::None)
                    && definition.steps[seq].compensate.is_some()
                {
                    let step = &mut saga.steps[seq];
                    (step.compensation, step.undo_attempts, step.called_at) = (Compensation::Compensating, 1, Some(now));
                    result.calls.push((seq, Action::Undo));
                    result.emissions.push(Emission::Compensate(seq));
                    result.steps = (0..saga.steps.len()).collect();
                }
            }
            Self::RetriesAtOnce => saga.steps.iter_mut().filter_map(|step| step.due_at.as_mut()).for_each(|due| *due = now),
            Self::ForgetsToWriteAStep if result.steps.len() > 1 => {
                result.steps.pop();
            }
            _ => {}
        }
    }
}
