//! The listening session: hears NOTIFY, holds the router's seat, and says whether the pool sleeps.
//!
//! Why no wake-up is lost: a writer takes the wake lock in shared mode and keeps it until its commit is visible. The sentinel
//! may sleep only while it holds that lock exclusively, so it cannot fall asleep over a row that is about to appear; a writer
//! that comes later finds the lock taken and notifies. The lock is tried, never waited for, on either side. Losing this session
//! loses nothing but speed: polling is the guarantee.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;

use super::Error;
use super::dsn::Dsn;

/// Class of our advisory locks: the letters `Syn` and a version.
const LOCK_CLASS: i32 = 1_399_152_195;
/// Held exclusively while the pool sleeps, shared by writers while they write.
const LOCK_SLEEP: i32 = 1;
/// Held by the router's host.
const LOCK_ROUTER: i32 = 2;
/// A session that does not answer for so long is given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A session of its own, never pooled, always read.
#[derive(Debug)]
pub struct Listener {
    client: tokio_postgres::Client,
    notified: Arc<Notify>,
    session_pid: i32,
}

impl Listener {
    /// Connects and listens. A notification that cannot be told from another one just wakes.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn connect(dsn: &Dsn) -> Result<Self, Error> {
        let mut config = dsn.pg_config();
        config.application_name("hms-listen");
        let (client, mut connection) = config.connect(dsn.tls()).await?;
        let notified = Arc::new(Notify::new());
        let heard = Arc::clone(&notified);
        tokio::spawn(async move {
            let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(message) = messages.next().await {
                match message {
                    Ok(AsyncMessage::Notification(_)) => heard.notify_one(),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            // Whoever waits for a notification must notice that none will come.
            heard.notify_one();
        });
        // The server ends its side of a dead link by itself, so that the router's seat is not held by a ghost.
        answer(
            client.batch_execute("set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 2; listen syncor_wake"),
        )
        .await?;
        let row = answer(client.query_one("select pg_backend_pid()", &[])).await?;
        Ok(Self { session_pid: row.get(0), client, notified })
    }

    /// Its backend, for the worker's row.
    #[must_use]
    pub fn session_pid(&self) -> i32 {
        self.session_pid
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Rings when a notification came or the session ended; keeps one ring that nobody waited for.
    #[must_use]
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.notified)
    }

    /// Asks for the router's seat: true for exactly one session of the database.
    ///
    /// # Errors
    /// When the session is gone or does not answer.
    pub async fn take_seat(&self) -> Result<bool, Error> {
        self.flag("select pg_try_advisory_lock($1, $2)", LOCK_ROUTER).await
    }

    /// Falls asleep, unless a writer is under way: then its row is about to appear.
    ///
    /// # Errors
    /// When the session is gone or does not answer.
    pub async fn arm(&self) -> Result<bool, Error> {
        self.flag("select pg_try_advisory_lock($1, $2)", LOCK_SLEEP).await
    }

    /// Wakes: from here on writers need not notify.
    ///
    /// # Errors
    /// When the session is gone or does not answer.
    pub async fn disarm(&self) -> Result<bool, Error> {
        self.flag("select pg_advisory_unlock($1, $2)", LOCK_SLEEP).await
    }

    /// Makes sure that the session still answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        answer(self.client.batch_execute("")).await
    }

    /// Wakes every listening process. The commit of an empty transaction waits for no disk.
    ///
    /// # Errors
    /// When the session is gone or does not answer.
    pub async fn ring_others(&self) -> Result<(), Error> {
        answer(self.client.batch_execute("begin; set local synchronous_commit = off; notify syncor_wake; commit")).await
    }

    async fn flag(&self, sql: &str, lock: i32) -> Result<bool, Error> {
        let row =
            answer(self.client.query_typed(sql, &[(&LOCK_CLASS, tokio_postgres::types::Type::INT4), (&lock, tokio_postgres::types::Type::INT4)]))
                .await?;
        Ok(row.first().is_some_and(|row| row.get(0)))
    }
}

/// A half-open connection answers nothing, for ever: bound every question.
async fn answer<T>(question: impl future::Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER_LIMIT, question).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Unavailable("the listening session does not answer".to_owned())),
    }
}
