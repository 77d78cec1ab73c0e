//! What machines ask for: metrics, health, keys, schemas and the description of this interface.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::Mutex;

use super::AppState;
use super::problem::{Document, Problem};
use crate::core::definition_file;
use crate::store::keys;

/// How long counted sagas are good for: several scrapers share one count.
const COUNTED: Duration = Duration::from_secs(5);

/// Of the process and not of a router, as the gauges it fills are.
static LAST_COUNT: LazyLock<Mutex<Option<Instant>>> = LazyLock::new(Mutex::default);
static OPENAPI: LazyLock<String> = LazyLock::new(|| super::document().to_json().unwrap_or_default());

const TEXT: (header::HeaderName, &str) = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
const NOT_KEPT: (header::HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// Metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "machine", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn get_metrics(State(state): State<AppState>) -> Response {
    {
        let mut last = LAST_COUNT.lock().await;
        if last.is_none_or(|at| at.elapsed() >= COUNTED) {
            *last = Some(Instant::now());
            count(&state).await;
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), NOT_KEPT], (state.metrics)()).into_response()
}

/// Sets the gauges that only the database knows. Without it the process's own metrics still show.
async fn count(state: &AppState) {
    const UNFINISHED: [&str; 9] = ["pending", "lock_wait", "running", "hitl", "draining", "compensating", "comp_failed", "paused", "aborting"];
    match state.read.counts().await {
        Ok(counts) => {
            // Exact up to 2^53.
            #[allow(clippy::cast_precision_loss, reason = "there are fewer rows than 2^53")]
            let figure = |count: i64| count as f64;
            for name in UNFINISHED {
                let found = counts.unfinished.iter().find(|(state, _)| state == name).map_or(0, |(_, count)| *count);
                metrics::gauge!("hms_sagas", "state" => name).set(figure(found));
            }
            metrics::gauge!("hms_human_tasks_open").set(figure(counts.open_tasks));
            metrics::gauge!("hms_locks_waiting").set(figure(counts.waiting_for_locks));
            metrics::gauge!("hms_queue_oldest_seconds").set(counts.oldest_runnable_secs);
        }
        Err(error) => tracing::warn!(%error, "cannot count sagas for the metrics"),
    }
}

/// Whether the process answers; the same as `/livez`.
#[utoipa::path(get, path = "/healthz", tag = "machine", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn get_health() -> Response {
    get_live().await
}

/// Whether the process answers. It does not ask the database: restarting us would not bring that back.
#[utoipa::path(get, path = "/livez", tag = "machine", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn get_live() -> Response {
    ([TEXT, NOT_KEPT], "ok\n").into_response()
}

/// Whether requests should be sent here; `?verbose` lists the checks.
#[utoipa::path(get, path = "/readyz", tag = "machine",
    responses((status = 200, body = String, content_type = "text/plain"), (status = 503, body = Document)))]
pub(super) async fn get_ready(State(state): State<AppState>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let answers = state.readiness.answers().await;
    let wrong: Vec<String> = answers.iter().filter_map(|answer| Some(format!("{}: {}", answer.name, answer.wrong.as_ref()?))).collect();
    if !wrong.is_empty() {
        return Err(Problem::not_ready(&wrong));
    }
    let is_verbose = query.is_some_and(|query| query.split('&').any(|name| name == "verbose" || name.starts_with("verbose=")));
    let lines = if is_verbose { answers.iter().map(|answer| format!("[+] {} ok\n", answer.name)).collect() } else { String::new() };
    Ok(([TEXT, NOT_KEPT], lines + "ok\n").into_response())
}

/// Public keys that step tokens verify with, of all live workers.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "machine", responses((status = 200, body = Value)))]
pub(super) async fn get_jwks(State(state): State<AppState>) -> Result<Response, Problem> {
    let keys = keys::live_jwks(&state.store).await?;
    Ok(([(header::CACHE_CONTROL, "public, max-age=300")], Json(json!({ "keys": keys }))).into_response())
}

/// JSON Schema of a kind of file, for editors: `saga.json`, `services.json`.
#[utoipa::path(get, path = "/schema/{file}", tag = "machine", params(("file" = String, Path, description = "The kind of file, with `.json`")),
    responses((status = 200, body = Value, content_type = "application/schema+json"), (status = 404, body = Document)))]
pub(super) async fn get_schema(Path(file): Path<String>) -> Result<Response, Problem> {
    let schema = file.strip_suffix(".json").and_then(definition_file::schema);
    let schema =
        schema.ok_or_else(|| Problem::not_found(format!("there is no schema {file}; there are saga.json, services.json and scenario.json")))?;
    let headers = [(header::CONTENT_TYPE, "application/schema+json"), (header::CACHE_CONTROL, "public, max-age=300")];
    Ok((headers, schema.to_string()).into_response())
}

/// This interface as OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = "machine", responses((status = 200, body = Value)))]
pub(super) async fn get_openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=300")], OPENAPI.as_str()).into_response()
}
