//! `/v1/sagas/{id}/cancel` and so on: what operators order of one saga.
//!
//! The order is recorded in any case; the answer waits a moment for what comes of it.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::auth::Caller;
use super::problem::{Document, Problem};
use super::{AppState, body};
use crate::store::Store;
use crate::store::orders::{self, By, OrderError, Receipt, Verb};

/// How long an answer waits for a worker to come to the order.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Longest reason or note, characters.
const REASON_MAX: usize = 1000;

/// An order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Order {
    /// Why; kept with the command.
    reason: Option<String>,
    /// The step to retry, to skip, or to fork from.
    step: Option<String>,
}

/// The reason of an order.
///
/// # Errors
/// 400 when there is none, or it is too long.
pub(super) fn reason(key: &str, reason: Option<String>) -> Result<String, Problem> {
    let reason = body::required(key, reason)?.replace('\0', " ");
    if reason.chars().count() > REASON_MAX {
        return Err(Problem::malformed(format!("`{key}` is longer than {REASON_MAX} characters")).at(format!("/{key}")));
    }
    Ok(reason)
}

async fn order(state: AppState, caller: Caller, id: Uuid, verb: Verb, request: Request) -> Result<Response, Problem> {
    let Order { reason, step } = body::read(request).await?;
    let reason = self::reason("reason", reason)?;
    let commands = orders::order(&state.store, By::Named(&caller.name), verb, &[id], step.as_deref(), &reason).await?;
    answer(&state.store, &commands).await
}

/// What became of one command: 200 applied, 202 not yet, 409 refused.
pub(super) async fn answer(store: &Store, commands: &[Uuid]) -> Result<Response, Problem> {
    let receipt = orders::settled(store, commands, PATIENCE).await?.into_iter().next();
    let receipt = receipt.ok_or_else(|| Problem::internal("a command is gone"))?;
    if receipt.is_refused() {
        return Err(Problem::conflict(receipt.result.unwrap_or_else(|| "refused".to_owned())));
    }
    let status = if receipt.is_pending() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(receipt)).into_response())
}

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Unknown(what) => Self::not_found(what),
            OrderError::Invalid(what) => Self::malformed(what),
            OrderError::Store(error) => error.into(),
        }
    }
}

/// One handler for each order: they differ in their words only.
macro_rules! orders {
    ($($name:ident, $verb:ident, $path:tt, $what:tt;)*) => {$(
        #[doc = $what]
        #[utoipa::path(post, path = $path, tag = "orders", params(("id" = Uuid, Path, description = "The saga")), request_body = Order,
            responses((status = 200, description = "Applied", body = Receipt), (status = 202, description = "Recorded; no worker has come to it yet", body = Receipt),
                      (status = 400, description = "Without a reason", body = Document), (status = 404, body = Document),
                      (status = 409, description = "Refused, and why", body = Document)))]
        pub(super) async fn $name(
            State(state): State<AppState>,
            Path(id): Path<Uuid>,
            Extension(caller): Extension<Caller>,
            request: Request,
        ) -> Result<Response, Problem> {
            order(state, caller, id, Verb::$verb, request).await
        }
    )*};
}

orders! {
    cancel_saga, Cancel, "/v1/sagas/{id}/cancel", "Undoes what a saga did and ends it as cancelled.";
    pause_saga, Pause, "/v1/sagas/{id}/pause", "Lets a saga start nothing new; its limits stand still.";
    resume_saga, Resume, "/v1/sagas/{id}/resume", "Lets a paused saga go on.";
    abort_saga, Abort, "/v1/sagas/{id}/abort", "Ends a saga as it is, without undoing anything.";
    retry_saga, Retry, "/v1/sagas/{id}/retry", "Tries again now what failed: one step, or all that wait for another attempt.";
    skip_saga, Skip, "/v1/sagas/{id}/skip", "Leaves a step, or its undo, be and goes on without it.";
}

/// Starts an ended saga anew from a step, with what it had done before that.
#[utoipa::path(post, path = "/v1/sagas/{id}/fork", tag = "orders", params(("id" = Uuid, Path, description = "The saga")), request_body = Order,
    responses((status = 200, description = "Forked; `newSagaId` is the new saga", body = Receipt), (status = 400, description = "Without a reason", body = Document),
              (status = 404, body = Document), (status = 409, description = "Refused, and why", body = Document)))]
pub(super) async fn fork_saga(
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let Order { reason, step } = body::read(request).await?;
    let reason = self::reason("reason", reason)?;
    let step = step.ok_or_else(|| Problem::malformed("say from which step: `step` is required").at("/step"))?;
    let command = orders::fork(&state.store, By::Named(&caller.name), id, Some(&step), &reason).await?;
    answer(&state.store, &[command]).await
}

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(cancel_saga))
        .routes(routes!(pause_saga))
        .routes(routes!(resume_saga))
        .routes(routes!(abort_saga))
        .routes(routes!(retry_saga))
        .routes(routes!(skip_saga))
        .routes(routes!(fork_saga))
}
