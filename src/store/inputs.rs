//! What others have to say to a saga: rows that its owner applies, in their order, and deletes in the same write.

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Client, Error, time};
use crate::core::event::Event;
use crate::core::payload::Payload;

/// Most inputs read at once.
const BATCH_MAX: i64 = 1000;

/// One thing somebody has to say.
#[derive(Clone, Debug)]
pub struct InputRow {
    /// Its place in the order.
    pub id: i64,
    /// The saga.
    pub saga_id: Uuid,
    /// `locked`, `event`, `callback`, `child`, `undone`, `order` or `decide`.
    pub kind: String,
    /// The step that it is about; of an event, below 0, the number of a `cancelOn`.
    pub seq: Option<i16>,
    /// Do or undo, in the words of `attempts.action`.
    pub action: Option<String>,
    /// The rest.
    pub payload: Value,
    /// The command that it carries out.
    pub command_id: Option<Uuid>,
    /// The event, of an `event`.
    pub event: Option<Event>,
}

const COLUMNS: &str = "
select i.id, i.saga_id, i.kind, i.seq, i.action, i.payload::text, i.command_id,
       e.id, e.type, e.topic, e.source, e.subject, e.correlation_id, e.causation_id, e.depth, e.created_at, e.data::text, e.dedupe_key
  from syncor.input i
  left join syncor.events e on i.kind = 'event' and e.id = (i.payload ->> 'eventId')::uuid and e.created_at = (i.payload ->> 'eventAt')::timestamptz";

/// The inputs of all sagas that this worker owns, in their order.
///
/// # Errors
/// When the database cannot be asked.
pub async fn owned(client: &Client, worker: i32) -> Result<Vec<InputRow>, Error> {
    let sql = format!("{COLUMNS} join syncor.saga s on s.id = i.saga_id where s.owner = $1 order by i.id limit {BATCH_MAX}");
    let statement = client.prepare_cached(&sql).await?;
    Ok(client.query(&statement, &[&worker]).await?.iter().map(input_of).collect())
}

/// The inputs of these sagas, in their order.
///
/// # Errors
/// When the database cannot be asked.
pub async fn of(client: &Client, sagas: &[Uuid]) -> Result<Vec<InputRow>, Error> {
    let sql = format!("{COLUMNS} where i.saga_id = any($1) order by i.id");
    let statement = client.prepare_cached(&sql).await?;
    Ok(client.query(&statement, &[&sagas]).await?.iter().map(input_of).collect())
}

/// Settles what reached sagas when they had ended; returns how many inputs that were.
///
/// # Errors
/// When the database cannot be asked.
pub async fn sweep(client: &Client) -> Result<i32, Error> {
    let statement = client.prepare_cached("select syncor.sweep_inputs()").await?;
    Ok(client.query_one(&statement, &[]).await?.get(0))
}

fn input_of(row: &Row) -> InputRow {
    let text: String = row.get(5);
    let event = row.get::<_, Option<Uuid>>(7).map(|id| Event {
        id,
        kind: row.get(8),
        topic: row.get(9),
        source: row.get(10),
        subject: row.get(11),
        correlation_id: row.get(12),
        causation_id: row.get(13),
        depth: u16::try_from(row.get::<_, i16>(14)).unwrap_or(0),
        created_at: time::from_sql(row.get::<_, DateTime<Utc>>(15)),
        data: Payload::trusted(row.get::<_, String>(16).into()),
        dedupe_key: row.get(17),
    });
    InputRow {
        id: row.get(0),
        saga_id: row.get(1),
        kind: row.get(2),
        seq: row.get(3),
        action: row.get(4),
        payload: serde_json::from_str(&text).unwrap_or(Value::Null),
        command_id: row.get(6),
        event,
    }
}
