//! Does this request come from the orchestrator, for this service, with this very body?
//!
//! `Call` is an extractor: a handler that takes one cannot run on a request that was not verified.

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Validation, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{keys::Keys, problem::Problem, service::Shared};

const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How far the two machines' clocks may be apart.
const CLOCK_SKEW_SECS: u64 = 5;

/// What is asked for: the step, or its compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Do,
    Undo,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}

/// A verified request of the orchestrator.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) saga: String,
    pub(super) step: String,
    pub(super) action: Action,
    pub(super) fence: i64,
    /// `<saga>/<step>/<do or undo>`, the same for all attempts.
    pub(super) key: String,
    body: Value,
}

impl Call {
    /// A member of the event's data; null if it is missing.
    pub(super) fn data(&self, name: &str) -> &Value {
        &self.body["data"][name]
    }

    /// A text that the `do` left in its context; `None` if nobody knows how the `do` ended.
    pub(super) fn context(&self, name: &str) -> Option<&str> {
        self.body["step"]["context"][name].as_str()
    }

    /// The key of what an undo undoes.
    ///
    /// # Errors
    /// 422 if it is another saga's.
    pub(super) fn do_key(&self) -> Result<String, Problem> {
        let Some(key) = self.body["step"]["doKey"].as_str() else {
            return Ok(format!("{}/{}/do", self.saga, self.step));
        };
        let own = key.strip_prefix(&self.saga).is_some_and(|rest| rest.starts_with('/') && rest.ends_with("/do"));
        if own { Ok(key.to_owned()) } else { Err(Problem::unprocessable("step.doKey is not of this saga")) }
    }
}

impl FromRequest<Shared> for Call {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body =
            axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))?;
        shared.verifier.verify(&parts.headers, &body).await
    }
}

/// The claims beside those that the token library checks (exp, nbf, aud, sub).
#[derive(Deserialize)]
struct Claims {
    /// One service, not a list: a token for two would let one of them act as the other's caller.
    aud: String,
    step: String,
    action: Action,
    attempt: u32,
    fence: i64,
    bh: String,
}

/// Checks tokens for one service.
pub(super) struct Verifier {
    service: &'static str,
    keys: Keys,
}

impl Verifier {
    pub(super) fn new(service: &'static str, keys: Keys) -> Self {
        Self { service, keys }
    }

    /// # Errors
    /// 401 for everything that a token should have proved and did not; 503 if the keys cannot be
    /// read, which says nothing about the token.
    pub(super) async fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<Call, Problem> {
        let token = text(headers, header::AUTHORIZATION.as_str())?
            .strip_prefix("Bearer ")
            .ok_or_else(|| Problem::unauthorized("the authorization is not a bearer token"))?;
        let saga = text(headers, "hms-saga-id")?;
        let claims = self.claims(token, saga).await?;

        let expected = [
            ("hms-step", claims.step.clone()),
            ("hms-attempt", claims.attempt.to_string()),
            ("hms-fence", claims.fence.to_string()),
            // No claim of its own: it follows from saga, step and action.
            ("idempotency-key", format!("{saga}/{}/{}", claims.step, claims.action.as_str())),
        ];
        for (name, claimed) in &expected {
            if text(headers, name)? != claimed {
                return Err(Problem::unauthorized(format!("header {name} is not what the token says")));
            }
        }
        if claims.bh != body_hash(body) {
            return Err(Problem::unauthorized("the body is not what the token says"));
        }

        let [_, _, _, (_, key)] = expected;
        let body = serde_json::from_slice(body).map_err(|error| Problem::unprocessable(format!("the body is not JSON: {error}")))?;
        Ok(Call { saga: saga.to_owned(), step: claims.step, action: claims.action, fence: claims.fence, key, body })
    }

    async fn claims(&self, token: &str, saga: &str) -> Result<Claims, Problem> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Problem::unauthorized("the token's header cannot be read"))?;
        if header.typ.as_deref() != Some("hms-step+jwt") {
            return Err(Problem::unauthorized("the token is not of typ hms-step+jwt"));
        }
        let kid = header.kid.ok_or_else(|| Problem::unauthorized("the token names no key"))?;
        let key = self
            .keys
            .find(&kid)
            .await
            .map_err(|unavailable| Problem::unavailable(unavailable.to_string()))?
            .ok_or_else(|| Problem::unauthorized("the token's key is not the orchestrator's"))?;

        let mut validation = Validation::new(key.algorithm);
        validation.leeway = CLOCK_SKEW_SECS;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "sub"]);
        validation.set_audience(&[self.service]);
        validation.sub = Some(saga.to_owned());
        let claims =
            jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation).map_err(|error| Problem::unauthorized(refusal(error.kind())))?.claims;
        if claims.aud != self.service {
            return Err(Problem::unauthorized("the token is for another service"));
        }
        Ok(claims)
    }
}

/// How the token carries the hash of the body. The only place that knows the encoding.
pub(super) fn body_hash(body: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(body))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next().and_then(|v| v.to_str().ok()), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Problem::unauthorized(format!("header {name} is missing"))),
    }
}

fn refusal(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired".to_owned(),
        ErrorKind::ImmatureSignature => "the token is not valid yet".to_owned(),
        ErrorKind::InvalidAudience => "the token is for another service".to_owned(),
        ErrorKind::InvalidSubject => "the token is for another saga".to_owned(),
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => "the token is not signed by the orchestrator".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("the token lacks {claim}"),
        _ => "the token cannot be read".to_owned(),
    }
}

#[cfg(test)]
mod tests;
