//! Findings about the steps of one saga.

use std::time::Duration;

use super::{Finding, comes_before};
use crate::core::definition::{Definition, OnExhausted, Otherwise, Step, StepKind, Work};

/// A step that changes something and has no undo, although another may fail when it is done.
pub(super) fn without_undo(definition: &Definition) -> Vec<Finding> {
    let pivot = definition.pivot();
    let mut found = Vec::new();
    for (seq, step) in definition.steps.iter().enumerate() {
        let past_the_pivot = pivot.is_some_and(|pivot| seq >= pivot);
        if step.compensate.is_some() || past_the_pivot || !has_effect(step) {
            continue;
        }
        let may_fail = |other: &usize| *other != seq && can_fail(&definition.steps[*other]) && !comes_before(&definition.flow, *other, seq);
        // What comes after the pivot fails without undoing anything.
        let last = pivot.map_or(definition.steps.len(), |pivot| pivot + 1);
        if let Some(other) = (0..last).find(may_fail) {
            let message = format!("`{}` has no `compensate`: if `{}` fails it stays done", step.name, definition.steps[other].name);
            let help = "add `compensate`, or put it behind the steps that may fail";
            found.push(Finding::about(definition, Some(seq), &["name"], message, help));
        }
    }
    found
}

/// Whether it leaves something that could be undone: an event cannot be unsaid, and a child undoes itself.
fn has_effect(step: &Step) -> bool {
    match &step.work {
        Work::Call(call) => call.method != "GET",
        Work::Sql(_) => true,
        _ => false,
    }
}

/// Whether its failure turns the saga round.
fn can_fail(step: &Step) -> bool {
    let stops = |otherwise: Otherwise| otherwise != Otherwise::Continue;
    step.on_exhausted != OnExhausted::Continue
        && match &step.work {
            Work::Call(_) | Work::Sql(_) | Work::Saga(_) => true,
            Work::Human(human) => stops(human.on_reject) || human.timeout.is_some() && stops(human.on_timeout),
            Work::Wait(wait) => wait.timeout.is_some() && stops(wait.on_timeout),
            Work::Emit(_) | Work::Delay(_) | Work::Until(_) => false,
        }
}

/// A limit that another one always ends first.
pub(super) fn limits(definition: &Definition) -> Vec<Finding> {
    let mut found = Vec::new();
    for (seq, step) in definition.steps.iter().enumerate() {
        let (keys, limit): (&'static [&'static str], Option<Duration>) = match &step.work {
            Work::Call(_) | Work::Sql(_) => (&["timeoutMs"], Some(step.timeout)),
            Work::Wait(wait) => (&["wait", "timeoutMs"], wait.timeout),
            Work::Human(human) => (&["human", "timeoutMs"], human.timeout),
            Work::Delay(time) => (&["delayMs"], Some(*time)),
            Work::Emit(_) | Work::Until(_) | Work::Saga(_) => (&[], None),
        };
        let Some(limit) = limit else { continue };
        let deadlines = [("its own", step.deadline), ("the saga's", definition.deadline)];
        if let Some((whose, Some(deadline))) = deadlines.into_iter().find(|(_, deadline)| deadline.is_some_and(|deadline| deadline < limit)) {
            let what = keys.last().unwrap_or(&"timeoutMs");
            let message = format!(
                "`{}`: `{what}` of {} ms is more than {whose} `deadlineMs` of {} ms, which ends it first",
                step.name,
                limit.as_millis(),
                deadline.as_millis()
            );
            let finding = Finding::about(definition, Some(seq), keys, message, "make the deadline longer, or this shorter");
            found.push(Finding { only_if_written: true, ..finding });
        }
        if let Some(silence) = step.heartbeat_timeout.filter(|silence| *silence > limit) {
            let message = format!("`{}`: `heartbeatTimeoutMs` of {} ms is more than its `timeoutMs`", step.name, silence.as_millis());
            found.push(Finding::about(definition, Some(seq), &["heartbeatTimeoutMs"], message, "make it shorter, or leave it out"));
        }
    }
    found
}

/// Steps on the wrong side of the point of no return.
pub(super) fn kinds(definition: &Definition) -> Vec<Finding> {
    let pivot = definition.pivot();
    let mut found = Vec::new();
    for (seq, step) in definition.steps.iter().enumerate() {
        let name = &step.name;
        if step.kind == StepKind::Retriable && pivot.is_none_or(|pivot| seq < pivot) {
            let message =
                format!("`{name}` is `retriable`, but no pivot comes before it: when it fails a human is asked, and nothing is undone until then");
            found.push(Finding::about(
                definition,
                Some(seq),
                &["kind"],
                message,
                "mark the point of no return with `kind: pivot`, or leave `kind` out",
            ));
        } else if step.kind == StepKind::Retriable && step.compensate.is_some() {
            let message = format!("`{name}` comes after the pivot: its `compensate` is never called");
            found.push(Finding::about(definition, Some(seq), &["compensate"], message, "leave it out"));
        }
        if step.kind == StepKind::Pivot && step.compensate.is_some() && !step.compensate_on.failed {
            let message = format!("`{name}` is the pivot: once it succeeded its `compensate` is never called");
            found.push(Finding::about(definition, Some(seq), &["compensate"], message, "leave it out"));
        }
    }
    found
}
