//! The end of what a step waited for, as the outcome that the machine is told.

use super::definition::{Definition, Match};
use super::event::Event;
use super::expression::Scope;
use super::failure::TIMED_OUT;
use super::outcome::{Action, Class, Outcome};
use super::payload::Payload;
use super::request::{scope, steps_scope};
use super::saga::{Saga, SagaState};
use serde_json::{Value, json};
use uuid::Uuid;

/// How a child saga ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildEnd {
    /// The child.
    pub saga: Uuid,
    /// Its terminal state.
    pub state: SagaState,
    /// Whether everything that was to be undone was.
    pub clean: bool,
    /// Why it did not complete.
    pub reason: Option<String>,
}

/// What the end of a child means for the step, or the undo, that it is.
#[must_use]
pub fn of_child(definition: &str, action: Action, end: &ChildEnd) -> Outcome {
    let summary = json!({"sagaId": end.saga, "definition": definition, "state": end.state.as_str(), "clean": end.clean, "reason": end.reason});
    let done = match action {
        Action::Undo => end.state == SagaState::Cancelled && end.clean,
        Action::Do | Action::Verify => end.state == SagaState::Completed,
    };
    if done {
        return Outcome::success(Some(Payload::from(summary)));
    }
    let rest = if end.clean { "" } else { ", not all undone" };
    let reason = end.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Outcome::without_reply(Class::Refused, super::reply::line(&format!("the saga {definition} ended {}{rest}{reason}", end.state.as_str())))
}

/// What an event means for the step that waited for it.
#[must_use]
pub fn of_event(event: &Event) -> Outcome {
    Outcome::success(Some(event.data.clone()))
}

/// What the consumer of `saga.compensate` said about the undo.
#[must_use]
pub fn of_acknowledgement(ok: bool, error: Option<&str>) -> Outcome {
    if ok {
        return Outcome::success(None);
    }
    Outcome::without_reply(Class::Failed, super::reply::line(error.unwrap_or("the consumer of saga.compensate could not undo it")))
}

/// A wait whose `match` cannot be evaluated.
#[must_use]
pub fn of_broken_match(error: &str) -> Outcome {
    Outcome::without_reply(Class::Refused, super::reply::line(&format!("`match` cannot be evaluated: {error}")))
}

/// The error of a function that took too long.
#[must_use]
pub fn function_timed_out(limit: std::time::Duration) -> String {
    format!("{TIMED_OUT}: the function took longer than {} ms", limit.as_millis())
}

/// The value that a `match` looks for, fixed when the wait begins; `None` where any event will do.
///
/// # Errors
/// The text of the expression's error.
pub fn awaited(definition: &Definition, saga: &Saga, event: &Event, matching: Option<&Match>) -> Result<Option<Value>, String> {
    let Some(matching) = matching else { return Ok(None) };
    let views = steps_scope(definition, saga);
    matching.value.evaluate(&scope(definition, saga, event, &views)).map(Some).map_err(|error| error.to_string())
}

/// Whether an arriving event of the right type is the one: first the equality, then the whole condition.
///
/// # Errors
/// The text of the condition's error, for an event that has the value looked for.
pub fn matches(
    definition: &Definition,
    saga: &Saga,
    event: &Event,
    arriving: &Event,
    matching: Option<&Match>,
    value: Option<&Value>,
) -> Result<bool, String> {
    let Some(matching) = matching else { return Ok(true) };
    if let Some(value) = value
        && !field(arriving, &matching.path).is_some_and(|found| is_same(&found, value))
    {
        return Ok(false);
    }
    let views = steps_scope(definition, saga);
    let scope = Scope { arriving: Some(arriving), ..scope(definition, saga, event, &views) };
    matching.condition.test(&scope).map_err(|error| error.to_string())
}

/// Equality as CEL has it: 5 and 5.0 are one number.
fn is_same(left: &Value, right: &Value) -> bool {
    left == right || left.as_f64().is_some_and(|left| right.as_f64() == Some(left))
}

/// A field of an event by its path below `async`.
fn field(event: &Event, path: &[String]) -> Option<Value> {
    let (first, rest) = path.split_first()?;
    let top = match first.as_str() {
        "data" => return rest.iter().try_fold(event.data.value(), |value, name| value.get(name)).cloned(),
        "id" => Value::from(event.id.to_string()),
        "type" => Value::from(event.kind.as_str()),
        "topic" => Value::from(event.topic.as_str()),
        "source" => Value::from(event.source.as_str()),
        "subject" => event.subject.as_deref().map_or(Value::Null, Value::from),
        "correlationId" => Value::from(event.correlation_id.as_str()),
        "causationId" => event.causation_id.map_or(Value::Null, |id| Value::from(id.to_string())),
        "depth" => Value::from(event.depth),
        _ => return None,
    };
    rest.is_empty().then_some(top)
}
