//! The agency's database: a pool, and the one schema that all statements of the demo run in.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Transaction};
use tokio_postgres::NoTls;

use super::Options;

/// Sixteen sessions: ten repeats of one call may wait for the first, and others still get through.
const SESSIONS_MAX: usize = 16;
/// Beyond this a call is better answered 503 and retried than kept waiting.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the demo's services could not start or answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A statement or the connection failed.
    #[error("the agency's database: {}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// No session could be had.
    #[error("connect to the agency's database: {}", describe_pool(.0))]
    Pool(#[from] PoolError),
    /// The pool could not be made.
    #[error("open the agency's database: {0}")]
    Open(#[from] deadpool_postgres::BuildError),
    /// The schema's name is not a plain lowercase identifier.
    #[error("{0:?} is not a schema name: use a-z, 0-9 and _, at most 63 of them")]
    SchemaName(String),
    /// The schema exists and the demo did not make it.
    #[error("schema {0} belongs to somebody else: give the demo a schema of its own")]
    ForeignSchema(String),
    /// The tables were made with other sizes.
    #[error("schema {schema} holds {claimants} claimants and {payments} payments: drop it first")]
    OtherSize {
        /// The schema's name.
        schema: String,
        /// People in its register.
        claimants: i64,
        /// Payments in it.
        payments: i64,
    },
    /// More payments than people.
    #[error("{payments} payments for {claimants} claimants: each has at most one")]
    Sizes {
        /// People asked for.
        claimants: u32,
        /// Payments asked for.
        payments: u32,
    },
    /// The address of the orchestrator's keys cannot be used.
    #[error("{url:?} is not an http address of public keys")]
    JwksUrl {
        /// What was given.
        url: String,
    },
    /// An address could not be bound or served.
    #[error("listen on {addr}: {source}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// No such service.
    #[error("there is no demo service {0:?}")]
    UnknownService(String),
}

/// The driver's own text for a server's refusal is only "db error".
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
}

fn describe_pool(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => describe(error),
        error => error.to_string(),
    }
}

/// A cheap handle on the pool and the schema's name.
#[derive(Clone)]
pub(super) struct Database {
    pool: Pool,
    /// Checked in `open`, so it can stand in a statement as it is.
    pub(super) schema: String,
}

impl Database {
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        let schema = options.schema.clone();
        if !is_plain_name(&schema) {
            return Err(Error::SchemaName(schema));
        }
        let mut config = tokio_postgres::Config::from_str(&options.database_url)?;
        config.application_name("agency-demo");
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config, NoTls, recycling))
            .max_size(SESSIONS_MAX)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(SESSION_TIMEOUT))
            .create_timeout(Some(SESSION_TIMEOUT))
            .build()?;
        Ok(Self { pool, schema })
    }

    pub(super) async fn session(&self) -> Result<Object, Error> {
        Ok(self.pool.get().await?)
    }

    /// Opens a transaction whose statements find the demo's tables, and no others, without a prefix.
    ///
    /// The path is local to the transaction: it also holds behind a transaction pooler.
    pub(super) async fn begin<'a>(&self, session: &'a mut Object) -> Result<Transaction<'a>, tokio_postgres::Error> {
        let tx = session.transaction().await?;
        let schema = &self.schema;
        tx.batch_execute(&format!("set local search_path to \"{schema}\", pg_temp")).await?;
        Ok(tx)
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }
}

fn is_plain_name(name: &str) -> bool {
    let first_is_letter = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest_is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    first_is_letter && rest_is_plain && name.len() <= 63 && !name.starts_with("pg_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_name_cannot_carry_sql() {
        for bad in ["", "Agency", "9a", "a b", "a\"; drop", "pg_catalog", &"a".repeat(64)] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
        assert!(is_plain_name("agency_2"));
    }
}
