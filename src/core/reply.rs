//! Judges what came back from a call.
//!
//! The table of the contract, section 4: a received refusal is a fact, a silence is not, and a success whose reply cannot be
//! kept is of unknown effect, because the undo would not know what to undo.

use serde_json::{Map, Value};

use super::call::{REPLY_BYTES_MAX, Reply};
use super::definition::{Definition, Step};
use super::event::Event;
use super::expression::{ResponseScope, SagaScope, Scope};
use super::outcome::{Action, Class, Outcome};
use super::payload::Payload;
use super::request::steps_scope;
use super::saga::Saga;

/// The largest context that is kept for an undo, bytes.
pub const CONTEXT_BYTES_MAX: usize = 16 * 1024;
/// The largest sum of the contexts of one saga, bytes.
pub const CONTEXTS_BYTES_MAX: usize = 256 * 1024;
/// Messages and errors are lines for people: longer ones are cut, characters.
const LINE_CHARS_MAX: usize = 500;

/// What a reply means for the attempt that it answers.
#[must_use]
pub fn judge(definition: &Definition, saga: &Saga, event: &Event, seq: usize, action: Action, reply: Reply) -> Outcome {
    match reply {
        Reply::NotSent(error) => Outcome::without_reply(Class::Failed, line(&error)),
        Reply::Broken(error) => Outcome::without_reply(Class::Unknown, line(&error)),
        Reply::Answered { status, headers, body, retry_after } => {
            let parsed = body.as_deref().map(parse_body);
            let message = match &parsed {
                Some(Body::Json(payload)) => payload.value().get("message").and_then(Value::as_str).map(line),
                _ => None,
            };
            let mut outcome =
                Outcome { class: class_of(status), status: Some(status), message, output: None, context: None, error: None, retry_after };
            if outcome.class != Class::Succeeded {
                outcome.error = Some(describe_refusal(status, parsed.as_ref()));
                return outcome;
            }
            if action == Action::Do {
                let kept = keep(definition, saga, event, seq, status, &headers, parsed);
                match kept {
                    Ok((output, context)) => (outcome.output, outcome.context) = (output, context),
                    Err(error) => (outcome.class, outcome.error) = (Class::Unknown, Some(line(&error))),
                }
            }
            outcome
        }
    }
}

/// What a status says about the effect.
#[must_use]
pub fn class_of(status: u16) -> Class {
    match status {
        200..=299 => Class::Succeeded,
        502 | 504 => Class::Unknown,
        408 | 425 | 429 | 500..=599 => Class::Failed,
        _ => Class::Refused,
    }
}

enum Body {
    Empty,
    Json(Payload),
    Other,
}

fn parse_body(bytes: &[u8]) -> Body {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Body::Empty;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Body::Other;
    };
    match Payload::parse(text) {
        Some(payload) => Body::Json(payload),
        None => clean(text).map_or(Body::Other, Body::Json),
    }
}

/// A reply that holds NUL characters is still a reply: they are replaced, because Postgres cannot store them.
fn clean(text: &str) -> Option<Payload> {
    serde_json::from_str::<Value>(text).ok().map(|value| Payload::from(without_nul(value)))
}

fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('\0', "\u{fffd}")),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(map) => map.into_iter().map(|(key, item)| (key.replace('\0', "\u{fffd}"), without_nul(item))).collect(),
        other => other,
    }
}

type Kept = (Option<Payload>, Option<Payload>);

/// Output and context of a success, or why they cannot be kept.
fn keep(
    definition: &Definition,
    saga: &Saga,
    event: &Event,
    seq: usize,
    status: u16,
    headers: &[(String, String)],
    parsed: Option<Body>,
) -> Result<Kept, String> {
    let output = match parsed {
        None => return Err(format!("HTTP {status}, but the reply is larger than {} KiB: answer with an address instead", REPLY_BYTES_MAX / 1024)),
        Some(Body::Other) => return Err(format!("HTTP {status}, but the reply is not JSON: answer with JSON or an empty body")),
        Some(Body::Empty) => None,
        Some(Body::Json(payload)) => Some(payload),
    };
    let step = &definition.steps[seq];
    let context = match &step.context {
        Some(mapping) => Some(map_context(definition, saga, event, step, mapping, status, headers, output.as_ref())?),
        None => output.as_ref().and_then(|body| body.value().get("context")).filter(|value| value.is_object()).cloned().map(Payload::from),
    };
    // Without a compensation nobody will be given the context: a long output is no reason to doubt the step.
    if step.compensate.is_some() {
        let size = context.as_ref().or(output.as_ref()).map_or(0, Payload::len);
        let before: usize = saga.steps.iter().filter_map(|progress| progress.undo_context()).map(Payload::len).sum();
        if size > CONTEXT_BYTES_MAX || before + size > CONTEXTS_BYTES_MAX {
            return Err(format!(
                "HTTP {status}, but the context of {size} bytes is too large for the undo: answer with a `context` object of at most {} KiB",
                CONTEXT_BYTES_MAX / 1024
            ));
        }
    }
    Ok((output, context))
}

#[expect(clippy::too_many_arguments, reason = "the scope of an expression is as wide as this")]
fn map_context(
    definition: &Definition,
    saga: &Saga,
    event: &Event,
    step: &Step,
    mapping: &[(String, super::expression::Expression)],
    status: u16,
    headers: &[(String, String)],
    output: Option<&Payload>,
) -> Result<Payload, String> {
    let views = steps_scope(definition, saga);
    let scope = Scope {
        saga: Some(SagaScope { id: saga.id, definition: &definition.id, version: definition.version }),
        steps: &views,
        response: Some(ResponseScope { status, headers, body: output.map_or(&Value::Null, Payload::value) }),
        ..Scope::of_event(event)
    };
    let mut context = Map::new();
    for (name, expression) in mapping {
        let value = expression.evaluate(&scope).map_err(|error| format!("HTTP {status}, but context.{name} of step {} fails: {error}", step.name))?;
        context.insert(name.clone(), value);
    }
    Ok(Payload::from(Value::Object(context)))
}

/// One line about a refusal: the status, and what the service said about it.
fn describe_refusal(status: u16, body: Option<&Body>) -> String {
    let said = match body {
        Some(Body::Json(payload)) => {
            let value = payload.value();
            ["message", "detail", "title", "error"].iter().find_map(|key| value.get(key).and_then(Value::as_str)).map(line)
        }
        _ => None,
    };
    said.map_or_else(|| format!("HTTP {status}"), |said| format!("HTTP {status}: {said}"))
}

/// One printable line of bounded length: what services say goes to consoles and tables.
#[must_use]
pub fn line(text: &str) -> String {
    let cleaned: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE_CHARS_MAX).collect();
    cleaned.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_the_contract_says() {
        let check = |statuses: &[u16], class| {
            for status in statuses {
                assert_eq!(class_of(*status), class, "{status}");
            }
        };
        check(&[200, 201, 202, 204, 299], Class::Succeeded);
        check(&[502, 504], Class::Unknown);
        check(&[408, 425, 429, 500, 501, 503, 599], Class::Failed);
        check(&[301, 302, 304, 400, 401, 403, 404, 409, 410, 422], Class::Refused);
    }

    #[test]
    fn lines_are_printable_and_short() {
        assert_eq!(line("down\r\n\u{1b}[31mfor good"), "down   [31mfor good");
        assert_eq!(line(&"x".repeat(9000)).len(), LINE_CHARS_MAX);
    }
}
