//! The agency's side of the story: three step services over HTTP on real Postgres tables.
//!
//! An unemployment insurance office raises a benefit. `payment-svc` recalculates 117,956 weekly
//! payments, `notice-svc` queues a notice for each of 2,001,445 claimants, `archive-svc` keeps a
//! snapshot of the rule. Each of them can undo what it did.
//!
//! They are written the way an agency should write its own: every call is verified (`verify`), its
//! effect and its idempotency key are one transaction (`once`), a late call of a lost worker is
//! fenced off, and an undo that overtakes its `do` blocks it.
//!
//! Invariant: this module knows the orchestrator only over HTTP and imports nothing else from the
//! crate. Its SQL touches its own schema only.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

mod archive;
mod database;
mod keys;
mod notice;
mod once;
mod payment;
mod problem;
mod register;
mod service;
mod verify;

use database::Database;
pub use database::Error;
use service::Service;

/// The three services, in the order of [`Options::ports`].
pub const NAMES: [&str; 3] = ["payment-svc", "notice-svc", "archive-svc"];

/// How long a stop waits for calls that are still being answered.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What the services need to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The agency's Postgres (no TLS: the demo's database is on this machine or in its compose file).
    pub database_url: String,
    /// The schema that holds all tables; made if missing. Default `agency`.
    pub schema: String,
    /// Where the orchestrator publishes its public keys: `<base url>/.well-known/jwks.json`.
    pub jwks_url: String,
    /// People in the register, all of whom must be told. Default 2,001,445.
    pub claimants: u32,
    /// How many of them have a weekly payment. Default 117,956.
    pub payments: u32,
    /// Ports on 127.0.0.1 in the order of [`NAMES`]; `None` takes free ones.
    pub ports: Option<[u16; 3]>,
}

impl Options {
    /// The story's own sizes, in schema `agency`, on free ports.
    pub fn new(database_url: impl Into<String>, jwks_url: impl Into<String>) -> Self {
        Self {
            database_url: database_url.into(),
            schema: "agency".to_owned(),
            jwks_url: jwks_url.into(),
            claimants: 2_001_445,
            payments: 117_956,
            ports: None,
        }
    }
}

/// The three services, running. Dropping it closes their doors; [`Services::stop`] also waits.
pub struct Services {
    database: Database,
    running: Vec<Running>,
    shutdown: DropGuard,
}

struct Running {
    service: Arc<Service>,
    address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

impl Services {
    /// Makes the tables if they are missing and opens the three services on 127.0.0.1.
    ///
    /// # Errors
    /// [`Error::Bind`] if a port is taken, [`Error::ForeignSchema`] and [`Error::OtherSize`] if the
    /// schema holds something else, else what the database says.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let database = Database::open(&options)?;
        register::make(&database, &options).await?;

        let token = CancellationToken::new();
        let mut services = Self { database, running: Vec::with_capacity(NAMES.len()), shutdown: token.clone().drop_guard() };
        for (name, port) in NAMES.into_iter().zip(options.ports.unwrap_or_default()) {
            let service = Service::new(name, services.database.clone(), &options)?;
            let (listener, address) = bind((Ipv4Addr::LOCALHOST, port).into()).await?;
            let until_stopped = token.clone().cancelled_owned();
            let task = tokio::spawn(axum::serve(listener, service::router(service.clone())).with_graceful_shutdown(until_stopped).into_future());
            services.running.push(Running { service, address, task });
        }
        Ok(services)
    }

    /// The services file that an orchestrator needs to reach these three.
    #[must_use]
    pub fn registry_yaml(&self) -> String {
        registry_yaml(self.addresses())
    }

    /// Name and address of each service.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        self.running.iter().map(|running| (running.service.name, running.address))
    }

    /// Makes every `do` of a service answer this status from now on; `None` heals it.
    ///
    /// Its undo keeps working: what was done before the failure can be taken back.
    pub fn set_failure(&self, service: &str, status: Option<u16>) {
        for running in self.running.iter().filter(|r| r.service.name == service) {
            let status = status.unwrap_or(service::HEALTHY);
            running.service.failure.store(status, Ordering::Relaxed);
        }
    }

    /// The sum of all weekly payments, in cents.
    ///
    /// # Errors
    /// What the database says.
    pub async fn payments_total_cents(&self) -> Result<i64, Error> {
        payment::total_cents(&self.database).await
    }

    /// Notices that wait in the outbox, without those of cancelled batches.
    ///
    /// # Errors
    /// What the database says.
    pub async fn notices_queued(&self) -> Result<i64, Error> {
        notice::queued(&self.database).await
    }

    /// Answers the calls that are under way, then closes everything.
    pub async fn stop(self) {
        drop(self.shutdown);
        let drained = async {
            for running in self.running {
                if let Ok(Err(error)) = running.task.await {
                    tracing::warn!(service = running.service.name, %error, "serve");
                }
                running.service.drained().await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, drained).await.is_err() {
            tracing::warn!("demo services stopped with calls under way: the database undoes them");
        }
        self.database.close();
    }

    /// Removes the schema with everything in it; the services answer 503 afterwards.
    ///
    /// # Errors
    /// [`Error::ForeignSchema`] if the demo did not make it, else what the database says.
    pub async fn drop_tables(&self) -> Result<(), Error> {
        register::remove(&self.database).await
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.addresses()).finish()
    }
}

/// Runs one service alone until SIGINT or SIGTERM, for a container of its own.
///
/// Several of them may start at once on one database: the first makes the tables, the others wait.
///
/// # Errors
/// [`Error::UnknownService`] for a name that is not in [`NAMES`], else as [`Services::start`].
pub async fn serve_one(name: &str, addr: SocketAddr, options: Options) -> Result<(), Error> {
    let name = NAMES.into_iter().find(|known| *known == name).ok_or_else(|| Error::UnknownService(name.to_owned()))?;
    let database = Database::open(&options)?;
    register::make(&database, &options).await?;

    let service = Service::new(name, database.clone(), &options)?;
    let (listener, address) = bind(addr).await?;
    tracing::info!(service = name, %address, "demo service is ready");
    axum::serve(listener, service::router(service.clone()))
        .with_graceful_shutdown(stop_signal())
        .await
        .map_err(|source| Error::Bind { addr, source })?;
    service.drained().await;
    database.close();
    Ok(())
}

/// Removes the demo's schema without starting anything.
///
/// # Errors
/// [`Error::ForeignSchema`] if the demo did not make it, else what the database says.
pub async fn drop_tables(options: &Options) -> Result<(), Error> {
    register::remove(&Database::open(options)?).await
}

async fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let bound = async {
        let listener = TcpListener::bind(addr).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| Error::Bind { addr, source })
}

async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    if let Err(error) = interrupt.await {
        // Without a handler the signal keeps its default: it ends the process.
        tracing::warn!(%error, "listen for SIGINT");
        std::future::pending::<()>().await;
    }
}

fn registry_yaml(addresses: impl Iterator<Item = (&'static str, SocketAddr)>) -> String {
    let mut yaml = "id: agency-services\nservices:\n".to_owned();
    for (name, address) in addresses {
        yaml.push_str(&format!("  {name}: {{url: \"http://{address}\", audience: {name}, allow: [127.0.0.0/8]}}\n"));
    }
    yaml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_in_sagas_is_what_the_services_say_of_themselves() {
        let addresses = NAMES.into_iter().zip(9001..).map(|(name, port)| (name, (Ipv4Addr::LOCALHOST, port).into()));
        assert_eq!(registry_yaml(addresses), include_str!("../../sagas/agency-services.yaml"));
    }
}
