//! One running process: engine, HTTP server or both, on one database, with its signing key published.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::code::{Code, Stop};
use super::database::Place;
use crate::config::{JwtAlgorithm, Wake, Worker};
use crate::core::story::StoryLine;
use crate::dev_postgres;
use crate::dispatch::call::{self, Dispatcher};
use crate::dispatch::token::{Algorithm, Signer};
use crate::engine::{self, Engine};
use crate::http::auth::{self, Auth};
use crate::http::readiness::{self, Readiness};
use crate::http::{AppState, guard, router, server, wait};
use crate::store::publisher::Publisher;
use crate::store::{Store, keys};
use crate::telemetry::Metrics;

/// Connections of the write side: a batch in flight per committer, the router, the keeper, the server.
const POOL: usize = 16;
/// Connections of the read side.
const READ_POOL: u32 = 8;
/// How often a worker says that it still signs with its key.
const TOUCH_EVERY: Duration = Duration::from_secs(60);
/// Longer than the drain limit: for the last commit after the last call.
const STOP_SLACK: Duration = Duration::from_secs(5);

/// A running process.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it serves HTTP, if it does.
    pub address: Option<SocketAddr>,
    /// The write side of its database.
    pub store: Store,
    stop: CancellationToken,
    readiness: Arc<Readiness>,
    tasks: TaskTracker,
    drain_limit: Duration,
}

impl Node {
    /// Starts it on a database whose schema is up to date. `listener` is where it serves, where its role says so.
    pub async fn start(
        settings: &Worker,
        place: &Place,
        listener: Option<TcpListener>,
        metrics: Metrics,
        story: Option<mpsc::Sender<StoryLine>>,
    ) -> Result<Self> {
        let store = place.store(POOL);
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let checks = vec![("database", readiness::database(store.clone())), ("schema", readiness::schema(store.clone()))];
        let node = Self {
            address,
            store,
            stop: CancellationToken::new(),
            readiness: Arc::new(Readiness::new(checks)),
            tasks: TaskTracker::new(),
            drain_limit: settings.drain_limit(),
        };
        if settings.role.works() {
            node.work(settings, place, story.clone()).await?;
        }
        if let Some(listener) = listener {
            node.serve(settings, place, listener, metrics, story).await?;
        }
        Ok(node)
    }

    async fn work(&self, settings: &Worker, place: &Place, story: Option<mpsc::Sender<StoryLine>>) -> Result<()> {
        let signer = signer(settings)?;
        let (kid, jwk) = (signer.key_id().to_owned(), signer.jwk().clone());
        keys::publish_signing_key(&self.store, &kid, &jwk).await?;
        let (store, stop) = (self.store.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            while tokio::time::timeout(TOUCH_EVERY, stop.cancelled()).await.is_err() {
                // Swept while we were cut off: put it back.
                let touched = match keys::touch(&store, &kid).await {
                    Ok(false) => keys::publish_signing_key(&store, &kid, &jwk).await,
                    Ok(true) => Ok(()),
                    Err(error) => Err(error),
                };
                if let Err(error) = touched {
                    tracing::warn!(%error, "cannot say that the signing key is in use; trying again in a minute");
                }
            }
        });
        let address = self.address.unwrap_or(settings.listen);
        let issuer = settings.public_url.as_ref().map_or_else(|| format!("http://{address}"), |url| url.as_str().trim_end_matches('/').to_owned());
        let user_agent = concat!("hms-orch/", env!("CARGO_PKG_VERSION")).to_owned();
        let dispatcher = Dispatcher::new(call::Options { issuer, signer, user_agent })?;
        let options = engine::Options {
            listen: place.listen.clone(),
            concurrency: settings.concurrency as usize,
            lease: settings.lease(),
            poll: settings.poll(),
            wake: match settings.wake {
                Wake::Notify => engine::Wake::Notify,
                Wake::Poll => engine::Wake::Poll,
            },
            drain_limit: settings.drain_limit(),
            functions: settings.sql_connections as usize,
            function_role: settings.sql_role.clone(),
        };
        let engine = Engine::new(options, self.store.clone(), dispatcher, story);
        let stop = self.stop.clone();
        self.tasks.spawn(async move { engine.run(stop).await });
        Ok(())
    }

    async fn serve(
        &self,
        settings: &Worker,
        place: &Place,
        listener: TcpListener,
        metrics: Metrics,
        story: Option<mpsc::Sender<StoryLine>>,
    ) -> Result<()> {
        let read = place.read(READ_POOL).await?;
        let state = AppState {
            store: self.store.clone(),
            publisher: Publisher::start(self.store.clone()),
            auth: authentication(settings, &self.store).await?,
            names: guard::Names::new(listener.local_addr()?, settings.public_url.as_ref()),
            readiness: Arc::clone(&self.readiness),
            metrics: Arc::new(move || metrics.render()),
            waiters: wait::Waiters::new(read.clone()),
            read,
            story,
        };
        let stop = self.stop.clone();
        self.tasks.spawn(server::serve(listener, router(state), async move { stop.cancelled().await }));
        Ok(())
    }

    /// Stops taking work, waits for what is under way, hands over the rest. False if that took too long.
    pub async fn stop(self) -> bool {
        self.readiness.drain();
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(self.drain_limit + STOP_SLACK, self.tasks.wait()).await.is_ok()
    }
}

/// Whether callers have to show a key: as soon as there is one. The operator's own is made here.
pub(super) async fn authentication(settings: &Worker, store: &Store) -> Result<Auth> {
    if let Some(file) = &settings.bootstrap_key_file {
        let key = std::fs::read_to_string(file).with_context(|| format!("read the bootstrap key file {}", file.display()))?;
        keys::ensure_bootstrap(store, &key).await?;
    }
    Ok(if keys::any(store).await? { Auth::keys() } else { Auth::Open })
}

/// Opens the port, unless strangers could come in there.
pub(super) async fn bind(address: SocketAddr, auth: &Auth) -> Result<TcpListener> {
    auth::may_bind(address, auth).map_err(|reason| Stop::new(Code::Usage, reason))?;
    TcpListener::bind(address).await.map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("{address} is taken: is another `hms-orch up` running? Choose another address with --listen 127.0.0.1:PORT")
            }
            _ => format!("cannot listen on {address}: {error}"),
        };
        Stop::new(Code::Failed, reason).into()
    })
}

fn signer(settings: &Worker) -> Result<Signer> {
    let algorithm = match settings.jwt_alg {
        JwtAlgorithm::EdDsa => Algorithm::EdDsa,
        JwtAlgorithm::Es256 => Algorithm::Es256,
    };
    let path = match &settings.signing_key_file {
        Some(path) => path.clone(),
        None => default_key_file(algorithm)?,
    };
    Ok(Signer::load_or_create(&path, algorithm)?)
}

/// Beside the private Postgres, whether there is one or not; one file for each algorithm.
fn default_key_file(algorithm: Algorithm) -> Result<PathBuf> {
    let data_dir = dev_postgres::Options::for_user().context("HMS_SIGNING_KEY_FILE is not set")?.data_dir;
    let name = format!("signing-{}.pem", algorithm.as_str().to_lowercase());
    Ok(data_dir.parent().unwrap_or(&data_dir).join(name))
}
