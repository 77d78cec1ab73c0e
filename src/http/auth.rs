//! Who may do what: API keys, roles, and the one table that says what a route needs.
//!
//! Invariant: a route that is not in `ROUTES` answers nobody. Without keys configured everybody may do everything, which is
//! why such a server listens on loopback only.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::AppState;
use super::problem::Problem;
use crate::store::keys;
use crate::store::keys::Role;
use crate::store::{Error, Store};

/// What a caller must be allowed to do. Publishing and reading are apart: a program that reports events need not see the
/// data of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Everybody may, without a key.
    Nothing,
    /// Look at events, sagas and definitions.
    Read,
    /// Publish events.
    Publish,
    /// Give orders and decide.
    Operate,
    /// Deploy.
    Administer,
}

use Need::{Administer, Nothing, Operate, Publish, Read};

impl Need {
    /// Whether a role fulfils it.
    #[must_use]
    pub fn is_met_by(self, role: Role) -> bool {
        match self {
            Nothing => true,
            Read => matches!(role, Role::Viewer | Role::Operator | Role::Admin),
            Publish => matches!(role, Role::Publisher | Role::Operator | Role::Admin),
            Operate => matches!(role, Role::Operator | Role::Admin),
            Administer => role == Role::Admin,
        }
    }

    /// The roles that fulfil it, for people.
    fn roles(self) -> &'static str {
        match self {
            Nothing => "any role",
            Read => "viewer, operator or admin",
            Publish => "publisher, operator or admin",
            Operate => "operator or admin",
            Administer => "admin",
        }
    }
}

/// Every route with what its callers must be allowed to do; `HEAD` counts as `GET`.
pub const ROUTES: &[(&str, &str, Need)] = &[
    ("GET", "/", Read),
    ("GET", "/.well-known/jwks.json", Nothing),
    ("GET", "/healthz", Nothing),
    ("GET", "/livez", Nothing),
    ("GET", "/metrics", Read),
    ("GET", "/openapi.json", Nothing),
    ("GET", "/problems/{code}", Nothing),
    ("GET", "/readyz", Nothing),
    ("GET", "/schema/{file}", Nothing),
    ("POST", "/v1/callbacks/{token}", Nothing),
    ("POST", "/v1/callbacks/{token}/heartbeat", Nothing),
    ("GET", "/v1/definitions", Read),
    ("GET", "/v1/definitions/{id}", Read),
    ("PUT", "/v1/definitions/{id}", Administer),
    ("POST", "/v1/definitions/{id}/activate", Administer),
    ("POST", "/v1/definitions/{id}/retire", Administer),
    ("GET", "/v1/events", Read),
    ("POST", "/v1/events", Publish),
    ("GET", "/v1/events/{id}", Read),
    ("GET", "/v1/human-tasks", Read),
    ("GET", "/v1/human-tasks/{id}", Read),
    ("POST", "/v1/human-tasks/{id}/decide", Operate),
    ("GET", "/v1/locks", Read),
    ("GET", "/v1/sagas", Read),
    ("POST", "/v1/sagas/abort", Operate),
    ("POST", "/v1/sagas/cancel", Operate),
    ("POST", "/v1/sagas/pause", Operate),
    ("POST", "/v1/sagas/resume", Operate),
    ("POST", "/v1/sagas/retry", Operate),
    ("POST", "/v1/sagas/skip", Operate),
    ("GET", "/v1/sagas/{id}", Read),
    ("POST", "/v1/sagas/{id}/abort", Operate),
    ("POST", "/v1/sagas/{id}/cancel", Operate),
    ("POST", "/v1/sagas/{id}/fork", Operate),
    ("POST", "/v1/sagas/{id}/pause", Operate),
    ("POST", "/v1/sagas/{id}/resume", Operate),
    ("POST", "/v1/sagas/{id}/retry", Operate),
    ("POST", "/v1/sagas/{id}/skip", Operate),
];

/// How long a verified key is believed: as long may a revoked one still work.
const BELIEVED: Duration = Duration::from_secs(5);
/// Keys remembered at most, good and bad.
const REMEMBERED: usize = 1024;

/// Whether callers have to show a key.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Nobody asks; for loopback only.
    Open,
    /// Every route but the public ones asks for a key.
    Keys(Arc<Verified>),
}

/// Answers of the key table, by digest.
#[derive(Debug, Default)]
pub struct Verified {
    answers: Mutex<HashMap<[u8; 32], Answer>>,
}

/// When the table was asked, and who it said it is.
type Answer = (Instant, Option<Caller>);

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key's name; `http` where nobody asks.
    pub name: String,
    /// What it may do; everything where nobody asks.
    pub role: Role,
}

impl Auth {
    /// Asks for keys.
    #[must_use]
    pub fn keys() -> Self {
        Self::Keys(Arc::default())
    }

    async fn caller(&self, store: &Store, headers: &HeaderMap) -> Result<Option<Caller>, Error> {
        let Self::Keys(verified) = self else { return Ok(Some(Caller { name: "http".to_owned(), role: Role::Admin })) };
        let Some(key) = bearer(headers) else { return Ok(None) };
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        if let Some(answer) = verified.get(&digest) {
            return Ok(answer);
        }
        let principal = keys::verify(store, key).await?;
        let caller = principal.map(|principal| Caller { name: principal.name, role: principal.role });
        verified.put(digest, caller.clone());
        Ok(caller)
    }
}

impl Verified {
    fn get(&self, digest: &[u8; 32]) -> Option<Option<Caller>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(digest).filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, caller)| caller.clone())
    }

    fn put(&self, digest: [u8; 32], caller: Option<Caller>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= REMEMBERED {
            answers.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        }
        // Full of fresh answers: somebody is guessing. Forgetting costs a query each, remembering would cost memory.
        if answers.len() >= REMEMBERED {
            answers.clear();
        }
        answers.insert(digest, (Instant::now(), caller));
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// Whether a server may listen there.
///
/// # Errors
/// Says why not: without authentication only loopback addresses will do.
pub fn may_bind(address: SocketAddr, auth: &Auth) -> Result<(), String> {
    match auth {
        Auth::Open if !address.ip().to_canonical().is_loopback() => Err(format!(
            "{address} can be reached from elsewhere and no authentication is configured: make an API key with `hms-orch token`, or listen on 127.0.0.1"
        )),
        _ => Ok(()),
    }
}

/// Lets a request pass if its caller may make it; the handler finds the `Caller` among the extensions.
pub async fn authorize(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    // No matched path: the fallback will say that there is nothing.
    let Some(path) = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()) else { return next.run(request).await };
    let method = if request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
    let rules = || ROUTES.iter().filter(|rule| rule.1 == path);
    let Some(&(_, _, need)) = rules().find(|rule| rule.0 == method) else {
        let allow: Vec<&str> = rules().flat_map(|rule| if rule.0 == "GET" { vec!["GET", "HEAD"] } else { vec![rule.0] }).collect();
        return Problem::method_not_allowed(&allow.join(", ")).into_response();
    };
    if need == Nothing {
        return next.run(request).await;
    }
    match state.auth.caller(&state.store, request.headers()).await {
        Err(error) => Problem::from(error).into_response(),
        Ok(None) => Problem::unauthenticated("send `Authorization: Bearer <API key>`").into_response(),
        Ok(Some(caller)) if !need.is_met_by(caller.role) => {
            Problem::forbidden(format!("the role {} does not allow this: {} is needed", caller.role, need.roles())).into_response()
        }
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_servers_listen_on_loopback_only() {
        for (address, may) in
            [("127.0.0.1:7600", true), ("[::1]:7600", true), ("[::ffff:127.0.0.1]:7600", true), ("0.0.0.0:7600", false), ("10.1.2.3:80", false)]
        {
            let address = address.parse().expect("an address");
            assert_eq!(may_bind(address, &Auth::Open).is_ok(), may, "{address}");
            assert!(may_bind(address, &Auth::keys()).is_ok());
        }
    }

    #[test]
    fn reading_publishing_and_ordering_are_apart() {
        let may = |role| [Read, Publish, Operate, Administer].map(|need: Need| need.is_met_by(role));
        assert_eq!(may(Role::Viewer), [true, false, false, false]);
        assert_eq!(may(Role::Publisher), [false, true, false, false]);
        assert_eq!(may(Role::Operator), [true, true, true, false]);
        assert_eq!(may(Role::Admin), [true, true, true, true]);
    }

    #[test]
    fn guesses_do_not_fill_the_memory() {
        let verified = Verified::default();
        for guess in 0..5000_u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&guess.to_be_bytes());
            verified.put(digest, None);
        }
        assert!(verified.answers.lock().expect("not poisoned").len() <= REMEMBERED);
    }
}
