//! What a request may cost, and the headers that every answer carries.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::problem::Problem;

/// Largest request body.
pub const BODY_MAX: usize = 1 << 20;
/// Longest wait for a body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Longest time of a handler.
const TIME: Duration = Duration::from_secs(30);
/// Longest time of a handler that may wait for the end of a saga.
const LONG_POLL_TIME: Duration = Duration::from_secs(65);

/// Reads a whole body, within its limits of size and time.
///
/// # Errors
/// 413, 408, or 400 when the client stops sending.
pub async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || Problem::too_large("a request body is at most 1 MiB");
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_MAX as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_MAX).collect()).await {
        Err(_) => Err(Problem::too_slow()),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::malformed("the body ended early")),
    }
}

/// Ends handlers that take too long.
pub async fn within_time(request: Request, next: Next) -> Response {
    let is_long_poll = request.extensions().get::<MatchedPath>().is_some_and(|path| path.as_str() == "/v1/sagas/{id}");
    let limit = if is_long_poll { LONG_POLL_TIME } else { TIME };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timeout().into_response(),
    }
}

/// Security headers; a handler's own win.
pub async fn set_headers(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/v1/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if is_api {
        set(header::CACHE_CONTROL, "no-store");
    }
    response
}
