//! Everything about one saga that a scenario is made of.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, Postgres, Transaction};
use uuid::Uuid;

use super::ReadStore;
use crate::core::event::Event;
use crate::core::outcome::Action;
use crate::core::payload::Payload;
use crate::core::saga::SagaState;
use crate::core::scenario::capture::{Asked, Attempted, CalledBack, Decided, Ordered, Recording};
use crate::store::Error;
use crate::store::time::from_sql;

/// Rows of a kind that are read at most.
const LIMIT: i64 = 10_000;

const SAGA: &str = "
select s.state, s.clean, s.reason, s.started_at, d.source,
       (select min(b.created_at) from syncor.events b where b.saga_id = s.id and b.type = 'saga.started' and b.created_at >= s.started_at) as begun_at,
       e.id, e.type, e.topic, e.source as event_source, e.subject, e.data::text as data, e.correlation_id, e.causation_id, e.dedupe_key, e.depth,
       e.created_at
  from syncor.saga s
  join syncor.definition d on d.no = s.definition_no
  join syncor.events e on e.id = s.event_id and e.created_at = s.event_at
 where s.id = $1";

const STEPS: &str = "select seq, status, compensation from syncor.step where saga_id = $1 and status <> 'pending' order by seq";

const ATTEMPTS: &str = "
select seq, action, attempt, fence, started_at, finished_at, outcome, http_status, error, output::text as output, context::text as context
  from syncor.attempt where saga_id = $1 order by started_at, fence limit $2";

const CALLBACKS: &str = "
select seq, action, ended_at, beat_at, ended from syncor.callback where saga_id = $1 and ended is not null order by ended_at limit $2";

const ORDERS: &str = "
select kind, step, requested_by, reason, requested_at, status from syncor.commands
 where saga_id = $1 and kind in ('cancel', 'pause', 'resume', 'abort', 'retry', 'skip') order by requested_at, id limit $2";

const TASKS: &str = "
select seq, kind, opened_at, decision, decided_by, note, output::text as output, decided_at
  from syncor.task where saga_id = $1 and seq is not null order by opened_at, id limit $2";

const PUBLISHED: &str = "select type from syncor.events where saga_id = $1 and created_at >= $2 order by created_at, id limit $3";

const EVENT: &str = "
select e.id, e.type, e.topic, e.source as event_source, e.subject, e.data::text as data, e.correlation_id, e.causation_id, e.dedupe_key, e.depth,
       e.created_at
  from syncor.events e where e.id = $1";

#[derive(FromRow)]
struct SagaRow {
    state: String,
    clean: bool,
    reason: Option<String>,
    started_at: DateTime<Utc>,
    begun_at: Option<DateTime<Utc>>,
    source: Json<Value>,
    #[sqlx(flatten)]
    event: EventRow,
}

#[derive(FromRow)]
struct EventRow {
    id: Uuid,
    #[sqlx(rename = "type")]
    kind: String,
    topic: String,
    event_source: String,
    subject: Option<String>,
    data: String,
    correlation_id: String,
    causation_id: Option<Uuid>,
    dedupe_key: Option<String>,
    depth: i16,
    created_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct AttemptRow {
    seq: i16,
    action: String,
    attempt: i32,
    fence: i64,
    started_at: DateTime<Utc>,
    finished_at: DateTime<Utc>,
    outcome: String,
    http_status: Option<i16>,
    error: Option<String>,
    output: Option<String>,
    context: Option<String>,
}

#[derive(FromRow)]
struct CallbackRow {
    seq: i16,
    action: String,
    ended_at: DateTime<Utc>,
    beat_at: Option<DateTime<Utc>>,
    ended: Json<Value>,
}

#[derive(FromRow)]
struct OrderRow {
    kind: String,
    step: Option<String>,
    requested_by: String,
    reason: Option<String>,
    requested_at: DateTime<Utc>,
    status: String,
}

#[derive(FromRow)]
struct TaskRow {
    seq: i16,
    kind: String,
    opened_at: DateTime<Utc>,
    decision: Option<String>,
    decided_by: Option<String>,
    note: Option<String>,
    output: Option<String>,
    decided_at: Option<DateTime<Utc>>,
}

impl ReadStore {
    /// What happened to a saga, and the definition that it is pinned to, as it was stored; `None` if there is none.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn recording(&self, id: Uuid) -> Result<Option<(Recording, Value)>, Error> {
        let mut snapshot = self.snapshot().await?;
        let Some(saga) = sqlx::query_as::<_, SagaRow>(SAGA).bind(id).fetch_optional(&mut *snapshot).await? else { return Ok(None) };
        let steps: Vec<(i16, String, String)> = sqlx::query_as(STEPS).bind(id).fetch_all(&mut *snapshot).await?;
        let attempts: Vec<AttemptRow> = sqlx::query_as(ATTEMPTS).bind(id).bind(LIMIT).fetch_all(&mut *snapshot).await?;
        let callbacks: Vec<CallbackRow> = sqlx::query_as(CALLBACKS).bind(id).bind(LIMIT).fetch_all(&mut *snapshot).await?;
        let orders: Vec<OrderRow> = sqlx::query_as(ORDERS).bind(id).bind(LIMIT).fetch_all(&mut *snapshot).await?;
        let tasks: Vec<TaskRow> = sqlx::query_as(TASKS).bind(id).bind(LIMIT).fetch_all(&mut *snapshot).await?;
        let published = sqlx::query_scalar(PUBLISHED).bind(id).bind(saga.started_at).bind(LIMIT).fetch_all(&mut *snapshot).await?;
        let cancelled_by = cancelling_event(&mut snapshot, saga.reason.as_deref()).await?;
        let recording = Recording {
            saga: id,
            event: event(saga.event),
            started_at: from_sql(saga.started_at),
            begun_at: saga.begun_at.map(from_sql),
            state: SagaState::parse(&saga.state).unwrap_or(SagaState::Running),
            clean: saga.clean,
            reason: saga.reason,
            steps: steps.into_iter().map(|(seq, status, compensation)| (place(seq), status, compensation)).collect(),
            attempts: attempts.into_iter().map(attempt).collect(),
            callbacks: callbacks.into_iter().map(callback).collect(),
            orders: orders.into_iter().map(order).collect(),
            tasks: tasks.into_iter().map(task).collect(),
            cancelled_by,
            published,
        };
        Ok(Some((recording, saga.source.0)))
    }
}

/// The event that the reason of a saga names as what cancelled it: its id comes last.
async fn cancelling_event(snapshot: &mut Transaction<'static, Postgres>, reason: Option<&str>) -> Result<Option<Event>, Error> {
    let told = reason.and_then(|reason| reason.strip_prefix("cancelled by the event "));
    let Some(id) = told.and_then(|told| Uuid::parse_str(told.rsplit(' ').next()?).ok()) else { return Ok(None) };
    Ok(sqlx::query_as(EVENT).bind(id).fetch_optional(&mut **snapshot).await?.map(event))
}

fn place(seq: i16) -> usize {
    usize::try_from(seq).unwrap_or(0)
}

fn action(word: &str) -> Action {
    match word {
        "undo" => Action::Undo,
        "verify" => Action::Verify,
        _ => Action::Do,
    }
}

/// Text that Postgres printed of a `jsonb`.
fn payload(text: Option<String>) -> Option<Payload> {
    text.map(|text| Payload::trusted(text.into_boxed_str()))
}

fn event(row: EventRow) -> Event {
    Event {
        id: row.id,
        kind: row.kind,
        topic: row.topic,
        source: row.event_source,
        subject: row.subject,
        data: Payload::trusted(row.data.into_boxed_str()),
        correlation_id: row.correlation_id,
        causation_id: row.causation_id,
        dedupe_key: row.dedupe_key,
        depth: u16::try_from(row.depth).unwrap_or(0),
        created_at: from_sql(row.created_at),
    }
}

fn attempt(row: AttemptRow) -> Attempted {
    Attempted {
        seq: place(row.seq),
        action: action(&row.action),
        number: u32::try_from(row.attempt).unwrap_or(0),
        fence: row.fence,
        started_at: from_sql(row.started_at),
        finished_at: from_sql(row.finished_at),
        outcome: row.outcome,
        status: row.http_status.and_then(|status| u16::try_from(status).ok()),
        error: row.error,
        output: payload(row.output),
        context: payload(row.context),
    }
}

fn callback(row: CallbackRow) -> CalledBack {
    CalledBack { seq: place(row.seq), action: action(&row.action), at: from_sql(row.ended_at), beat_at: row.beat_at.map(from_sql), end: row.ended.0 }
}

fn order(row: OrderRow) -> Ordered {
    Ordered {
        order: row.kind,
        step: row.step,
        by: row.requested_by,
        reason: row.reason,
        at: from_sql(row.requested_at),
        applied: row.status == "applied",
    }
}

fn task(row: TaskRow) -> Asked {
    let decided = match (row.decision, row.decided_at) {
        (Some(decision), Some(at)) => {
            Some(Decided { decision, by: row.decided_by.unwrap_or_default(), note: row.note, output: payload(row.output), at: from_sql(at) })
        }
        _ => None,
    };
    Asked { seq: place(row.seq), kind: row.kind, opened_at: from_sql(row.opened_at), decided }
}
