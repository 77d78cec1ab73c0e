//! A scenario file: its top, its events, and what happens at which time. Read against the saga that it is about.

use serde_json::{Value, json};
use uuid::Uuid;

use std::time::Duration;

use super::super::definition::Definition;
use super::super::event::Event;
use super::super::expression::on_big_stack;
use super::super::human::{Decision, TaskKind};
use super::super::nearest::nearest;
use super::super::order::Order;
use super::super::payload::Payload;
use super::super::scenario::{Answers, Deed, Doing, Scenario, Suite};
use super::super::time::Timestamp;
use super::canonical::value_of;
use super::page::Page;
use super::problem::Problem;
use super::reader::{Keys, Reader};
use super::tree::{self, Kind, Node, Place};
use super::whole_file;

mod answers;
mod expect;
pub(super) mod schema;

/// The largest scenario file: a captured saga brings its replies along.
const BYTES_MAX: usize = 4 << 20;
/// Scenarios begin here unless their event says when it was published.
const BEGINNING: &str = "2026-01-01T00:00:00Z";
/// Who does what nobody is named for.
const SOMEBODY: &str = "somebody";

pub(super) const FILE: Keys = Keys { of: "a scenario file", known: &["saga", "event", "calls", "scenarios"], later: &[], extensible: true };
pub(super) const SCENARIO: Keys =
    Keys { of: "a scenario", known: &["name", "event", "lock", "calls", "at", "expect"], later: &["policies"], extensible: false };
pub(super) const EVENT: Keys =
    Keys { of: "an event", known: &["type", "data", "topic", "subject", "source", "correlationId", "id", "time"], later: &[], extensible: false };
pub(super) const DEED: Keys = Keys {
    of: "an entry of `at`",
    known: &["afterMs", "event", "decide", "order", "lock", "worker", "park", "unpark", "step", "kind", "by", "note", "output", "reason", "refused"],
    later: &[],
    extensible: false,
};
/// What an entry of `at` can be.
const DOINGS: &[&str] = &["event", "decide", "order", "lock", "worker", "park", "unpark"];

/// What a scenario file is about: the path or id of its saga.
///
/// # Errors
/// Everything that is wrong with the file's top.
pub fn scenario_saga(file_name: &str, text: &str) -> Result<String, Vec<Problem>> {
    with_tree(file_name, text, |reader, node| {
        reader.map(node, FILE);
        reader.required(node, "saga", FILE.of).and_then(|saga| reader.name(saga, "saga")).map(str::to_owned)
    })
}

/// Reads a scenario file about `definition`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn scenarios(file_name: &str, text: &str, definition: &Definition) -> Result<Suite, Vec<Problem>> {
    with_tree(file_name, text, |reader, node| {
        reader.map(node, FILE);
        let shared = Shared { definition, event: node.get("event"), calls: node.get("calls") };
        let list = reader.required(node, "scenarios", FILE.of)?;
        let Kind::List(items) = &list.kind else {
            reader.error(list.place, format!("`scenarios` must be a list, not {}", list.what()), Some("start each scenario with `- name:`"));
            return None;
        };
        if items.is_empty() {
            reader.error(list.place, "a scenario file needs at least one scenario", None);
        }
        let mut scenarios: Vec<Scenario> = Vec::new();
        for item in items {
            let Some(scenario) = scenario(reader, item, &shared) else { continue };
            if let Some(twin) = scenarios.iter().find(|twin| twin.name == scenario.name) {
                let place = item.get("name").map_or(item.place, |name| name.place);
                let help = format!("the other is on line {}", twin.line);
                reader.error(place, format!("two scenarios are named `{}`", scenario.name), Some(&help));
            }
            scenarios.push(scenario);
        }
        Some(Suite { scenarios })
    })
}

fn with_tree<T: Send>(file_name: &str, text: &str, read: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T> + Send) -> Result<T, Vec<Problem>> {
    if text.len() > BYTES_MAX {
        return Err(vec![whole_file(file_name, &format!("the file has {} bytes: at most {BYTES_MAX} are allowed", text.len()))]);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let page = Page::new(file_name, text);
    let work = || {
        let documents = tree::of_yaml(&page)?;
        let [node] = documents.as_slice() else {
            return Err(vec![whole_file(file_name, &format!("the file holds {} documents; one is expected", documents.len()))]);
        };
        let mut reader = Reader::new(&page);
        let value = read(&mut reader, node);
        let mut problems = reader.problems;
        problems.sort_by_key(|problem| (problem.line, problem.column));
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(problems),
        }
    };
    on_big_stack(work).unwrap_or_else(|reason| Err(vec![whole_file(file_name, &reason)]))
}

/// What all scenarios of a file have in common.
struct Shared<'a> {
    definition: &'a Definition,
    event: Option<&'a Node>,
    calls: Option<&'a Node>,
}

fn scenario(reader: &mut Reader<'_>, node: &Node, shared: &Shared<'_>) -> Option<Scenario> {
    if !reader.map(node, SCENARIO) {
        return None;
    }
    let definition = shared.definition;
    let name = reader.required(node, "name", SCENARIO.of).and_then(|name| reader.name(name, "name")).map(str::to_owned);
    let event = match reader.given(node, "event").or(shared.event) {
        Some(event) => trigger(reader, event, definition),
        None => trigger_of(definition, None, Value::Object(serde_json::Map::new())),
    };
    let lock_busy = reader.given(node, "lock").and_then(|lock| {
        if definition.lock.is_none() {
            reader.error(lock.place, format!("{} has no `lock`", definition.id), None);
        }
        reader.word(lock, "lock", &[("busy", true), ("free", false)])
    });
    let mut answers: Vec<Answers> = Vec::new();
    for calls in [reader.given(node, "calls"), shared.calls].into_iter().flatten() {
        for found in answers::read(reader, calls, definition) {
            if !answers.iter().any(|known| (known.seq, known.action) == (found.seq, found.action)) {
                answers.push(found);
            }
        }
    }
    let mut deeds = Vec::new();
    if let Some(at) = reader.given(node, "at") {
        if let Kind::List(items) = &at.kind {
            deeds.extend(items.iter().filter_map(|item| deed(reader, item, definition)));
        } else {
            reader.error(at.place, format!("`at` must be a list, not {}", at.what()), Some("start each entry with `- afterMs:`"));
        }
    }
    let expect = reader.required(node, "expect", SCENARIO.of).map(|expect| expect::read(reader, expect, definition)).unwrap_or_default();
    Some(Scenario { name: name?, line: node.place.line, event: event?, lock_busy: lock_busy.unwrap_or(false), answers, deeds, expect })
}

/// The event that a saga is asked about: of its own type and topic, unless said.
fn trigger(reader: &mut Reader<'_>, node: &Node, definition: &Definition) -> Option<Event> {
    if !reader.map(node, EVENT) {
        return None;
    }
    let kind = reader.given(node, "type").and_then(|kind| reader.name(kind, "type"));
    let data = reader.given(node, "data").map_or_else(|| json!({}), value_of);
    let event = trigger_of(definition, kind, data)?;
    Some(fields(reader, node, event))
}

fn trigger_of(definition: &Definition, kind: Option<&str>, data: Value) -> Option<Event> {
    let kind = kind.or_else(|| definition.trigger.first().map(String::as_str))?;
    let topic = definition.topics.first().map_or("default", String::as_str);
    Some(Event {
        id: Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000),
        kind: kind.to_owned(),
        topic: topic.to_owned(),
        source: "scenario".to_owned(),
        subject: None,
        data: Payload::from(data),
        correlation_id: "scenario".to_owned(),
        causation_id: None,
        dedupe_key: None,
        depth: 0,
        created_at: Timestamp::parse(BEGINNING).unwrap_or(Timestamp(0)),
    })
}

/// Fills in what is said about an event. What ties it together is its subject, unless said, as the database has it.
fn fields(reader: &mut Reader<'_>, node: &Node, mut event: Event) -> Event {
    let mut name = |key: &str| reader.given(node, key).and_then(|value| reader.name(value, key)).map(str::to_owned);
    event.topic = name("topic").unwrap_or(event.topic);
    event.subject = name("subject").or(event.subject);
    event.source = name("source").unwrap_or(event.source);
    event.correlation_id = name("correlationId").or_else(|| event.subject.clone()).unwrap_or(event.correlation_id);
    if let Some(node) = reader.given(node, "id")
        && let Some(text) = reader.text(node, "id")
    {
        match Uuid::parse_str(text) {
            Ok(id) => event.id = id,
            Err(_) => reader.error(node.place, "`id` must be a UUID", Some("leave it out unless the saga looks at it")),
        }
    }
    if let Some(node) = reader.given(node, "time")
        && let Some(text) = reader.text(node, "time")
    {
        match Timestamp::parse(text) {
            Some(time) => event.created_at = time,
            None => reader.error(node.place, "`time` must be a time in RFC 3339", Some("such as 2026-07-01T08:00:00Z")),
        }
    }
    event
}

fn deed(reader: &mut Reader<'_>, node: &Node, definition: &Definition) -> Option<Deed> {
    if !reader.map(node, DEED) {
        return None;
    }
    let Kind::Map(entries) = &node.kind else { return None };
    let after = reader.required(node, "afterMs", DEED.of).and_then(|after| from_zero(reader, after, "afterMs"));
    let refused = reader.given(node, "refused").and_then(|refused| reader.text(refused, "refused")).map(str::to_owned);
    let mut doings = entries.iter().filter(|(key, _)| DOINGS.contains(&key.name.as_str()));
    let (key, value) = match (doings.next(), doings.next()) {
        (Some((key, value)), None) => (key, value),
        (Some((first, _)), Some((second, _))) => {
            let message = format!("one thing happens at a time: it has `{}` and `{}`", first.name, second.name);
            reader.error(second.place, message, Some("make two entries of it"));
            return None;
        }
        // A misspelt one has been reported with its map.
        (None, _) if entries.iter().any(|(key, _)| !DEED.known.contains(&key.name.as_str())) => return None,
        (None, _) => {
            reader.error(Place { width: 1, ..node.place }, format!("{} needs one of {}", DEED.of, DOINGS.join(", ")), None);
            return None;
        }
    };
    let what = doing(reader, node, &key.name, value, definition)?;
    only_its_own(reader, entries, &key.name);
    Some(Deed { after: after?, line: node.place.line, what, refused })
}

/// Keys that mean nothing beside what happens.
fn only_its_own(reader: &mut Reader<'_>, entries: &[(tree::Key, Node)], doing: &str) {
    let own: &[&str] = match doing {
        "decide" => &["step", "kind", "by", "note", "output", "refused"],
        "order" => &["step", "by", "reason", "refused"],
        _ => &[],
    };
    for (key, _) in entries {
        let name = key.name.as_str();
        if DEED.known.contains(&name) && !DOINGS.contains(&name) && name != "afterMs" && !own.contains(&name) {
            reader.error(key.place, format!("`{name}` means nothing beside `{doing}`"), None);
        }
    }
}

fn doing(reader: &mut Reader<'_>, node: &Node, key: &str, value: &Node, definition: &Definition) -> Option<Doing> {
    match key {
        "event" => {
            if !reader.map(value, EVENT) {
                return None;
            }
            let kind = reader.required(value, "type", EVENT.of).and_then(|kind| reader.name(kind, "type"))?;
            let data = reader.given(value, "data").map_or_else(|| json!({}), value_of);
            let event = Event { topic: "default".to_owned(), ..trigger_of(definition, Some(kind), data)? };
            let known: Vec<_> = definition.awaited().map(|(awaited, _)| awaited).collect();
            if !known.contains(&kind) {
                let help = nearest(kind, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                let place = value.get("type").map_or(value.place, |kind| kind.place);
                reader.error(place, format!("{} waits for no event of type `{kind}`", definition.id), help.as_deref());
            }
            Some(Doing::Event(Box::new(fields(reader, value, event))))
        }
        "decide" => {
            let words = Decision::ALL.map(|decision| (decision.as_str(), decision));
            let decision = reader.word(value, "decide", &words);
            let step = reader.required(node, "step", "a decision").and_then(|step| step_of(reader, step, definition));
            let kinds = TaskKind::ALL.map(|kind| (kind.as_str(), kind));
            let kind = reader.given(node, "kind").and_then(|kind| reader.word(kind, "kind", &kinds));
            let mut text = |key: &str| reader.given(node, key).and_then(|value| reader.name(value, key)).map(str::to_owned);
            let (by, note) = (text("by"), text("note"));
            let output = reader.given(node, "output").map(|output| Payload::from(value_of(output)));
            let (by, note) = (by.unwrap_or_else(|| SOMEBODY.to_owned()), note.unwrap_or_else(|| "a scenario".to_owned()));
            Some(Doing::Decide { seq: step?, kind, decision: decision?, by, note, output })
        }
        "order" => {
            let step = reader.given(node, "step").map(|step| step_of(reader, step, definition));
            let seq = match step {
                Some(None) => return None,
                Some(seq) => seq,
                None => None,
            };
            let orders = [Order::Cancel, Order::Pause, Order::Resume, Order::Abort, Order::Retry(seq), Order::Skip(seq)];
            let order = reader.word(value, "order", &orders.map(|order| (order.as_str(), order)));
            let reason = reader.given(node, "reason").and_then(|reason| reader.text(reason, "reason")).unwrap_or("a scenario").to_owned();
            let by = reader.given(node, "by").and_then(|by| reader.name(by, "by")).unwrap_or(SOMEBODY).to_owned();
            Some(Doing::Order { order: order?, by, reason })
        }
        "lock" => reader.word(value, "lock", &[("granted", ())]).map(|()| Doing::LockGranted),
        "worker" => reader.word(value, "worker", &[("dies", ())]).map(|()| Doing::WorkerDies),
        _ => {
            let mut services: Vec<&str> = definition.steps.iter().flat_map(|step| step.calls()).map(|call| call.service.as_str()).collect();
            services.sort_unstable();
            services.dedup();
            let words: Vec<_> = services.iter().map(|name| (*name, *name)).collect();
            let service = reader.word(value, key, &words)?.to_owned();
            Some(if key == "park" { Doing::Park(service) } else { Doing::Unpark(service) })
        }
    }
}

/// The step of a name.
fn step_of(reader: &mut Reader<'_>, node: &Node, definition: &Definition) -> Option<usize> {
    let name = reader.name(node, "step")?;
    step_named(reader, node.place, name, definition)
}

fn step_named(reader: &mut Reader<'_>, place: Place, name: &str, definition: &Definition) -> Option<usize> {
    let found = definition.steps.iter().position(|step| step.name == name);
    if found.is_none() {
        let help = nearest(name, definition.steps.iter().map(|step| step.name.as_str())).map(|near| format!("did you mean `{near}`?"));
        reader.error(place, format!("{} has no step `{name}`", definition.id), help.as_deref());
    }
    found
}

/// A duration that may be none.
fn from_zero(reader: &mut Reader<'_>, node: &Node, key: &str) -> Option<Duration> {
    reader.whole(node, key, 0, 315_360_000_000).map(Duration::from_millis)
}
