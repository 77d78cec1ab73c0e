//! What others said to a saga, as the machine takes it.

use serde_json::Value;
use uuid::Uuid;

use super::live::Live;
use crate::core::definition::Work;
use crate::core::ending::{self, ChildEnd};
use crate::core::failure;
use crate::core::human::{Decided, Decision, TaskKind};
use crate::core::machine::Input;
use crate::core::order::Order;
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::payload::Payload;
use crate::core::reply::{self, CallbackEnd};
use crate::core::saga::{SagaState, Wait};
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
        "child" => {
            let end = ChildEnd {
                saga: Uuid::parse_str(&text("sagaId")?).ok()?,
                state: SagaState::parse(&text("state")?)?,
                clean: said.payload.get("clean").and_then(Value::as_bool).unwrap_or(false),
                reason: text("reason"),
            };
            ended(Wait::Child, action, ending::of_child(&text("definition").unwrap_or_default(), action, &end))
        }
        "undone" => {
            let ok = said.payload.get("ok").and_then(Value::as_bool).unwrap_or(false);
            ended(Wait::Event, Action::Undo, ending::of_acknowledgement(ok, text("error").as_deref()))
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
        let outcome = ending::of_event(definition, &live.saga, &live.event, wait.matching.as_ref(), arriving)?;
        return Some(Input::Ended { seq: place, action: Action::Do, wait: Wait::Event, outcome: Box::new(outcome) });
    }
    let cancel = definition.cancel_on.get(usize::try_from(-1 - seq).ok()?)?;
    // One that cannot be evaluated cancels nothing.
    ending::fits(definition, &live.saga, &live.event, cancel.matching.as_ref(), arriving)
        .unwrap_or(false)
        .then(|| Input::Ordered { order: Order::Cancel, reason: format!("cancelled by the event {} {}", arriving.kind, arriving.id) })
}
