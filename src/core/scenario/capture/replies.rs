//! What calls answered, from the attempts that were recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Attempted, CalledBack, Recording, millis};
use crate::core::definition::{Definition, Undo, Work};
use crate::core::failure::TIMED_OUT;
use crate::core::matching::Deployed;
use crate::core::outcome::Action;

/// How the errors of attempts begin that called nobody.
const NOT_CALLED: [&str; 3] = ["the call could not be made", "`when` cannot be evaluated", "the saga was aborted"];

/// What is to be answered, by call; what cannot be said is added to `left_out`.
pub(super) fn of(deployed: &Arc<Deployed>, recording: &Recording, left_out: &mut Vec<String>) -> BTreeMap<(usize, Action), Vec<Value>> {
    let definition = &deployed.definition;
    let mut attempts: Vec<_> = recording.attempts.iter().filter(|attempt| is_call(definition, attempt)).collect();
    attempts.sort_by_key(|attempt| (attempt.seq, attempt.action, attempt.number));
    let mut answers: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for attempt in attempts {
        let step = &definition.steps[attempt.seq];
        let undo = step.compensate.as_ref().map(|compensate| &compensate.undo);
        let answer = match (attempt.action, &step.work, undo) {
            (Action::Do, Work::Saga(child), _) => child_end(child, attempt),
            (Action::Undo, Work::Saga(child), None) => undone_child(child, attempt),
            (Action::Do, Work::Sql(_), _) | (Action::Undo, _, Some(Undo::Sql(_))) => function(attempt),
            (Action::Undo, _, Some(Undo::Event)) => acknowledgement(attempt),
            (Action::Verify, ..) => verified(attempt),
            _ => reply(definition, recording, attempt, left_out),
        };
        answers.entry((attempt.seq, attempt.action)).or_default().push(answer);
    }
    answers
}

/// Whether somebody was called, or asked in another way.
pub(super) fn is_call(definition: &Definition, attempt: &Attempted) -> bool {
    let step = &definition.steps[attempt.seq];
    let calls = match attempt.action {
        Action::Do => matches!(step.work, Work::Call(_) | Work::Sql(_) | Work::Saga(_)),
        Action::Undo | Action::Verify => true,
    };
    // What a person said to be done was no call.
    let is_said = attempt.fence == 0 && matches!(step.work, Work::Call(_) | Work::Sql(_)) && attempt.action == Action::Do;
    let refused = attempt.error.as_ref().is_some_and(|error| NOT_CALLED.iter().any(|start| error.starts_with(start)));
    calls && !is_said && !refused
}

/// Whether the attempt undid its step.
pub(super) fn is_undone(attempt: &Attempted) -> bool {
    attempt.outcome == "succeeded" || attempt.status == Some(410)
}

fn took(attempt: &Attempted) -> u64 {
    millis(attempt.finished_at.since(attempt.started_at))
}

fn timed_out(attempt: &Attempted) -> bool {
    attempt.outcome == "lost" || attempt.error.as_ref().is_some_and(|error| error.starts_with(TIMED_OUT))
}

/// The answer with its delay.
fn delayed(mut answer: Value, attempt: &Attempted) -> Value {
    let delay = took(attempt);
    if delay > 0 {
        answer["delayMs"] = Value::from(delay);
    }
    answer
}

fn reply(definition: &Definition, recording: &Recording, attempt: &Attempted, left_out: &mut Vec<String>) -> Value {
    let step = &definition.steps[attempt.seq];
    let name = super::call_name(definition, attempt.seq, attempt.action);
    let may_be_told = step.asynchronous && attempt.status.is_none() && attempt.outcome != "lost";
    if may_be_told && let Some(answer) = called_back(definition, recording, attempt) {
        return answer;
    }
    if timed_out(attempt) {
        return Value::from("timeout");
    }
    let error = attempt.error.as_deref().unwrap_or_default();
    let said = error.split_once(": ").map(|(_, said)| said);
    match attempt.status {
        Some(status) if attempt.outcome == "unknown" && (200..300).contains(&status) => {
            left_out.push(format!("the reply of {name}, attempt {}, was unusable ({error}): it breaks here instead", attempt.number));
            delayed(json!({"fails": "reset"}), attempt)
        }
        Some(status) => {
            let body = match (&attempt.output, said) {
                (Some(output), _) => Some(output.value().clone()),
                (None, Some(said)) => Some(json!({"message": said})),
                (None, None) => None,
            };
            let mut answer = if status == 200 { json!({}) } else { json!({"status": status}) };
            if let Some(body) = body.filter(|body| !body.is_null()) {
                answer["body"] = body;
            }
            delayed(answer, attempt)
        }
        None if attempt.outcome == "failed" => delayed(json!({"fails": "unreachable"}), attempt),
        None => delayed(json!({"fails": "reset"}), attempt),
    }
}

/// The end of an asynchronous step, or its silence; `None` where the call itself failed.
fn called_back(definition: &Definition, recording: &Recording, attempt: &Attempted) -> Option<Value> {
    let error = attempt.error.as_deref().unwrap_or_default();
    let told = recording.callbacks.iter().find(|told| {
        let CalledBack { seq, action, at, .. } = told;
        (*seq, *action) == (attempt.seq, attempt.action) && *at >= attempt.started_at && *at <= attempt.finished_at
    });
    let every = definition.steps[attempt.seq].heartbeat_timeout.map(|silence| (millis(silence) / 2).max(1));
    if attempt.outcome == "succeeded" || error.starts_with("the callback reports an error") {
        let at = told.map_or(attempt.finished_at, |told| told.at);
        let mut callback = told.map_or_else(|| end_of(attempt, error), |told| told.end.clone());
        callback["afterMs"] = Value::from(millis(at.since(attempt.started_at)));
        let mut answer = json!({"callback": callback});
        if let Some(every) = every.filter(|every| millis(at.since(attempt.started_at)) > *every) {
            answer["heartbeats"] = json!({"everyMs": every});
        }
        return Some(answer);
    }
    if !error.starts_with(TIMED_OUT) || error.contains("no whole reply") {
        return None;
    }
    // It was accepted, and then nothing was heard of it: until its last heartbeat there was something.
    let silence = definition.steps[attempt.seq].heartbeat_timeout.filter(|_| error.contains("no heartbeat"));
    let until = silence.and_then(|silence| took(attempt).checked_sub(millis(silence)));
    let mut answer = json!({"status": 202});
    if let (Some(every), Some(until)) = (every, until.filter(|until| *until > 0)) {
        answer["heartbeats"] = json!({"everyMs": every.min(until), "untilMs": until});
    } else if let (Some(every), None) = (every, silence) {
        answer["heartbeats"] = json!({"everyMs": every, "untilMs": took(attempt)});
    }
    Some(answer)
}

fn end_of(attempt: &Attempted, error: &str) -> Value {
    if attempt.outcome != "succeeded" {
        return json!({"status": "error", "error": error.split_once(": ").map_or(error, |(_, said)| said)});
    }
    let mut end = json!({});
    for (key, payload) in [("output", &attempt.output), ("context", &attempt.context)] {
        if let Some(payload) = payload {
            end[key] = payload.value().clone();
        }
    }
    end
}

fn verified(attempt: &Attempted) -> Value {
    if timed_out(attempt) {
        return Value::from("timeout");
    }
    let error = attempt.error.as_deref().unwrap_or_default();
    let outcome = |word: &str| json!({"body": {"outcome": word}});
    let answer = match (attempt.outcome.as_str(), attempt.status) {
        ("succeeded", _) => attempt.output.as_ref().map_or_else(|| outcome("done"), |output| json!({"body": output.value()})),
        (_, Some(200..=299)) if error == "verify: it was not done" => outcome("not_done"),
        (_, Some(200..=299)) if error == "verify: still pending" => outcome("pending"),
        (_, Some(status)) => json!({"status": status}),
        ("failed", None) => json!({"fails": "unreachable"}),
        _ => json!({"fails": "reset"}),
    };
    delayed(answer, attempt)
}

fn function(attempt: &Attempted) -> Value {
    if timed_out(attempt) {
        return Value::from("timeout");
    }
    let answer = match &attempt.error {
        Some(error) if attempt.outcome != "succeeded" => json!({"raises": error}),
        _ => json!({"returns": attempt.output.as_ref().map_or_else(|| json!({}), |output| output.value().clone())}),
    };
    delayed(answer, attempt)
}

/// The error says how the child ended: `audit.v1 is failed: reason`.
fn child_end(child: &str, attempt: &Attempted) -> Value {
    if attempt.outcome == "succeeded" {
        return delayed(json!({"ends": "completed"}), attempt);
    }
    let said = attempt.error.as_deref().and_then(|error| error.strip_prefix(child)?.strip_prefix(" is "));
    let (state, reason) = said.and_then(|said| said.split_once(':')).unwrap_or(("failed", ""));
    let mut answer = json!({"ends": state, "clean": attempt.outcome != "unknown"});
    if !reason.trim().is_empty() {
        answer["reason"] = Value::from(reason.trim());
    }
    delayed(answer, attempt)
}

fn undone_child(child: &str, attempt: &Attempted) -> Value {
    if attempt.outcome == "succeeded" {
        return delayed(json!({"ends": "cancelled"}), attempt);
    }
    let mut answer = child_end(child, attempt);
    // One that was cancelled and whole would have undone its step.
    answer["clean"] = Value::from(false);
    answer
}

fn acknowledgement(attempt: &Attempted) -> Value {
    match &attempt.error {
        Some(_) if timed_out(attempt) => Value::from("timeout"),
        Some(error) if attempt.outcome != "succeeded" => delayed(json!({"ok": false, "error": error}), attempt),
        _ => delayed(json!({"ok": true}), attempt),
    }
}
