//! What others said to a saga, as the machine takes it.

use serde_json::Value;
use uuid::Uuid;

use super::live::Live;
use crate::core::definition::{Definition, Match, Work};
use crate::core::event::Event;
use crate::core::expression::Scope;
use crate::core::failure;
use crate::core::human::{Decided, Decision, TaskKind};
use crate::core::machine::Input;
use crate::core::order::Order;
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::payload::Payload;
use crate::core::reply::{self, CallbackEnd};
use crate::core::request::{scope, steps_scope};
use crate::core::saga::Wait;
use crate::store::inputs::InputRow;

/// What the machine is told; `None` for something that is void, such as an event that does not match after all.
#[must_use]
pub fn judge(live: &Live, said: &InputRow) -> Option<Input> {
    let definition = live.definition();
    let text = |name: &str| said.payload.get(name).and_then(Value::as_str).map(str::to_owned);
    let payload = |name: &str| said.payload.get(name).filter(|value| !value.is_null()).cloned().map(Payload::from);
    let action = if said.action.as_deref() == Some("undo") { Action::Undo } else { Action::Do };
    let seq = said.seq.and_then(|seq| usize::try_from(seq).ok()).filter(|seq| *seq < definition.steps.len());
    let ended = |wait: Wait, action: Action, outcome: Outcome| Some(Input::Ended { seq: seq?, action, wait, outcome: Box::new(outcome) });
    match said.kind.as_str() {
        "locked" => Some(Input::Locked),
        "event" => event(live, said),
        "callback" => {
            let end = CallbackEnd {
                ok: text("status").as_deref() == Some("ok"),
                context: payload("context"),
                output: payload("output"),
                message: text("message"),
                error: text("error"),
            };
            ended(Wait::Callback, action, reply::callback(definition, &live.saga, &live.event, seq?, action, end))
        }
        "child" => ended(Wait::Child, action, child_ended(&said.payload, action)),
        "undone" => {
            let ok = said.payload.get("ok").and_then(Value::as_bool).unwrap_or(false);
            let failed = || Outcome::without_reply(Class::Failed, reply::line(&text("error").unwrap_or_else(|| "no reason given".to_owned())));
            ended(Wait::Event, Action::Undo, if ok { Outcome::success(None) } else { failed() })
        }
        "failed" => {
            let wait = live.saga.steps[seq?].wait?;
            ended(wait, action, Outcome::without_reply(Class::Refused, reply::line(&text("error").unwrap_or_default())))
        }
        "order" => {
            let step = said.payload.get("step").and_then(Value::as_u64).and_then(|step| usize::try_from(step).ok());
            let order = Order::parse(&text("order")?, step)?;
            let (by, why) = (text("by").unwrap_or_default(), text("reason").unwrap_or_default());
            Some(Input::Ordered { order, reason: reply::line(&failure::ordered(order, &by, &why)) })
        }
        "decide" => Some(Input::Decided(Decided {
            task: text("taskId").and_then(|id| Uuid::parse_str(&id).ok())?,
            kind: TaskKind::parse(&text("kind")?)?,
            seq,
            decision: Decision::parse(&text("decision")?)?,
            by: text("by").unwrap_or_default(),
            note: text("note").unwrap_or_default(),
            output: payload("output"),
        })),
        _ => None,
    }
}

/// An event whose key fits: does the whole condition?
fn event(live: &Live, said: &InputRow) -> Option<Input> {
    let definition = live.definition();
    let (seq, arriving) = (said.seq?, said.event.as_ref()?);
    if let Ok(place) = usize::try_from(seq) {
        let Work::Wait(wait) = &definition.steps.get(place)?.work else { return None };
        let outcome = match fits(live, wait.matching.as_ref(), arriving) {
            Ok(false) => return None,
            Ok(true) => Outcome::success(Some(arriving.data.clone())),
            Err(error) => Outcome::without_reply(Class::Refused, reply::line(&format!("`match` cannot be evaluated: {error}"))),
        };
        return Some(Input::Ended { seq: place, action: Action::Do, wait: Wait::Event, outcome: Box::new(outcome) });
    }
    let cancel = definition.cancel_on.get(usize::try_from(-1 - seq).ok()?)?;
    // One that cannot be evaluated cancels nothing.
    fits(live, cancel.matching.as_ref(), arriving)
        .unwrap_or(false)
        .then(|| Input::Ordered { order: Order::Cancel, reason: format!("cancelled by the event {} {}", arriving.kind, arriving.id) })
}

fn fits(live: &Live, matching: Option<&Match>, arriving: &Event) -> Result<bool, String> {
    let Some(matching) = matching else { return Ok(true) };
    let definition: &Definition = live.definition();
    let views = steps_scope(definition, &live.saga);
    let scope = Scope { arriving: Some(arriving), ..scope(definition, &live.saga, &live.event, &views) };
    matching.condition.test(&scope).map_err(|error| error.to_string())
}

/// How a child ended, as the outcome of its parent's step. One that left nothing behind has failed; one that may have is in doubt.
fn child_ended(payload: &Value, action: Action) -> Outcome {
    let text = |name: &str| payload.get(name).and_then(Value::as_str).unwrap_or_default();
    let clean = payload.get("clean").and_then(Value::as_bool).unwrap_or(false);
    let summary = || Some(Payload::from(serde_json::json!({"sagaId": text("sagaId"), "state": text("state")})));
    let error = reply::line(&format!("{} is {}: {}", text("definition"), text("state"), text("reason")));
    match (action, text("state"), clean) {
        (Action::Do, "completed", _) | (Action::Undo, "cancelled", true) => Outcome::success(summary()),
        (Action::Do, _, false) => Outcome::without_reply(Class::Unknown, error),
        _ => Outcome::without_reply(Class::Refused, error),
    }
}
