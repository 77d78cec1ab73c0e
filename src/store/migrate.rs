//! Brings the schema to the version of this program.
//!
//! refinery keeps the history but takes no lock: of six starts at once, five failed. So everything happens under an advisory
//! lock of the migrating session, which a pooler in transaction mode would hand to somebody else: migrations need the direct
//! URL. A start that finds nothing to do takes no lock at all. Invariant: applied migrations never change, and code older
//! than the schema does not run.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::Error;
use super::dsn::Dsn;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// "SY" and 2: migrations and their undoing, one at a time. The wake-up probe is the 1 of the same class.
pub(super) const LOCK: &str = "1399152195, 2";

const HISTORY: &str = "syncor.schema_history";

/// How long one statement may queue for a lock: whoever inserts an event meanwhile queues behind it.
const LOCK_TIMEOUT: &str = "100ms";

/// How long we try again before giving up on a lock that somebody holds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Names of the migrations applied now: `V001__ledger`.
    pub applied: Vec<String>,
    /// The version the schema is at.
    pub version: i32,
    /// The database came from another cluster, and the read position was made to fit this one.
    pub adopted: bool,
}

/// Applies the migrations that are missing. Several may start at once: one migrates, the others wait and find it done.
///
/// # Errors
/// `Schema`, saying what to do: no right to create the schema, Postgres older than 15, a schema newer than this program or
/// changed after the fact, a pooler in between, a lock that was never free. `Postgres` for the rest.
pub async fn migrate(dsn: &Dsn) -> Result<Report, Error> {
    let mut client = dsn.connect("hms-orch migrate").await?;
    if pending(&client).await?.is_empty() {
        let adopted = adopt(&client).await?;
        return Ok(Report { applied: Vec::new(), version: latest(), adopted });
    }
    if behind_pooler(dsn, &client).await? {
        return Err(Error::Schema(format!(
            "{dsn} leads through a pooler that changes sessions between transactions, where the lock of a migration is not \
             safe: migrate over the direct URL"
        )));
    }
    lock(&client).await?;
    let report = apply(&mut client).await;
    // The session ends here and with it the lock; said aloud for those who look at pg_locks.
    client.batch_execute(&format!("select pg_catalog.pg_advisory_unlock({LOCK})")).await?;
    report
}

/// After a restore into another cluster the ledger's transaction numbers mean nothing any more: makes sense of them again.
async fn adopt(client: &Client) -> Result<bool, Error> {
    // Nearly always this is all: one row that nobody locks. The function itself looks at tables that somebody may have locked.
    let here =
        "select exists (select from syncor.origin o where o.system_identifier = (select c.system_identifier::text from pg_control_system() c))";
    if client.query_one(here, &[]).await?.get(0) {
        return Ok(false);
    }
    let adopted: bool = client.query_one("select syncor.adopt()", &[]).await?.get(0);
    if adopted {
        tracing::warn!("this database was restored from another cluster: what was not handled there will be handled here");
    }
    Ok(adopted)
}

/// Whether this program can work with the schema as it is.
///
/// # Errors
/// `Schema`, saying what to do; `Postgres` when the history cannot be read.
pub async fn check(client: &Client) -> Result<(), Error> {
    let missing = pending(client).await?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Schema(if missing.len() == embedded::migrations::runner().get_migrations().len() {
        "the database has no schema syncor yet: run `hms-orch migrate`, or `hms-orch up`, which does".to_owned()
    } else {
        format!("the schema lacks {}: run `hms-orch migrate` with this version", missing.join(", "))
    }))
}

/// The version that this program works with.
#[must_use]
pub fn latest() -> i32 {
    embedded::migrations::runner().get_migrations().iter().map(refinery::Migration::version).max().unwrap_or_default()
}

/// Changes with every migration: whoever keeps a migrated copy can tell whether it is still good.
#[must_use]
pub fn fingerprint() -> String {
    let runner = embedded::migrations::runner();
    let checksums: Vec<_> = runner.get_migrations().iter().map(|migration| migration.checksum().to_string()).collect();
    checksums.join(" ")
}

/// Whether the sessions behind a connection change between transactions, as with `PgBouncer` in transaction mode: while one
/// client holds a transaction on the session that the other just used, the other is given a new one.
pub(super) async fn behind_pooler(dsn: &Dsn, client: &Client) -> Result<bool, Error> {
    const PID: &str = "select pg_catalog.pg_backend_pid()";
    let mut second = dsn.connect("hms-orch").await?;
    let before: i32 = client.query_one(PID, &[]).await?.get(0);
    let transaction = second.transaction().await?;
    let other: i32 = transaction.query_one(PID, &[]).await?.get(0);
    let after: i32 = client.query_one(PID, &[]).await?.get(0);
    transaction.rollback().await?;
    Ok(before == other || before != after)
}

/// Names of the migrations that the database lacks.
async fn pending(client: &Client) -> Result<Vec<String>, Error> {
    let version: String = client.query_one("select current_setting('server_version')", &[]).await?.get(0);
    if version.split('.').next().and_then(|major| major.trim().parse::<u32>().ok()).is_some_and(|major| major < 15) {
        return Err(Error::Schema(format!("Postgres {version} is too old: version 15 is the first that works")));
    }
    let known = embedded::migrations::runner();
    let known = known.get_migrations();
    let mut applied = Vec::new();
    if history_exists(client).await? {
        applied = client.query("select version, name, checksum from syncor.schema_history order by version", &[]).await.map_err(readable)?;
    }
    for row in &applied {
        let (version, name, checksum): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
        match known.iter().find(|migration| migration.version() == version) {
            None if version > latest() => {
                return Err(Error::Schema(format!(
                    "the schema is at version {version}, this program knows versions up to {}: use a newer hms-orch",
                    latest()
                )));
            }
            Some(migration) if migration.name() == name && migration.checksum().to_string() == checksum => {}
            _ => {
                return Err(Error::Schema(format!(
                    "migration V{version:03}__{name} was applied with another content than this program has: it was changed after \
                     a release, or the database belongs to another build"
                )));
            }
        }
    }
    let is_applied = |version: i32| applied.iter().any(|row| row.get::<_, i32>(0) == version);
    Ok(known.iter().filter(|migration| !is_applied(migration.version())).map(title).collect())
}

fn title(migration: &refinery::Migration) -> String {
    format!("V{:03}__{}", migration.version(), migration.name())
}

async fn history_exists(client: &Client) -> Result<bool, Error> {
    // Asked of the catalogue: naming the table would need the right to look into the schema.
    let row = client
        .query_one(
            "select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                             where n.nspname = 'syncor' and c.relname = 'schema_history')",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

/// Waits by asking: a session that waits inside `pg_advisory_lock` holds a snapshot, and an index built concurrently waits
/// for all of those.
async fn lock(client: &Client) -> Result<(), Error> {
    let end = Instant::now() + 10 * PATIENCE;
    loop {
        if client.query_one(&format!("select pg_catalog.pg_try_advisory_lock({LOCK})"), &[]).await?.get(0) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Error::Schema("another migration has been running for ten minutes: see pg_locks for who holds it".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn apply(client: &mut Client) -> Result<Report, Error> {
    let before = pending(client).await?;
    if before.is_empty() {
        return Ok(Report { applied: Vec::new(), version: latest(), adopted: adopt(client).await? });
    }
    create_schema(client).await?;
    // A session of our own that ends with the migration, so a setting cannot leak.
    client.batch_execute(&format!("set lock_timeout = '{LOCK_TIMEOUT}'")).await?;
    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name(HISTORY);
    let end = Instant::now() + PATIENCE;
    loop {
        match runner.run_async(client).await {
            Ok(_) => break,
            Err(error) if sqlstate(&error) == Some(SqlState::LOCK_NOT_AVAILABLE) => {
                if Instant::now() > end {
                    return Err(Error::Schema(format!(
                        "a migration needs a lock that others have held for {} s: end the longest transaction in pg_stat_activity, \
                         then migrate again",
                        PATIENCE.as_secs()
                    )));
                }
                // Long enough that the inserts that queued behind us are through.
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Err(error) => return Err(Error::Schema(explain(&error))),
        }
    }
    client
        .batch_execute(
            "comment on table syncor.schema_history is 'Migrations that were applied';
             comment on column syncor.schema_history.version is 'Number of the migration';
             comment on column syncor.schema_history.name is 'Its name';
             comment on column syncor.schema_history.applied_on is 'When it was applied';
             comment on column syncor.schema_history.checksum is 'Checksum of its text: an applied migration never changes';
             revoke all on syncor.schema_history from public",
        )
        .await?;
    Ok(Report { applied: before, version: latest(), adopted: adopt(client).await? })
}

/// `create schema if not exists` demands CREATE on the database even if there is nothing to create, so look first.
async fn create_schema(client: &Client) -> Result<(), Error> {
    let row = client
        .query_one(
            "select (select pg_catalog.has_schema_privilege(oid, 'CREATE') from pg_catalog.pg_namespace where nspname = 'syncor'),
                    pg_catalog.has_database_privilege(current_database(), 'CREATE'),
                    quote_ident(current_user), quote_ident(current_database())",
            &[],
        )
        .await?;
    let (schema, database): (Option<bool>, bool) = (row.get(0), row.get(1));
    let (role, name): (String, String) = (row.get(2), row.get(3));
    match schema {
        Some(true) => Ok(()),
        Some(false) => Err(Error::Schema(format!(
            "{role} may not create anything in the schema syncor: let its owner run `grant usage, create on schema syncor to {role}`, \
             or migrate as its owner"
        ))),
        None if database => {
            client.batch_execute("create schema syncor").await?;
            client.batch_execute("comment on schema syncor is 'HMS-SYNCOR: events, sagas and all that belongs to them'").await?;
            Ok(())
        }
        None => Err(Error::Schema(format!(
            "{role} may not create a schema in {name}: let a DBA run `create schema syncor authorization {role}`; nothing else is needed"
        ))),
    }
}

/// A role that may not read the history is a client, not us.
fn readable(error: tokio_postgres::Error) -> Error {
    if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return Error::Schema("this role may not read syncor.schema_history: connect as the role that owns the schema".to_owned());
    }
    error.into()
}

fn database_error(error: &refinery::Error) -> Option<&tokio_postgres::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

fn sqlstate(error: &refinery::Error) -> Option<SqlState> {
    database_error(error)?.code().cloned()
}

fn explain(error: &refinery::Error) -> String {
    match database_error(error) {
        Some(cause) => format!("a migration failed and was rolled back: {}", super::describe(cause)),
        None => format!("a migration failed: {error}"),
    }
}
