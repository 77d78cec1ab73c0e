//! The HTTP interface: publishing, looking, ordering, deciding, deploying, callbacks, and what machines ask for.
//!
//! `router` is the seam for tests: everything but the listener. Invariants: every answer that is no success is a problem
//! document, every route is in `auth::ROUTES`, and no handler reaches around `store` to the database or into the engine.

use std::fmt;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use tokio::sync::mpsc;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::core::story::StoryLine;
use crate::store::Store;
use crate::store::publisher::Publisher;
use crate::store::read::ReadStore;

pub mod auth;
pub mod body;
pub mod bulk;
pub mod callbacks;
pub mod cloudevent;
pub mod definitions;
pub mod events;
pub mod guard;
pub mod limits;
pub mod locks;
pub mod machine;
pub mod orders;
pub mod page;
pub mod paging;
pub mod problem;
pub mod readiness;
pub mod revisions;
pub mod sagas;
pub mod server;
pub mod tasks;
pub mod wait;

/// What the handlers share: cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// Writes.
    pub store: Store,
    /// Reads for people.
    pub read: ReadStore,
    /// Where published events go.
    pub publisher: Publisher,
    /// Whether callers have to show a key.
    pub auth: auth::Auth,
    /// The names the server answers to.
    pub names: guard::Names,
    /// Whether the server should be sent requests.
    pub readiness: Arc<readiness::Readiness>,
    /// Prints the process's metrics in the Prometheus text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Requests that wait for the end of a saga.
    pub waiters: wait::Waiters,
    /// Where the process tells how far asynchronous steps have come, if it has a console.
    pub story: Option<mpsc::Sender<StoryLine>>,
}

impl fmt::Debug for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppState").field("store", &self.store).field("auth", &self.auth).field("names", &self.names).finish_non_exhaustive()
    }
}

#[derive(OpenApi)]
#[openapi(info(title = "HMS-SYNCOR", description = "A saga orchestrator on Postgres"), components(schemas(problem::Document)))]
struct Api;

/// All routes with their documentation, without layers.
fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(events::list_events, events::publish_events))
        .routes(routes!(events::get_event))
        .routes(routes!(sagas::list_sagas))
        .routes(routes!(sagas::get_saga))
        .merge(orders::routes())
        .merge(bulk::routes())
        .routes(routes!(tasks::list_tasks))
        .routes(routes!(tasks::get_task))
        .routes(routes!(tasks::decide_task))
        .routes(routes!(locks::list_locks))
        .routes(routes!(callbacks::end_step))
        .routes(routes!(callbacks::beat_step))
        .routes(routes!(definitions::list_definitions))
        .routes(routes!(definitions::get_definition, definitions::put_definition))
        .routes(routes!(revisions::activate_definition))
        .routes(routes!(revisions::retire_definition))
        .routes(routes!(machine::get_metrics))
        .routes(routes!(machine::get_health))
        .routes(routes!(machine::get_live))
        .routes(routes!(machine::get_ready))
        .routes(routes!(machine::get_jwks))
        .routes(routes!(machine::get_schema))
        .routes(routes!(machine::get_openapi))
        .routes(routes!(page::get_page))
        .routes(routes!(page::get_problem))
}

/// The whole interface as a service.
pub fn router(state: AppState) -> Router {
    let (router, _document) = routes().split_for_parts();
    router
        .fallback(|| async { problem::Problem::not_found("no such route; GET /openapi.json lists them") })
        .layer(DefaultBodyLimit::max(limits::BODY_MAX))
        // Read from the bottom up: the last layer sees the request first.
        .layer(middleware::from_fn(limits::within_time))
        .layer(middleware::from_fn_with_state(state.clone(), auth::authorize))
        .layer(middleware::from_fn_with_state(state.clone(), guard::refuse_foreign))
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(middleware::from_fn(problem::finish))
        .layer(middleware::from_fn(limits::set_headers))
        .with_state(state)
}

/// The OpenAPI document of `router`.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut document.info.version);
    document
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_route_has_a_rule_and_every_rule_a_route() {
        let document = serde_json::to_value(super::document()).expect("serializable");
        let paths = document["paths"].as_object().expect("paths");
        let routes: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, item)| item.as_object().expect("an item").keys().map(move |method| (method.to_uppercase(), path.clone())))
            .collect();
        let rules: BTreeSet<(String, String)> = super::auth::ROUTES.iter().map(|rule| (rule.0.to_owned(), rule.1.to_owned())).collect();
        assert_eq!(routes, rules);
        assert!(document["openapi"].as_str().expect("a version").starts_with("3.1"));
    }
}
