//! `expect`: what must come of a scenario.

use serde_json::{Map, Value};

use super::super::super::definition::Definition;
use super::super::super::human::TaskKind;
use super::super::super::saga::{Compensation, SagaState, StepStatus};
use super::super::super::scenario::{At, Elapsed, Expect, Requests};
use super::super::canonical::value_of;
use super::super::reader::{Keys, Reader};
use super::super::tree::{Kind, Node, Place};
use super::answers::call_named;
use super::{from_zero, step_named, step_of};

pub(in super::super) const EXPECT: Keys = Keys {
    of: "`expect`",
    known: &["started", "why", "state", "clean", "reason", "waitingFor", "calls", "requests", "undone", "emitted", "tasks", "steps", "elapsedMs"],
    later: &[],
    extensible: false,
};
pub(in super::super) const EMITTED: Keys = Keys { of: "an emitted event", known: &["type", "topic", "data", "step"], later: &[], extensible: false };
pub(in super::super) const TASK: Keys = Keys {
    of: "a human task",
    known: &["kind", "step", "queue", "status", "reason", "prompt", "assignee", "decision", "by"],
    later: &[],
    extensible: false,
};
pub(in super::super) const STEP: Keys =
    Keys { of: "a step", known: &["status", "compensation", "attempts", "message", "error", "output", "context"], later: &[], extensible: false };
pub(in super::super) const REQUEST: Keys =
    Keys { of: "a request", known: &["service", "method", "path", "headers", "body", "function"], later: &[], extensible: false };
pub(in super::super) const ELAPSED: Keys = Keys { of: "`elapsedMs`", known: &["atLeastMs", "atMostMs"], later: &[], extensible: false };

/// What `sagas.waiting_for` can say.
pub(super) const WAITS: [&str; 9] = ["callback", "event", "timer", "human", "child", "service", "lock", "resume", "retry"];

/// Reads what is right of it.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, definition: &Definition) -> Expect {
    let mut expect = Expect::default();
    if !reader.map(node, EXPECT) {
        return expect;
    }
    if matches!(&node.kind, Kind::Map(entries) if entries.is_empty()) {
        reader.error(node.place, "a scenario that expects nothing shows nothing", Some("begin with `state: completed`"));
    }
    expect.started = given(reader, node, "started", |reader, node| reader.truth(node, "started"));
    expect.why = given(reader, node, "why", |reader, node| reader.text(node, "why").map(str::to_owned));
    let states = SagaState::ALL.map(|state| (state.as_str(), state));
    expect.state = given(reader, node, "state", |reader, node| reader.word(node, "state", &states));
    expect.clean = given(reader, node, "clean", |reader, node| reader.truth(node, "clean"));
    expect.reason = given(reader, node, "reason", |reader, node| reader.text(node, "reason").map(str::to_owned));
    let waits = WAITS.map(|what| (what, what));
    expect.waiting_for = given(reader, node, "waitingFor", |reader, node| reader.word(node, "waitingFor", &waits).map(str::to_owned));
    expect.calls = given(reader, node, "calls", |reader, node| {
        list(reader, node, "calls", |reader, item| {
            let name = reader.name(item, "calls")?;
            call_named(reader, item.place, name, definition).map(|_| name.to_owned())
        })
    });
    expect.undone = given(reader, node, "undone", |reader, node| {
        list(reader, node, "undone", |reader, item| step_of(reader, item, definition).map(|seq| definition.steps[seq].name.clone()))
    });
    expect.emitted = given(reader, node, "emitted", |reader, node| list(reader, node, "emitted", |reader, item| emitted(reader, item, definition)));
    expect.tasks = given(reader, node, "tasks", |reader, node| list(reader, node, "tasks", |reader, item| task(reader, item, definition)));
    expect.elapsed = given(reader, node, "elapsedMs", elapsed);
    for (name, place, value) in fields(reader, node, "requests") {
        if call_named(reader, place, name, definition).is_some()
            && let Some(requests) = requests(reader, value)
        {
            expect.requests.push(At { line: place.line, value: (name.to_owned(), requests) });
        }
    }
    for (name, place, value) in fields(reader, node, "steps") {
        if step_named(reader, place, name, definition).is_some()
            && let Some(parts) = step(reader, value)
        {
            expect.steps.push(At { line: place.line, value: (name.to_owned(), parts) });
        }
    }
    expect
}

/// The value of a key, with its line.
fn given<T>(reader: &mut Reader<'_>, node: &Node, key: &str, read: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T>) -> Option<At<T>> {
    let node = reader.given(node, key)?;
    read(reader, node).map(|value| At { line: node.place.line, value })
}

fn list<T>(reader: &mut Reader<'_>, node: &Node, key: &str, mut read: impl FnMut(&mut Reader<'_>, &Node) -> Option<T>) -> Option<Vec<T>> {
    let Kind::List(items) = &node.kind else {
        reader.error(node.place, format!("`{key}` must be a list, not {}", node.what()), None);
        return None;
    };
    Some(items.iter().filter_map(|item| read(reader, item)).collect())
}

/// The entries of a map under a key.
fn fields<'n>(reader: &mut Reader<'_>, node: &'n Node, key: &str) -> Vec<(&'n str, Place, &'n Node)> {
    match reader.given(node, key) {
        Some(Node { kind: Kind::Map(entries), .. }) => entries.iter().map(|(key, value)| (key.name.as_str(), key.place, value)).collect(),
        Some(other) => {
            reader.error(other.place, format!("`{key}` must be a map, not {}", other.what()), None);
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn emitted(reader: &mut Reader<'_>, node: &Node, definition: &Definition) -> Option<Value> {
    if let Kind::Text(..) = &node.kind {
        return reader.name(node, "emitted").map(|kind| Value::Object(Map::from_iter([("type".to_owned(), Value::from(kind))])));
    }
    if !reader.map(node, EMITTED) {
        return None;
    }
    reader.required(node, "type", EMITTED.of).and_then(|kind| reader.name(kind, "type"))?;
    if let Some(step) = reader.given(node, "step") {
        step_of(reader, step, definition)?;
    }
    Some(value_of(node))
}

fn task(reader: &mut Reader<'_>, node: &Node, definition: &Definition) -> Option<Value> {
    let kinds = TaskKind::ALL.map(|kind| (kind.as_str(), kind));
    if !reader.map(node, TASK) {
        return None;
    }
    let kind = reader.required(node, "kind", TASK.of).and_then(|kind| reader.word(kind, "kind", &kinds));
    if let Some(step) = reader.given(node, "step") {
        step_of(reader, step, definition)?;
    }
    if let Some(status) = reader.given(node, "status") {
        reader.word(status, "status", &[("open", ()), ("decided", ()), ("withdrawn", ())])?;
    }
    kind.map(|_| value_of(node))
}

fn step(reader: &mut Reader<'_>, node: &Node) -> Option<Value> {
    let statuses = StepStatus::ALL.map(|status| (status.as_str(), status));
    if let Kind::Text(..) = &node.kind {
        let status = reader.word(node, "status", &statuses)?;
        return Some(Value::Object(Map::from_iter([("status".to_owned(), Value::from(status.as_str()))])));
    }
    if !reader.map(node, STEP) {
        return None;
    }
    if let Some(status) = reader.given(node, "status") {
        reader.word(status, "status", &statuses)?;
    }
    if let Some(compensation) = reader.given(node, "compensation") {
        let words = Compensation::ALL.map(|word| (word.as_str(), word));
        reader.word(compensation, "compensation", &words)?;
    }
    Some(value_of(node))
}

fn requests(reader: &mut Reader<'_>, node: &Node) -> Option<Requests> {
    let request = |reader: &mut Reader<'_>, node: &Node| reader.map(node, REQUEST).then(|| value_of(node));
    match &node.kind {
        Kind::List(items) => Some(Requests::Each(items.iter().filter_map(|item| request(reader, item)).collect())),
        _ => request(reader, node).map(Requests::All),
    }
}

fn elapsed(reader: &mut Reader<'_>, node: &Node) -> Option<Elapsed> {
    if let Kind::Map(_) = &node.kind {
        reader.map(node, ELAPSED);
        let mut limit = |key: &str| reader.given(node, key).and_then(|limit| from_zero(reader, limit, key));
        return Some(Elapsed { least: limit("atLeastMs"), most: limit("atMostMs") });
    }
    let exactly = from_zero(reader, node, "elapsedMs")?;
    Some(Elapsed { least: Some(exactly), most: Some(exactly) })
}
