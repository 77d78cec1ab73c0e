//! The revisions of a definition: what they differ in, and which of them is in force.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::AppState;
use super::auth::Caller;
use super::problem::{Document, Problem};
use crate::core::difference;
use crate::store::definitions::{self, Order};
use crate::store::read::definitions::Definition;

/// All revisions of one definition.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revisions {
    /// Full id.
    id: String,
    /// Newest first, at most 200.
    revisions: Vec<Definition>,
    /// What the newest differs in from the one that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<Difference>,
}

/// What two revisions differ in.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The older side.
    from: Side,
    /// The newer side.
    to: Side,
    /// In the order of the keys; empty if they mean the same.
    changes: Vec<ChangeItem>,
}

/// One side of a comparison.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Full id.
    id: String,
    /// SHA-256 of the meaning of the file.
    revision: String,
}

/// One place where two revisions differ.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeItem {
    /// The place: `steps.mail.retry.attempts`.
    path: String,
    /// What stood there; absent where it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// What stands there now; absent where it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
}

/// The revisions of an id, and what the newest differs in from another one.
pub(super) async fn of(state: &AppState, id: String, with: Option<&str>) -> Result<Revisions, Problem> {
    let revisions = state.read.revisions(&id).await?;
    let Some(newest) = revisions.first() else {
        return Err(Problem::not_found(format!("no definition has the id {id}")));
    };
    let diff = match with {
        None => None,
        Some(with) => match state.read.counterpart(newest, &revisions, with).await? {
            Some(other) => Some(difference(&other, newest)),
            None => return Err(Problem::not_found(format!("{with} is neither a revision of {id} nor the id of a definition"))),
        },
    };
    Ok(Revisions { id, revisions, diff })
}

fn difference(from: &Definition, to: &Definition) -> Difference {
    let side = |definition: &Definition| Side { id: definition.id.clone(), revision: definition.revision.clone() };
    let changes = difference::between(&from.document(), &to.document());
    let changes = changes.into_iter().map(|change| ChangeItem { path: change.path, before: change.before, after: change.after }).collect();
    Difference { from: side(from), to: side(to), changes }
}

/// Why, and which.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Instruction {
    /// For the record.
    reason: Option<String>,
    /// The first digits of the revision; the newest, unless said. To retire needs none.
    revision: Option<String>,
}

/// What is in force now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Full id.
    id: String,
    /// `active` or `retired`.
    state: &'static str,
    /// The revision that is active now.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    /// The revision that was active before, if another one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<String>,
}

/// Puts a revision in force again.
#[utoipa::path(post, path = "/v1/definitions/{id}/activate", tag = "definitions", params(("id" = String, Path, description = "Full id")),
    request_body = Option<Instruction>,
    responses((status = 200, body = Standing), (status = 404, body = Document), (status = 409, body = Document)))]
pub(super) async fn activate_definition(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    body: Option<Json<Instruction>>,
) -> Result<Json<Standing>, Problem> {
    let Json(Instruction { reason, revision }) = body.unwrap_or_default();
    let kind = kind(&state, &id).await?;
    let order = Order { by: &caller.name, reason: reason.as_deref(), replace: false };
    let Some(done) = definitions::activate(&state.store, &kind, &id, revision.as_deref(), order).await? else {
        return Err(Problem::not_found(format!("{id} has no such revision")));
    };
    Ok(Json(Standing { id, state: "active", revision: Some(done.revision), replaced: done.replaced }))
}

/// Retires a definition: it starts no more sagas, those under way finish with it.
#[utoipa::path(post, path = "/v1/definitions/{id}/retire", tag = "definitions", params(("id" = String, Path, description = "Full id")),
    request_body = Option<Instruction>, responses((status = 200, body = Standing), (status = 404, body = Document)))]
pub(super) async fn retire_definition(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    body: Option<Json<Instruction>>,
) -> Result<Json<Standing>, Problem> {
    let Json(Instruction { reason, .. }) = body.unwrap_or_default();
    let kind = kind(&state, &id).await?;
    // One that is retired already stays so: nothing else was asked for.
    definitions::retire(&state.store, &kind, &id, Order { by: &caller.name, reason: reason.as_deref(), replace: false }).await?;
    Ok(Json(Standing { id, state: "retired", revision: None, replaced: None }))
}

async fn kind(state: &AppState, id: &str) -> Result<String, Problem> {
    let kind = definitions::kind_of(&**state.store.client().await?, id).await?;
    kind.ok_or_else(|| Problem::not_found(format!("no definition has the id {id}")))
}
