//! The events that a saga publishes about itself, as the ledger keeps them.

use std::borrow::Cow;

use serde::Serialize;
use uuid::Uuid;

use super::definition::Definition;
use super::machine::Emission;
use super::payload::Payload;
use super::saga::{Saga, SagaState};

/// What an `emit` step publishes.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// The event's type.
    pub kind: String,
    /// Its topic.
    pub topic: String,
    /// Its data.
    pub data: Payload,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    saga_id: Uuid,
    definition: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<StepData<'a>>,
}

#[derive(Serialize)]
struct StepData<'a> {
    name: &'a str,
    context: Option<&'a Payload>,
}

/// The event type of an emission.
#[must_use]
pub fn kind(emission: &Emission) -> Cow<'static, str> {
    Cow::Borrowed(match emission {
        Emission::Published(publication) => return Cow::Owned(publication.kind.clone()),
        Emission::Started => "saga.started",
        Emission::Compensate(_) => "saga.compensate",
        Emission::CompensationFailed(_) => "saga.compensation.failed",
        Emission::Ended(SagaState::Completed) => "saga.completed",
        Emission::Ended(SagaState::Cancelled) => "saga.cancelled",
        Emission::Ended(SagaState::Aborted) => "saga.aborted",
        Emission::Ended(SagaState::Rejected) => "saga.rejected",
        Emission::Ended(_) => "saga.failed",
    })
}

/// The event's data as JSON text.
#[must_use]
pub fn data(definition: &Definition, saga: &Saga, emission: &Emission) -> String {
    let seq = match emission {
        Emission::Published(publication) => return publication.data.text().to_owned(),
        Emission::Compensate(seq) | Emission::CompensationFailed(seq) => Some(*seq),
        Emission::Started | Emission::Ended(_) => None,
    };
    let step = seq.map(|seq| StepData { name: &definition.steps[seq].name, context: saga.steps[seq].undo_context() });
    let data = Data { saga_id: saga.id, definition: &definition.id, reason: saga.reason.as_deref(), step };
    // Strings, an id and valid JSON: serialising them has no way to fail.
    serde_json::to_string(&data).unwrap_or_default()
}
