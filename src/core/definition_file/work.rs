//! What a step does, one of eight things.

use super::super::definition::{Emit, Human, Otherwise, Sql, Wait, Work};
use super::super::expression::Root;
use super::super::form;
use super::reader::{Keys, Reader, Sight};
use super::step::is_identifier;
use super::tree::{Kind, Node};
use super::{call, canonical};

pub(super) const EMIT: Keys = Keys { of: "`emit`", known: &["type", "topic", "data"], later: &[], extensible: false };
pub(super) const WAIT: Keys = Keys { of: "`wait`", known: &["event", "match", "timeoutMs", "onTimeout"], later: &[], extensible: false };
pub(super) const HUMAN: Keys = Keys {
    of: "`human`",
    known: &["prompt", "queue", "assignee", "form", "fourEyes", "onReject", "timeoutMs", "onTimeout"],
    later: &[],
    extensible: false,
};

/// Variables of the `match` of a wait.
const MATCH_ROOTS: &[Root] = &[Root::Data, Root::Event, Root::Saga, Root::Steps, Root::Async];
const OTHERWISE: [(&str, Otherwise); 3] = [("fail", Otherwise::Fail), ("hitl", Otherwise::Hitl), ("continue", Otherwise::Continue)];

/// Reads the action of a step; `saga` is the id of the saga it stands in.
pub(super) fn read(reader: &mut Reader<'_>, step: &Node, action: &str, sight: Sight<'_>, saga: &str) -> Option<Work> {
    let node = reader.given(step, action)?;
    Some(match action {
        "call" => Work::Call(call::read(reader, node, sight)?),
        "sql" => Work::Sql(function(reader, node)?),
        "emit" => Work::Emit(emit(reader, node, sight)?),
        "wait" => Work::Wait(wait(reader, node, Sight { roots: MATCH_ROOTS, ..sight })?),
        "delayMs" => Work::Delay(reader.millis(node, "delayMs")?),
        "until" => Work::Until(reader.expression(node, "until", sight)?),
        "human" => Work::Human(human(reader, node, sight)?),
        _ => {
            let child = reader.id(node, "saga")?;
            if child == saga {
                reader.error(node.place, "a saga cannot run itself as a step", Some("name another saga"));
            }
            Work::Saga(child.to_owned())
        }
    })
}

/// `schema.name` of a function.
pub(super) fn function(reader: &mut Reader<'_>, node: &Node) -> Option<Sql> {
    let text = reader.name(node, "a function")?;
    if is_function(text) {
        return Some(Sql { function: text.to_owned() });
    }
    let help = "write `schema.function`: lower-case letters, digits and `_`, as registered under `functions`";
    reader.error(node.place, format!("`{text}` is no name of a function"), Some(help));
    None
}

/// Names that mean the same with and without quotes in SQL: what is registered, granted and called is one thing.
fn is_function(text: &str) -> bool {
    let part = |part: &str| is_identifier(part) && part.len() <= 63 && !part.bytes().any(|byte| byte.is_ascii_uppercase());
    text.split_once('.').is_some_and(|(schema, name)| part(schema) && part(name))
}

fn emit(reader: &mut Reader<'_>, node: &Node, sight: Sight<'_>) -> Option<Emit> {
    if !matches!(node.kind, Kind::Map(_)) {
        return Some(Emit { kind: event_type(reader, node, "emit")?, topic: None, data: None });
    }
    let before = reader.problems.len();
    reader.map(node, EMIT);
    let kind = reader.required(node, "type", "`emit`").and_then(|kind| event_type(reader, kind, "type"));
    let topic = reader.given(node, "topic").and_then(|topic| {
        let template = reader.template(topic, "topic", sight)?;
        if template.is_plain() {
            reader.name(topic, "topic")?;
        }
        Some(template)
    });
    let data = reader.given(node, "data").and_then(|data| reader.body(data, sight));
    if reader.problems.len() > before { None } else { Some(Emit { kind: kind?, topic, data }) }
}

fn event_type(reader: &mut Reader<'_>, node: &Node, key: &str) -> Option<String> {
    let name = reader.name(node, key)?;
    if name.contains("${") {
        reader.error(node.place, format!("`{key}` holds no template"), Some("a type is a fixed word: put what varies into `topic` or `data`"));
        return None;
    }
    Some(name.to_owned())
}

fn wait(reader: &mut Reader<'_>, node: &Node, sight: Sight<'_>) -> Option<Wait> {
    if !matches!(node.kind, Kind::Map(_)) {
        reader.error(node.place, format!("`wait` must be a map, not {}", node.what()), Some("write `wait: {event: TYPE, match: …}`"));
        return None;
    }
    reader.map(node, WAIT);
    let event = reader.required(node, "event", "`wait`").and_then(|event| event_type(reader, event, "event"));
    let matching = reader.given(node, "match").and_then(|node| reader.matching(node, sight));
    let (timeout, on_timeout) = limit(reader, node);
    Some(Wait { event: event?, matching, timeout, on_timeout })
}

fn human(reader: &mut Reader<'_>, node: &Node, sight: Sight<'_>) -> Option<Human> {
    if !matches!(node.kind, Kind::Map(_)) {
        reader.error(node.place, format!("`human` must be a map, not {}", node.what()), Some("write `human: {prompt: \"…?\"}`"));
        return None;
    }
    reader.map(node, HUMAN);
    let prompt = reader.required(node, "prompt", "`human`").and_then(|prompt| {
        reader.text(prompt, "prompt")?;
        reader.template(prompt, "prompt", sight)
    });
    let queue = reader.given(node, "queue").and_then(|queue| reader.name(queue, "queue")).map(str::to_owned);
    let assignee = reader.given(node, "assignee").and_then(|assignee| reader.template(assignee, "assignee", sight));
    let form = reader.given(node, "form").and_then(|node| form(reader, node));
    let four_eyes = reader.given(node, "fourEyes").and_then(|node| reader.flag(node, "fourEyes")).unwrap_or(false);
    let on_reject = reader.given(node, "onReject").and_then(|node| reader.word(node, "onReject", &OTHERWISE)).unwrap_or(Otherwise::Fail);
    let (timeout, on_timeout) = limit(reader, node);
    Some(Human { prompt: prompt?, queue, form, assignee, four_eyes, on_reject, timeout, on_timeout })
}

/// `timeoutMs` and `onTimeout`.
fn limit(reader: &mut Reader<'_>, node: &Node) -> (Option<std::time::Duration>, Otherwise) {
    let timeout = reader.given(node, "timeoutMs").and_then(|node| reader.millis(node, "timeoutMs"));
    let said = reader.given(node, "onTimeout");
    if let (Some(at), None) = (said, node.get("timeoutMs")) {
        reader.warn(at.place, "`onTimeout` never happens without `timeoutMs`", Some("write how long to wait beside it"));
    }
    (timeout, said.and_then(|node| reader.word(node, "onTimeout", &OTHERWISE)).unwrap_or(Otherwise::Fail))
}

/// A JSON Schema of what an approval must fill in.
fn form(reader: &mut Reader<'_>, node: &Node) -> Option<serde_json::Value> {
    let Kind::Map(_) = node.kind else {
        reader.error(node.place, format!("`form` must be a map, not {}", node.what()), Some("write a JSON Schema: {type: object, properties: …}"));
        return None;
    };
    let schema = canonical::value_of(node);
    match form::check(&schema) {
        Ok(()) => Some(schema),
        Err(problem) => {
            reader.error(
                node.place,
                format!("`form` is no JSON Schema: {problem}"),
                Some("see https://json-schema.org; only what stands in the form can be referred to"),
            );
            None
        }
    }
}
