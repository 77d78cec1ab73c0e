//! Fills in the call of a step: body, path and headers, from the saga and its event.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::call::StepCall;
use super::definition::{Call, Definition};
use super::event::Event;
use super::expression::{EvaluationError, Root, SagaScope, Scope, StepScope, UndoScope};
use super::outcome::Action;
use super::payload::Payload;
use super::saga::{Saga, StepStatus};

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

/// The call that `machine` committed to for the step at `seq`.
///
/// # Errors
/// When a template of the definition fails on this saga's data. Nothing was sent then.
pub fn build(definition: &Definition, saga: &Saga, event: &Event, seq: usize, action: Action) -> Result<StepCall, EvaluationError> {
    let step = &definition.steps[seq];
    let progress = &saga.steps[seq];
    let (call, timeout) = match (action, &step.compensate) {
        (Action::Undo, Some(compensate)) => (&compensate.call, compensate.timeout),
        _ => (&step.call, step.timeout),
    };
    let do_key = (action == Action::Undo).then(|| idempotency_key(saga.id, &step.name, Action::Do));
    let context = if action == Action::Undo { progress.undo_context() } else { None };
    let views = steps_scope(definition, saga);
    let scope = Scope {
        saga: Some(SagaScope { id: saga.id, definition: &definition.id, version: definition.version }),
        steps: &views,
        step: do_key.as_deref().map(|do_key| UndoScope { name: &step.name, context, do_key }),
        ..Scope::of_event(event)
    };
    let attempt = progress.attempt(action);
    let body = match &call.body {
        Some(template) => template.render(&scope)?.to_string(),
        None => {
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
        }
    };
    Ok(StepCall {
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
    })
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

/// The roots that a call of a step may name; its undo may name `step` as well.
pub const CALL_ROOTS: [Root; 4] = [Root::Data, Root::Event, Root::Saga, Root::Steps];
