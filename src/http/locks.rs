//! `/v1/locks`: who holds which object, and who waits for it.

use axum::extract::{Query, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::problem::{Document, Problem};
use super::{AppState, paging};
use crate::store::read::locks::{Filter, Lock};

/// Which locks to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// The object.
    key: Option<String>,
    /// The saga that holds it or waits for it.
    saga: Option<Uuid>,
    /// `held` or `waiting`.
    state: Option<String>,
    /// What the page before gave as `next`.
    after: Option<String>,
    /// Rows of the page: 1 to 200, 50 unless said.
    limit: Option<u32>,
}

/// Lists object locks by their keys, each with its holder and the queue behind it.
#[utoipa::path(get, path = "/v1/locks", tag = "locks", params(ListQuery),
    responses((status = 200, body = paging::List<Lock>), (status = 400, body = Document)))]
pub(super) async fn list_locks(State(state): State<AppState>, uri: Uri, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let limit = paging::limit(query.limit)?;
    if query.state.as_deref().is_some_and(|state| !matches!(state, "held" | "waiting")) {
        return Err(Problem::malformed("state is held or waiting"));
    }
    let after = match query.after {
        None => None,
        Some(after) => Some(place(&after).ok_or_else(|| Problem::malformed("after is what the page before gave as `next`"))?),
    };
    let page = state.read.locks(&Filter { key: query.key, saga: query.saga, state: query.state, after }, limit).await?;
    Ok(paging::answer(&uri, page, |lock| format!("{}:{}", lock.no, lock.key)))
}

/// A place in the list: the number first, because a key may hold anything.
fn place(after: &str) -> Option<(String, i64)> {
    let (no, key) = after.split_once(':')?;
    Some((key.to_owned(), no.parse().ok()?))
}
