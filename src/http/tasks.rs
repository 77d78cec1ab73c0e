//! `/v1/human-tasks`: what people are asked, and their decisions.

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::Caller;
use super::problem::{Document, Item, Problem};
use super::{AppState, body, orders, paging};
use crate::core::form;
use crate::core::human::{Decision, TaskKind};
use crate::core::payload::Payload;
use crate::store::orders::{self as commands, By, Receipt};
use crate::store::read::tasks::{Filter, Task};

/// Which human tasks to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// `open`, `decided` or `withdrawn`.
    status: Option<String>,
    /// Where it is asked.
    queue: Option<String>,
    /// `approval`, `policy`, `step_failed`, `comp_failed`, `pivot_unknown`, `late_effect` or `consecutive_failures`.
    kind: Option<String>,
    /// The saga that it is about.
    #[serde(alias = "sagaId")]
    saga: Option<Uuid>,
    /// Whom it is meant for.
    assignee: Option<String>,
    /// The last id of the page before.
    after: Option<Uuid>,
    /// Rows of the page: 1 to 200, 50 unless said.
    limit: Option<u32>,
}

/// Lists human tasks, newest first.
#[utoipa::path(get, path = "/v1/human-tasks", tag = "human tasks", params(ListQuery),
    responses((status = 200, body = paging::List<Task>), (status = 400, body = Document)))]
pub(super) async fn list_tasks(State(state): State<AppState>, uri: Uri, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let limit = paging::limit(query.limit)?;
    if query.status.as_deref().is_some_and(|status| !matches!(status, "open" | "decided" | "withdrawn")) {
        return Err(Problem::malformed("status is open, decided or withdrawn"));
    }
    if query.kind.as_deref().is_some_and(|kind| TaskKind::parse(kind).is_none()) {
        let kinds = TaskKind::ALL.map(TaskKind::as_str).join(", ");
        return Err(Problem::malformed(format!("kinds are {kinds}")));
    }
    let filter =
        Filter { status: query.status, queue: query.queue, kind: query.kind, saga: query.saga, assignee: query.assignee, after: query.after };
    let page = state.read.tasks(&filter, limit).await?;
    Ok(paging::answer(&uri, page, |task| task.id.to_string()))
}

async fn find(state: &AppState, id: Uuid) -> Result<Task, Problem> {
    state.read.task(id).await?.ok_or_else(|| Problem::not_found(format!("no human task has the id {id}")))
}

/// Changes with everything that a decision may depend on.
fn etag(task: &Task) -> String {
    let text = serde_json::to_string(task).unwrap_or_default();
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// Shows one human task; its `ETag` is for `If-Match`.
#[utoipa::path(get, path = "/v1/human-tasks/{id}", tag = "human tasks", params(("id" = Uuid, Path, description = "The task")),
    responses((status = 200, body = Task, headers(("ETag" = String, description = "What the task looks like now"))), (status = 404, body = Document)))]
pub(super) async fn get_task(State(state): State<AppState>, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let task = find(&state, id).await?;
    let tag = etag(&task);
    let mut response = Json(task).into_response();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// A decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Decided {
    /// One of the task's `decisions`.
    decision: Option<String>,
    /// Why; kept with the command.
    note: Option<String>,
    /// What the form is filled in with, or what the step is to have answered.
    #[schema(value_type = Option<Object>)]
    output: Option<Box<RawValue>>,
}

/// Decides about a human task. Of two who do so at once one is told that the other did.
#[utoipa::path(post, path = "/v1/human-tasks/{id}/decide", tag = "human tasks",
    params(("id" = Uuid, Path, description = "The task"), ("If-Match" = Option<String>, Header, description = "The `ETag` that the decision is based on")),
    request_body = Decided,
    responses((status = 200, description = "Decided", body = Receipt), (status = 202, description = "Decided; no worker has come to it yet", body = Receipt),
              (status = 400, description = "Without a decision or a note", body = Document), (status = 404, body = Document),
              (status = 409, description = "Refused: decided already, four eyes, the saga has ended", body = Document),
              (status = 412, description = "The task has changed since", body = Document),
              (status = 422, description = "The task does not take this decision, or the output does not meet its form", body = Document)))]
pub(super) async fn decide_task(
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let wanted = if_match(request.headers());
    let Decided { decision, note, output } = body::read(request).await?;
    let note = orders::reason("note", note)?;
    let decision = decision.ok_or_else(|| Problem::malformed("`decision` is required").at("/decision"))?;
    let output = match output.as_deref().filter(|raw| raw.get() != "null") {
        None => None,
        Some(raw) => Some(Payload::parse(raw.get()).ok_or_else(|| Problem::invalid("the output holds a NUL character").at("/output"))?),
    };
    let task = find(&state, id).await?;
    if wanted.is_some_and(|tags| !tags.iter().any(|tag| *tag == "*" || *tag == etag(&task))) {
        return Err(Problem::stale(format!("the task is {} and has changed since: look at it again", task.status)));
    }
    check(&task, &decision, output.as_ref())?;
    let given = commands::Decision { task: id, decision: &decision, note: &note, output: output.as_ref() };
    let command = commands::decide(&state.store, By::Named(&caller.name), given).await?;
    orders::answer(&state.store, &[command]).await
}

/// The entity tags of `If-Match`.
fn if_match(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
    values.peek()?;
    Some(values.flat_map(|value| value.to_str().unwrap_or_default().split(',')).map(|tag| tag.trim().to_owned()).collect())
}

/// What can be said without asking the engine. A task that is not open is refused by the function, which knows who was first.
fn check(task: &Task, decision: &str, output: Option<&Payload>) -> Result<(), Problem> {
    if task.status == "open" && !task.decisions.contains(&decision) {
        return Err(Problem::invalid(format!("a task of kind {} takes {}", task.kind, task.decisions.join(", "))).at("/decision"));
    }
    let Some(form) = task.form.as_ref().filter(|_| decision == Decision::Approve.as_str() && task.status == "open") else { return Ok(()) };
    let form = serde_json::from_str(form.0.get()).map_err(|error| Problem::internal(format!("a stored form is no JSON: {error}")))?;
    form::validate(&form, output.map(Payload::value)).map_err(|findings| {
        let errors = findings.iter().map(|finding| finding_item(finding)).collect();
        Problem::invalid(format!("the output does not meet the form: {}", findings.join("; "))).with_errors(errors)
    })
}

/// A finding begins with its place in the output, unless it is about the whole.
fn finding_item(finding: &str) -> Item {
    let (place, detail) = match finding.split_once(": ") {
        Some((place, detail)) if place.starts_with('/') => (place, detail),
        _ => ("", finding),
    };
    Item { detail: detail.to_owned(), pointer: Some(format!("/output{place}")), line: None, column: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_has_its_place_as_a_pointer() {
        assert_eq!(finding_item("/amount: 500 is too much").pointer.as_deref(), Some("/output/amount"));
        let whole = finding_item("\"amount\" is a required property");
        assert_eq!((whole.pointer.as_deref(), whole.detail.as_str()), (Some("/output"), "\"amount\" is a required property"));
    }

    #[test]
    fn if_match_may_list_several() {
        let mut headers = HeaderMap::new();
        assert_eq!(if_match(&headers), None);
        headers.insert(header::IF_MATCH, HeaderValue::from_static("\"a\", \"b\""));
        assert_eq!(if_match(&headers), Some(vec!["\"a\"".to_owned(), "\"b\"".to_owned()]));
    }
}
