//! Functions of the database that steps call: each in a transaction of its own, which its outcome joins before it commits.
//!
//! So a function is done exactly once: what it did and the row that says so become durable together, or not at all. A
//! transaction that is open while a function runs must not be in anybody's way: these have connections of their own, a time
//! limit by the server, and no row of ours is locked before the function has returned.
//!
//! A session that is dropped ends its connection, and with it the transaction: nothing is ever left open.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::commit::{SagaWrite, Written, landed, write_within};
use super::dsn::Dsn;
use super::{Client, Error, Options, Store};
use crate::core::call::REPLY_BYTES_MAX;
use crate::core::failure::TIMED_OUT;

/// How long a session may stand between the return of its function and the writing of its outcome.
const IDLE_LIMIT: &str = "30s";
/// What is added to the server's time limit before we stop listening to it.
const ANSWER_SLACK: Duration = Duration::from_secs(5);
/// How long the database may think about the outcome before it is a lost cause.
const WRITE_LIMIT: &str = "30s";
/// Between two looks whether a backend of unknown fate is gone.
const FATE_PAUSE: Duration = Duration::from_millis(100);

/// Where functions are called: a few connections of their own.
#[derive(Clone, Debug)]
pub struct Functions {
    store: Store,
    role: Option<String>,
    slots: Arc<Semaphore>,
}

/// Why a function was not done. Its transaction is lost and everything in it undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionError {
    /// One line, with the SQLSTATE where Postgres raised it.
    pub message: String,
    /// The SQLSTATE.
    pub sqlstate: Option<String>,
    /// Whether another attempt may do better without anybody changing anything.
    pub retryable: bool,
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl FunctionError {
    fn plain(message: String) -> Self {
        Self { message, sqlstate: None, retryable: false }
    }

    /// The message without its detail, hint and context, which may hold rows.
    fn of(error: &tokio_postgres::Error, limit: Duration, took: Duration) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self { message: "the connection to the database was lost".to_owned(), sqlstate: None, retryable: true };
        };
        let sqlstate = db.code().code();
        if *db.code() == SqlState::QUERY_CANCELED && took >= limit {
            let message = format!("{TIMED_OUT}: the function did not return within {} ms", limit.as_millis());
            return Self { message, sqlstate: Some(sqlstate.to_owned()), retryable: true };
        }
        let line = db.message().lines().next().unwrap_or_default();
        Self {
            message: format!("{line} ({sqlstate})"),
            sqlstate: Some(sqlstate.to_owned()),
            retryable: ["40", "53", "55", "57"].contains(&&sqlstate[..2]),
        }
    }
}

impl Functions {
    /// Room for so many functions at a time, called with the rights of `role` if one is given.
    #[must_use]
    pub fn new(dsn: Dsn, connections: usize, role: Option<String>) -> Self {
        let store = Store::new(Options { dsn, pool_size: connections, application_name: "hms-sql".to_owned() });
        Self { store, role, slots: Arc::new(Semaphore::new(connections)) }
    }

    /// Begins a transaction, once there is a connection for it.
    ///
    /// # Errors
    /// When the database cannot be reached. Nothing has happened then.
    pub async fn begin(&self, limit: Duration) -> Result<FunctionSession, Error> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.slots).acquire_owned().await.map_err(|error| Error::Unavailable(error.to_string()))?;
        let client = self.store.client().await?;
        // Made before the transaction begins: dropping it while it does so ends the connection.
        let mut session = FunctionSession { client: Some(client), backend: (0, String::new()), limit, role: self.role.clone(), _permit: permit };
        let limit_ms = limit.as_millis().clamp(1, 2_147_483_647);
        let client = session.client()?;
        client
            .batch_execute(&format!(
                "begin isolation level read committed; set local statement_timeout = {limit_ms}; set local lock_timeout = {limit_ms}; \
                 set local idle_in_transaction_session_timeout = '{IDLE_LIMIT}'"
            ))
            .await?;
        let row = client.query_typed("select pid, backend_start::text from pg_stat_get_activity(pg_backend_pid())", &[]).await?;
        let row = row.first().ok_or_else(|| Error::Unreadable("a session without a backend".to_owned()))?;
        session.backend = (row.get(0), row.get(1));
        Ok(session)
    }
}

/// An open transaction in which a function is called and its outcome written.
pub struct FunctionSession {
    client: Option<Client>,
    /// Process id and start of its backend, to be recognised by.
    backend: (i32, String),
    limit: Duration,
    role: Option<String>,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for FunctionSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionSession").field("backend", &self.backend.0).finish_non_exhaustive()
    }
}

impl Drop for FunctionSession {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // Not back into the pool: the transaction ends with the connection.
            drop(Object::take(client));
        }
    }
}

impl FunctionSession {
    fn client(&self) -> Result<&Client, Error> {
        self.client.as_ref().ok_or_else(|| Error::Unavailable("the session has ended".to_owned()))
    }

    /// Calls a function with one JSON argument; what it returned as JSON text, `None` for NULL and for nothing.
    ///
    /// # Errors
    /// Why it was not done. The session is good for nothing but `rollback` then.
    pub async fn call(&self, function: &str, argument: &str) -> Result<Option<String>, FunctionError> {
        let name = quoted(function).ok_or_else(|| FunctionError::plain(format!("{function:?} is no name of a function")))?;
        let began = Instant::now();
        let of = |error: &tokio_postgres::Error| FunctionError::of(error, self.limit, began.elapsed());
        let lost = |error: Error| FunctionError { retryable: true, ..FunctionError::plain(error.to_string()) };
        let client = self.client().map_err(lost)?;
        // `offset 0` keeps the planner from calling a function that claims to be stable once for each mention of its result.
        let sql = format!(
            "select case when octet_length(r.t) <= {REPLY_BYTES_MAX} then r.t end, octet_length(r.t)
               from (select ({name}($1::text::jsonb))::text as t offset 0) r"
        );
        let calling = async {
            if let Some(role) = &self.role {
                client.batch_execute(&format!("set local role {}", identifier(role))).await?;
            }
            let rows = client.query_typed(&sql, &[(&argument, Type::TEXT)]).await?;
            // What was put off until the commit fails here and now, while it is still the function's failure. And the outcome
            // is written with our own rights.
            client.batch_execute(&format!("set constraints all immediate; reset role; set local statement_timeout = '{WRITE_LIMIT}'")).await?;
            Ok::<_, tokio_postgres::Error>(rows)
        };
        let rows = match tokio::time::timeout(self.limit.saturating_add(ANSWER_SLACK), calling).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return Err(of(&error)),
            Err(_) => return Err(FunctionError { retryable: true, ..FunctionError::plain(format!("{TIMED_OUT}: the database does not answer")) }),
        };
        let [row] = rows.as_slice() else {
            return Err(FunctionError::plain(format!("{function} returned {} rows: it must return one jsonb", rows.len())));
        };
        match (row.get::<_, Option<String>>(0), row.get::<_, Option<i32>>(1)) {
            (_, None | Some(0)) => Ok(None),
            (Some(text), _) => Ok(Some(text)),
            (None, Some(bytes)) => Err(FunctionError::plain(format!(
                "{function} returned {bytes} bytes: at most {} KiB are kept, return an address instead",
                REPLY_BYTES_MAX / 1024
            ))),
        }
    }

    /// Writes the outcome into the same transaction and commits both.
    ///
    /// If the answer to the commit is lost, the row of the saga says what became of it; `store` is asked until it answers.
    pub async fn commit_with(mut self, store: &Store, worker: i32, write: &SagaWrite) -> Written {
        let batch = std::slice::from_ref(write);
        let written = async { write_within(self.client()?, worker, batch).await }.await;
        match written.map(|written| written.into_iter().next()) {
            Ok(Some(Written::Done(fences))) => match async { Ok::<_, Error>(self.client()?.batch_execute("commit").await?) }.await {
                Ok(()) => {
                    // Back into the pool.
                    drop(self.client.take());
                    Written::Done(fences)
                }
                Err(error) if refused(&error) => {
                    self.rollback().await;
                    Written::Unstorable(error.to_string())
                }
                Err(error) => {
                    tracing::warn!(saga.id = %write.id, %error, "the answer to a commit was lost, asking what became of it");
                    self.fate(store, worker, write, &error).await
                }
            },
            Ok(_) => {
                self.rollback().await;
                Written::Fenced
            }
            Err(error) => {
                self.rollback().await;
                Written::Unstorable(error.to_string())
            }
        }
    }

    /// Undoes everything that was done in it.
    pub async fn rollback(mut self) {
        let undone = match self.client() {
            Ok(client) => client.batch_execute("rollback").await.is_ok(),
            Err(_) => false,
        };
        if undone {
            drop(self.client.take());
        }
    }

    /// What became of a commit whose answer was lost. As long as its backend lives, it may still be at work.
    async fn fate(self, store: &Store, worker: i32, write: &SagaWrite, error: &Error) -> Written {
        let backend = self.backend.clone();
        // Ends the connection on our side, so that the backend ends once it is done.
        drop(self);
        loop {
            let known = async {
                let client = store.client().await?;
                let sql = "select exists (select from pg_stat_activity where pid = $1 and backend_start::text = $2)";
                // Looked at in this order: what landed before the backend ended is seen after it has.
                let alive: bool = client.query_one(sql, &[&backend.0, &backend.1]).await?.get(0);
                let landed = landed(&client, worker, std::slice::from_ref(write)).await?.into_iter().next().flatten();
                Ok::<_, Error>((alive, landed))
            };
            match known.await {
                Ok((_, Some(written))) => return written,
                Ok((false, None)) => return Written::Unstorable(format!("it was undone with its connection: {error}")),
                Ok((true, None)) => {}
                Err(error) => tracing::warn!(saga.id = %write.id, %error, "the database does not say what became of a commit, asking again"),
            }
            tokio::time::sleep(FATE_PAUSE).await;
        }
    }
}

/// Whether Postgres answered, and said no: then nothing was committed.
fn refused(error: &Error) -> bool {
    error.sqlstate().is_some_and(|state| !["08", "57", "XX"].contains(&&state[..2]))
}

/// `schema.name` as SQL, if that is what it is.
fn quoted(function: &str) -> Option<String> {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let (schema, name) = function.split_once('.').filter(|(schema, name)| part(schema) && part(name))?;
    Some(format!("{}.{}", identifier(schema), identifier(name)))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_schema_and_a_name_are_called() {
        assert_eq!(quoted("benefits.book").as_deref(), Some("\"benefits\".\"book\""));
        for hostile in ["book", "a.b.c", "a.b()", "a.\"b\"", "a.b; drop table x", ".b", "a.", "A.b", "a.b ", ""] {
            assert_eq!(quoted(hostile), None, "{hostile}");
        }
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
