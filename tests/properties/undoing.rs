//! Sagas that exist to undo another one, as a step of its parent's undo.

use syncor::core::machine::{Emission, Input, advance};
use syncor::core::outcome::{Action, Outcome};
use syncor::core::saga::{Compensation, Saga, SagaState, StepStatus};
use uuid::Uuid;

use super::explore;
use super::plan::{Task, UsedUp, event};
use super::told::at;

/// The steps of a saga that ended completed, in a new one that undoes it.
fn undoing(pivot: Option<usize>) -> (syncor::core::definition::Definition, Saga) {
    let definition = explore::plan(pivot, UsedUp::GoBack, Task::Call).definition();
    let mut saga = Saga { undoes: Some(Uuid::from_u128(1)), ..Saga::new(Uuid::from_u128(2), definition.steps.len()) };
    for (order, seq) in [0, 2, 1, 3].into_iter().enumerate() {
        let step = &mut saga.steps[seq];
        (step.status, step.attempts, step.done_by) = (StepStatus::Succeeded, 1, saga.undoes);
        step.order = u32::try_from(order + 1).expect("few");
    }
    (definition, saga)
}

/// # Panics
/// When it does anything but undo everything, last start first.
pub fn undoes_what_it_was_given() {
    let (definition, mut saga) = undoing(None);
    let mut undone = Vec::new();
    let mut input = Input::Start;
    while !saga.state.is_terminal() {
        let result = advance(&definition, &event(), &mut saga, input, at(1), 0.5);
        let Some((seq, Action::Undo)) = result.calls.first().copied() else { break };
        undone.push(seq);
        input = Input::Reply { seq, action: Action::Undo, attempt: 1, outcome: Box::new(Outcome::success(None)) };
    }
    assert_eq!((saga.state, saga.clean, undone), (SagaState::Cancelled, true, vec![3, 1, 0]), "the third has no undo");
    assert_eq!(saga.steps[2].compensation, Compensation::NotNeeded);
}

/// # Panics
/// When it undoes anything.
pub fn stops_at_a_point_of_no_return() {
    let (definition, mut saga) = undoing(Some(1));
    let result = advance(&definition, &event(), &mut saga, Input::Start, at(1), 0.5);
    assert_eq!(saga.state, SagaState::Rejected);
    assert!(result.calls.is_empty());
    assert_eq!(result.emissions, [Emission::Ended(SagaState::Rejected)]);
}
