//! `/v1/sagas/cancel` and so on: the same order to all sagas that match a filter.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::problem::{Document, Problem};
use super::{AppState, body, orders};
use crate::core::saga::SagaState;
use crate::store::bulk::{self, Bulk, LIMIT, Outcome};
use crate::store::orders::{By, Verb};
use crate::store::read::sagas;

/// Sagas of one request unless said.
const DEFAULT: u32 = 1000;

/// An order to many.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BulkOrder {
    /// Why; kept with every command. A dry run does without.
    reason: Option<String>,
    /// The step to retry or to skip.
    step: Option<String>,
    /// Which sagas.
    #[serde(default)]
    filter: Filter,
    /// Only says which sagas match.
    #[serde(default)]
    dry_run: bool,
    /// Sagas at most, oldest first: 1 to 5000, 1000 unless said.
    limit: Option<u32>,
}

/// Which sagas an order is for. At least one key is needed; sagas that have ended never match.
#[derive(Debug, Default, Deserialize, PartialEq, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    /// A state, or several with commas between them.
    state: Option<String>,
    /// The definition's full id, or its family.
    definition: Option<String>,
    /// What it waits for: `worker`, `human`, `timer`, ...
    waiting_for: Option<String>,
    /// The event's correlation id.
    correlation_id: Option<String>,
    /// It needs the lock of this object.
    lock_key: Option<String>,
    /// Started at or after.
    started_after: Option<DateTime<Utc>>,
    /// Started before.
    started_before: Option<DateTime<Utc>>,
}

impl Filter {
    fn read(self) -> Result<sagas::Filter, Problem> {
        if self == Self::default() {
            return Err(Problem::malformed("an empty filter would mean every saga: name at least one key of it").at("/filter"));
        }
        let states: Vec<String> = self.state.iter().flat_map(|states| states.split(',')).map(|state| state.trim().to_owned()).collect();
        for state in &states {
            match SagaState::parse(state) {
                None => return Err(Problem::malformed(format!("there is no state {state}")).at("/filter/state")),
                Some(found) if found.is_terminal() => {
                    return Err(Problem::malformed(format!(
                        "sagas that are {state} have ended: there is nothing left to order of them; fork them one by one"
                    ))
                    .at("/filter/state"));
                }
                Some(_) => {}
            }
        }
        Ok(sagas::Filter {
            states,
            waiting_for: self.waiting_for,
            definition: self.definition,
            correlation_id: self.correlation_id,
            lock_key: self.lock_key,
            since: self.started_after,
            until: self.started_before,
            ..sagas::Filter::default()
        })
    }
}

async fn order(state: AppState, caller: Caller, verb: Verb, request: Request) -> Result<Json<Outcome>, Problem> {
    let BulkOrder { reason, step, filter, dry_run, limit } = body::read(request).await?;
    let reason = if dry_run { String::new() } else { orders::reason("reason", reason)? };
    if step.is_some() && !verb.takes_step() {
        return Err(Problem::malformed(format!("{} is about whole sagas: it takes no step", verb.as_str())).at("/step"));
    }
    let limit = limit.unwrap_or(DEFAULT);
    if !(1..=LIMIT).contains(&limit) {
        return Err(Problem::malformed(format!("limit is 1 to {LIMIT}")).at("/limit"));
    }
    let bulk = Bulk { verb, filter: filter.read()?, step: step.as_deref(), reason: &reason, dry_run, limit };
    Ok(Json(bulk::order(&state.store, &state.read, By::Named(&caller.name), bulk, orders::PATIENCE).await?))
}

/// One handler for each order: they differ in their words only.
macro_rules! bulk_orders {
    ($($name:ident, $verb:ident, $path:tt, $what:tt;)*) => {$(
        #[doc = $what]
        #[utoipa::path(post, path = $path, tag = "orders", request_body = BulkOrder,
            responses((status = 200, description = "What became of each", body = Outcome),
                      (status = 400, description = "Without a reason or a filter", body = Document)))]
        pub(super) async fn $name(
            State(state): State<AppState>,
            Extension(caller): Extension<Caller>,
            request: Request,
        ) -> Result<Json<Outcome>, Problem> {
            order(state, caller, Verb::$verb, request).await
        }
    )*};
}

bulk_orders! {
    cancel_sagas, Cancel, "/v1/sagas/cancel", "Cancels all sagas that match.";
    pause_sagas, Pause, "/v1/sagas/pause", "Pauses all sagas that match.";
    resume_sagas, Resume, "/v1/sagas/resume", "Resumes all sagas that match.";
    abort_sagas, Abort, "/v1/sagas/abort", "Aborts all sagas that match.";
    retry_sagas, Retry, "/v1/sagas/retry", "Retries all sagas that match.";
    skip_sagas, Skip, "/v1/sagas/skip", "Skips a step of all sagas that match.";
}

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(cancel_sagas))
        .routes(routes!(pause_sagas))
        .routes(routes!(resume_sagas))
        .routes(routes!(abort_sagas))
        .routes(routes!(retry_sagas))
        .routes(routes!(skip_sagas))
}
