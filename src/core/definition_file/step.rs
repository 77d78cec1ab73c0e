//! The steps of a saga: what all kinds of them have in common, and what fits which kind.

use std::collections::HashMap;
use std::time::Duration;

use super::super::definition::{Compensate, CompensateOn, OnExhausted, Step, StepKind, Undo};
use super::super::expression::{Expression, Root};
use super::super::nearest::nearest;
use super::call;
use super::flow::Leaf;
use super::reader::{Keys, Reader, Sight};
use super::retry::RetryPart;
use super::saga::Inherited;
use super::tree::{Kind, Node, Place};
use super::{order, work};

/// Keys that say what a step does: each step has one.
pub(super) const ACTIONS: &[&str] = &["call", "sql", "emit", "wait", "delayMs", "until", "human", "saga"];

pub(super) const STEP: Keys = Keys {
    of: "a step",
    known: &[
        "name",
        "call",
        "sql",
        "emit",
        "wait",
        "delayMs",
        "until",
        "human",
        "saga",
        "when",
        "kind",
        "compensate",
        "compensateOn",
        "context",
        "verify",
        "async",
        "retry",
        "timeoutMs",
        "heartbeatTimeoutMs",
        "deadlineMs",
        "onExhausted",
    ],
    later: &["forEach", "finally"],
    extensible: false,
};

/// Keys that fit only some actions, and what to do about the others.
const FITTING: [(&str, &[&str], &str); 6] = [
    ("async", &["call"], "only a `call` can be ended by a callback"),
    ("heartbeatTimeoutMs", &["call"], "only a `call` has heartbeats"),
    ("verify", &["call"], "only the outcome of a `call` can be unknown"),
    ("context", &["call", "sql"], "only a reply is mapped: the whole output of other steps is their context"),
    ("retry", &["call", "sql"], "only `call` and `sql` steps are tried again"),
    ("timeoutMs", &["call", "sql"], "`deadlineMs` is the limit of any step"),
];

/// Limit of one attempt unless said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Limit of an asynchronous call unless said.
const ASYNC_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Limit of a function unless said, and the most that may be said: it holds a connection and its locks meanwhile.
const SQL_TIMEOUT: Duration = Duration::from_secs(5);
const SQL_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Variables of a step's expressions.
pub(super) const STEP_ROOTS: &[Root] = &[Root::Data, Root::Event, Root::Saga, Root::Steps];
/// Variables of its compensation and of the question what became of it.
const UNDO_ROOTS: &[Root] = &[Root::Data, Root::Event, Root::Saga, Root::Steps, Root::Step];
/// Variables of what looks at a reply.
const REPLY_ROOTS: &[Root] = &[Root::Data, Root::Event, Root::Saga, Root::Steps, Root::Response];

/// Reads the steps that are right; `saga` is the id of the saga.
pub(super) fn read_all(reader: &mut Reader<'_>, leaves: &[Leaf<'_>], saga: &str, inherited: Inherited) -> Vec<Step> {
    // All names first: an expression may name any step, and a misspelt name should find its nearest.
    let names: Vec<&str> = leaves.iter().filter_map(|leaf| name_of(leaf.node)).collect();
    let mut lines = HashMap::new();
    for leaf in leaves {
        if let (Some(name), Some(at)) = (name_of(leaf.node), leaf.node.get("name"))
            && let Some(line) = lines.insert(name, at.place.line)
        {
            reader.error(at.place, format!("two steps are named `{name}`"), Some(&format!("the other is on line {line}")));
        }
    }
    order::check(reader, leaves);
    let reading = Reading { names: &names, saga, inherited };
    leaves.iter().filter_map(|leaf| read(reader, leaf.node, &reading)).collect()
}

pub(super) fn name_of(item: &Node) -> Option<&str> {
    match &item.get("name")?.kind {
        Kind::Text(name, _) => Some(name),
        _ => None,
    }
}

/// What reading a step needs of its saga.
struct Reading<'a> {
    names: &'a [&'a str],
    saga: &'a str,
    inherited: Inherited,
}

impl<'a> Reading<'a> {
    fn sight(&self, roots: &'a [Root]) -> Sight<'a> {
        Sight { roots, steps: Some(self.names) }
    }
}

fn read(reader: &mut Reader<'_>, node: &Node, reading: &Reading<'_>) -> Option<Step> {
    if !reader.map(node, STEP) {
        return None;
    }
    let action = one_action(reader, node);
    if let Some(action) = action {
        refuse_what_does_not_fit(reader, node, action);
    }
    let name = reader.required(node, "name", "a step").and_then(|name| step_name(reader, name));
    let inherited = &reading.inherited;
    let when = reader.given(node, "when").and_then(|when| reader.expression(when, "when", reading.sight(STEP_ROOTS)));
    let kinds = [("pivot", StepKind::Pivot), ("retriable", StepKind::Retriable)];
    let kind = reader.given(node, "kind").and_then(|kind| reader.word(kind, "kind", &kinds)).unwrap_or(StepKind::Plain);
    let work = action.and_then(|action| work::read(reader, node, action, reading.sight(STEP_ROOTS), reading.saga));
    let asynchronous = reader.given(node, "async").and_then(|node| reader.flag(node, "async")).unwrap_or(false);
    let heartbeat = reader.given(node, "heartbeatTimeoutMs");
    let heartbeat_timeout = heartbeat.and_then(|node| reader.millis(node, "heartbeatTimeoutMs"));
    if let (Some(at), false) = (heartbeat, asynchronous) {
        reader.error(at.place, "`heartbeatTimeoutMs` needs `async: true`", Some("the reply to a call that is not asynchronous has `timeoutMs`"));
    }
    let verify = reader.given(node, "verify").and_then(|verify| call::verify(reader, verify, reading.sight(UNDO_ROOTS), reading.sight(REPLY_ROOTS)));
    let context = reader.given(node, "context").and_then(|context| mapped(reader, context, reading.sight(REPLY_ROOTS)));
    let retry = RetryPart::read(reader, node).or(inherited.retry).policy();
    let own_timeout = reader.given(node, "timeoutMs").and_then(|at| limit(reader, at, action == Some("sql")));
    let timeout = match action {
        Some("sql") => own_timeout.or(inherited.timeout).unwrap_or(SQL_TIMEOUT).min(SQL_TIMEOUT_MAX),
        _ if asynchronous => own_timeout.or(inherited.timeout).unwrap_or(ASYNC_TIMEOUT),
        _ => own_timeout.or(inherited.timeout).unwrap_or(TIMEOUT),
    };
    let deadline = reader.given(node, "deadlineMs").and_then(|node| reader.millis(node, "deadlineMs"));
    let words = [("compensate", OnExhausted::Compensate), ("hitl", OnExhausted::Hitl), ("continue", OnExhausted::Continue)];
    let exhausted = reader.given(node, "onExhausted");
    let on_exhausted = exhausted.and_then(|node| reader.word(node, "onExhausted", &words)).unwrap_or(inherited.on_exhausted);
    if let (Some(at), OnExhausted::Continue, StepKind::Pivot) = (exhausted, on_exhausted, kind) {
        let help = "what follows relies on the pivot: write `compensate` or `hitl`";
        reader.error(at.place, "a saga cannot go on without its pivot", Some(help));
    }
    let undo = reader.given(node, "compensate").filter(|_| action != Some("saga"));
    let compensate = undo.and_then(|undo| compensate(reader, undo, action, timeout, reading));
    let compensate_on = reader.given(node, "compensateOn").map(|on| compensate_on(reader, node, on)).unwrap_or_default();
    Some(Step {
        name: name?,
        work: work?,
        when,
        kind,
        context,
        retry,
        timeout,
        deadline,
        asynchronous,
        heartbeat_timeout,
        verify,
        on_exhausted,
        compensate,
        compensate_on,
    })
}

/// The limit of one attempt.
fn limit(reader: &mut Reader<'_>, node: &Node, is_function: bool) -> Option<Duration> {
    let limit = reader.millis(node, "timeoutMs")?;
    if is_function && limit > SQL_TIMEOUT_MAX {
        let help = "a function holds its transaction open: let a service do what takes longer";
        reader.error(node.place, format!("a function has at most {} ms", SQL_TIMEOUT_MAX.as_millis()), Some(help));
    }
    Some(limit)
}

fn compensate(reader: &mut Reader<'_>, node: &Node, action: Option<&str>, timeout: Duration, reading: &Reading<'_>) -> Option<Compensate> {
    let undo = call::undo(reader, node, reading.sight(UNDO_ROOTS));
    let map = Some(node).filter(|node| matches!(node.kind, Kind::Map(_)));
    let retry = map.map(|map| RetryPart::read(reader, map)).unwrap_or_default();
    let is_function = matches!(undo, Some(Undo::Sql(_)));
    let own = map.and_then(|map| reader.given(map, "timeoutMs")).and_then(|at| limit(reader, at, is_function));
    let timeout = match own {
        Some(own) => own,
        // The limit of a call is no measure for a function.
        None if is_function && action != Some("sql") => SQL_TIMEOUT,
        None => timeout,
    };
    Some(Compensate { undo: undo?, retry: retry.or(reading.inherited.undo_retry).policy(), timeout })
}

fn compensate_on(reader: &mut Reader<'_>, step: &Node, node: &Node) -> CompensateOn {
    if step.get("compensate").is_none() && step.get("saga").is_none() {
        reader.error(node.place, "`compensateOn` needs `compensate`", None);
    }
    let words = [("succeeded", 0), ("unknown", 1), ("failed", 2)];
    let found = reader.words(node, "compensateOn", &words);
    CompensateOn { succeeded: found.contains(&0), unknown: found.contains(&1), failed: found.contains(&2) }
}

/// Exactly one action: two are an error that names both.
fn one_action(reader: &mut Reader<'_>, node: &Node) -> Option<&'static str> {
    let Kind::Map(entries) = &node.kind else { return None };
    let action = |name: &str| ACTIONS.iter().copied().find(|action| *action == name);
    let mut actions = entries.iter().filter_map(|(key, _)| Some((action(&key.name)?, key.place)));
    match (actions.next(), actions.next()) {
        (Some((first, _)), Some((second, at))) => {
            reader.error(at, format!("a step does one thing: it has `{first}` and `{second}`"), Some("make two steps of it"));
            None
        }
        (Some((first, _)), None) => Some(first),
        (None, _) => {
            let mut strangers = entries.iter().filter(|(key, _)| !STEP.known.contains(&key.name.as_str()));
            if !strangers.any(|(key, _)| nearest(&key.name, ACTIONS.iter().copied()).is_some()) {
                let help = format!("it has one of {}", ACTIONS.join(", "));
                reader.error(Place { width: 1, ..node.place }, "a step needs something to do, such as `call: service:/path`", Some(&help));
            }
            None
        }
    }
}

fn refuse_what_does_not_fit(reader: &mut Reader<'_>, node: &Node, action: &str) {
    let Kind::Map(entries) = &node.kind else { return };
    for (key, _) in entries {
        let name = key.name.as_str();
        if let Some((_, _, help)) = FITTING.iter().find(|(fitting, actions, _)| *fitting == name && !actions.contains(&action)) {
            let inside = name == "timeoutMs" && matches!(action, "wait" | "human");
            let inside = inside.then(|| format!("write it inside `{action}: {{…}}`"));
            reader.error(key.place, format!("`{name}` does not fit a `{action}` step"), Some(inside.as_deref().unwrap_or(help)));
        } else if name == "compensate" && action == "saga" {
            reader.error(key.place, "`compensate` does not fit a `saga` step", Some("its undo is that of the saga which it ran"));
        }
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

pub(super) fn is_identifier(name: &str) -> bool {
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
