//! Judges what came back from a call.
//!
//! The table of the contract, section 4: a received refusal is a fact, a silence is not, and a success whose reply cannot be
//! kept is of unknown effect, because the undo would not know what to undo.

use serde_json::{Map, Value};

use super::call::{REPLY_BYTES_MAX, Reply};
use super::definition::{Definition, Step};
use super::event::Event;
use super::expression::{ResponseScope, Scope};
use super::outcome::{Action, Class, Outcome};
use super::payload::Payload;
use super::request::{scope, steps_scope};
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
        Reply::Parked(pause) => Outcome { retry_after: Some(pause), ..Outcome::without_reply(Class::Parked, "the service is parked") },
        Reply::Probed(reply) => {
            let outcome = judge(definition, saga, event, seq, action, *reply);
            Outcome { free: true, ..outcome }
        }
        Reply::Returned(output) => returned(definition, saga, event, seq, action, output),
        Reply::RolledBack(error) => Outcome::without_reply(Class::Failed, line(&error)),
        Reply::NotSent(error) => Outcome::without_reply(Class::Failed, line(&error)),
        Reply::Broken(error) => Outcome::without_reply(Class::Unknown, line(&error)),
        Reply::Answered { status, headers, body, retry_after } => {
            let parsed = body.as_deref().map(parse_body);
            let message = match &parsed {
                Some(Body::Json(payload)) => payload.value().get("message").and_then(Value::as_str).map(line),
                _ => None,
            };
            let mut outcome = Outcome {
                class: class_of(status),
                status: Some(status),
                message,
                output: None,
                context: None,
                error: None,
                retry_after,
                free: false,
            };
            if outcome.class != Class::Succeeded {
                outcome.error = Some(describe_refusal(status, parsed.as_ref()));
                return outcome;
            }
            if status == 202 && definition.steps[seq].asynchronous && action != Action::Verify {
                outcome.class = Class::Accepted;
                return outcome;
            }
            if action == Action::Verify {
                return verified(definition, saga, event, seq, status, &headers, parsed, outcome);
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

/// The answer to a `verify`: done, not done, or still at work.
#[expect(clippy::too_many_arguments, reason = "the scope of an expression is as wide as this")]
fn verified(
    definition: &Definition,
    saga: &Saga,
    event: &Event,
    seq: usize,
    status: u16,
    headers: &[(String, String)],
    parsed: Option<Body>,
    outcome: Outcome,
) -> Outcome {
    let unusable = |error: String| Outcome { class: Class::Failed, error: Some(line(&error)), ..outcome.clone() };
    let body = match &parsed {
        Some(Body::Json(payload)) => Some(payload.clone()),
        _ => None,
    };
    let asked = definition.steps[seq].verify.as_ref().and_then(|verify| verify.outcome.as_ref());
    let word = match asked {
        Some(expression) => {
            let views = steps_scope(definition, saga);
            let value = body.as_ref().map_or(&Value::Null, Payload::value);
            let scope = Scope { response: Some(ResponseScope { status, headers, body: value }), ..scope(definition, saga, event, &views) };
            match expression.text(&scope) {
                Ok(word) => word,
                Err(error) => return unusable(format!("verify: its outcome cannot be evaluated: {error}")),
            }
        }
        None => body.as_ref().and_then(|body| body.value().get("outcome")).and_then(Value::as_str).unwrap_or_default().to_owned(),
    };
    match word.as_str() {
        "done" => match keep(definition, saga, event, seq, status, headers, parsed) {
            Ok((output, context)) => Outcome { output, context, ..outcome },
            Err(error) => unusable(format!("verify: done, but {error}")),
        },
        "not_done" => Outcome { class: Class::NotDone, error: Some("verify: it was not done".to_owned()), ..outcome },
        "pending" => Outcome { class: Class::Failed, error: Some("verify: still pending".to_owned()), free: true, ..outcome },
        other => unusable(format!("verify: HTTP {status} with the outcome `{other}`: answer done, not_done or pending")),
    }
}

/// What a function returned.
fn returned(definition: &Definition, saga: &Saga, event: &Event, seq: usize, action: Action, output: Payload) -> Outcome {
    let message = output.value().get("message").and_then(Value::as_str).map(line);
    let mut outcome = Outcome { message, ..Outcome::success(None) };
    if action == Action::Do {
        // NULL, and nothing, is no output.
        let body = if output.value().is_null() { Body::Empty } else { Body::Json(output) };
        match keep(definition, saga, event, seq, 200, &[], Some(body)) {
            Ok((output, context)) => (outcome.output, outcome.context) = (output, context),
            // Known before the transaction ends: it is rolled back, so this is no doubt.
            Err(error) => (outcome.class, outcome.error) = (Class::Refused, Some(line(&error))),
        }
    }
    outcome
}

/// The end that a callback reports, as an outcome of the attempt it ends.
#[must_use]
pub fn callback(definition: &Definition, saga: &Saga, event: &Event, seq: usize, action: Action, end: CallbackEnd) -> Outcome {
    let message = end.message.as_deref().map(line);
    if !end.ok {
        let error = end.error.as_deref().or(end.message.as_deref()).unwrap_or("no reason given");
        return Outcome { message, ..Outcome::without_reply(Class::Failed, line(&format!("the callback reports an error: {error}"))) };
    }
    let mut outcome = Outcome { message, ..Outcome::success(None) };
    if action == Action::Do {
        let body = end.output.map_or(Body::Empty, Body::Json);
        match keep(definition, saga, event, seq, 200, &[], Some(body)) {
            Ok((output, context)) => (outcome.output, outcome.context) = (output, end.context.or(context)),
            Err(error) => (outcome.class, outcome.error) = (Class::Unknown, Some(line(&error))),
        }
    }
    outcome
}

/// What a callback says (contract, section 4).
#[derive(Clone, Debug)]
pub struct CallbackEnd {
    /// `status` was `ok`.
    pub ok: bool,
    /// What the compensation will be given.
    pub context: Option<Payload>,
    /// The output.
    pub output: Option<Payload>,
    /// Shown to people.
    pub message: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
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
    let response = ResponseScope { status, headers, body: output.map_or(&Value::Null, Payload::value) };
    let scope = Scope { response: Some(response), ..scope(definition, saga, event, &views) };
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
