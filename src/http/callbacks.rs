//! `/v1/callbacks/{token}`: what services report about asynchronous steps. The token is the authority; no key is asked for.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::problem::{Document, Problem};
use super::{AppState, body};
use crate::core::payload::Payload;
use crate::core::story::{Happening, StoryLine};
use crate::store::callbacks::{self, Beat, End, Verdict};
use crate::store::orders::OrderError;

/// The end of an asynchronous step.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Ended {
    /// `ok` or `error`.
    status: Option<String>,
    /// What the undo of the step is to be given; the whole output unless said.
    #[schema(value_type = Option<Object>)]
    context: Option<Box<RawValue>>,
    /// What it came to.
    #[schema(value_type = Option<Object>)]
    output: Option<Box<RawValue>>,
    /// For people.
    message: Option<String>,
    /// What went wrong.
    error: Option<String>,
}

/// How far an asynchronous step has come.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Heartbeat {
    /// So much is done.
    done: Option<i64>,
    /// Of so much.
    total: Option<i64>,
    /// For people.
    message: Option<String>,
}

/// A report that counts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// True.
    accepted: bool,
    /// Whether the same end was told before.
    duplicate: bool,
}

/// Ends an asynchronous step.
#[utoipa::path(post, path = "/v1/callbacks/{token}", tag = "callbacks", params(("token" = String, Path, description = "From `Hms-Callback-Url`")),
    request_body = Ended,
    responses((status = 200, description = "Accepted; with `duplicate` if the same end was told before", body = Accepted),
              (status = 400, description = "What is wrong with it", body = Document), (status = 404, description = "No such token", body = Document),
              (status = 409, description = "Too late, or another end was told before: `stale` is true", body = Document)))]
pub(super) async fn end_step(State(state): State<AppState>, Path(token): Path<String>, request: Request) -> Result<Response, Problem> {
    let Ended { status, context, output, message, error } = body::read(request).await?;
    let status = status.filter(|status| matches!(status.as_str(), "ok" | "error"));
    let status = status.ok_or_else(|| Problem::malformed("`status` is \"ok\" or \"error\"").at("/status"))?;
    let end = End { status, context: payload("/context", context)?, output: payload("/output", output)?, message, error };
    match callbacks::complete(&state.store, &token, end).await.map_err(refusal)? {
        Verdict::Accepted => Ok(Json(Accepted { accepted: true, duplicate: false }).into_response()),
        Verdict::Repeated => Ok(Json(Accepted { accepted: true, duplicate: true }).into_response()),
        Verdict::Conflict => Err(Problem::conflict("another end was told with this token before").stale_report()),
        Verdict::Late => Err(Problem::conflict("too late: the step does not wait for it any more; the report is kept").stale_report()),
    }
}

/// Says that an asynchronous step is still at work, and how far it has come.
#[utoipa::path(post, path = "/v1/callbacks/{token}/heartbeat", tag = "callbacks", params(("token" = String, Path, description = "From `Hms-Callback-Url`")),
    request_body = Heartbeat,
    responses((status = 200, description = "Accepted", body = Accepted), (status = 400, description = "What is wrong with it", body = Document),
              (status = 404, description = "No such token", body = Document),
              (status = 409, description = "The step does not wait any more: stop working on it; `stale` is true", body = Document)))]
pub(super) async fn beat_step(State(state): State<AppState>, Path(token): Path<String>, request: Request) -> Result<Response, Problem> {
    let Heartbeat { done, total, message } = body::read(request).await?;
    for (pointer, number) in [("/done", done), ("/total", total)] {
        if number.is_some_and(|number| number < 0) {
            return Err(Problem::malformed("numbers of progress are not below 0").at(pointer));
        }
    }
    let beat = Beat { done, total, message };
    let place = callbacks::beat(&state.store, &token, beat.clone()).await.map_err(refusal)?;
    let place = place.ok_or_else(|| Problem::conflict("the step does not wait for it any more: stop working on it").stale_report())?;
    if let Some(story) = state.story.as_ref().filter(|_| beat.done.is_some() || beat.message.is_some()) {
        let what = Happening::Progress { step: place.step, done: beat.done, total: beat.total, message: beat.message };
        // A console that cannot follow misses a line.
        let _full = story.try_send(StoryLine { definition: place.definition, what });
    }
    Ok(Json(Accepted { accepted: true, duplicate: false }).into_response())
}

fn payload(pointer: &str, raw: Option<Box<RawValue>>) -> Result<Option<Payload>, Problem> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    match Payload::parse(raw.get()) {
        Some(payload) => Ok(Some(payload)),
        None => Err(Problem::malformed("it holds a NUL character, which Postgres cannot store").at(pointer)),
    }
}

fn refusal(error: OrderError) -> Problem {
    match error {
        OrderError::Unknown(_) => Problem::not_found("no such callback token: it is the last part of the path in Hms-Callback-Url"),
        other => other.into(),
    }
}
