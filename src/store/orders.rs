//! Orders of operators and decisions of people: given through the functions of the schema, answered by the engine.
//!
//! Every order is a row of `syncor.commands`, also a refused one. Who gives it is either named by the caller, who knows that from
//! an API key, or is the database's login role.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Client, Error, Store};
use crate::core::payload::Payload;

/// The first pause between two looks at a command; each further one is twice as long.
const TICK: Duration = Duration::from_millis(10);
/// The longest.
const TICK_MAX: Duration = Duration::from_millis(160);
/// Orders given in one transaction.
const BATCH: usize = 500;

/// What can be ordered of a saga that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Undo it.
    Cancel,
    /// Start nothing new.
    Pause,
    /// Go on.
    Resume,
    /// End it as it is.
    Abort,
    /// Try again now what failed.
    Retry,
    /// Leave a step be.
    Skip,
}

impl Verb {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Cancel, Self::Pause, Self::Resume, Self::Abort, Self::Retry, Self::Skip];

    /// The word used in SQL, in paths and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::Skip => "skip",
        }
    }

    /// Whether it may name a step.
    #[must_use]
    pub fn takes_step(self) -> bool {
        matches!(self, Self::Retry | Self::Skip)
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Cancel => "select syncor.cancel(s.id, $3) from unnest($1::uuid[]) s(id) where $2::text is null",
            Self::Pause => "select syncor.pause(s.id, $3) from unnest($1::uuid[]) s(id) where $2::text is null",
            Self::Resume => "select syncor.resume(s.id, $3) from unnest($1::uuid[]) s(id) where $2::text is null",
            Self::Abort => "select syncor.abort(s.id, $3) from unnest($1::uuid[]) s(id) where $2::text is null",
            Self::Retry => "select syncor.retry(s.id, $2, $3) from unnest($1::uuid[]) s(id)",
            Self::Skip => "select syncor.skip(s.id, $2, $3) from unnest($1::uuid[]) s(id)",
        }
    }
}

/// Who gives an order.
#[derive(Clone, Copy, Debug)]
pub enum By<'a> {
    /// The role that the database was logged in to with.
    Session,
    /// Somebody that the caller knows.
    Named(&'a str),
}

/// A decision about a human task.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// The task.
    pub task: Uuid,
    /// One of the words that its kind takes.
    pub decision: &'a str,
    /// Why.
    pub note: &'a str,
    /// What the form is filled in with, or what the step is to have answered.
    pub output: Option<&'a Payload>,
}

/// An order as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The command, as `syncor.commands` has it.
    pub command_id: Uuid,
    /// What was ordered.
    pub order: String,
    /// The saga that it is about.
    pub saga_id: Option<Uuid>,
    /// `applied`, `refused`, or `pending`: no worker has come to it yet.
    pub status: String,
    /// What came of it, or why not.
    pub result: Option<String>,
    /// The saga that a fork made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_saga_id: Option<Uuid>,
}

impl Receipt {
    /// Whether nobody has answered it yet.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.status == "pending"
    }

    /// Whether it was not carried out.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.status == "refused"
    }
}

/// Why an order was not even recorded.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no such saga or task.
    #[error("{0}")]
    Unknown(String),
    /// The function does not take that.
    #[error("{0}")]
    Invalid(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<tokio_postgres::Error> for OrderError {
    fn from(error: tokio_postgres::Error) -> Self {
        let said = |of: &tokio_postgres::error::DbError| match of.hint() {
            Some(hint) => format!("{}; {hint}", of.message()),
            None => of.message().to_owned(),
        };
        match error.as_db_error() {
            Some(db) if *db.code() == SqlState::NO_DATA_FOUND => Self::Unknown(said(db)),
            Some(db) if *db.code() == SqlState::INVALID_PARAMETER_VALUE => Self::Invalid(said(db)),
            _ => Self::Store(Error::Postgres(error)),
        }
    }
}

/// Orders something of several sagas and returns the commands, in their order. An unknown saga refuses all that go with it.
///
/// # Errors
/// `Unknown` when there is no such saga; `Invalid` for a step where there can be none.
pub async fn order(store: &Store, by: By<'_>, verb: Verb, sagas: &[Uuid], step: Option<&str>, reason: &str) -> Result<Vec<Uuid>, OrderError> {
    if step.is_some() && !verb.takes_step() {
        return Err(OrderError::Invalid(format!("{} is about a whole saga: it takes no step", verb.as_str())));
    }
    let client = store.client().await?;
    let mut commands = Vec::with_capacity(sagas.len());
    for batch in sagas.chunks(BATCH) {
        let rows = match by {
            By::Session => client.query(verb.sql(), &[&batch, &step, &reason]).await?,
            By::Named(name) => {
                let sql = "select syncor.order_as($1, $2, s.id, $4, $5) from unnest($3::uuid[]) s(id)";
                client.query(sql, &[&name, &verb.as_str(), &batch, &step, &reason]).await?
            }
        };
        commands.extend(rows.iter().map(|row| row.get::<_, Uuid>(0)));
    }
    Ok(commands)
}

/// Starts an ended saga anew from a step; returns the command, which is settled.
///
/// # Errors
/// `Unknown` when there is no such saga.
pub async fn fork(store: &Store, by: By<'_>, saga: Uuid, from_step: Option<&str>, reason: &str) -> Result<Uuid, OrderError> {
    let client = store.client().await?;
    let row = match by {
        By::Session => client.query_one("select syncor.fork($1, $2, $3)", &[&saga, &from_step, &reason]).await?,
        By::Named(name) => client.query_one("select syncor.fork_as($1, $2, $3, $4)", &[&name, &saga, &from_step, &reason]).await?,
    };
    Ok(row.get(0))
}

/// Decides about a human task; returns the command.
///
/// # Errors
/// `Unknown` when there is no such task.
pub async fn decide(store: &Store, by: By<'_>, decision: Decision<'_>) -> Result<Uuid, OrderError> {
    let client = store.client().await?;
    let Decision { task, decision, note, output } = decision;
    let output = output.map(Payload::text);
    let row = match by {
        By::Session => client.query_one("select syncor.decide($1, $2, $3, $4::text::jsonb)", &[&task, &decision, &note, &output]).await?,
        By::Named(name) => {
            client.query_one("select syncor.decide_as($1, $2, $3, $4, $5::text::jsonb)", &[&name, &task, &decision, &note, &output]).await?
        }
    };
    Ok(row.get(0))
}

/// These commands in their order, as soon as all are settled, at the latest after `limit`.
///
/// # Errors
/// When the database cannot be asked.
pub async fn settled(store: &Store, commands: &[Uuid], limit: Duration) -> Result<Vec<Receipt>, Error> {
    let deadline = Instant::now() + limit;
    let mut tick = TICK;
    loop {
        let receipts = look(&store.client().await?, commands).await?;
        if Instant::now() >= deadline || !receipts.iter().any(Receipt::is_pending) {
            return Ok(receipts);
        }
        // No connection is held meanwhile.
        tokio::time::sleep(tick.min(deadline.saturating_duration_since(Instant::now()))).await;
        tick = (tick * 2).min(TICK_MAX);
    }
}

async fn look(client: &Client, commands: &[Uuid]) -> Result<Vec<Receipt>, Error> {
    let sql = "select c.id, c.kind, c.saga_id, c.status, c.result, c.new_saga_id
                 from unnest($1::uuid[]) with ordinality a(id, place) join syncor.commands c on c.id = a.id order by a.place";
    Ok(client.query(sql, &[&commands]).await?.iter().map(receipt_of).collect())
}

fn receipt_of(row: &Row) -> Receipt {
    Receipt { command_id: row.get(0), order: row.get(1), saga_id: row.get(2), status: row.get(3), result: row.get(4), new_saga_id: row.get(5) }
}
