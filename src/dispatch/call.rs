//! The one way out: a call goes in, a reply comes back.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, Response};

use super::connection::{Connection, explain};
use super::services::{Registry, Target, Tls, native_tls};
use super::token::Signer;
use super::{callback, headers, reply};
use crate::core::breaker::Sign;
use crate::core::call::{Reply, StepCall};
use crate::core::failure::TIMED_OUT;
use crate::core::service::Service;

/// What a dispatcher is made of.
#[derive(Debug)]
pub struct Options {
    /// `iss` of the tokens: who services see as the caller.
    pub issuer: String,
    /// This worker's key.
    pub signer: Signer,
    /// `User-Agent`: `hms-orch/<version>`.
    pub user_agent: String,
}

/// Why there is no dispatcher.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user agent is no header value.
    #[error("the user agent {0:?} is no header value")]
    UserAgent(String),
}

/// Calls services. Cheap to clone; all clones share registry and connections.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    issuer: String,
    signer: Signer,
    user_agent: HeaderValue,
    tls: Tls,
    registry: RwLock<Registry>,
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("issuer", &self.0.issuer).field("signer", &self.0.signer).finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher without services. A host without root certificates is no error here: only its `https` services cannot be used.
    ///
    /// # Errors
    /// [`Error::UserAgent`].
    pub fn new(options: Options) -> Result<Self, Error> {
        Self::with_tls(options, native_tls())
    }

    pub(super) fn with_tls(options: Options, tls: Tls) -> Result<Self, Error> {
        let Options { issuer, signer, user_agent } = options;
        let user_agent = HeaderValue::from_str(&user_agent).map_err(|_| Error::UserAgent(user_agent))?;
        Ok(Self(Arc::new(Inner { issuer, signer, user_agent, tls, registry: RwLock::default() })))
    }

    /// Replaces the registry at once and reads all secrets anew. Calls on their way end as they began; services whose address and
    /// networks are the same keep their connections.
    pub fn set_services(&self, services: Vec<Service>) {
        // Secrets are read beside the calls that go on; only the exchange itself is exclusive.
        let next = Registry::resolve(services, &self.0.tls, &self.0.registry.read().unwrap_or_else(PoisonError::into_inner));
        let last = std::mem::replace(&mut *self.0.registry.write().unwrap_or_else(PoisonError::into_inner), next);
        drop(last);
    }

    /// The key that signs the tokens.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.0.signer
    }

    /// Makes one call and waits for its reply, at most `call.timeout`. `now_unix_secs` is the time that the token is issued at.
    pub async fn call(&self, call: &StepCall, now_unix_secs: i64) -> Reply {
        self.make(call, now_unix_secs).await.0
    }

    /// The same, and what it says about the service. A call that cannot be written says nothing about it.
    ///
    /// The service of an asynchronous step is told where to report its end (`Hms-Callback-Url`).
    pub async fn make(&self, call: &StepCall, now_unix_secs: i64) -> (Reply, Sign) {
        // Made first, so that signing counts too. A limit beyond the end of time is none.
        let deadline = tokio::time::Instant::now().checked_add(call.timeout);
        let callback_url = call.callback_token.as_deref().map(|token| callback::url(&self.0.issuer, token));
        let (target, request) = match self.prepare(call, callback_url.as_deref(), now_unix_secs) {
            Ok(prepared) => prepared,
            Err(reason) => return (Reply::NotSent(reason), Sign::Silent),
        };
        let reply = Self::send(call, &target, request, deadline, now_unix_secs).await;
        let sign = Sign::of(&reply);
        (reply, sign)
    }

    async fn send(
        call: &StepCall,
        target: &Target,
        request: Request<Full<Bytes>>,
        deadline: Option<tokio::time::Instant>,
        now_unix_secs: i64,
    ) -> Reply {
        // Set before a request is handed to its connection, unset only when the connection gives it back untouched.
        let sent = AtomicBool::new(false);
        let exchange = exchange(&call.service, target, request, &sent, now_unix_secs);
        let Some(deadline) = deadline else { return exchange.await };
        match tokio::time::timeout_at(deadline, exchange).await {
            Ok(reply) => reply,
            Err(_) if sent.load(Ordering::Relaxed) => Reply::Broken(format!("{TIMED_OUT}: no whole reply within {} ms", call.timeout.as_millis())),
            Err(_) => unreachable_service(&call.service, &format!("no connection within {} ms", call.timeout.as_millis())),
        }
    }

    fn prepare(&self, call: &StepCall, callback_url: Option<&str>, now_unix_secs: i64) -> Result<(Arc<Target>, Request<Full<Bytes>>), String> {
        let inner = &*self.0;
        let target = inner.registry.read().unwrap_or_else(PoisonError::into_inner).get(&call.service)?;
        let authorization = inner.signer.authorization(&inner.issuer, &target.audience, call, now_unix_secs).map_err(|error| error.to_string())?;
        let request = headers::request(&target, &inner.user_agent, authorization, call, callback_url)?;
        Ok((target, request))
    }
}

async fn exchange(service: &str, target: &Target, request: Request<Full<Bytes>>, sent: &AtomicBool, now_unix_secs: i64) -> Reply {
    let (connection, response) = match send(target, request, sent).await {
        Ok(answered) => answered,
        Err(reason) if sent.load(Ordering::Relaxed) => return Reply::Broken(format!("the connection broke after the call was sent: {reason}")),
        Err(reason) => return unreachable_service(service, &reason),
    };
    let (head, body) = response.into_parts();
    if head.status.is_informational() {
        return Reply::Broken(format!("the service answered {} instead of a reply", head.status.as_u16()));
    }
    let body = match reply::read(body).await {
        Ok(reply::Read::Whole(body)) => {
            target.pool.give_back(connection);
            Some(body)
        }
        Ok(reply::Read::TooLarge) => None,
        Err(error) => return Reply::Broken(format!("the reply ended too early: {}", explain(&error))),
    };
    Reply::Answered {
        status: head.status.as_u16(),
        headers: reply::texts(&head.headers),
        body,
        retry_after: reply::retry_after(&head.headers, now_unix_secs),
    }
}

/// Sends the request once. A connection that closes before it takes the request gives it back: then, and only then, another is tried.
async fn send(target: &Target, mut request: Request<Full<Bytes>>, sent: &AtomicBool) -> Result<(Connection, Response<Incoming>), String> {
    loop {
        let mut connection = target.pool.connection().await?;
        sent.store(true, Ordering::Relaxed);
        let mut error = match connection.sender.try_send_request(request).await {
            Ok(response) => return Ok((connection, response)),
            Err(error) => error,
        };
        match error.take_message() {
            None => return Err(explain(error.error())),
            Some(untouched) => {
                sent.store(false, Ordering::Relaxed);
                if connection.fresh {
                    return Err("it closed the connection before it took the call".to_owned());
                }
                request = untouched;
            }
        }
    }
}

fn unreachable_service(service: &str, reason: &str) -> Reply {
    Reply::NotSent(format!("service {service:?} cannot be reached: {reason}: check that it runs and that its url in the services file is right"))
}

#[cfg(test)]
#[path = "call_tests.rs"]
pub(super) mod tests;
