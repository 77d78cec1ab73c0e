//! Sessions on the cluster, as its superuser.

use std::{error::Error as _, time::Duration};

use tokio_postgres::{Client, Config, NoTls, error::SqlState};

use super::{Error, SUPERUSER};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no session.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The server says that this is not the password. It will say so again.
    Password,
    /// Anything else. While the server starts or recovers (57P03) this passes.
    NotYet(String),
}

/// Connects, or says within five seconds why not.
pub(super) async fn connect(port: u16, password: &str, database: &str) -> Result<Client, Refusal> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(SUPERUSER).password(password).dbname(database).application_name("hms dev_postgres");
    // Around the whole of it: the driver's own timeout ends with the TCP handshake.
    match tokio::time::timeout(CONNECT_TIMEOUT, config.connect(NoTls)).await {
        Err(_) => Err(Refusal::NotYet("it does not answer".to_owned())),
        Ok(Err(error)) if error.code() == Some(&SqlState::INVALID_PASSWORD) => Err(Refusal::Password),
        Ok(Err(error)) => Err(Refusal::NotYet(describe(&error))),
        Ok(Ok((client, connection))) => {
            // Ends by itself when the client is dropped.
            tokio::spawn(connection);
            Ok(client)
        }
    }
}

/// Makes a database unless it is there.
pub(super) async fn create_database(client: &Client, name: &str) -> Result<(), Error> {
    let failed = |error: tokio_postgres::Error| Error::Database { context: format!("create database {name}"), reason: describe(&error) };
    // Looked for first only to keep an error out of the log each time; the race is settled below.
    let found = client.query_opt("select from pg_database where datname = $1", &[&name]).await;
    if found.map_err(failed)?.is_some() {
        return Ok(());
    }
    // From template0, since a stranger's session on template1 would block a copy of that.
    let sql = format!("create database \"{}\" template template0", name.replace('"', "\"\""));
    match client.batch_execute(&sql).await {
        Ok(()) => Ok(()),
        // Two at once: the loser sees the name taken, either by its check or by the unique index.
        Err(error) if [Some(&SqlState::DUPLICATE_DATABASE), Some(&SqlState::UNIQUE_VIOLATION)].contains(&error.code()) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The driver's message with what lies under it; alone it says little more than "db error".
fn describe(error: &tokio_postgres::Error) -> String {
    error.source().map_or_else(
        || error.to_string(),
        |cause| match error.as_db_error() {
            Some(answer) => format!("{} ({})", answer.message(), answer.code().code()),
            None => format!("{error}: {cause}"),
        },
    )
}

/// A database name as part of a URL.
pub(super) fn percent_encode(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_names_are_escaped_for_a_url() {
        assert_eq!(percent_encode("hms_2-a"), "hms_2-a");
        assert_eq!(percent_encode("a/b?ü"), "a%2Fb%3F%C3%BC");
    }
}
