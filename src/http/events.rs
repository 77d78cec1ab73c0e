//! `/v1/events`: publishing, and looking at what was published.

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::Caller;
use super::cloudevent::{self, Message};
use super::problem::{Document, Problem};
use super::{AppState, limits, paging};
use crate::store::read::events::{Event, Filter, Started};

/// What was published.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Receipt {
    /// Of a single event.
    One {
        /// Its id in the ledger.
        id: Uuid,
    },
    /// Of a batch, in its order.
    Batch {
        /// The ids in the ledger.
        ids: Vec<Uuid>,
    },
}

/// Publishes one event or a batch.
#[utoipa::path(
    post, path = "/v1/events", tag = "events",
    request_body(description = "A CloudEvent 1.0 (structured, binary or batch), or `{type, data, id, topic, subject, source, correlationId, causationId}`",
        content((serde_json::Value = "application/json"), (serde_json::Value = "application/cloudevents+json"),
                (Vec<serde_json::Value> = "application/cloudevents-batch+json"))),
    responses((status = 201, description = "Published", body = Receipt),
              (status = 200, description = "All of it was published before, under these ids", body = Receipt),
              (status = 400, body = Document), (status = 409, body = Document), (status = 413, body = Document),
              (status = 415, body = Document), (status = 422, body = Document))
)]
pub(super) async fn publish_events(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = limits::read_body(&parts.headers, body).await?;
    let (events, is_batch) = match cloudevent::read(&parts.headers, &body, &caller.name)? {
        Message::One(event) => (vec![*event], false),
        Message::Batch(events) => (events, true),
    };
    let published = state.publisher.publish(events).await?;
    let is_new = published.iter().any(|event| event.is_new);
    let status = if is_new || published.is_empty() { StatusCode::CREATED } else { StatusCode::OK };
    match published.as_slice() {
        [only] if !is_batch => {
            let mut response = (status, Json(Receipt::One { id: only.id })).into_response();
            if let Ok(location) = HeaderValue::from_str(&format!("/v1/events/{}", only.id)) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            Ok(response)
        }
        all => Ok((status, Json(Receipt::Batch { ids: all.iter().map(|event| event.id).collect() })).into_response()),
    }
}

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// What happened.
    r#type: Option<String>,
    /// Where it was published.
    topic: Option<String>,
    /// The business object it is about.
    subject: Option<String>,
    /// Who published it.
    source: Option<String>,
    /// Ties everything one fact caused.
    correlation_id: Option<String>,
    /// Published at or after.
    since: Option<DateTime<Utc>>,
    /// Published before.
    until: Option<DateTime<Utc>>,
    /// The last id of the page before.
    after: Option<Uuid>,
    /// Rows of the page: 1 to 200, 50 unless said.
    limit: Option<u32>,
}

/// Lists events, newest first.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(ListQuery),
    responses((status = 200, body = paging::List<Event>), (status = 400, body = Document)))]
pub(super) async fn list_events(State(state): State<AppState>, uri: Uri, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let limit = paging::limit(query.limit)?;
    let filter = Filter {
        kind: query.r#type,
        topic: query.topic,
        subject: query.subject,
        source: query.source,
        correlation_id: query.correlation_id,
        since: query.since,
        until: query.until,
        after: query.after,
    };
    let page = state.read.events(&filter, limit).await?;
    Ok(paging::answer(&uri, page, |event| event.id.to_string()))
}

/// An event and what came of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventDetail {
    #[serde(flatten)]
    event: Event,
    /// One sentence: what it started, or why it started nothing.
    why: Option<String>,
    /// The sagas it started.
    sagas: Vec<Started>,
}

/// Shows one event, what it started, and if nothing, why.
#[utoipa::path(get, path = "/v1/events/{id}", tag = "events", params(("id" = Uuid, Path, description = "The event")),
    responses((status = 200, body = EventDetail), (status = 404, body = Document)))]
pub(super) async fn get_event(State(state): State<AppState>, Path(id): Path<Uuid>) -> Result<Json<EventDetail>, Problem> {
    let detail = state.read.event(id).await?.ok_or_else(|| Problem::not_found(format!("no event has the id {id}")))?;
    Ok(Json(EventDetail { event: detail.event, why: detail.why, sagas: detail.sagas }))
}
