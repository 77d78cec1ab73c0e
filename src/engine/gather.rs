//! Gathers what a decision of the machine brings along beside the rows of its saga.

use std::sync::Arc;

use uuid::Uuid;

use super::live::Live;
use super::telling::{decided_event, task_event};
use crate::core::definition::Work;
use crate::core::human::TaskKind;
use crate::core::machine::{Advance, TaskChange};
use crate::core::matching::{Catalog, lock_keys, wait_key};
use crate::core::nesting::NESTING_MAX;
use crate::core::order::Answer;
use crate::core::outcome::Action;
use crate::core::request::{scope, steps_scope};
use crate::core::saga::{Compensation, SagaState, StepStatus, Wait};
use crate::dispatch::callback;
use crate::store::commit::EventRow;
use crate::store::extras::{Answered, CallbackRow, Child, ChildRow, Ended, Extras, WaitRow};
use crate::store::inputs::InputRow;

/// The extras of a write, and the events that they publish.
pub fn gather(live: &mut Live, catalog: &Catalog, advance: &Advance, said: Option<&InputRow>) -> (Extras, Vec<EventRow>) {
    let mut extras = Extras::default();
    let mut events = Vec::new();
    if let Some(said) = said {
        answer(live, advance, said, &mut extras, &mut events);
    }
    for change in &advance.tasks {
        match change {
            TaskChange::Open(task) => {
                let id = Uuid::now_v7();
                events.push(task_event(live, "human.task.opened", id, task));
                extras.tasks.push((id, (**task).clone()));
            }
            TaskChange::Withdraw { seq, kind } => {
                // One that was opened by this very decision was never there.
                let opened = extras.tasks.iter().position(|(_, task)| task.seq == *seq && task.kind == *kind);
                match opened {
                    Some(place) => {
                        extras.tasks.remove(place);
                        events.remove(events.len() - 1 - (extras.tasks.len() - place));
                    }
                    None => extras.withdrawn.push((*seq, kind.as_str())),
                }
            }
        }
    }
    for &seq in &advance.steps {
        waits(live, seq, &mut extras);
        callbacks_over(live, seq, &mut extras);
    }
    tokens(live, advance, &mut extras);
    for &(seq, action) in &advance.children {
        let child = child(live, catalog, seq, action);
        extras.children.push(child);
    }
    for &(seq, order) in &advance.child_orders {
        let reason = live.saga.reason.clone().unwrap_or_else(|| "its parent ends".to_owned());
        extras.child_orders.push((live.child_id(seq, Action::Do), order, reason));
    }
    if live.saga.state.is_terminal() {
        let definition = live.definition();
        let waits = |work: &Work| matches!(work, Work::Wait(_) | Work::Human(_));
        extras.ended = Some(Ended {
            had_locks: live.kin.lock_keys.is_some(),
            had_waits: !definition.cancel_on.is_empty()
                || definition.steps.iter().any(|step| step.asynchronous || waits(&step.work))
                || live.saga.state == SagaState::Aborted,
            has_parent: live.kin.parent.is_some(),
        });
    }
    (extras, events)
}

/// The input is applied, or void; whoever gave the order is told.
fn answer(live: &mut Live, advance: &Advance, said: &InputRow, extras: &mut Extras, events: &mut Vec<EventRow>) {
    if advance.answer == Some(Answer::Deferred) {
        return;
    }
    extras.inputs.push(said.id);
    if let ("callback", Some(seq)) = (said.kind.as_str(), said.seq.and_then(|seq| usize::try_from(seq).ok())) {
        // A token is good for one end: another attempt gets another one.
        let action = if said.action.as_deref() == Some("undo") { Action::Undo } else { Action::Do };
        live.tokens.remove(&(seq, action));
    }
    let (applied, result) = match &advance.answer {
        Some(Answer::Applied(what)) => (true, what.clone()),
        Some(Answer::Refused(why)) => (false, why.clone()),
        _ => (false, "it does not fit the saga any more".to_owned()),
    };
    if let Some(id) = said.command_id {
        extras.commands.push(Answered { id, applied, result });
    }
    if said.kind == "decide"
        && let Some(task) = said.payload.get("taskId").and_then(|id| id.as_str()).and_then(|id| Uuid::parse_str(id).ok())
    {
        if applied {
            events.push(decided_event(live, task, said));
        } else {
            let step = said.seq.and_then(|seq| usize::try_from(seq).ok()).and_then(|seq| live.saga.steps.get(seq));
            let kind = said.payload.get("kind").and_then(|kind| kind.as_str()).and_then(TaskKind::parse);
            extras.reopened.push((task, kind.is_some() && step.is_some_and(|step| step.task == kind)));
        }
    }
}

/// A step that begins or ceases to wait for an event.
fn waits(live: &Live, seq: usize, extras: &mut Extras) {
    let definition = live.definition();
    let Work::Wait(wait) = &definition.steps[seq].work else { return };
    let step = i16::try_from(seq).unwrap_or(i16::MAX);
    extras.waits_over.push(step);
    if live.saga.steps[seq].waits_for() != Some(Wait::Event) {
        return;
    }
    let views = steps_scope(definition, &live.saga);
    match wait_key(wait.matching.as_ref(), &scope(definition, &live.saga, &live.event, &views)) {
        Ok(key) => extras.waits.push(WaitRow { seq: step, event_type: wait.event.clone(), key, since: live.kin.arrived }),
        Err(error) => extras.failures.push((seq, Action::Do, format!("`match` cannot be evaluated: {error}"))),
    }
}

fn callbacks_over(live: &mut Live, seq: usize, extras: &mut Extras) {
    if !live.definition().steps[seq].asynchronous {
        return;
    }
    let step = &live.saga.steps[seq];
    let done = matches!(step.status, StepStatus::Succeeded | StepStatus::Failed | StepStatus::Unknown | StepStatus::Skipped | StepStatus::Cancelled);
    let undone = matches!(step.compensation, Compensation::Compensated | Compensation::Failed | Compensation::Skipped);
    for (over, action) in [(done, Action::Do), (undone, Action::Undo)] {
        if over {
            live.tokens.remove(&(seq, action));
            extras.callbacks_over.push((seq, action));
        }
    }
}

/// One token per step and action, for all its attempts.
fn tokens(live: &mut Live, advance: &Advance, extras: &mut Extras) {
    for &(seq, action) in &advance.calls {
        if action == Action::Verify || !live.definition().steps[seq].asynchronous || live.tokens.contains_key(&(seq, action)) {
            continue;
        }
        let token = callback::new_token();
        extras.callbacks.push(CallbackRow { digest: callback::digest(&token), seq, action });
        live.tokens.insert((seq, action), token);
    }
}

fn child(live: &Live, catalog: &Catalog, seq: usize, action: Action) -> ChildRow {
    let id = live.child_id(seq, action);
    if action == Action::Undo {
        return ChildRow { id, seq, action, what: Child::Undo(live.child_id(seq, Action::Do)) };
    }
    let definition = live.definition();
    let what = match &definition.steps[seq].work {
        Work::Saga(_) if usize::try_from(live.kin.nesting).is_ok_and(|nesting| nesting >= NESTING_MAX) => {
            Child::Impossible(format!("sagas within sagas go {NESTING_MAX} deep at most"))
        }
        Work::Saga(name) => match catalog.by_id(name) {
            None => Child::Impossible(format!("no active definition is named {name}: deploy it, then retry")),
            Some(deployed) => match lock_keys(&deployed.definition, &live.event) {
                Ok(keys) => Child::New { definition_no: Arc::clone(deployed).no, keys },
                Err(error) => Child::Impossible(error),
            },
        },
        _ => Child::Impossible("the step is no saga".to_owned()),
    };
    ChildRow { id, seq, action, what }
}
