//! `/v1/definitions`: deploying, and looking at what is deployed.

use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::auth::Caller;
use super::cloudevent::media_type;
use super::problem::{Document, Item, Problem};
use super::revisions::{self, Revisions};
use super::{AppState, limits, paging};
use crate::core::definition_file::{self, File};
use crate::store::definitions::{self, NewDefinition, Order, Outcome};
use crate::store::read::definitions::{Definition, Filter};

/// Largest file.
const FILE_MAX: usize = 256 << 10;

/// Which definitions to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// `saga` or `services`.
    kind: Option<String>,
    /// `active` or `retired`.
    state: Option<String>,
    /// The id without `.vN`.
    family: Option<String>,
    /// The last id of the page before.
    after: Option<String>,
    /// Rows of the page: 1 to 200, 50 unless said.
    limit: Option<u32>,
}

/// Lists definitions by id, each with its newest revision.
#[utoipa::path(get, path = "/v1/definitions", tag = "definitions", params(ListQuery),
    responses((status = 200, body = paging::List<Definition>), (status = 400, body = Document)))]
pub(super) async fn list_definitions(State(state): State<AppState>, uri: Uri, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let limit = paging::limit(query.limit)?;
    let filter = Filter { kind: query.kind, state: query.state, family: query.family, after: query.after };
    let page = state.read.definitions(&filter, limit).await?;
    Ok(paging::answer(&uri, page, |definition| definition.id.clone()))
}

/// What to compare with.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GetQuery {
    /// The first digits of another revision, or the id of another definition: what the newest revision differs in from it.
    diff: Option<String>,
}

/// Shows the revisions of one definition, and what it differs in from another one.
#[utoipa::path(get, path = "/v1/definitions/{id}", tag = "definitions", params(("id" = String, Path, description = "Full id"), GetQuery),
    responses((status = 200, body = Revisions), (status = 404, body = Document)))]
pub(super) async fn get_definition(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Query(query): Query<GetQuery>,
) -> Result<Json<Revisions>, Problem> {
    Ok(Json(revisions::of(&state, id, query.diff.as_deref()).await?))
}

/// Why it is deployed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PutQuery {
    /// For the record.
    reason: Option<String>,
    /// Whether the other versions of the family are retired. No, unless said.
    #[serde(default)]
    replace: bool,
}

/// What was deployed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Full id.
    id: String,
    /// `saga` or `services`.
    kind: String,
    /// SHA-256 of the meaning of the file.
    revision: String,
    /// `new`, `new revision`, `reactivated` or `unchanged`.
    outcome: &'static str,
    /// The revision that was active before, if another one was.
    replaced: Option<String>,
    /// Other versions of the family that were retired.
    retired: Vec<String>,
    /// What is allowed but probably not meant.
    warnings: Vec<Item>,
}

/// Deploys a file.
#[utoipa::path(put, path = "/v1/definitions/{id}", tag = "definitions",
    params(("id" = String, Path, description = "Full id, the same as in the file"), PutQuery),
    request_body(content((String = "application/yaml"), (serde_json::Value = "application/json"))),
    responses((status = 201, description = "Deployed", body = Receipt), (status = 200, description = "This revision is deployed already", body = Receipt),
              (status = 415, body = Document), (status = 422, description = "The file has problems", body = Document)))]
pub(super) async fn put_definition(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Query(query): Query<PutQuery>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let ending = match media_type(content_type).as_str() {
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => "yaml",
        "application/json" => "json",
        _ => return Err(Problem::not_json("send the file as application/yaml or application/json")),
    };
    let body = limits::read_body(&parts.headers, body).await?;
    if body.len() > FILE_MAX {
        return Err(Problem::too_large("a definition is at most 256 KiB"));
    }
    let text = std::str::from_utf8(&body).map_err(|_| Problem::malformed("the body is not UTF-8"))?;
    let file = read_file(&id, ending, text)?;

    let new = NewDefinition {
        kind: file.kind,
        id: &id,
        family: &file.family,
        version: i32::try_from(file.version).map_err(|_| Problem::invalid("the version is too large"))?,
        revision: &file.revision,
        source: &file.source,
    };
    let order = Order { by: &caller.name, reason: query.reason.as_deref(), replace: query.replace };
    let deployed = definitions::deploy(&state.store, &[new], order).await?;
    let deployed = deployed.into_iter().next().ok_or_else(|| Problem::internal("deploying one file told of none"))?;
    let status = if deployed.outcome == Outcome::Unchanged { StatusCode::OK } else { StatusCode::CREATED };
    let mut warnings: Vec<Item> = file.warnings.iter().map(item_of).collect();
    let children = definition_file::children(&file.source);
    if !children.is_empty() {
        let missing = definitions::missing_children(&**state.store.client().await?, &children).await?;
        let detail = |child: &String| format!("the saga {child}, which a step runs, is not deployed: the step fails until it is");
        warnings.extend(missing.iter().map(|child| Item { detail: detail(child), pointer: None, line: None, column: None }));
    }
    let receipt = Receipt {
        kind: file.kind.to_owned(),
        id,
        revision: file.revision,
        outcome: deployed.outcome.as_str(),
        replaced: deployed.replaced,
        retired: deployed.retired,
        warnings,
    };
    Ok((status, Json(receipt)).into_response())
}

/// What deploying needs of a file.
struct Read {
    kind: &'static str,
    family: String,
    version: u32,
    revision: String,
    source: Value,
    warnings: Vec<definition_file::Problem>,
}

fn read_file(id: &str, ending: &str, text: &str) -> Result<Read, Problem> {
    let file = definition_file::read(&format!("{id}.{ending}"), text).map_err(|problems| {
        let count = problems.len();
        let detail = format!("the file has {count} problem{}", if count == 1 { "" } else { "s" });
        Problem::invalid(detail).with_errors(problems.iter().map(item_of).collect())
    })?;
    let (found, read) = match file {
        File::Saga(saga, warnings, source) => {
            (saga.id, Read { kind: "saga", family: saga.family, version: saga.version, revision: saga.revision, source, warnings })
        }
        File::Services(registry, warnings, source) => {
            let family = registry.id.clone();
            (registry.id, Read { kind: "services", family, version: 1, revision: registry.revision, source, warnings })
        }
    };
    if found != id {
        return Err(Problem::invalid(format!("the file's id is {found}, the path says {id}")).at("/id"));
    }
    Ok(read)
}

fn item_of(problem: &definition_file::Problem) -> Item {
    let place = |number: usize| u64::try_from(number).ok().filter(|_| problem.line > 0);
    let detail = problem.help.as_ref().map_or_else(|| problem.message.clone(), |help| format!("{}; {help}", problem.message));
    Item { detail, pointer: None, line: place(problem.line), column: place(problem.column) }
}
