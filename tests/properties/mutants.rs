//! Machines with one mistake each. The check must find every one of them, or it proves nothing.

use std::time::Duration;

use syncor::core::definition::{Definition, Work};
use syncor::core::event::Event;
use syncor::core::human::{NewTask, TaskKind};
use syncor::core::machine::{Advance, Emission, Input, TaskChange, advance, record};
use syncor::core::order::Order;
use syncor::core::outcome::{Action, Class};
use syncor::core::saga::{Compensation, Saga, SagaState, StepStatus, Target, Wait};
use syncor::core::time::Timestamp;

use super::plan::Plan;

macro_rules! mistakes {
    ($($name:ident),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Mistake {
            $($name,)+
        }

        impl Mistake {
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

mistakes!(
    SkipsUndoOfUnknown,
    UndoesInOrderOfTheFile,
    RetriesOnceTooOften,
    RetriesUndoAfterConflict,
    CountsSkippedUndoAsClean,
    SaysFailedBeforeTheLastUndo,
    CountsLostAttempts,
    IgnoresTheDeadline,
    UndoesWhileSomethingIsInFlight,
    AcceptsAStaleReply,
    RetriesAtOnce,
    ForgetsToWriteAStep,
    GoesOnWhileStopping,
    ForgetsTheDoubt,
    UndoesWhileThePivotIsInFlight,
    GoesOnBesideAFailure,
    TakesALateCallbackTwice,
    LetsTimeRunInAPause,
    DoubtsALostFunction,
    CountsAParkedCall,
    WaitsForNoBranch,
    TellsPeopleTooLate,
    LeavesAQuestionOpen,
    StartsAllBranchesAtOnce,
    KeepsTheOrderOfAFirstStart,
    ForgetsAHeartbeat,
);

impl Mistake {
    /// Only the model can tell: seen alone, such a saga is in order.
    pub fn needs_model(self) -> bool {
        matches!(
            self,
            Self::RetriesUndoAfterConflict
                | Self::CountsLostAttempts
                | Self::RetriesAtOnce
                | Self::IgnoresTheDeadline
                | Self::AcceptsAStaleReply
                | Self::DoubtsALostFunction
                | Self::CountsAParkedCall
                | Self::WaitsForNoBranch
                | Self::TellsPeopleTooLate
                | Self::StartsAllBranchesAtOnce
                | Self::KeepsTheOrderOfAFirstStart
                | Self::GoesOnBesideAFailure
                | Self::ForgetsAHeartbeat
        )
    }

    /// What is written is no business of the model.
    pub fn needs_laws(self) -> bool {
        matches!(self, Self::ForgetsToWriteAStep)
    }

    /// `advance` or `record` with this mistake.
    #[expect(clippy::too_many_arguments, reason = "as many as the machine has, and the mistake")]
    pub fn run(self, definition: &Definition, event: &Event, saga: &mut Saga, mut input: Input, now: Timestamp, chance: f64, go_on: bool) -> Advance {
        if !saga.state.is_terminal() {
            self.spoil_before(definition, saga, &mut input, now);
        }
        let go_on = go_on || self == Self::GoesOnWhileStopping;
        let step = if go_on { advance } else { record };
        let before = saga.clone();
        let mut result = step(definition, event, saga, input, now, chance);
        if !before.state.is_terminal() {
            self.spoil_after(definition, event, saga, &mut result, &before, now, go_on);
        }
        result
    }

    /// The machine works by another plan than the model.
    pub fn spoil_plan(self, plan: &mut Plan) {
        let spoil: fn(&mut usize, &mut bool) = match self {
            Self::WaitsForNoBranch => |_, waits| *waits = false,
            Self::StartsAllBranchesAtOnce => |max, _| *max = usize::MAX,
            Self::GoesOnBesideAFailure => |_, waits| *waits = true,
            _ => return,
        };
        plan.flow.each_fan(spoil);
    }

    fn spoil_before(self, definition: &Definition, saga: &mut Saga, input: &mut Input, now: Timestamp) {
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
            (Self::DoubtsALostFunction, Input::TakenOver) => {
                for (step, defined) in saga.steps.iter_mut().zip(&definition.steps) {
                    step.ambiguous |= step.in_flight() == Some(Action::Do) && matches!(defined.work, Work::Sql(_));
                }
            }
            (Self::CountsAParkedCall, Input::Reply { seq, outcome, .. }) if outcome.class == Class::Parked => {
                if let Some(step) = saga.steps.get_mut(*seq) {
                    step.spent += 1;
                }
            }
            (Self::UndoesWhileThePivotIsInFlight, Input::Ordered { order: Order::Cancel, .. }) if saga.state == SagaState::Running => {
                let pivot = definition.pivot();
                let flies = pivot.is_some_and(|pivot| saga.steps[pivot].in_flight() == Some(Action::Do));
                if flies {
                    (saga.state, saga.target, saga.reason) = (SagaState::Draining, Some(Target::Cancelled), Some("now".to_owned()));
                }
            }
            (Self::LetsTimeRunInAPause, Input::Ordered { order: Order::Resume, .. }) => {
                if let Some(paused) = &mut saga.paused {
                    paused.at = now;
                }
            }
            (Self::TakesALateCallbackTwice, Input::Ended { seq, action: Action::Do, wait: Wait::Callback, outcome }) => {
                let given_up = matches!(outcome.class, Class::Succeeded) && definition.steps[*seq].asynchronous;
                if let Some(step) = saga.steps.get_mut(*seq).filter(|step| given_up && step.status.is_final() && step.status != StepStatus::Succeeded)
                {
                    step.context = None;
                }
            }
            (Self::IgnoresTheDeadline, _) => saga.deadline_at = None,
            (Self::ForgetsTheDoubt, _) => saga.steps.iter_mut().for_each(|step| step.ambiguous = false),
            (Self::ForgetsAHeartbeat, _) => saga.steps.iter_mut().for_each(|step| step.beat_at = None),
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, clippy::too_many_lines, reason = "a mistake may see everything, and there are many")]
    fn spoil_after(self, definition: &Definition, event: &Event, saga: &mut Saga, result: &mut Advance, before: &Saga, now: Timestamp, go_on: bool) {
        match self {
            Self::SkipsUndoOfUnknown => {
                let called =
                    result.calls.iter().copied().find(|(seq, action)| *action == Action::Undo && saga.steps[*seq].status == StepStatus::Unknown);
                if let Some((seq, _)) = called {
                    let step = &mut saga.steps[seq];
                    (step.compensation, step.undo_attempts) = (Compensation::NotNeeded, 0);
                    result.calls.clear();
                    result.emissions.retain(|emission| *emission != Emission::Compensate(seq));
                    let more = advance(definition, event, saga, Input::Due, now, 0.5);
                    result.calls.extend(more.calls);
                    result.children.extend(more.children);
                    result.emissions.extend(more.emissions);
                    result.tasks.extend(more.tasks);
                    result.steps = (0..saga.steps.len()).collect();
                }
            }
            Self::UndoesInOrderOfTheFile => {
                let last = saga.steps.iter().rposition(|step| step.compensation == Compensation::Pending);
                if let (Some(last), Some((seq, Action::Undo))) = (last, result.calls.first().copied())
                    && saga.steps[seq].undo_attempts == 1
                    && last > seq
                    && result.calls.len() == 1
                {
                    let [taken, given] = saga.steps.get_disjoint_mut([seq, last]).expect("two steps");
                    (taken.compensation, taken.undo_attempts) = (Compensation::Pending, 0);
                    (given.compensation, given.undo_attempts, given.called_at) = (Compensation::Compensating, 1, taken.called_at);
                    result.calls = vec![(last, Action::Undo)];
                    result.emissions.iter_mut().filter(|e| **e == Emission::Compensate(seq)).for_each(|e| *e = Emission::Compensate(last));
                    result.steps = (0..saga.steps.len()).collect();
                }
            }
            Self::CountsSkippedUndoAsClean => {
                let stuck = saga.steps.iter().any(|step| step.compensation == Compensation::Failed);
                saga.clean |= !stuck && matches!(saga.state, SagaState::Failed | SagaState::Cancelled);
            }
            Self::SaysFailedBeforeTheLastUndo => {
                let pending = saga.steps.iter().any(|step| step.compensation == Compensation::Pending);
                if !pending && result.emissions.iter().any(|emission| matches!(emission, Emission::Compensate(_))) {
                    result.emissions.push(Emission::Ended(SagaState::Failed));
                } else if before.state == SagaState::Compensating {
                    result.emissions.retain(|emission| !matches!(emission, Emission::Ended(_)));
                }
            }
            Self::UndoesWhileSomethingIsInFlight => {
                let done = |(seq, step): &(usize, &syncor::core::saga::StepProgress)| {
                    step.status == StepStatus::Succeeded && step.compensation == Compensation::None && definition.steps[*seq].compensate.is_some()
                };
                if saga.state == SagaState::Draining
                    && go_on
                    && let Some((seq, _)) = saga.steps.iter().enumerate().find(done)
                {
                    let step = &mut saga.steps[seq];
                    (step.compensation, step.undo_attempts, step.called_at) = (Compensation::Compensating, 1, Some(now));
                    result.calls.push((seq, Action::Undo));
                    result.emissions.push(Emission::Compensate(seq));
                    result.steps = (0..saga.steps.len()).collect();
                }
            }
            Self::RetriesAtOnce => {
                let rests = |step: &&mut syncor::core::saga::StepProgress| step.status == StepStatus::Backoff;
                saga.steps.iter_mut().filter(rests).filter_map(|step| step.due_at.as_mut()).for_each(|due| *due = now.plus(Duration::from_micros(1)));
            }
            Self::ForgetsToWriteAStep if result.steps.len() > 1 => {
                result.steps.pop();
            }
            Self::TellsPeopleTooLate => {
                // One attempt later than `hitl.after` says.
                let spent = |seq: usize| saga.steps[seq].spent;
                let early = |task: &NewTask| task.kind == TaskKind::StepFailed && spent(task.seq) == definition.hitl.after;
                let early: Vec<usize> = result
                    .tasks
                    .iter()
                    .filter_map(|change| match change {
                        TaskChange::Open(task) if early(task) && saga.steps[task.seq].status == StepStatus::Backoff => Some(task.seq),
                        _ => None,
                    })
                    .collect();
                for seq in early {
                    saga.steps[seq].task = None;
                    result.tasks.retain(|change| !matches!(change, TaskChange::Open(task) if task.seq == seq));
                }
            }
            Self::ForgetsTheDoubt if !result.stale => result.steps = (0..saga.steps.len()).collect(),
            Self::LeavesAQuestionOpen => {
                result.tasks.retain(|change| !matches!(change, TaskChange::Withdraw { kind: TaskKind::Approval, .. }));
            }
            Self::KeepsTheOrderOfAFirstStart => {
                for (old, new) in before.steps.iter().zip(&mut saga.steps) {
                    if old.order > 0 && new.order > old.order {
                        new.order = old.order;
                    }
                }
            }
            _ => {}
        }
    }
}
