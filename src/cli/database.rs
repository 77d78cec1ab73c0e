//! Finding the database that a command is about.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::output;
use crate::config;
use crate::dev_postgres::{self, Cluster};
use crate::store::dsn::Dsn;
use crate::store::read::ReadStore;
use crate::store::{self, Store, migrate};

/// Database of the private Postgres.
const PRIVATE_DATABASE: &str = "hms";
/// Variables of libpq that say where a database is.
const PG_PLACES: [&str; 5] = ["PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE"];

/// The database of a command.
#[derive(Debug)]
pub(super) struct Place {
    /// Where it is.
    pub dsn: Dsn,
    /// A direct way to it.
    pub listen: Dsn,
    /// Where to read, if not there.
    read: Option<Dsn>,
    /// The private Postgres, if that is what it is.
    private: Option<Private>,
    /// The connection string, for programs of ours that parse it themselves.
    pub url: String,
}

impl Place {
    /// Finds it: the URL given, else what the PG* variables say, else the private Postgres, which is started if need be.
    pub async fn find(given: &config::Database) -> Result<Self> {
        let given_url = given.database_url.as_ref().map(|url| url.expose().to_owned());
        let (url, private) = match given_url.or_else(|| of_environment(|name| std::env::var(name).ok())) {
            Some(url) => (url, None),
            None => private().await?,
        };
        let dsn = Dsn::parse(&url)?;
        let other = |url: &Option<config::Secret>| url.as_ref().map(|url| Dsn::parse(url.expose())).transpose();
        let listen = other(&given.listen_url).context("HMS_LISTEN_URL")?.unwrap_or_else(|| dsn.clone());
        Ok(Self { listen, read: other(&given.read_url).context("HMS_READ_URL")?, private, dsn, url })
    }

    /// A line for the shell that opens `psql` there, where one is known that needs no password.
    pub fn psql(&self) -> Option<&str> {
        self.private.as_ref().map(|private| private.psql.as_str())
    }

    /// The write side, with this many connections.
    pub fn store(&self, pool_size: usize) -> Store {
        let application_name = "hms-orch".to_owned();
        Store::new(store::Options { dsn: self.dsn.clone(), pool_size, application_name })
    }

    /// The write side of a short command, on a schema that is as it should be.
    pub async fn checked_store(&self) -> Result<Store> {
        let store = self.store(2);
        migrate::check(&*store.client().await?).await?;
        Ok(store)
    }

    /// The read side.
    pub async fn read(&self, pool_size: u32) -> Result<ReadStore> {
        let dsn = self.read.as_ref().unwrap_or(&self.dsn).resolve_host().await?;
        Ok(ReadStore::connect(dsn.sqlx_options(), pool_size))
    }
}

/// What people want to know of the private Postgres.
#[derive(Debug)]
struct Private {
    folder: PathBuf,
    psql: String,
}

/// What the PG* variables say, as `key=value` pairs that both drivers understand.
fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    PG_PLACES.iter().find_map(|name| variable(name))?;
    let names = [
        ("PGHOST", "host"),
        ("PGHOSTADDR", "hostaddr"),
        ("PGPORT", "port"),
        ("PGDATABASE", "dbname"),
        ("PGUSER", "user"),
        ("PGPASSWORD", "password"),
    ];
    let quoted = |value: String| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    let pairs: Vec<String> = names.iter().filter_map(|(name, key)| Some(format!("{key}={}", quoted(variable(name)?)))).collect();
    Some(pairs.join(" "))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database {}", self.dsn)?;
        self.private.as_ref().map_or(Ok(()), |private| write!(f, ", a private Postgres in {}", private.folder.display()))
    }
}

async fn private() -> Result<(String, Option<Private>)> {
    let options = dev_postgres::Options::for_user()?;
    if !options.data_dir.exists() {
        output::talk(format_args!("no DATABASE_URL: making a private Postgres in {}", options.data_dir.display()));
    }
    let cluster = Cluster::ensure(&options).await?;
    cluster.ensure_database(PRIVATE_DATABASE).await?;
    let private = Private { folder: options.data_dir, psql: cluster.psql(PRIVATE_DATABASE) };
    Ok((cluster.url(PRIVATE_DATABASE), Some(private)))
}

/// Who orders something: the person if the shell says so, beside the database role.
pub(super) fn who(dsn: &Dsn) -> String {
    match std::env::var("USER").ok().filter(|user| !user.is_empty() && user != dsn.user()) {
        Some(user) => format!("{} ({user})", dsn.user()),
        None => dsn.user().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libpq_variables_become_pairs() {
        let set = |name: &str| {
            [("PGHOST", "db"), ("PGUSER", "me"), ("PGPASSWORD", "it's")].iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(of_environment(set).as_deref(), Some(r"host='db' user='me' password='it\'s'"));
        assert_eq!(of_environment(|name| (name == "PGUSER").then(|| "me".to_owned())), None, "a user alone is no place");
    }
}
