//! What crosses the wire: a call ready to be sent, and the reply as it came.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::outcome::Action;
use super::payload::Payload;

/// A call of a step, every template filled in. `dispatch` adds the token and sends it.
#[derive(Clone, Debug)]
pub struct StepCall {
    /// Name in the services registry.
    pub service: String,
    /// Upper-case HTTP method.
    pub method: String,
    /// Path and query, percent-encoded, starting with `/`.
    pub path: String,
    /// Further headers from the definition.
    pub headers: Vec<(String, String)>,
    /// The JSON body.
    pub body: Bytes,
    /// The saga.
    pub saga_id: Uuid,
    /// The step's name.
    pub step: String,
    /// Do or undo.
    pub action: Action,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Rises with every attempt of every saga.
    pub fence: i64,
    /// `<saga>/<step>/<do or undo>`, the same for all attempts.
    pub idempotency_key: String,
    /// The event's correlation id.
    pub correlation_id: String,
    /// Limit of the whole attempt: connect, send, wait, read.
    pub timeout: Duration,
    /// The one-time token that ends an asynchronous step.
    pub callback_token: Option<String>,
}

/// A call of a function of the database, in one transaction with its outcome.
#[derive(Clone, Debug)]
pub struct FunctionCall {
    /// `schema.name`
    pub function: String,
    /// Its argument, JSON text.
    pub argument: String,
    /// The saga.
    pub saga_id: Uuid,
    /// The step's name.
    pub step: String,
    /// Do or undo.
    pub action: Action,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Limit of the function.
    pub timeout: Duration,
}

/// What an attempt sends out.
#[derive(Clone, Debug)]
pub enum Sending {
    /// A call to a service.
    Call(Box<StepCall>),
    /// A call of a function.
    Function(Box<FunctionCall>),
}

/// What came back, before anybody judged it.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The service answered.
    Answered {
        /// HTTP status.
        status: u16,
        /// Header names in lower case with their values; values that are not text are left out.
        headers: Vec<(String, String)>,
        /// The body, or `None` if it is larger than we keep.
        body: Option<Bytes>,
        /// `Retry-After` as a duration.
        retry_after: Option<Duration>,
    },
    /// Nothing reached the service: refused, DNS, TLS, not registered, forbidden address.
    NotSent(String),
    /// The call may have reached the service, but no whole reply came: timeout, reset.
    Broken(String),
    /// Nothing was sent, because the service is parked: ask again after so long.
    Parked(Duration),
    /// What came back from a service that is known to be down: not held against the step.
    Probed(Box<Self>),
    /// A function returned this.
    Returned(Payload),
    /// A function was undone with its transaction, and why.
    RolledBack(String),
}

/// Headers that the orchestrator or HTTP itself sets, beside everything that starts with `hms-` or `proxy-`.
const RESERVED_HEADERS: [&str; 16] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-correlation-id",
];

/// Whether no definition and no services file can set this header. Case does not matter.
#[must_use]
pub fn is_reserved_header(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    RESERVED_HEADERS.contains(&lower.as_str()) || lower.starts_with("hms-") || lower.starts_with("proxy-")
}

/// The largest reply body that is kept, bytes.
pub const REPLY_BYTES_MAX: usize = 256 * 1024;
