//! Looks a database over: can we live in it, does it keep what it promises, does it wake us.
//!
//! Changes nothing, needs no rights beyond connecting, and goes on after a check that fails.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use tokio_postgres::{AsyncMessage, Client};

use super::dsn::Dsn;
use super::{Error, migrate};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but slower or less safe than it could.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `version`.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

fn ok(name: &'static str, detail: impl Into<String>) -> Finding {
    Finding { name, level: Level::Ok, detail: detail.into(), remedy: None }
}

fn warn(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { name, level: Level::Warn, detail: detail.into(), remedy: Some(remedy.into()) }
}

fn fail(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { name, level: Level::Fail, detail: detail.into(), remedy: Some(remedy.into()) }
}

/// Looks at everything. `listen` is the direct URL where `dsn` leads through a pooler.
pub async fn examine(dsn: &Dsn, listen: Option<&Dsn>) -> Vec<Finding> {
    let client = match dsn.connect("hms-orch doctor").await {
        Ok(client) => client,
        Err(error) => return vec![fail("connection", format!("{dsn}: {error}"), "check host, port, role, password, TLS and pg_hba.conf")],
    };
    let mut findings = vec![ok("connection", dsn.display())];
    let mut note = |name, finding: Result<Finding, Error>| {
        findings.push(finding.unwrap_or_else(|error| warn(name, format!("could not be looked at: {error}"), "see the Postgres log")));
    };
    note("version", version(&client).await);
    note("flavour", flavour(&client).await);
    note("primary", primary(&client).await);
    note("schema", schema(&client).await);
    note("privileges", privileges(&client).await);
    note("durability", durability(&client).await);
    note("pooler", pooler(dsn, &client, listen.is_some()).await);
    note("listen", listens(&client, listen.unwrap_or(dsn)).await);
    note("prepared transactions", prepared_transactions(&client).await);
    note("connections", connections(&client).await);
    note("notification queue", notification_queue(&client).await);
    note("oldest transaction", oldest_transaction(&client).await);
    note("clock", clock(&client).await);
    findings
}

async fn version(client: &Client) -> Result<Finding, Error> {
    let row = client.query_one("select current_setting('server_version'), current_setting('server_version_num')::int / 10000", &[]).await?;
    let (text, major): (String, i32) = (row.get(0), row.get(1));
    Ok(match major {
        15..=18 => ok("version", format!("Postgres {text}")),
        ..15 => fail("version", format!("Postgres {text} is too old"), "use Postgres 15 to 18"),
        _ => warn("version", format!("Postgres {text} is newer than what was tested"), "use Postgres 15 to 18"),
    })
}

async fn flavour(client: &Client) -> Result<Finding, Error> {
    let row = client.query_one("select version(), exists (select from pg_catalog.pg_extension where extname = 'citus')", &[]).await?;
    let version = row.get::<_, String>(0).to_lowercase();
    Ok(if version.contains("cockroach") {
        fail("flavour", "CockroachDB", "it has no snapshots to read the ledger by: use Postgres")
    } else if version.contains("yugabyte") || version.contains("-yb-") {
        fail("flavour", "YugabyteDB", "its snapshots cannot be compared: use Postgres")
    } else if version.contains("redshift") || version.contains("greenplum") {
        fail("flavour", "a warehouse, not Postgres", "use Postgres")
    } else if row.get(1) {
        ok("flavour", "Citus: the tables of the schema stay on the coordinator")
    } else {
        ok("flavour", "Postgres")
    })
}

async fn primary(client: &Client) -> Result<Finding, Error> {
    let row = client.query_one("select pg_catalog.pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'", &[]).await?;
    Ok(match (row.get(0), row.get(1)) {
        (true, _) => fail("primary", "this is a standby", "name the primary, or all hosts with target_session_attrs=read-write"),
        (false, true) => fail("primary", "transactions are read-only here", "see default_transaction_read_only of the role and the database"),
        (false, false) => ok("primary", "can be written to"),
    })
}

async fn schema(client: &Client) -> Result<Finding, Error> {
    match migrate::check(client).await {
        Ok(()) => Ok(ok("schema", format!("at version {}", migrate::latest()))),
        Err(Error::Schema(text)) if text.contains("hms-orch migrate") => Ok(warn("schema", text, "hms-orch migrate")),
        Err(Error::Schema(text)) => Ok(fail("schema", text, "use the version of hms-orch that belongs to the schema")),
        Err(error) => Err(error),
    }
}

async fn privileges(client: &Client) -> Result<Finding, Error> {
    let row = client
        .query_one(
            "select quote_ident(current_user), quote_ident(current_database()),
                    pg_catalog.has_database_privilege(current_database(), 'CREATE'),
                    (select pg_catalog.has_schema_privilege(oid, 'CREATE, USAGE') from pg_catalog.pg_namespace where nspname = 'syncor'),
                    (select pg_catalog.pg_has_role(c.relowner, 'USAGE') from pg_catalog.pg_class c
                       join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'syncor' and c.relname = 'events')",
            &[],
        )
        .await?;
    let (role, database): (String, String) = (row.get(0), row.get(1));
    let (database_create, schema_create, owner): (bool, Option<bool>, Option<bool>) = (row.get(2), row.get(3), row.get(4));
    Ok(match (database_create, schema_create, owner) {
        (_, _, Some(true)) => ok("privileges", format!("{role} owns the tables")),
        (_, _, Some(false)) => fail("privileges", format!("{role} does not own the tables of syncor"), "connect as the role that migrated"),
        (_, Some(true), None) => ok("privileges", format!("{role} may create tables in syncor")),
        (true, None, None) => ok("privileges", format!("{role} may create the schema")),
        (_, Some(false), None) => {
            fail("privileges", format!("{role} may not create tables in syncor"), format!("grant usage, create on schema syncor to {role}"))
        }
        (false, None, None) => {
            fail("privileges", format!("{role} may not create a schema in {database}"), format!("create schema syncor authorization {role}"))
        }
    })
}

async fn durability(client: &Client) -> Result<Finding, Error> {
    let row = client
        .query_one(
            "select current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
                    current_setting('synchronous_standby_names')",
            &[],
        )
        .await?;
    let off = |index: usize| row.get::<_, &str>(index) == "off";
    let standbys: &str = row.get(3);
    Ok(if off(0) {
        fail("durability", "fsync is off: a crash of the machine can destroy the database", "set fsync = on")
    } else if off(1) {
        fail("durability", "full_page_writes is off: a crash can tear pages", "set full_page_writes = on")
    } else if off(2) {
        warn("durability", "synchronous_commit is off: a crash can forget the last events", "set synchronous_commit = on for this role")
    } else if row.get::<_, &str>(2) == "local" && !standbys.is_empty() {
        warn("durability", "synchronous_commit is local: a failover can forget the last events", "set synchronous_commit = on for this role")
    } else {
        ok("durability", format!("commits are flushed{}", if standbys.is_empty() { "" } else { " here and on a standby" }))
    })
}

async fn pooler(dsn: &Dsn, client: &Client, has_direct: bool) -> Result<Finding, Error> {
    // A statement kept by its name is what a pooler without support for them loses between transactions.
    let statement = client.prepare("select pg_catalog.pg_backend_pid()").await?;
    let pooled = migrate::behind_pooler(dsn, client).await?;
    let prepared = client.query_one(&statement, &[]).await;
    Ok(match (pooled, prepared) {
        (_, Err(error)) => fail(
            "pooler",
            format!("prepared statements are lost: {}", super::describe(&error)),
            "use PgBouncer 1.21 or later with max_prepared_statements above 0, or the direct URL",
        ),
        (true, Ok(_)) if has_direct => ok("pooler", "a pooler in transaction mode; HMS_LISTEN_URL goes around it"),
        (true, Ok(_)) => warn("pooler", "a pooler in transaction mode: it delivers no notifications", "give the direct URL as HMS_LISTEN_URL"),
        (false, Ok(_)) => ok("pooler", "none, or one that keeps sessions"),
    })
}

/// Listens on one connection, notifies from the other and waits a second.
async fn listens(notifier: &Client, listen: &Dsn) -> Result<Finding, Error> {
    let (listener, mut connection) = listen.pg_config().application_name("hms-orch doctor").connect(listen.tls()).await?;
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = heard.send(notification.payload().to_owned());
            }
        }
    });
    if let Err(error) = listener.batch_execute("listen syncor_doctor").await {
        return Ok(warn("listen", super::describe(&error), "give a URL of the primary as HMS_LISTEN_URL; until then workers poll"));
    }
    let nonce: String = notifier.query_one("select pg_catalog.gen_random_uuid()::text", &[]).await?.get(0);
    notifier.execute("select pg_catalog.pg_notify('syncor_doctor', $1)", &[&nonce]).await?;
    let arrived = tokio::time::timeout(Duration::from_secs(1), async {
        while let Some(payload) = hears.recv().await {
            if payload == nonce {
                return true;
            }
        }
        false
    });
    let arrived = arrived.await.unwrap_or(false);
    // A pooler would hand the listening session to the next client.
    listener.batch_execute("unlisten syncor_doctor").await?;
    Ok(if arrived {
        ok("listen", "notifications arrive")
    } else {
        warn("listen", "LISTEN is accepted, but notifications do not arrive: workers poll", "give the direct URL as HMS_LISTEN_URL")
    })
}

async fn prepared_transactions(client: &Client) -> Result<Finding, Error> {
    let count: i32 = client.query_one("select current_setting('max_prepared_transactions')::int", &[]).await?.get(0);
    Ok(if count == 0 {
        ok("prepared transactions", "not enabled")
    } else {
        warn(
            "prepared transactions",
            format!("max_prepared_transactions is {count}: inserts do not notify, because PREPARE TRANSACTION would refuse them; workers poll"),
            "set max_prepared_transactions = 0 if nothing uses two-phase commit, or lower HMS_POLL_MS",
        )
    })
}

async fn connections(client: &Client) -> Result<Finding, Error> {
    let row = client
        .query_one(
            "select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                    - coalesce(current_setting('reserved_connections', true)::int, 0),
                    (select coalesce(sum(numbackends), 0)::int from pg_catalog.pg_stat_database),
                    (select rolconnlimit from pg_catalog.pg_roles where rolname = current_user)",
            &[],
        )
        .await?;
    let (all, used, limit): (i32, i32, i32) = (row.get(0), row.get(1), row.get(2));
    let free = (all - used).max(0);
    let detail = format!("{free} of {all} are free{}", if limit >= 0 { format!("; the role may have {limit}") } else { String::new() });
    Ok(if free < 20 || (0..20).contains(&limit) {
        warn("connections", detail, "raise max_connections or the role's limit, or put a pooler in between: a process needs about 20")
    } else {
        ok("connections", detail)
    })
}

async fn notification_queue(client: &Client) -> Result<Finding, Error> {
    let usage: f64 = client.query_one("select pg_catalog.pg_notification_queue_usage()", &[]).await?.get(0);
    let detail = format!("{:.0} % full", usage * 100.0);
    Ok(if usage < 0.25 {
        ok("notification queue", detail)
    } else {
        warn("notification queue", detail, "a session listens inside a long transaction: end it; above half, workers poll")
    })
}

async fn oldest_transaction(client: &Client) -> Result<Finding, Error> {
    let row = client
        .query_one(
            "select coalesce(extract(epoch from max(now() - xact_start)), 0)::float8,
                    coalesce(max(pg_catalog.age(backend_xmin)), 0),
                    (select pid from pg_catalog.pg_stat_activity where xact_start is not null order by xact_start limit 1)
               from pg_catalog.pg_stat_activity where backend_type = 'client backend' and pid <> pg_catalog.pg_backend_pid()",
            &[],
        )
        .await?;
    let (seconds, age, pid): (f64, i32, Option<i32>) = (row.get(0), row.get(1), row.get(2));
    let detail = format!("{seconds:.0} s, holding back {age} transactions");
    Ok(if seconds < 300.0 {
        ok("oldest transaction", detail)
    } else {
        let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        warn("oldest transaction", detail, format!("end it{pid}: while it runs, dead rows of all tables pile up"))
    })
}

async fn clock(client: &Client) -> Result<Finding, Error> {
    let before = SystemTime::now();
    let row = client.query_one("select extract(epoch from pg_catalog.clock_timestamp())::float8", &[]).await?;
    let after = SystemTime::now();
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    // The database looked at its clock somewhere in between: that much we cannot know.
    let (low, high, database) = (seconds(before), seconds(after), row.get::<_, f64>(0));
    let offset = if database < low { database - low } else { (database - high).max(0.0) };
    let detail = format!("the database is {:.0} ms {}", offset.abs() * 1000.0, if offset < 0.0 { "behind" } else { "ahead" });
    Ok(if offset.abs() < 5.0 {
        ok("clock", detail)
    } else {
        warn("clock", detail, "synchronize both clocks: sagas go by the database's, step tokens by this machine's")
    })
}
