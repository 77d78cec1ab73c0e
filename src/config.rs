//! Settings: one struct per concern, each field a flag and an environment variable, flattened into the commands that need it.
//!
//! Invariant: what is secret prints as `..`, in `Debug` and in `--help`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Where the database is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Database")]
pub struct Database {
    /// Postgres URL or libpq `key=value` pairs; several hosts are allowed. Else the PG* variables, else a private Postgres
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, value_name = "URL")]
    pub database_url: Option<Secret>,
    /// Direct URL for LISTEN and migrations, where the other one leads through a pooler
    #[arg(long, env = "HMS_LISTEN_URL", hide_env_values = true, global = true, value_name = "URL")]
    pub listen_url: Option<Secret>,
    /// URL of a replica for lists and pages
    #[arg(long, env = "HMS_READ_URL", hide_env_values = true, global = true, value_name = "URL")]
    pub read_url: Option<Secret>,
}

/// Where the server is, for commands that can do without the database.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Server")]
pub struct Client {
    /// Address of a server: then HTTP is used and no database
    #[arg(long, env = "HMS_URL", value_name = "URL")]
    pub url: Option<String>,
    /// API key for that server
    #[arg(long, env = "HMS_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<Secret>,
}

/// How results and logs are printed.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Log filter such as `info` or `syncor=debug`; `RUST_LOG` serves where this is unset
    #[arg(long, env = "HMS_LOG", global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// Format of the log on stderr
    #[arg(long, env = "HMS_LOG_FORMAT", global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line, for machines.
    Json,
}

/// How a worker and its server run.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Worker")]
pub struct Worker {
    /// Address of the HTTP interface
    #[arg(long, env = "HMS_LISTEN", default_value = DEFAULT_LISTEN, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// What this process does
    #[arg(long, env = "HMS_ROLE", value_enum, default_value_t = Role::All)]
    pub role: Role,
    /// Step calls in flight at most
    #[arg(long, env = "HMS_CONCURRENCY", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    /// How long a stop waits for calls in flight, milliseconds
    #[arg(long, env = "HMS_DRAIN_LIMIT_MS", default_value_t = 20_000, value_name = "MS")]
    pub drain_limit_ms: u64,
    /// How long a worker may be silent before others take over, milliseconds
    #[arg(long, env = "HMS_LEASE_MS", default_value_t = 3000, value_name = "MS", value_parser = clap::value_parser!(u64).range(200..=600_000))]
    pub lease_ms: u64,
    /// How often to look without being woken, milliseconds
    #[arg(long, env = "HMS_POLL_MS", default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub poll_ms: u64,
    /// How sleeping workers are woken
    #[arg(long, env = "HMS_WAKE", value_enum, default_value_t = Wake::Notify)]
    pub wake: Wake,
    /// Signature of step tokens: `EdDSA`, or `ES256` for FIPS
    #[arg(long, env = "HMS_JWT_ALG", value_enum, default_value_t = JwtAlgorithm::EdDsa)]
    pub jwt_alg: JwtAlgorithm,
    /// Functions of `sql` steps that run at a time, each on a connection of its own
    #[arg(long, env = "HMS_SQL_CONNECTIONS", default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub sql_connections: u32,
    /// Database role whose rights these functions are called with; else the worker's own
    #[arg(long, env = "HMS_SQL_ROLE", value_name = "ROLE")]
    pub sql_role: Option<String>,
    /// Private signing key; made if missing, in the user's data folder unless said
    #[arg(long, env = "HMS_SIGNING_KEY_FILE", value_name = "FILE")]
    pub signing_key_file: Option<PathBuf>,
    /// Address that services and people reach this server by
    #[arg(long, env = "HMS_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<url::Url>,
    /// File with an API key of an administrator, at least 32 characters
    #[arg(long, env = "HMS_BOOTSTRAP_KEY_FILE", value_name = "FILE")]
    pub bootstrap_key_file: Option<PathBuf>,
}

/// Where the server listens unless said.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7600";

impl Worker {
    /// The time a worker may be silent.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// The time between two looks.
    #[must_use]
    pub fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }

    /// The time a stop may take.
    #[must_use]
    pub fn drain_limit(&self) -> Duration {
        Duration::from_millis(self.drain_limit_ms)
    }
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Engine and HTTP.
    All,
    /// HTTP only.
    Api,
    /// Engine only.
    Worker,
}

impl Role {
    /// Whether sagas are run here.
    #[must_use]
    pub fn works(self) -> bool {
        self != Self::Api
    }

    /// Whether HTTP is served here.
    #[must_use]
    pub fn serves(self) -> bool {
        self != Self::Worker
    }
}

/// How sleeping workers are woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wake {
    /// By NOTIFY; polling stays the guarantee.
    Notify,
    /// By polling alone.
    Poll,
}

/// Signature of step tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum JwtAlgorithm {
    /// Ed25519.
    #[value(name = "EdDSA", alias = "eddsa")]
    EdDsa,
    /// ECDSA on P-256.
    #[value(name = "ES256", alias = "es256")]
    Es256,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows() {
        let database = Database { database_url: Some("postgres://me:pa55@db/x".parse().expect("any text")), ..Database::default() };
        let shown = format!("{database:?}");
        assert!(!shown.contains("pa55") && shown.contains(".."), "{shown}");
    }
}
