//! Everything that is not a success, as RFC 9457 problem documents.
//!
//! A handler returns a `Problem`; the `finish` layer writes it, with the path as `instance`, and turns what the framework itself
//! refuses (no such route, panics) into the same shape. Invariant: a 5xx tells its client a correlation id and nothing else.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store;
use crate::store::events::PublishError;

/// What can go wrong, each with its status and title; the name is the last part of the problem's `type`.
pub const KINDS: &[(&str, StatusCode, &str)] = &[
    ("malformed", StatusCode::BAD_REQUEST, "The request cannot be read"),
    ("unauthenticated", StatusCode::UNAUTHORIZED, "A valid API key is required"),
    ("forbidden", StatusCode::FORBIDDEN, "The API key's role does not allow this"),
    ("foreign-origin", StatusCode::FORBIDDEN, "The request comes from a foreign page or host name"),
    ("not-found", StatusCode::NOT_FOUND, "There is no such thing"),
    ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed here"),
    ("too-slow", StatusCode::REQUEST_TIMEOUT, "The request took too long to arrive"),
    ("conflict", StatusCode::CONFLICT, "The request contradicts an earlier one"),
    ("stale", StatusCode::PRECONDITION_FAILED, "It has changed since"),
    ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "The request is too large"),
    ("not-json", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The content type is not supported"),
    ("invalid", StatusCode::UNPROCESSABLE_ENTITY, "The content is not valid"),
    ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong here"),
    ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "The service cannot answer now"),
    ("not-ready", StatusCode::SERVICE_UNAVAILABLE, "The service is not ready"),
    ("too-broad", StatusCode::SERVICE_UNAVAILABLE, "The query takes too long"),
    ("timeout", StatusCode::GATEWAY_TIMEOUT, "The request was not finished in time"),
];

/// A refusal or a failure on its way to the client.
#[derive(Clone, Debug)]
pub struct Problem {
    code: &'static str,
    status: StatusCode,
    title: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<Item>,
    stale: bool,
    /// Boxed: problems travel in results, most without one.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// One of several faults in a document.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Item {
    /// What is wrong.
    pub detail: String,
    /// Where: a JSON pointer into the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
}

/// The document as it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Document {
    /// `/problems/<code>`: a page that explains it.
    #[serde(rename = "type")]
    kind: String,
    /// The same for all problems of this type.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request.
    detail: String,
    /// The path that was asked for.
    instance: String,
    /// Stable, for programs.
    code: String,
    /// The faults, where the document has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Item>,
    /// True for a report that comes too late or contradicts an earlier one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
    /// Names the log line of a 5xx.
    #[serde(rename = "correlationId", skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Uuid>,
}

impl Problem {
    fn new(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let (status, title) = KINDS
            .iter()
            .find(|kind| kind.0 == code)
            .map_or((StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong here"), |kind| (kind.1, kind.2));
        Self { code, status, title, detail: detail.into(), errors: Vec::new(), stale: false, header: None }
    }

    /// 400: the request cannot be read; `pointer` says where, if it is a document.
    #[must_use]
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("malformed", detail)
    }

    /// 401.
    #[must_use]
    pub fn unauthenticated(detail: &'static str) -> Self {
        let challenge = HeaderValue::from_static("Bearer realm=\"hms-syncor\"");
        Self::new("unauthenticated", detail).with_header(header::WWW_AUTHENTICATE, challenge)
    }

    /// 403: a known caller without the right.
    #[must_use]
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("forbidden", detail)
    }

    /// 403: a foreign `Host` or `Origin`.
    #[must_use]
    pub fn foreign(detail: &'static str) -> Self {
        Self::new("foreign-origin", detail)
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("not-found", detail)
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed(allow: &str) -> Self {
        let problem = Self::new("method-not-allowed", format!("allowed here: {allow}"));
        match HeaderValue::from_str(allow) {
            Ok(allow) => problem.with_header(header::ALLOW, allow),
            Err(_) => problem,
        }
    }

    /// 408: the body did not arrive in time.
    #[must_use]
    pub fn too_slow() -> Self {
        Self::new("too-slow", "the body did not arrive within 10 seconds").with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// 409.
    #[must_use]
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("conflict", detail)
    }

    /// 412: what the caller has seen is not what there is.
    #[must_use]
    pub fn stale(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("stale", detail)
    }

    /// 413.
    #[must_use]
    pub fn too_large(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("too-large", detail)
    }

    /// 415.
    #[must_use]
    pub fn not_json(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("not-json", detail)
    }

    /// 422.
    #[must_use]
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("invalid", detail)
    }

    /// 500; `cause` is logged and not told.
    #[must_use]
    pub fn internal(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new("internal", cause)
    }

    /// 503; `cause` is logged and not told.
    #[must_use]
    pub fn unavailable(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new("unavailable", cause).with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 503: what readiness says; its reasons are told.
    #[must_use]
    pub fn not_ready(reasons: &[String]) -> Self {
        let errors = reasons.iter().map(|reason| Item { detail: reason.clone(), pointer: None, line: None, column: None }).collect();
        Self::new("not-ready", reasons.join("; ")).with_errors(errors)
    }

    /// 504; the handler did not finish in time.
    #[must_use]
    pub fn timeout() -> Self {
        Self::new("timeout", "the handler did not finish in time")
    }

    /// Marks the refusal of a report: sending it again will not help.
    #[must_use]
    pub fn stale_report(mut self) -> Self {
        self.stale = true;
        self
    }

    /// Adds a fault of the document at `pointer`.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        let detail = self.detail.clone().into_owned();
        self.errors.push(Item { detail, pointer: Some(pointer.into()), line: None, column: None });
        self
    }

    /// The faults of the document.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<Item>) -> Self {
        self.errors = errors;
        self
    }

    /// The status it will have.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Where the document is at fault first, if that is known.
    #[must_use]
    pub fn pointer(&self) -> Option<&str> {
        self.errors.first()?.pointer.as_deref()
    }

    /// Moves all pointers of an item below the item's own place in a list.
    #[must_use]
    pub fn below(mut self, prefix: &str) -> Self {
        if self.errors.is_empty() {
            return self.at(prefix);
        }
        for item in &mut self.errors {
            if let Some(pointer) = &mut item.pointer {
                pointer.insert_str(0, prefix);
            }
        }
        self
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    fn write(self, instance: &str) -> Response {
        let (mut detail, mut correlation_id) = (self.detail, None);
        if self.status.is_server_error() && self.code != "not-ready" {
            let id = Uuid::now_v7();
            tracing::error!(correlation.id = %id, http.path = instance, error = %detail, "answer {}", self.status.as_u16());
            correlation_id = Some(id);
            detail = match self.code {
                "too-broad" => "it needs more than 2 seconds: narrow the filter".into(),
                "unavailable" => "try again shortly; if it stays, the log has more under the correlation id".into(),
                _ => "the log has more under the correlation id".into(),
            };
        }
        let document = Document {
            kind: format!("/problems/{}", self.code),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: detail.into_owned(),
            instance: instance.to_owned(),
            code: self.code.replace('-', "_"),
            errors: self.errors,
            stale: self.stale,
            correlation_id,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        if let Some((name, value)) = self.header.map(|header| *header) {
            response.headers_mut().insert(name, value);
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        let cause = error.to_string();
        match &error {
            store::Error::Read(_) if error.sqlstate() == Some("57014") => Self::new("too-broad", cause),
            store::Error::Read(_) if error.is_misread() || error.sqlstate().is_some_and(|state| !is_passing(state)) => Self::internal(cause),
            store::Error::Refused(reason) => Self::conflict(reason.clone()),
            store::Error::Read(_) | store::Error::Unavailable(_) | store::Error::Schema(_) => Self::unavailable(cause),
            error if error.is_transient() => Self::unavailable(cause),
            _ => Self::internal(cause),
        }
    }
}

/// SQLSTATE classes of a database that will be back: connections, resources, operators, a missing schema.
fn is_passing(code: &str) -> bool {
    ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class)) || matches!(code, "3F000" | "42P01" | "25006")
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Conflict { key } => Self::conflict(format!("id {key} of this source was used for an event with other data")),
            PublishError::TooLarge => Self::too_large(crate::store::events::TOO_LARGE),
            PublishError::Invalid(reason) => Self::invalid(reason),
            PublishError::Store(error) => error.into(),
        }
    }
}

/// A panic in a handler.
#[must_use]
#[allow(clippy::needless_pass_by_value, reason = "the shape that tower-http asks for")]
pub fn from_panic(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Problem::internal(format!("a handler panicked: {}", text.unwrap_or("no message"))).into_response()
}

/// Writes problems; anything else that is no success becomes one.
pub async fn finish(request: Request, next: Next) -> Response {
    let path = without_token(request.uri().path());
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return problem.write(&path);
    }
    let status = response.status();
    if status.is_success() || status.is_informational() || status.is_redirection() {
        return response;
    }
    let code = KINDS.iter().find(|kind| kind.1 == status).map_or(if status.is_server_error() { "internal" } else { "malformed" }, |kind| kind.0);
    let detail = axum::body::to_bytes(std::mem::replace(response.body_mut(), Body::empty()), 4096).await.unwrap_or_default();
    let mut problem = Problem::new(code, String::from_utf8_lossy(&detail).into_owned());
    problem.status = status;
    problem.write(&path)
}

/// The path as it may be logged: the token of a callback is a secret.
fn without_token(path: &str) -> String {
    const CALLBACKS: &str = "/v1/callbacks/";
    match path.strip_prefix(CALLBACKS) {
        Some(rest) => format!("{CALLBACKS}..{}", rest.find('/').map_or("", |end| &rest[end..])),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    #[tokio::test]
    async fn a_panic_tells_its_client_an_id_and_nothing_else() {
        let router = Router::new().route("/", get(async || -> Problem { panic!("the secret") }));
        let router = router.layer(CatchPanicLayer::custom(from_panic)).layer(from_fn(finish));
        let answer = router.oneshot(Request::new(Body::empty())).await.expect("infallible");
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(answer.into_body(), 4096).await.expect("a body");
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains("correlationId") && !body.contains("secret"), "{body}");
    }

    #[test]
    fn the_token_of_a_callback_is_not_told() {
        assert_eq!(without_token("/v1/callbacks/s3cret/heartbeat"), "/v1/callbacks/../heartbeat");
        assert_eq!(without_token("/v1/callbacks/s3cret"), "/v1/callbacks/..");
        assert_eq!(without_token("/v1/sagas"), "/v1/sagas");
    }

    #[test]
    fn every_kind_has_one_name() {
        let mut names: Vec<&str> = KINDS.iter().map(|kind| kind.0).collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b));
    }
}
