//! Reading for people: lists, details, figures.
//!
//! A pool of its own, so that a slow page cannot starve the engine. Invariants: every read runs in one read-only transaction
//! with one snapshot and a statement timeout that ends with it (poolers), and no list returns more than `LIMIT` rows.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Postgres, Transaction};

use super::Error;

pub mod commands;
pub mod counts;
pub mod definitions;
pub mod events;
pub mod locks;
pub mod recording;
pub mod saga;
pub mod sagas;
pub mod tasks;
pub mod timeline;
pub mod workers;

/// Rows of the longest page.
pub const LIMIT: u32 = 200;

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "hms-api";

/// One round trip that opens the transaction and bounds its statements.
const BEGIN: &str = "begin transaction isolation level repeatable read, read only; set local statement_timeout = '2s'";

/// The read side of the database: cheap to clone.
#[derive(Clone, Debug)]
pub struct ReadStore {
    pool: PgPool,
}

/// One page of rows, and whether there are more behind it.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Whether another page follows.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// Lists ask for one row more than they return: it tells whether there is a next page.
    fn cut(mut items: Vec<T>, limit: u32) -> Self {
        let limit = limit as usize;
        let has_more = items.len() > limit;
        items.truncate(limit);
        Self { items, has_more }
    }
}

impl ReadStore {
    /// A pool on the database, or on a replica of it. Nothing is connected until the first read.
    #[must_use]
    pub fn connect(options: PgConnectOptions, pool_size: u32) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(pool_size)
            // A broken connection shows when the transaction is opened; asking beforehand costs every read a round trip.
            .test_before_acquire(false)
            .acquire_timeout(std::time::Duration::from_secs(5))
            .connect_lazy_with(options.application_name(APPLICATION_NAME));
        Self { pool }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// `Read` when it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut snapshot = self.snapshot().await?;
        sqlx::query("select 1").execute(&mut *snapshot).await?;
        Ok(())
    }

    /// A transaction to read in; it ends when it is dropped.
    async fn snapshot(&self) -> Result<Transaction<'static, Postgres>, Error> {
        // Connections that broke while they were idle show here, before anything was asked: take the next one. One may show
        // twice, first with the server's goodbye and then as closed.
        let mut broken = 0;
        loop {
            match self.pool.begin_with(BEGIN).await {
                Err(error) if is_broken(&error) && broken < 2 * self.pool.options().get_max_connections() => broken += 1,
                result => return Ok(result?),
            }
        }
    }
}

fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        // Said to a session that was idle when the server stopped or somebody ended it.
        sqlx::Error::Database(db) => matches!(db.code().as_deref(), Some("57P01" | "57P02")),
        _ => false,
    }
}

/// The largest page that may be asked for, plus the row that tells whether more follow.
fn with_one_more(limit: u32) -> i64 {
    i64::from(limit.clamp(1, LIMIT)) + 1
}
