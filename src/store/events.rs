//! Publishing: new rows for the ledger.
//!
//! The row trigger of `syncor.events` keeps one event per (source, dedupe key); this module turns what it did into an answer.
//! Invariant: one call is one transaction, so either all events of it are in the ledger or none.

use std::time::Duration;

use futures_util::future;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::{Client, Error, Store};
use crate::core::payload::Payload;

/// What a publisher is told when its document is too large.
pub const TOO_LARGE: &str = "event data is at most 256 KiB: store the document, publish its address";

/// An event on its way into the ledger.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// What happened: `policy.changed`.
    pub kind: String,
    /// What there is to know, at most 256 KiB.
    pub data: Payload,
    /// Where it is published; `default` unless said.
    pub topic: Option<String>,
    /// Who publishes it; the database role unless said.
    pub source: Option<String>,
    /// The business object it is about.
    pub subject: Option<String>,
    /// Ties everything one fact caused; the subject, else the id, unless said.
    pub correlation_id: Option<String>,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
    /// The publisher's own key: one event per (source, key).
    pub dedupe_key: Option<String>,
}

/// What became of a new event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its id in the ledger; the first one's, if it was a repeat.
    pub id: Uuid,
    /// Whether it was added; false when the same (source, key) with the same data was there already.
    pub is_new: bool,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The key belongs to an event with other data.
    #[error("key {key} was used for another event")]
    Conflict {
        /// The dedupe key.
        key: String,
    },
    /// The data is larger than the ledger takes.
    #[error("{TOO_LARGE}")]
    TooLarge,
    /// Postgres cannot keep the event as it is.
    #[error("{0}")]
    Invalid(String),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Publishes `events` in their order, all or none, in one transaction.
///
/// # Errors
/// `Conflict`, `TooLarge` and `Invalid` for what can never be published; `Store` when the database failed, where
/// publishing again is safe for events with a dedupe key.
pub async fn publish(store: &Store, events: &[NewEvent]) -> Result<Vec<Published>, PublishError> {
    publish_within(store, events, None).await
}

/// As `publish`, but gives up with a transient error rather than wait for another publisher's uncommitted key for longer
/// than `lock_timeout`.
///
/// # Errors
/// Those of `publish`.
pub async fn publish_within(store: &Store, events: &[NewEvent], lock_timeout: Option<Duration>) -> Result<Vec<Published>, PublishError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let client = store.client().await?;
    let mut tries = 0;
    loop {
        match insert(&client, events, lock_timeout).await {
            Ok(published) => return Ok(published),
            // Two batches may take their keys in opposite order; Postgres rolled this one back, so nothing can double.
            Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) && tries < 3 => tries += 1,
            Err(error) => return Err(explain(error, events)),
        }
    }
}

/// One statement for all rows. The ids are made there and not here, so that they sort by one clock.
const INSERT: &str = "
with input as materialized (
  select syncor.uuid7() as id, u.*
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::text[])
         with ordinality as u (type, data, topic, source, subject, correlation_id, causation_id, dedupe_key, n)
), inserted as (
  insert into syncor.events (id, type, data, topic, source, subject, correlation_id, causation_id, dedupe_key)
  select i.id, i.type, i.data::jsonb, coalesce(i.topic, 'default'), coalesce(i.source, session_user), i.subject, i.correlation_id,
         i.causation_id, i.dedupe_key
    from input i
   order by i.n
  returning id
)
select i.id, x.id is not null, coalesce(i.source, session_user)
  from input i left join inserted x on x.id = i.id
 order by i.n";

/// The ids under which repeated events are known. A statement of its own: the one before may have waited for the
/// transaction that made them, and its snapshot is older.
const FIRST: &str = "
select k.event_id
  from unnest($1::text[], $2::text[]) with ordinality as u (source, key, n)
  left join syncor.event_key k on k.source = u.source and k.key = u.key
 order by u.n";

async fn insert(client: &Client, events: &[NewEvent], lock_timeout: Option<Duration>) -> Result<Vec<Published>, tokio_postgres::Error> {
    let columns = Columns::new(events);
    let texts = Type::TEXT_ARRAY;
    let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
        (&columns.kind, texts.clone()),
        (&columns.data, texts.clone()),
        (&columns.topic, texts.clone()),
        (&columns.source, texts.clone()),
        (&columns.subject, texts.clone()),
        (&columns.correlation_id, texts.clone()),
        (&columns.causation_id, Type::UUID_ARRAY),
        (&columns.dedupe_key, texts.clone()),
    ];
    let rows = match lock_timeout {
        None => client.query_typed(INSERT, &parameters).await?,
        Some(limit) => {
            // Sent together, so the timeout costs no round trip. After a refused insert the commit rolls back.
            let begin = format!("begin; set local lock_timeout = {}", limit.as_millis());
            let (began, rows, ended) =
                future::join3(client.batch_execute(&begin), client.query_typed(INSERT, &parameters), client.batch_execute("commit")).await;
            began?;
            let rows = rows?;
            ended?;
            rows
        }
    };

    let mut published = Vec::with_capacity(rows.len());
    let (mut sources, mut keys) = (Vec::new(), Vec::new());
    for (row, event) in rows.iter().zip(events) {
        let (id, is_new): (Uuid, bool) = (row.try_get(0)?, row.try_get(1)?);
        published.push(Published { id, is_new });
        if !is_new {
            sources.push(row.try_get::<_, String>(2)?);
            keys.push(event.dedupe_key.as_deref());
        }
    }
    if !keys.is_empty() {
        let rows = client.query_typed(FIRST, &[(&sources, texts.clone()), (&keys, texts)]).await?;
        for (repeat, row) in published.iter_mut().filter(|item| !item.is_new).zip(rows) {
            // The key may be gone already if its event was removed by retention in between: then the id names nothing.
            repeat.id = row.try_get::<_, Option<Uuid>>(0)?.unwrap_or(repeat.id);
        }
    }
    Ok(published)
}

/// The events, column by column, as `unnest` takes them.
struct Columns<'a> {
    kind: Vec<&'a str>,
    data: Vec<&'a str>,
    topic: Vec<Option<&'a str>>,
    source: Vec<Option<&'a str>>,
    subject: Vec<Option<&'a str>>,
    correlation_id: Vec<Option<&'a str>>,
    causation_id: Vec<Option<Uuid>>,
    dedupe_key: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    fn new(events: &'a [NewEvent]) -> Self {
        Self {
            kind: events.iter().map(|event| event.kind.as_str()).collect(),
            data: events.iter().map(|event| event.data.text()).collect(),
            topic: events.iter().map(|event| event.topic.as_deref()).collect(),
            source: events.iter().map(|event| event.source.as_deref()).collect(),
            subject: events.iter().map(|event| event.subject.as_deref()).collect(),
            correlation_id: events.iter().map(|event| event.correlation_id.as_deref()).collect(),
            causation_id: events.iter().map(|event| event.causation_id).collect(),
            dedupe_key: events.iter().map(|event| event.dedupe_key.as_deref()).collect(),
        }
    }
}

fn explain(error: tokio_postgres::Error, events: &[NewEvent]) -> PublishError {
    let Some(db) = error.as_db_error() else { return Error::from(error).into() };
    let class = db.code().code().get(..2).unwrap_or_default();
    match db.constraint() {
        Some("event_key_pkey") => PublishError::Conflict { key: conflicting(db, events) },
        Some("events_data_size") => PublishError::TooLarge,
        Some(constraint) if class == "23" => PublishError::Invalid(limit_of(constraint, db)),
        _ if class == "22" => PublishError::Invalid(format!("the database cannot keep this: {}", db.message())),
        // jsonb's own limits: deeper, longer or wider than it can be.
        _ if class == "54" => PublishError::TooLarge,
        _ => Error::from(error).into(),
    }
}

/// The trigger names the key in its message; keys are any text, so the message is compared and not taken apart.
fn conflicting(db: &DbError, events: &[NewEvent]) -> String {
    let keys = events.iter().filter_map(|event| event.dedupe_key.as_deref());
    keys.filter(|key| db.message().starts_with(&format!("dedupe key {key} of source "))).max_by_key(|key| key.len()).unwrap_or_default().to_owned()
}

fn limit_of(constraint: &str, db: &DbError) -> String {
    match constraint {
        "events_type_length" => "type has 1 to 255 characters".to_owned(),
        "events_topic_length" => "topic has 1 to 255 characters".to_owned(),
        "events_source_length" => "source has 1 to 1024 characters".to_owned(),
        "events_subject_length" => "subject has at most 1024 characters".to_owned(),
        "events_correlation_length" => "the correlation id has at most 1024 characters".to_owned(),
        "events_dedupe_length" => "the id, which is the dedupe key, has at most 1024 characters".to_owned(),
        _ => db.message().to_owned(),
    }
}
