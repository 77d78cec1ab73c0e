//! Fills in the call of a step: body, path and headers, from the saga and its event.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::call::{FunctionCall, Sending, StepCall};
use super::definition::{Call, Definition, Emit, Undo, Work};
use super::emission::Publication;
use super::event::Event;
use super::expression::{EvaluationError, SagaScope, Scope, StepScope, UndoScope};
use super::outcome::Action;
use super::payload::Payload;
use super::saga::{Saga, StepStatus};

/// Limit of a reply that is only an acknowledgement.
const REPLY_LIMIT: Duration = Duration::from_secs(30);
/// The largest data of an event, bytes.
const DATA_BYTES_MAX: usize = 256 * 1024;
/// Events caused by events caused by events ... up to here.
pub const DEPTH_MAX: u16 = 16;

/// The body of a call, unless the definition replaces it (contract, section 4).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StandardBody<'a> {
    saga_id: Uuid,
    definition: &'a str,
    correlation_id: &'a str,
    step: StepBody<'a>,
    data: &'a Payload,
    steps: BTreeMap<&'a str, ContextBody<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StepBody<'a> {
    name: &'a str,
    action: &'static str,
    attempt: u32,
    context: Option<&'a Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    do_key: Option<&'a str>,
}

#[derive(Serialize)]
struct ContextBody<'a> {
    context: Option<&'a Payload>,
}

/// The idempotency key of a step: the same for all its attempts.
#[must_use]
pub fn idempotency_key(saga: Uuid, step: &str, action: Action) -> String {
    format!("{saga}/{step}/{}", action.as_str())
}

/// What the attempt that `machine` committed to for the step at `seq` sends out; `None` where nothing is sent.
///
/// # Errors
/// When a template of the definition fails on this saga's data. Nothing was sent then.
pub fn build(definition: &Definition, saga: &Saga, event: &Event, seq: usize, action: Action) -> Result<Option<Sending>, EvaluationError> {
    let step = &definition.steps[seq];
    let progress = &saga.steps[seq];
    let undo = step.compensate.as_ref();
    let (call, function, timeout) = match action {
        Action::Do => match &step.work {
            // The reply of an asynchronous step comes soon; its end has the long limit.
            Work::Call(call) if step.asynchronous => (Some(call), None, step.timeout.min(REPLY_LIMIT)),
            Work::Call(call) => (Some(call), None, step.timeout),
            Work::Sql(sql) => (None, Some(sql), step.timeout),
            _ => return Ok(None),
        },
        Action::Undo => match undo.map(|compensate| (&compensate.undo, compensate.timeout)) {
            Some((Undo::Call(call), timeout)) => (Some(call), None, timeout),
            Some((Undo::Sql(sql), timeout)) => (None, Some(sql), timeout),
            _ => return Ok(None),
        },
        Action::Verify => (step.verify.as_ref().map(|verify| &verify.call), None, step.timeout.min(REPLY_LIMIT)),
    };
    let done_by = progress.done_by.unwrap_or(saga.id);
    let do_key = (action != Action::Do).then(|| idempotency_key(done_by, &step.name, Action::Do));
    let context = if action == Action::Undo { progress.undo_context() } else { None };
    let views = steps_scope(definition, saga);
    let scope =
        Scope { step: do_key.as_deref().map(|do_key| UndoScope { name: &step.name, context, do_key }), ..scope(definition, saga, event, &views) };
    let attempt = progress.attempt(action);
    let standard = || {
        let body = StandardBody {
            saga_id: saga.id,
            definition: &definition.id,
            correlation_id: &event.correlation_id,
            step: StepBody { name: &step.name, action: action.as_str(), attempt, context, do_key: do_key.as_deref() },
            data: &event.data,
            steps: contexts(definition, saga),
        };
        // Plain structs of strings, numbers and valid JSON: serialising them has no way to fail.
        serde_json::to_string(&body).unwrap_or_default()
    };
    if let Some(sql) = function {
        let call = FunctionCall {
            function: sql.function.clone(),
            argument: standard(),
            saga_id: saga.id,
            step: step.name.clone(),
            action,
            attempt,
            timeout,
        };
        return Ok(Some(Sending::Function(Box::new(call))));
    }
    let Some(call) = call else { return Ok(None) };
    let body = match &call.body {
        Some(template) => template.render(&scope)?.to_string(),
        None => standard(),
    };
    let call = StepCall {
        service: call.service.clone(),
        method: call.method.clone(),
        path: call.path.render_path(&scope)?,
        headers: headers(call, &scope)?,
        body: Bytes::from(body),
        saga_id: saga.id,
        step: step.name.clone(),
        action,
        attempt,
        fence: progress.fence,
        idempotency_key: idempotency_key(saga.id, &step.name, action),
        correlation_id: event.correlation_id.clone(),
        timeout,
        callback_token: None,
    };
    Ok(Some(Sending::Call(Box::new(call))))
}

/// What an expression of a step sees.
#[must_use]
pub fn scope<'a>(definition: &'a Definition, saga: &Saga, event: &'a Event, views: &'a [StepScope<'a>]) -> Scope<'a> {
    Scope { saga: Some(SagaScope { id: saga.id, definition: &definition.id, version: definition.version }), steps: views, ..Scope::of_event(event) }
}

/// The event that an `emit` step publishes.
///
/// # Errors
/// When one of its templates fails on this saga's data, or the event would not be storable.
pub fn publication(definition: &Definition, saga: &Saga, event: &Event, emit: &Emit) -> Result<Publication, EvaluationError> {
    let views = steps_scope(definition, saga);
    let scope = scope(definition, saga, event, &views);
    let topic = emit.topic.as_ref().map(|topic| topic.render_text(&scope)).transpose()?.unwrap_or_else(|| "default".to_owned());
    let data = emit.data.as_ref().map(|data| data.render(&scope)).transpose()?;
    let data = data.map_or_else(|| event.data.clone(), Payload::from);
    let problem = if topic.is_empty() || topic.chars().count() > 255 {
        Some("the topic must have 1 to 255 characters".to_owned())
    } else if data.len() > DATA_BYTES_MAX {
        Some(format!("the data has {} bytes: at most {} KiB, store the document and publish its address", data.len(), DATA_BYTES_MAX / 1024))
    } else if event.depth + 1 > DEPTH_MAX {
        Some(format!("{DEPTH_MAX} events stand between this one and the outside world: that looks like a loop"))
    } else {
        None
    };
    match problem {
        Some(message) => Err(EvaluationError { message, missing: false }),
        None => Ok(Publication { kind: emit.kind.clone(), topic, data }),
    }
}

/// What expressions see as `steps`.
#[must_use]
pub fn steps_scope<'a>(definition: &'a Definition, saga: &'a Saga) -> Vec<StepScope<'a>> {
    definition
        .steps
        .iter()
        .zip(&saga.steps)
        .map(|(step, progress)| StepScope {
            name: &step.name,
            status: progress.status.as_str(),
            output: progress.output.as_ref(),
            context: progress.undo_context(),
        })
        .collect()
}

fn contexts<'a>(definition: &'a Definition, saga: &'a Saga) -> BTreeMap<&'a str, ContextBody<'a>> {
    let done = definition.steps.iter().zip(&saga.steps).filter(|(_, progress)| progress.status == StepStatus::Succeeded);
    done.map(|(step, progress)| (step.name.as_str(), ContextBody { context: progress.undo_context() })).collect()
}

fn headers(call: &Call, scope: &Scope<'_>) -> Result<Vec<(String, String)>, EvaluationError> {
    call.headers.iter().map(|(name, value)| Ok((name.clone(), value.render_text(scope)?))).collect()
}
