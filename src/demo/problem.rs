//! What a service answers when it does not do what it was asked: problem+json (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::database::{self, describe};

/// A refusal or failure. `detail` is repeated as `message`, the member that people are shown.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// The token does not prove that the orchestrator asks this service for exactly this.
    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// Doing it would be wrong now and later: overtaken by its undo, or by a younger attempt.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// The orchestrator's event says something that this service cannot act on.
    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// Nothing happened, and trying again may help.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// A commit without an answer: it may have happened.
    ///
    /// 504 tells the orchestrator "unknown"; a 503 would say that nothing happened.
    pub(super) fn unknown_commit(error: &tokio_postgres::Error) -> Self {
        if error.as_db_error().is_some() {
            return Self::unavailable(describe(error));
        }
        Self::new(StatusCode::GATEWAY_TIMEOUT, describe(error))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Problem"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "message": self.detail,
        });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Anything before the commit: the transaction is rolled back, so nothing happened.
impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        database::Error::from(error).into()
    }
}

impl From<database::Error> for Problem {
    fn from(error: database::Error) -> Self {
        Self::unavailable(error.to_string())
    }
}
