//! A saga as a picture: Mermaid text for documents, SVG for everything else.

use std::time::Duration;

use super::definition::{Call, Definition, Group, OnBranchFailure, OnExhausted, Step, StepKind, Undo, Work};

mod layout;
mod mermaid;
mod svg;

pub use mermaid::mermaid;
pub use svg::svg;

/// What a step does, in a word and in a line.
fn work(step: &Step) -> (&'static str, String) {
    match &step.work {
        Work::Call(call) => ("call", address(call)),
        Work::Sql(sql) => ("sql", format!("{}()", sql.function)),
        Work::Emit(emit) => ("emit", emit.topic.as_ref().map_or_else(|| emit.kind.clone(), |topic| format!("{} to {}", emit.kind, topic.source()))),
        Work::Wait(wait) => ("wait", format!("for {}{}", wait.event, limit(wait.timeout))),
        Work::Delay(time) => ("delay", duration(*time)),
        Work::Until(time) => ("until", time.source().to_owned()),
        Work::Human(human) => ("human", human.prompt.source().to_owned()),
        Work::Saga(id) => ("saga", id.clone()),
    }
}

/// What undoes a step, in a line.
fn undo(step: &Step) -> Option<String> {
    match (&step.compensate, &step.work) {
        (Some(compensate), _) => Some(match &compensate.undo {
            Undo::Call(call) => address(call),
            Undo::Sql(sql) => format!("{}()", sql.function),
            Undo::Event => "event saga.compensate".to_owned(),
        }),
        (None, Work::Saga(_)) => Some("undoes itself".to_owned()),
        (None, _) => None,
    }
}

fn address(call: &Call) -> String {
    let method = if call.method == "POST" { String::new() } else { format!("{} ", call.method) };
    format!("{method}{}:{}", call.service, call.path.source())
}

/// What is special about a step, in words.
fn marks(step: &Step) -> Vec<String> {
    let mut marks = Vec::new();
    match step.kind {
        StepKind::Plain => {}
        StepKind::Pivot => marks.push("pivot".to_owned()),
        StepKind::Retriable => marks.push("retriable".to_owned()),
    }
    if step.asynchronous {
        marks.push("async".to_owned());
    }
    if step.verify.is_some() {
        marks.push("verify".to_owned());
    }
    match step.on_exhausted {
        OnExhausted::Compensate => {}
        OnExhausted::Hitl => marks.push("then a human".to_owned()),
        OnExhausted::Continue => marks.push("may fail".to_owned()),
    }
    marks.extend(step.when.as_ref().map(|when| format!("when {}", when.source())));
    marks
}

/// What is said of a parallel group.
fn heading(group: &Group) -> String {
    let mut words = "parallel".to_owned();
    if group.max < group.branches.len() {
        words += &format!(", {} at a time", group.max);
    }
    if group.on_branch_failure == OnBranchFailure::Wait {
        words += ", all to their ends";
    }
    words
}

/// What starts it.
fn trigger(definition: &Definition) -> String {
    definition.trigger.join(" or ")
}

fn limit(limit: Option<Duration>) -> String {
    limit.map(|limit| format!(", {} at most", duration(limit))).unwrap_or_default()
}

/// The largest unit in which it is a whole number.
fn duration(time: Duration) -> String {
    let millis = time.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    let (size, unit) = units.into_iter().find(|(size, _)| millis.is_multiple_of(*size)).unwrap_or((1, "ms"));
    format!("{} {unit}", millis / size)
}

#[cfg(test)]
mod tests;
