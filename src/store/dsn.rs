//! Where the database is: one connection string for both drivers.
//!
//! Understands what libpq understands (URL, `key=value`, `PG*` variables, `.pgpass`, `sslmode` with its files, several hosts)
//! and hands the same place to tokio-postgres and to sqlx. Invariant: a password is never printed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio_postgres::config;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Error;

mod host;
mod parameters;
mod tls;

use host::Host;
use parameters::Parameters;
use tls::{Roots, Ssl, SslMode};

/// A place of a database, with all that is needed to connect to it.
#[derive(Clone)]
pub struct Dsn {
    hosts: Vec<Host>,
    user: String,
    password: Option<String>,
    database: String,
    target: Target,
    ssl: Ssl,
    tls: MakeRustlsConnect,
    parameters: Parameters,
}

/// Why a connection string cannot be used. Its text never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DsnError {
    /// It cannot be read.
    #[error("the database URL cannot be read: {0}")]
    Malformed(String),
    /// It names a parameter that we do not have.
    #[error("the database URL asks for {0}, which is not supported")]
    Unsupported(String),
    /// A parameter has a value that it cannot have.
    #[error("the database URL says {name}={value}; it must be {expected}")]
    Invalid {
        /// The parameter.
        name: &'static str,
        /// What it was given.
        value: String,
        /// What it could be.
        expected: &'static str,
    },
    /// A certificate or key cannot be used.
    #[error("{0}")]
    Certificate(String),
}

impl DsnError {
    fn invalid(name: &'static str, value: &str, expected: &'static str) -> Self {
        Self::Invalid { name, value: value.to_owned(), expected }
    }
}

/// `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Any,
    ReadWrite,
    ReadOnly,
    PreferReadOnly,
}

impl Dsn {
    /// Reads a `postgres://` URL or libpq's `key=value` pairs; what is missing comes from the `PG*` variables and libpq's
    /// defaults. Certificates are read here, so that a wrong path is known at once.
    ///
    /// With several hosts and no `target_session_attrs`, the one that can be written to is meant: nothing is decided on a
    /// replica. `prefer-standby` holds for [`Dsn::resolve_host`]; the driver itself takes any host then.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported`, `Invalid` or `Certificate`, each saying what is wrong without the password.
    pub fn parse(url: &str) -> Result<Self, DsnError> {
        Self::parse_with(url, &|name| std::env::var(name).ok())
    }

    fn parse_with(url: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, DsnError> {
        let parameters = parameters::read(url, env)?;
        let given = |name: &str| parameters.get(name).cloned();
        let home = env("HOME").map(PathBuf::from);
        let hosts = host::hosts(&parameters)?;
        let user = given("user").or_else(|| env("USER")).or_else(|| env("LOGNAME")).unwrap_or_else(|| "postgres".to_owned());
        let database = given("dbname").unwrap_or_else(|| user.clone());
        let password = given("password").or_else(|| {
            let file = given("passfile").map(PathBuf::from).or_else(|| home.as_ref().map(|home| home.join(".pgpass")))?;
            let text = std::fs::read_to_string(file).ok()?;
            hosts.iter().find_map(|host| {
                // A socket in its usual place goes by the name localhost.
                let name = if host.name.starts_with('/') { "localhost" } else { &host.name };
                parameters::password_from(&text, [name, &host.port.to_string(), &database, &user])
            })
        });
        let target = match parameters.get("target_session_attrs").map(String::as_str) {
            None if hosts.len() > 1 => Target::ReadWrite,
            None | Some("any") => Target::Any,
            Some("read-write" | "primary") => Target::ReadWrite,
            Some("read-only" | "standby") => Target::ReadOnly,
            Some("prefer-standby") => Target::PreferReadOnly,
            Some(other) => {
                return Err(DsnError::invalid("target_session_attrs", other, "any, read-write, read-only, primary, standby or prefer-standby"));
            }
        };
        let mut ssl = Ssl::new(&parameters, home.as_deref())?;
        if hosts.iter().all(|host| host.name.starts_with('/')) {
            // There is no TLS on Unix sockets, whatever the mode.
            ssl.mode = SslMode::Disable;
        }
        let tls = MakeRustlsConnect::new(ssl.config()?);
        let dsn = Self { hosts, user, password, database, target, ssl, tls, parameters };
        dsn.check_numbers()?;
        Ok(dsn)
    }

    /// How tokio-postgres connects: keepalives find a dead peer within 10 s, as does unacknowledged data.
    #[must_use]
    pub fn pg_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        for host in &self.hosts {
            config.host(&host.name).port(host.port);
            if let Some(addr) = host.addr {
                config.hostaddr(addr);
            }
        }
        config.user(&self.user).dbname(&self.database);
        if let Some(password) = &self.password {
            config.password(password);
        }
        if let Some(name) = self.parameters.get("application_name") {
            config.application_name(name);
        }
        if let Some(options) = self.parameters.get("options") {
            config.options(options);
        }
        config.ssl_mode(match self.ssl.mode {
            SslMode::Disable => config::SslMode::Disable,
            SslMode::Allow | SslMode::Prefer => config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => config::SslMode::Require,
        });
        if self.parameters.get("sslnegotiation").is_some_and(|text| text == "direct") {
            config.ssl_negotiation(config::SslNegotiation::Direct);
        }
        match self.parameters.get("channel_binding").map(String::as_str) {
            Some("require") => config.channel_binding(config::ChannelBinding::Require),
            Some("disable") => config.channel_binding(config::ChannelBinding::Disable),
            _ => &mut config,
        };
        if self.parameters.get("load_balance_hosts").is_some_and(|text| text == "random") {
            config.load_balance_hosts(config::LoadBalanceHosts::Random);
        }
        config.target_session_attrs(match self.target {
            Target::Any | Target::PreferReadOnly => config::TargetSessionAttrs::Any,
            Target::ReadWrite => config::TargetSessionAttrs::ReadWrite,
            Target::ReadOnly => config::TargetSessionAttrs::ReadOnly,
        });
        self.set_timeouts(&mut config);
        config
    }

    fn set_timeouts(&self, config: &mut tokio_postgres::Config) {
        let seconds = |name: &str, default: u64| Duration::from_secs(self.number(name).unwrap_or(default));
        // Zero means for ever in libpq, the system's default for keepalives.
        if self.number("connect_timeout") != Some(0) {
            config.connect_timeout(seconds("connect_timeout", 5));
        }
        config.keepalives(self.number("keepalives") != Some(0));
        config.keepalives_idle(seconds("keepalives_idle", 5)).keepalives_interval(seconds("keepalives_interval", 2));
        config.keepalives_retries(self.number("keepalives_count").and_then(|count| u32::try_from(count).ok()).unwrap_or(2));
        if self.number("tcp_user_timeout") != Some(0) {
            config.tcp_user_timeout(Duration::from_millis(self.number("tcp_user_timeout").unwrap_or(10_000)));
        }
    }

    /// What tokio-postgres encrypts with.
    #[must_use]
    pub fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// How sqlx connects: to the first host, so resolve it first where there are several.
    ///
    /// sqlx adds the public roots that it brings along to those given here.
    #[must_use]
    pub fn sqlx_options(&self) -> PgConnectOptions {
        let mut options = PgConnectOptions::new_without_pgpass().username(&self.user).database(&self.database);
        if let Some(host) = self.hosts.first() {
            // sqlx checks the certificate against the name that it connects to, so the name is given where it counts.
            let name = match host.addr {
                Some(addr) if self.ssl.verifies() != Some(SslMode::VerifyFull) => addr.to_string(),
                _ => host.name.clone(),
            };
            options = options.host(&name).port(host.port);
            if host.name.starts_with('/') {
                options = options.socket(&host.name);
            }
        }
        if let Some(password) = &self.password {
            options = options.password(password);
        }
        if let Some(name) = self.parameters.get("application_name") {
            options = options.application_name(name);
        }
        if let Some(text) = self.parameters.get("options") {
            options = options.options(parameters::settings(text));
        }
        options = options.ssl_mode(match (self.ssl.mode, self.ssl.verifies()) {
            (_, Some(SslMode::VerifyFull)) => PgSslMode::VerifyFull,
            // Verified means TLS to sqlx: with roots at hand, `prefer` insists on it there.
            (_, Some(_)) => PgSslMode::VerifyCa,
            (SslMode::Disable, None) => PgSslMode::Disable,
            (SslMode::Allow | SslMode::Prefer, None) => PgSslMode::Prefer,
            (_, None) => PgSslMode::Require,
        });
        options = match &self.ssl.roots {
            Roots::None => options,
            Roots::File(file) => options.ssl_root_cert(file),
            Roots::System => options.ssl_root_cert_from_pem(self.system_roots()),
        };
        match &self.ssl.identity {
            Some((cert, key)) => options.ssl_client_cert(cert).ssl_client_key(key),
            None => options,
        }
    }

    /// sqlx knows only the roots it was compiled with: hand it those of the machine.
    fn system_roots(&self) -> Vec<u8> {
        let mut pem = String::new();
        // They were readable when the connection string was parsed.
        for certificate in self.ssl.certificates().unwrap_or_default() {
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            let text = base64::engine::general_purpose::STANDARD.encode(&certificate);
            for line in text.as_bytes().chunks(64) {
                pem.push_str(&String::from_utf8_lossy(line));
                pem.push('\n');
            }
            pem.push_str("-----END CERTIFICATE-----\n");
        }
        pem.into_bytes()
    }

    /// The same place with one host: the first that is what `target_session_attrs` asks for. A single host is not asked.
    ///
    /// # Errors
    /// `Unavailable`, saying what each host answered.
    pub async fn resolve_host(&self) -> Result<Self, Error> {
        if self.hosts.len() == 1 {
            return Ok(self.clone());
        }
        let mut answers = Vec::new();
        let mut fallback = None;
        for host in &self.hosts {
            let alone = Self { hosts: vec![host.clone()], target: Target::Any, ..self.clone() };
            match alone.is_read_only().await {
                Ok(read_only) => match (self.target, read_only) {
                    (Target::Any, _) | (Target::ReadWrite, false) | (Target::ReadOnly | Target::PreferReadOnly, true) => return Ok(alone),
                    (Target::PreferReadOnly, false) => fallback = fallback.or(Some(alone)),
                    (Target::ReadWrite, true) => answers.push(format!("{}:{} is read-only", host.name, host.port)),
                    (Target::ReadOnly, false) => answers.push(format!("{}:{} is not read-only", host.name, host.port)),
                },
                Err(error) => answers.push(format!("{}:{}: {error}", host.name, host.port)),
            }
        }
        fallback.ok_or_else(|| Error::Unavailable(answers.join("; ")))
    }

    async fn is_read_only(&self) -> Result<bool, Error> {
        let client = self.connect("hms-orch").await?;
        let row = client.query_one("select current_setting('transaction_read_only') = 'on'", &[]).await?;
        Ok(row.get(0))
    }

    /// A connection of one's own, outside any pool; it ends with the client.
    ///
    /// # Errors
    /// `Postgres` when it cannot be had.
    pub async fn connect(&self, application_name: &str) -> Result<tokio_postgres::Client, Error> {
        let mut config = self.pg_config();
        config.application_name(application_name);
        let (client, connection) = config.connect(self.tls()).await?;
        // Its errors reach whoever waits on the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// The place as people may see it: without the password.
    #[must_use]
    pub fn display(&self) -> String {
        let hosts: Vec<_> = self
            .hosts
            .iter()
            .map(|host| {
                let name = if host.name.contains(':') { format!("[{}]", host.name) } else { host.name.replace('/', "%2F") };
                format!("{name}:{}", host.port)
            })
            .collect();
        format!("postgres://{}@{}/{}", self.user, hosts.join(","), self.database)
    }

    /// Name of the database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The role that connects.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    fn number(&self, name: &str) -> Option<u64> {
        // Negative means the default in libpq.
        self.parameters.get(name).and_then(|text| text.parse().ok())
    }

    fn check_numbers(&self) -> Result<(), DsnError> {
        for name in ["connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"] {
            if let Some(text) = self.parameters.get(name)
                && i64::from_str(text).is_err()
            {
                return Err(DsnError::invalid(name, text, "a whole number"));
            }
        }
        for (name, allowed, expected) in [
            ("sslnegotiation", ["postgres", "direct", ""], "postgres or direct"),
            ("channel_binding", ["disable", "prefer", "require"], "disable, prefer or require"),
            ("load_balance_hosts", ["disable", "random", ""], "disable or random"),
        ] {
            if let Some(text) = self.parameters.get(name)
                && !allowed.contains(&text.as_str())
            {
                return Err(DsnError::invalid(name, text, expected));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dsn").field(&self.display()).finish()
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

impl FromStr for Dsn {
    type Err = DsnError;

    fn from_str(text: &str) -> Result<Self, DsnError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
