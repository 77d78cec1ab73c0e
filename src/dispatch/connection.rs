//! Connections of one service: made to checked addresses, kept while they are useful.
//!
//! hyper's connections with a small pool of our own instead of hyper-util's client: only the code that hands a request to its connection
//! knows whether it can have left, and that is the difference between "try again" and "unknown". It also makes no allocation per call.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Uri;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tower::{Service, ServiceExt};

use super::address;
use crate::core::service::Network;

/// Idle connections kept: as many as a worker has steps in flight.
const IDLE_MAX: usize = 256;
/// Shorter than the five seconds after which Node.js and Uvicorn hang up, so that few calls meet a connection that is just being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// How long a connection may take to become quiet after a reply.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);
/// Limit of all connection attempts to the addresses of one host.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Limit of a reply's head, bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Longest reason that is passed on, bytes.
const REASON_BYTES_MAX: usize = 300;

/// The connections of one service.
pub(super) struct Pool {
    origin: Uri,
    connector: Connector,
    idle: Mutex<VecDeque<(Instant, Connection)>>,
    reaping: AtomicBool,
}

#[derive(Clone)]
enum Connector {
    Plain(HttpConnector<Resolver>),
    Tls(HttpsConnector<HttpConnector<Resolver>>),
}

/// A connection that one call holds. Dropped before its reply is read to the end, it is closed.
pub(super) struct Connection {
    pub sender: SendRequest<Full<Bytes>>,
    pub fresh: bool,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pool {
    /// A pool for one origin. With `tls`, `https` origins can be reached.
    pub fn new(origin: Uri, allow: &[Network], tls: Option<Arc<ClientConfig>>) -> Self {
        let mut http = HttpConnector::new_with_resolver(Resolver { allow: allow.into() });
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(30)));
        http.set_connect_timeout(Some(CONNECT_LIMIT));
        let connector = match tls {
            Some(config) if origin.scheme_str() == Some("https") => Connector::Tls(
                hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config.as_ref().clone()).https_only().enable_http1().wrap_connector(http),
            ),
            _ => Connector::Plain(http),
        };
        Self { origin, connector, idle: Mutex::default(), reaping: AtomicBool::new(false) }
    }

    /// An idle connection, else a new one.
    ///
    /// # Errors
    /// Why the service cannot be reached.
    pub async fn connection(&self) -> Result<Connection, String> {
        while let Some((since, connection)) = self.idle().pop_back() {
            if since.elapsed() < IDLE_LIMIT && connection.sender.is_ready() {
                return Ok(connection);
            }
        }
        self.connect().await
    }

    /// Takes a connection back whose reply was read to its end.
    pub fn give_back(self: &Arc<Self>, mut connection: Connection) {
        connection.fresh = false;
        if connection.sender.is_ready() {
            self.keep(connection);
        } else if !connection.sender.is_closed() {
            // The connection's task, on another core, is about to notice the end of the reply. A peer that answered before it read the
            // whole request may never get there.
            let pool = Arc::downgrade(self);
            tokio::spawn(async move {
                if let Ok(Ok(())) = tokio::time::timeout(SETTLE_LIMIT, connection.sender.ready()).await
                    && let Some(pool) = pool.upgrade()
                {
                    pool.keep(connection);
                }
            });
        }
    }

    fn keep(self: &Arc<Self>, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() >= IDLE_MAX {
            idle.pop_front();
        }
        idle.push_back((Instant::now(), connection));
        drop(idle);
        if !self.reaping.swap(true, Ordering::AcqRel) {
            tokio::spawn(reap(Arc::downgrade(self)));
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        match &self.connector {
            Connector::Plain(connector) => handshake(connector.clone().oneshot(self.origin.clone()).await.map_err(|error| explain(&error))?).await,
            Connector::Tls(connector) => {
                handshake(connector.clone().oneshot(self.origin.clone()).await.map_err(|error| explain(error.as_ref()))?).await
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what was idle too long, and ends when nothing is left.
async fn reap(pool: std::sync::Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE_LIMIT).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        // The oldest are in front.
        while idle.front().is_some_and(|(since, _)| since.elapsed() >= IDLE_LIMIT) {
            idle.pop_front();
        }
        if idle.is_empty() {
            // Under the lock: whoever keeps a connection after this starts another reaper.
            pool.reaping.store(false, Ordering::Release);
            return;
        }
    }
}

async fn handshake<T>(io: T) -> Result<Connection, String>
where
    T: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(io).await.map_err(|error| explain(&error))?;
    let task = tokio::spawn(async move {
        // Its error reaches the call through the sender.
        let _ended = connection.await;
    });
    Ok(Connection { sender, fresh: true, task: task.abort_handle() })
}

/// The innermost reason of an error: "connection refused", not "error trying to connect". Cut, since a peer's certificate may speak in it.
pub(super) fn explain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = source.to_string();
        next = source.source();
    }
    text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
    text
}

/// Resolves a name once and hands out only addresses that may be reached: the connection goes to exactly these.
#[derive(Clone)]
struct Resolver {
    allow: Arc<[Network]>,
}

#[derive(Debug)]
struct ResolveError(String);

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for ResolveError {}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow = self.allow.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found = found.map_err(|error| ResolveError(format!("the name {} cannot be resolved: {error}", name.as_str())))?;
            permitted(found, &allow).map(Vec::into_iter).map_err(|reason| ResolveError(format!("{}: {reason}", name.as_str())))
        })
    }
}

/// The addresses that may be reached; an error if there is none.
fn permitted(found: impl Iterator<Item = SocketAddr>, allow: &[Network]) -> Result<Vec<SocketAddr>, String> {
    let mut reason = "the name has no address".to_owned();
    let mut open = Vec::new();
    for address in found {
        match address::check(address.ip(), allow) {
            Ok(()) => open.push(address),
            Err(objection) => reason = objection,
        }
    }
    if open.is_empty() { Err(reason) } else { Ok(open) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_also_resolves_to_a_private_address_never_reaches_it() {
        let answer = |texts: &[&str]| texts.iter().map(|text| SocketAddr::new(text.parse().expect(text), 0)).collect::<Vec<_>>().into_iter();
        let open = permitted(answer(&["8.8.8.8", "127.0.0.1", "169.254.169.254"]), &[]).expect("one is public");
        assert_eq!(open, [SocketAddr::new("8.8.8.8".parse().expect("address"), 0)]);
        assert!(permitted(answer(&["10.0.0.1", "::1"]), &[]).is_err());
        assert!(permitted(answer(&[]), &[]).is_err());
    }
}
