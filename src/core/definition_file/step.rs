//! The steps of a saga, each with its undo.

use std::collections::HashMap;

use super::super::definition::{Compensate, CompensateOn, OnExhausted, Step, StepKind, Undo, Work};
use super::super::expression::{Expression, Root};
use super::call;
use super::reader::{Keys, Reader, Sight, is_misspelt};
use super::retry::RetryPart;
use super::saga::Inherited;
use super::tree::{Kind, Node, Place};

/// Keys that say what a step does: each step has one.
const ACTIONS: &[&str] = &["call", "sql", "emit", "wait", "delayMs", "until", "human", "saga"];
/// Keys of a group of steps.
const GROUP: &[&str] = &["parallel", "steps"];

pub(super) const STEP: Keys = Keys {
    of: "a step",
    known: &["name", "call", "compensate", "context", "retry", "timeoutMs"],
    later: &[
        "sql",
        "emit",
        "wait",
        "delayMs",
        "until",
        "human",
        "saga",
        "when",
        "kind",
        "verify",
        "async",
        "heartbeatTimeoutMs",
        "onExhausted",
        "deadlineMs",
        "parallel",
        "steps",
        "maxParallel",
        "onBranchFailure",
        "lock",
        "hitl",
        "cancelOn",
        "forEach",
        "finally",
        "compensateOn",
    ],
    extensible: false,
};

/// Variables of a step's call.
const CALL_ROOTS: &[Root] = &[Root::Data, Root::Event, Root::Saga, Root::Steps];
/// Variables of its compensation.
const UNDO_ROOTS: &[Root] = &[Root::Data, Root::Event, Root::Saga, Root::Steps, Root::Step];
/// Variables of its `context`.
const CONTEXT_ROOTS: &[Root] = &[Root::Data, Root::Event, Root::Saga, Root::Steps, Root::Response];

/// Reads the steps that are right.
pub(super) fn read_all(reader: &mut Reader<'_>, items: &[Node], inherited: Inherited) -> Vec<Step> {
    // All names first: an expression may name any step, and a misspelt name should find its nearest.
    let names: Vec<&str> = items.iter().filter_map(|item| name_of(item)).collect();
    let mut lines = HashMap::new();
    for item in items {
        if let (Some(name), Some(at)) = (name_of(item), item.get("name"))
            && let Some(line) = lines.insert(name, at.place.line)
        {
            reader.error(at.place, format!("two steps are named `{name}`"), Some(&format!("the other is on line {line}")));
        }
    }
    items.iter().filter_map(|item| read(reader, item, &names, inherited)).collect()
}

fn name_of(item: &Node) -> Option<&str> {
    match &item.get("name")?.kind {
        Kind::Text(name, _) => Some(name),
        _ => None,
    }
}

fn read(reader: &mut Reader<'_>, node: &Node, names: &[&str], inherited: Inherited) -> Option<Step> {
    if matches!(node.kind, Kind::List(_)) {
        reader.error(Place { width: 1, ..node.place }, "a list of steps inside the steps is not yet supported", None);
        return None;
    }
    if !reader.map(node, STEP) || GROUP.iter().any(|key| node.get(key).is_some()) {
        return None;
    }
    one_action(reader, node);
    let name = reader.required(node, "name", "a step").and_then(|name| step_name(reader, name));
    let sight = |roots| Sight { roots, steps: Some(names) };
    let call = reader.given(node, "call").and_then(|call| call::read(reader, call, "call", sight(CALL_ROOTS)));
    let context = reader.given(node, "context").and_then(|context| mapped(reader, context, sight(CONTEXT_ROOTS)));
    let retry = RetryPart::read(reader, node).or(inherited.retry).policy();
    let timeout = reader.given(node, "timeoutMs").and_then(|node| reader.millis(node, "timeoutMs")).unwrap_or(inherited.timeout);
    let compensate = reader.given(node, "compensate").and_then(|undo| {
        let call = call::read(reader, undo, "compensate", sight(UNDO_ROOTS));
        let is_map = matches!(undo.kind, Kind::Map(_));
        let retry = if is_map { RetryPart::read(reader, undo) } else { RetryPart::default() };
        let own = if is_map { reader.given(undo, "timeoutMs") } else { None };
        let timeout = own.and_then(|node| reader.millis(node, "timeoutMs")).unwrap_or(timeout);
        Some(Compensate { undo: Undo::Call(call?), retry: retry.or(inherited.undo_retry).policy(), timeout })
    });
    Some(Step {
        name: name?,
        work: Work::Call(call?),
        when: None,
        kind: StepKind::Plain,
        context,
        retry,
        timeout,
        deadline: None,
        asynchronous: false,
        heartbeat_timeout: None,
        verify: None,
        on_exhausted: OnExhausted::Compensate,
        compensate,
        compensate_on: CompensateOn::default(),
    })
}

/// Exactly one action: two are an error that names both.
fn one_action(reader: &mut Reader<'_>, node: &Node) {
    let Kind::Map(entries) = &node.kind else { return };
    let mut actions = entries.iter().filter(|(key, _)| ACTIONS.contains(&key.name.as_str())).map(|(key, _)| key);
    match (actions.next(), actions.next()) {
        (Some(first), Some(second)) => {
            reader.error(second.place, format!("a step does one thing: it has `{}` and `{}`", first.name, second.name), Some("make two steps of it"));
        }
        (None, _) if !is_misspelt(node, "call") => reader.error(Place { width: 1, ..node.place }, "a step needs `call`: service:/path", None),
        _ => {}
    }
}

fn step_name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.name(node, "name")?;
    if is_identifier(name) {
        return Some(name.to_owned());
    }
    let message = format!("`{name}` is no step name: letters, digits and `_`, not starting with a digit");
    let help = name.contains(['-', '.', ' ']).then(|| format!("write `{}`: expressions say `steps.NAME`", name.replace(['-', '.', ' '], "_")));
    reader.error(node.place, message, help.as_deref());
    None
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `context: {name: CEL}`.
fn mapped(reader: &mut Reader<'_>, node: &Node, sight: Sight<'_>) -> Option<Vec<(String, Expression)>> {
    let Kind::Map(entries) = &node.kind else {
        reader.error(node.place, format!("`context` must be a map of names to expressions, not {}", node.what()), None);
        return None;
    };
    let mut mapped = Vec::new();
    for (key, value) in entries {
        if reader.is_full() {
            break;
        }
        if matches!(value.kind, Kind::Null) {
            let help = "write an expression; one that holds a comma must be quoted inside `{…}`";
            reader.error(key.place, format!("`{}` has no value", key.name), Some(help));
        } else if let Some(expression) = reader.expression(value, &key.name, sight) {
            mapped.push((key.name.clone(), expression));
        }
    }
    Some(mapped)
}
