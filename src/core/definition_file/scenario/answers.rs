//! `calls`: what each call of a scenario answers.

use std::time::Duration;

use super::super::super::definition::{Definition, Undo, Work};
use super::super::super::nearest::nearest;
use super::super::super::outcome::Action;
use super::super::super::payload::Payload;
use super::super::super::reply::CallbackEnd;
use super::super::super::saga::SagaState;
use super::super::super::scenario::{Answer, Answers, Callback, Heartbeats, What};
use super::super::canonical::value_of;
use super::super::reader::{Keys, Reader};
use super::super::tree::{Kind, Node, Place};
use super::{from_zero, step_named};

pub(in super::super) const REPLY: Keys = Keys {
    of: "an answer",
    known: &["status", "body", "headers", "retryAfterMs", "delayMs", "fails", "callback", "heartbeats"],
    later: &[],
    extensible: false,
};
pub(in super::super) const FUNCTION: Keys =
    Keys { of: "the answer of a function", known: &["returns", "raises", "fails", "delayMs"], later: &[], extensible: false };
pub(in super::super) const CHILD: Keys =
    Keys { of: "the end of a child saga", known: &["ends", "clean", "reason", "delayMs"], later: &[], extensible: false };
pub(in super::super) const ACKNOWLEDGEMENT: Keys =
    Keys { of: "an acknowledgement", known: &["ok", "error", "delayMs"], later: &[], extensible: false };
pub(in super::super) const CALLBACK: Keys =
    Keys { of: "a callback", known: &["afterMs", "status", "context", "output", "message", "error"], later: &[], extensible: false };
pub(in super::super) const HEARTBEATS: Keys = Keys { of: "`heartbeats`", known: &["everyMs", "untilMs"], later: &[], extensible: false };

/// What answers a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answerer {
    Service { asynchronous: bool },
    Function,
    Child,
    Consumer,
}

/// Reads the answers that are right.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, definition: &Definition) -> Vec<Answers> {
    let Kind::Map(entries) = &node.kind else {
        reader.error(node.place, format!("`calls` must be a map of steps to answers, not {}", node.what()), None);
        return Vec::new();
    };
    let mut all = Vec::new();
    for (key, value) in entries {
        if reader.is_full() {
            break;
        }
        let Some((seq, action)) = call_named(reader, key.place, &key.name, definition) else { continue };
        let Some(answerer) = answerer(definition, seq, action) else { continue };
        let items = match &value.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        if items.is_empty() {
            reader.error(value.place, "no answer is no answer", Some("write `timeout` for silence, or leave the call out for a success"));
        }
        let list: Vec<_> = items.iter().filter_map(|item| answer(reader, item, answerer)).collect();
        if !list.is_empty() {
            all.push(Answers { seq, action, list });
        }
    }
    all
}

/// The call of a name: `step`, `step.undo` or `step.verify`. Steps that call nothing have none.
pub(super) fn call_named(reader: &mut Reader<'_>, place: Place, name: &str, definition: &Definition) -> Option<(usize, Action)> {
    let (step, action) = match name.split_once('.') {
        None => (name, Action::Do),
        Some((step, "undo")) => (step, Action::Undo),
        Some((step, "verify")) => (step, Action::Verify),
        Some((step, other)) => {
            let near = nearest(other, ["undo", "verify"]).unwrap_or("undo");
            reader.error(place, format!("`{name}` is no call"), Some(&format!("did you mean `{step}.{near}`?")));
            return None;
        }
    };
    let seq = step_named(reader, place, step, definition)?;
    if answerer(definition, seq, action).is_some() {
        return Some((seq, action));
    }
    let (message, help) = match (action, &definition.steps[seq].work) {
        (Action::Undo, _) => (format!("step {step} has no `compensate`"), None),
        (Action::Verify, _) => (format!("step {step} has no `verify`"), None),
        (_, Work::Human(_)) => (format!("step {step} calls nobody: it asks a human"), Some("write a `decide` under `at`")),
        (_, Work::Wait(_)) => (format!("step {step} calls nobody: it waits for an event"), Some("write an `event` under `at`")),
        _ => (format!("step {step} calls nobody"), None),
    };
    reader.error(place, message, help);
    None
}

fn answerer(definition: &Definition, seq: usize, action: Action) -> Option<Answerer> {
    let step = &definition.steps[seq];
    let service = Answerer::Service { asynchronous: step.asynchronous && action != Action::Verify };
    match action {
        Action::Do => match &step.work {
            Work::Call(_) => Some(service),
            Work::Sql(_) => Some(Answerer::Function),
            Work::Saga(_) => Some(Answerer::Child),
            _ => None,
        },
        Action::Undo => match (step.compensate.as_ref().map(|compensate| &compensate.undo), &step.work) {
            (Some(Undo::Call(_)), _) => Some(service),
            (Some(Undo::Sql(_)), _) => Some(Answerer::Function),
            (Some(Undo::Event), _) => Some(Answerer::Consumer),
            (None, Work::Saga(_)) => Some(Answerer::Child),
            (None, _) => None,
        },
        Action::Verify => step.verify.as_ref().map(|_| service),
    }
}

fn answer(reader: &mut Reader<'_>, node: &Node, answerer: Answerer) -> Option<Answer> {
    match &node.kind {
        Kind::Text(..) => failure(reader, node, "an answer", answerer).map(|what| Answer { delay: Duration::ZERO, what }),
        Kind::Number(_) if matches!(answerer, Answerer::Service { .. }) => {
            let status = status(reader, node)?;
            Some(Answer { delay: Duration::ZERO, what: plain(status) })
        }
        _ => {
            let keys = match answerer {
                Answerer::Service { .. } => REPLY,
                Answerer::Function => FUNCTION,
                Answerer::Child => CHILD,
                Answerer::Consumer => ACKNOWLEDGEMENT,
            };
            if !reader.map(node, keys) {
                return None;
            }
            let delay = reader.given(node, "delayMs").and_then(|delay| from_zero(reader, delay, "delayMs")).unwrap_or_default();
            let failed = reader.given(node, "fails").map(|fails| failure(reader, fails, "fails", answerer));
            let what = match (failed, answerer) {
                (Some(failed), _) => failed,
                (None, Answerer::Service { asynchronous }) => reply(reader, node, asynchronous),
                (None, Answerer::Function) => function(reader, node),
                (None, Answerer::Child) => child(reader, node),
                (None, Answerer::Consumer) => acknowledgement(reader, node),
            };
            Some(Answer { delay, what: what? })
        }
    }
}

/// The failures that one word tells.
fn failure(reader: &mut Reader<'_>, node: &Node, key: &str, answerer: Answerer) -> Option<What> {
    let words = [("timeout", 0), ("reset", 1), ("unreachable", 2)];
    let known = if matches!(answerer, Answerer::Service { .. }) { &words[..] } else { &words[..1] };
    reader.word(node, key, known).map(|word| match word {
        0 => What::Silence,
        1 => What::Reset,
        _ => What::Unreachable,
    })
}

fn status(reader: &mut Reader<'_>, node: &Node) -> Option<u16> {
    reader.whole(node, "status", 100, 599).and_then(|status| u16::try_from(status).ok())
}

fn plain(status: u16) -> What {
    What::Reply { status, headers: Vec::new(), body: None, retry_after: None, callback: None, heartbeats: None }
}

fn reply(reader: &mut Reader<'_>, node: &Node, asynchronous: bool) -> Option<What> {
    let status = match (reader.given(node, "status"), node.get("callback")) {
        (Some(node), _) => status(reader, node)?,
        (None, Some(_)) => 202,
        (None, None) => 200,
    };
    let body = reader.given(node, "body").map(value_of);
    let retry_after = reader.given(node, "retryAfterMs").and_then(|after| reader.millis(after, "retryAfterMs"));
    let mut headers = Vec::new();
    if let Some(node) = reader.given(node, "headers") {
        if let Kind::Map(entries) = &node.kind {
            for (key, value) in entries {
                headers.extend(reader.text(value, &key.name).map(|value| (key.name.to_lowercase(), value.to_owned())));
            }
        } else {
            reader.error(node.place, format!("`headers` must be a map, not {}", node.what()), None);
        }
    }
    for key in ["callback", "heartbeats"] {
        if let Some(node) = node.get(key).filter(|_| !asynchronous || status != 202) {
            let why = if asynchronous { "a callback follows only a 202" } else { "the step has no `async: true`" };
            reader.error(node.place, format!("`{key}` means nothing here: {why}"), None);
        }
    }
    let callback = reader.given(node, "callback").and_then(|callback| self::callback(reader, callback));
    let until = callback.as_ref().map(|callback| callback.after);
    let heartbeats = reader.given(node, "heartbeats").and_then(|beats| heartbeats(reader, beats, until));
    Some(What::Reply { status, headers, body, retry_after, callback: callback.map(Box::new), heartbeats })
}

fn callback(reader: &mut Reader<'_>, node: &Node) -> Option<Callback> {
    if !reader.map(node, CALLBACK) {
        return None;
    }
    let after = reader.required(node, "afterMs", CALLBACK.of).and_then(|after| from_zero(reader, after, "afterMs"));
    let ok = reader.given(node, "status").map_or(Some(true), |status| reader.word(status, "status", &[("ok", true), ("error", false)]));
    let document = |key: &str| node.get(key).map(|value| Payload::from(value_of(value)));
    let mut text = |key: &str| reader.given(node, key).and_then(|value| reader.text(value, key)).map(str::to_owned);
    let (message, error) = (text("message"), text("error"));
    Some(Callback { after: after?, end: CallbackEnd { ok: ok?, context: document("context"), output: document("output"), message, error } })
}

fn heartbeats(reader: &mut Reader<'_>, node: &Node, until: Option<Duration>) -> Option<Heartbeats> {
    if !reader.map(node, HEARTBEATS) {
        return None;
    }
    let every = reader.required(node, "everyMs", HEARTBEATS.of).and_then(|every| reader.millis(every, "everyMs"));
    let given = reader.given(node, "untilMs").and_then(|until| reader.millis(until, "untilMs"));
    let until = given.or(until);
    if until.is_none() && node.get("untilMs").is_none() {
        reader.error(node.place, "`heartbeats` needs `untilMs`, as no callback ends them", None);
    }
    Some(Heartbeats { every: every?, until: until? })
}

fn function(reader: &mut Reader<'_>, node: &Node) -> Option<What> {
    match (reader.given(node, "returns"), reader.given(node, "raises")) {
        (Some(value), None) => Some(What::Returns(value_of(value))),
        (None, Some(error)) => reader.text(error, "raises").map(|error| What::Raises(error.to_owned())),
        (None, None) => Some(What::Returns(serde_json::json!({}))),
        (Some(_), Some(error)) => {
            reader.error(error.place, "a function either returns or raises", None);
            None
        }
    }
}

fn child(reader: &mut Reader<'_>, node: &Node) -> Option<What> {
    let words = SagaState::ALL.map(|state| (state.as_str(), state));
    let ends: Vec<_> = words.into_iter().filter(|(_, state)| state.is_terminal()).collect();
    let state = reader.required(node, "ends", CHILD.of).and_then(|ended| reader.word(ended, "ends", &ends));
    let clean = reader.given(node, "clean").map_or(Some(true), |clean| reader.truth(clean, "clean"));
    let reason = reader.given(node, "reason").and_then(|reason| reader.text(reason, "reason")).map(str::to_owned);
    Some(What::Ends { state: state?, clean: clean?, reason })
}

fn acknowledgement(reader: &mut Reader<'_>, node: &Node) -> Option<What> {
    let ok = reader.given(node, "ok").map_or(Some(true), |ok| reader.truth(ok, "ok"));
    let error = reader.given(node, "error").and_then(|error| reader.text(error, "error")).map(str::to_owned);
    Some(What::Acknowledged { ok: ok?, error })
}
