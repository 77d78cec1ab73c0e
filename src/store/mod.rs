//! Everything the program asks of Postgres.
//!
//! The write side speaks tokio-postgres through one pool; `read` speaks sqlx through another, so that a slow page cannot starve
//! the engine. Invariants: no session state outlives a transaction (poolers), every identifier is schema-qualified, every write
//! of a worker carries its fence, and no connection is held while a step is called.

use std::sync::Arc;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Timeouts};
use tokio_postgres::error::SqlState;

pub mod breaker;
pub mod bulk;
pub mod callbacks;
pub mod claim;
mod columns;
pub mod commit;
pub mod cursor;
pub mod definitions;
pub mod doctor;
pub mod dsn;
pub mod events;
pub mod extras;
pub mod function;
pub mod grants;
pub mod inputs;
pub mod keys;
mod lines;
pub mod lingering;
pub mod lookup;
pub mod migrate;
pub mod orders;
pub mod partitions;
pub mod publisher;
pub mod read;
pub mod start;
mod step_detail;
pub mod time;
pub mod uninstall;
pub mod wake;
pub mod workers;

use dsn::Dsn;

/// The write side of the database: cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
    dsn: Arc<Dsn>,
}

/// A pooled connection.
pub type Client = deadpool_postgres::Client;

/// What can go wrong between us and Postgres.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be had.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// Postgres refused a statement.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// A read for people failed.
    #[error("the database cannot be read: {0}")]
    Read(#[from] sqlx::Error),
    /// The schema is missing or from another version.
    #[error("{0}")]
    Schema(String),
    /// The order cannot be carried out as things are.
    #[error("{0}")]
    Refused(String),
    /// Rows say something that this program cannot make sense of.
    #[error("the database holds {0}, which this version does not understand")]
    Unreadable(String),
}

impl Error {
    /// Whether the same statement may succeed if it is sent again, later or on another connection.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Postgres(error) => match error.code() {
                None => true,
                Some(code) => {
                    let class = code.code().get(..2).unwrap_or_default();
                    matches!(class, "08" | "53" | "57")
                        || [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::LOCK_NOT_AVAILABLE].contains(code)
                        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
                }
            },
            Self::Read(_) | Self::Schema(_) | Self::Refused(_) | Self::Unreadable(_) => false,
        }
    }

    /// The SQLSTATE, where Postgres answered.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.code().map(SqlState::code),
            Self::Read(sqlx::Error::Database(error)) => error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().map(|error| error.code()),
            _ => None,
        }
    }

    /// Whether the database did not answer, or would not let us in.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Read(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)) => true,
            // 28: not let in; 3D: no such database.
            Self::Postgres(_) => self.sqlstate().is_none_or(|state| ["08", "28", "3D", "53", "57"].contains(&&state[..2])),
            _ => false,
        }
    }

    /// Whether what came back could not be read as what was expected: a fault of this program.
    #[must_use]
    pub fn is_misread(&self) -> bool {
        matches!(self, Self::Read(sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_)))
    }
}

/// tokio-postgres prints "db error" and keeps what happened to itself: say it.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => match db.hint() {
            Some(hint) => format!("{} ({}); {hint}", db.message(), db.code().code()),
            None => format!("{} ({})", db.message(), db.code().code()),
        },
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// How to connect.
#[derive(Debug)]
pub struct Options {
    /// Where the database is.
    pub dsn: Dsn,
    /// Connections of the write pool.
    pub pool_size: usize,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

impl Store {
    /// A pool on the database. Nothing is connected until the first statement.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut config = options.dsn.pg_config();
        config.application_name(&options.application_name);
        let manager = Manager::from_config(config, options.dsn.tls(), ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let second = Some(std::time::Duration::from_secs(10));
        let pool = Pool::builder(manager)
            .max_size(options.pool_size)
            .timeouts(Timeouts { wait: second, create: second, recycle: second })
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build();
        // Building fails only without a runtime for the timeouts, and one is given.
        let pool = pool.unwrap_or_else(|_| unreachable!("a pool with a runtime can always be built"));
        Self { pool, dsn: Arc::new(options.dsn) }
    }

    /// A connection from the pool.
    ///
    /// # Errors
    /// `Unavailable` when none can be had within ten seconds.
    pub async fn client(&self) -> Result<Client, Error> {
        self.pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => Error::Postgres(error),
            other => Error::Unavailable(other.to_string()),
        })
    }

    /// Asks the database whether it is there.
    ///
    /// # Errors
    /// When it is not.
    pub async fn ping(&self) -> Result<(), Error> {
        Ok(self.client().await?.batch_execute("").await?)
    }

    /// Where the database is.
    #[must_use]
    pub fn dsn(&self) -> &Dsn {
        &self.dsn
    }
}
