//! What people, operators, events and workers did while a saga ran.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Deed, Recording};
use crate::core::definition::Work;
use crate::core::event::Event;
use crate::core::failure::{LOCK_BUSY, LOCK_TIMEOUT};
use crate::core::matching::Deployed;
use crate::core::outcome::Action;
use crate::core::time::Timestamp;

/// All of it, by time; what cannot be said is added to `left_out`.
pub(super) fn of(deployed: &Arc<Deployed>, recording: &Recording, left_out: &mut Vec<String>) -> Vec<Deed> {
    let definition = &deployed.definition;
    let mut deeds = Vec::new();
    let mut add = |at: Timestamp, fields: Value| {
        if let Value::Object(fields) = fields {
            deeds.push(Deed { at, fields });
        }
    };
    if let Some(begun_at) = recording.begun_at.filter(|_| waited_for_locks(deployed, recording)) {
        add(begun_at, json!({"lock": "granted"}));
    }
    for order in &recording.orders {
        if !order.applied {
            left_out.push(format!("an order that was refused, or not carried out yet: {} by {}", order.order, order.by));
            continue;
        }
        let mut fields = json!({"order": order.order, "by": order.by, "reason": order.reason});
        if let Some(step) = &order.step {
            fields["step"] = Value::from(step.as_str());
        }
        add(order.at, without_null(fields));
    }
    for task in &recording.tasks {
        let Some(decided) = &task.decided else { continue };
        let output = decided.output.as_ref().map(|output| output.value().clone());
        let step = &definition.steps[task.seq].name;
        let fields = json!({
            "decide": decided.decision, "step": step, "kind": task.kind, "by": decided.by, "note": decided.note, "output": output,
        });
        add(decided.at, without_null(fields));
    }
    for attempt in &recording.attempts {
        let step = &definition.steps[attempt.seq];
        if let (Work::Wait(wait), Action::Do, "succeeded") = (&step.work, attempt.action, attempt.outcome.as_str()) {
            if wait.matching.as_ref().is_some_and(|matching| matching.path.first().is_some_and(|first| first != "data")) {
                left_out.push(format!("of the event that {} waited for only the data are known", step.name));
            }
            let data = attempt.output.as_ref().map_or(Value::Null, |output| output.value().clone());
            add(attempt.finished_at, json!({"event": {"type": wait.event, "data": data}}));
        }
    }
    let mut lost: Vec<_> = recording.attempts.iter().filter(|attempt| attempt.outcome == "lost").map(|attempt| attempt.finished_at).collect();
    lost.sort();
    lost.dedup();
    for at in lost {
        add(at, json!({"worker": "dies"}));
    }
    if let Some(event) = &recording.cancelled_by {
        add(event.created_at, json!({"event": self::event(event)}));
    }
    deeds.sort_by_key(|deed| deed.at);
    deeds
}

/// Whether others held its locks when it was made.
pub(super) fn waited_for_locks(deployed: &Arc<Deployed>, recording: &Recording) -> bool {
    let refused = recording.reason.as_deref().is_some_and(|reason| reason == LOCK_BUSY || reason == LOCK_TIMEOUT);
    // A saga that finds its locks free begins in the transaction that makes it.
    let waited = recording.begun_at.is_some_and(|begun_at| begun_at.since(recording.started_at).as_millis() > 100);
    deployed.definition.lock.is_some() && (refused || waited)
}

/// An event as scenarios write it.
pub(super) fn event(event: &Event) -> Value {
    without_null(json!({
        "type": event.kind, "topic": event.topic, "subject": event.subject, "source": event.source, "correlationId": event.correlation_id,
        "id": event.id, "time": time(event.created_at), "data": event.data.value(),
    }))
}

/// A time in RFC 3339.
pub(super) fn time(at: Timestamp) -> String {
    chrono::DateTime::from_timestamp_micros(at.0).map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)).unwrap_or_default()
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>()),
        other => other,
    }
}
