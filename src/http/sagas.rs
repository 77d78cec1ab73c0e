//! `/v1/sagas`: lists, and one saga with everything that is known about it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::problem::{Document, Problem};
use super::{AppState, paging};
use crate::store::read::saga::Detail;
use crate::store::read::sagas::{Filter, Saga};

/// Longest wait for the end of a saga.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Which sagas to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// A state, or several with commas between them.
    state: Option<String>,
    /// What it waits for: `worker`, `human`, `timer`, ...
    #[serde(alias = "waiting_for")]
    waiting_for: Option<String>,
    /// The definition's full id, or its family.
    definition: Option<String>,
    /// The event's correlation id.
    correlation_id: Option<String>,
    /// The event that started it.
    event_id: Option<Uuid>,
    /// It needs the lock of this object.
    #[serde(alias = "lock_key")]
    lock_key: Option<String>,
    /// Started at or after.
    since: Option<DateTime<Utc>>,
    /// Started before.
    until: Option<DateTime<Utc>>,
    /// The last id of the page before.
    after: Option<Uuid>,
    /// Rows of the page: 1 to 200, 50 unless said.
    limit: Option<u32>,
}

/// Lists sagas, newest first.
#[utoipa::path(get, path = "/v1/sagas", tag = "sagas", params(ListQuery),
    responses((status = 200, body = paging::List<Saga>), (status = 400, body = Document)))]
pub(super) async fn list_sagas(State(state): State<AppState>, uri: Uri, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let limit = paging::limit(query.limit)?;
    let filter = Filter {
        states: query.state.iter().flat_map(|states| states.split(',')).map(|state| state.trim().to_owned()).collect(),
        waiting_for: query.waiting_for,
        definition: query.definition,
        correlation_id: query.correlation_id,
        event_id: query.event_id,
        lock_key: query.lock_key,
        unfinished: false,
        since: query.since,
        until: query.until,
        after: query.after,
    };
    let page = state.read.sagas(&filter, limit).await?;
    Ok(paging::answer(&uri, page, |saga| saga.id.to_string()))
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GetQuery {
    /// Answers when the saga has ended, at the latest after this time; at most 60000.
    wait_ms: Option<u64>,
}

/// Shows one saga; with `waitMs`, once it has ended.
#[utoipa::path(get, path = "/v1/sagas/{id}", tag = "sagas", params(("id" = Uuid, Path, description = "The saga"), GetQuery),
    responses((status = 200, body = Detail), (status = 404, body = Document)))]
pub(super) async fn get_saga(State(state): State<AppState>, Path(id): Path<Uuid>, Query(query): Query<GetQuery>) -> Result<Json<Detail>, Problem> {
    if let Some(millis) = query.wait_ms.filter(|millis| *millis > 0) {
        let limit = Duration::from_millis(millis).min(WAIT_MAX);
        tokio::select! {
            () = state.waiters.settled(id, limit) => {}
            // The server is stopping: say how far it is, the client asks the next one.
            () = state.readiness.drained() => {}
        }
    }
    let detail = state.read.saga(id).await?.ok_or_else(|| Problem::not_found(format!("no saga has the id {id}")))?;
    Ok(Json(detail))
}
