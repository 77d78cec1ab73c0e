//! Writes what one batch of events started: sagas, their first intents, notes and the read position, in one statement.

use chrono::{DateTime, Utc};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::columns::EventRows;
use super::commit::EventRow;
use super::cursor::Position;
use super::extras::WaitRow;
use super::lines::{BEGIN, Lines};
use super::{Client, Error, time};
use crate::core::time::Timestamp;

/// A saga to be started, unless its dedupe key was used before.
#[derive(Debug)]
pub struct NewSaga {
    /// Identity.
    pub id: Uuid,
    /// The revision it is pinned to.
    pub definition_no: i32,
    /// Family and dedupe key: one saga for both.
    pub family: String,
    /// The key, or the event's id.
    pub key: String,
    /// When the key may start another saga; `None` means never.
    pub again: Option<&'static str>,
    /// The event that starts it.
    pub event_id: Uuid,
    /// When that was published.
    pub event_at: Timestamp,
    /// The event's correlation id.
    pub correlation_id: String,
    /// `pending` (for whoever has room), `running` (its first call is committed to here) or `rejected`.
    pub state: &'static str,
    /// The worker that runs it; `None` leaves it to whoever has room.
    pub owner: Option<i32>,
    /// When the forward run must be over.
    pub deadline_at: Option<Timestamp>,
    /// Why it is rejected.
    pub reason: Option<String>,
    /// Name of the first step, if its call is committed to here.
    pub first_step: Option<String>,
    /// When it was started.
    pub started_at: Timestamp,
    /// The events that it publishes at once.
    pub events: Vec<EventRow>,
    /// Its object locks, for which it stands in line with this write.
    pub lock_keys: Option<Vec<String>>,
    /// The router's number of its event.
    pub arrived: i64,
    /// The events that cancel it.
    pub waits: Vec<WaitRow>,
}

/// An event that somebody may wait for.
#[derive(Debug)]
pub struct Arrival {
    /// The router's number.
    pub no: i64,
    /// The event.
    pub event_id: Uuid,
    /// When it was published.
    pub created_at: Timestamp,
    /// Its type.
    pub kind: String,
    /// `path=value` for each path that somebody compares.
    pub keys: Vec<String>,
}

/// A saga that failed or completed.
#[derive(Debug)]
pub struct SagaEnd {
    /// The family of its definition.
    pub family: String,
    /// It failed, and no human said so.
    pub failed: bool,
    /// The saga.
    pub saga_id: Option<String>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// What one batch of events leads to.
#[derive(Debug)]
pub struct StartBatch<'a> {
    /// Sagas to start.
    pub sagas: &'a [NewSaga],
    /// Events that start nothing, and why.
    pub notes: &'a [(Uuid, String)],
    /// Where reading goes on.
    pub position: &'a Position,
    /// Events to strike off the backlog.
    pub backlog: &'a [Uuid],
    /// Events that somebody may wait for.
    pub arrivals: &'a [Arrival],
    /// Sagas that ended, in their order.
    pub ends: &'a [SagaEnd],
    /// There are waits that were never compared with what arrived before them.
    pub fresh_waits: bool,
}

/// One that really started, with the fence of its first call.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// The saga.
    pub id: Uuid,
    /// The fence, if a call was committed to.
    pub fence: Option<i64>,
    /// Whether it got its locks at once; `None` where it needs none.
    pub locked: Option<bool>,
}

const START: &str = "
with n as materialized (
  select * from unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::timestamptz[], $8::text[], $9::text[],
                       $10::int[], $11::timestamptz[], $12::text[], $13::text[], $14::timestamptz[], $34::bigint[])
         as n(id, definition_no, family, key, again, event_id, event_at, correlation_id, state, owner, deadline_at, reason, first_step, started_at,
              arrived)),
k as (
  insert into syncor.saga_key as k (family, key, saga_id, again) select family, key, id, again from n
  on conflict (family, key) do update set saga_id = excluded.saga_id, again = excluded.again
     where excluded.again is not null
       and exists (select from syncor.saga s where s.id = k.saga_id and s.finished_at is not null
                      and (excluded.again = 'terminal' or s.state <> 'completed'))
  returning saga_id),
s as (
  insert into syncor.saga (id, definition_no, owner, epoch, rev, state, deadline_at, next_due, started_at, finished_at,
                           event_id, event_at, correlation_id, dedupe_key, reason, arrived)
  select n.id, n.definition_no, n.owner, 0, 0, n.state, n.deadline_at,
         case when n.owner is null and n.state <> 'rejected' then now() end, n.started_at,
         case when n.state = 'rejected' then now() end,
         n.event_id, n.event_at, n.correlation_id, nullif(n.key, n.event_id::text), n.reason, n.arrived
    from n where n.id in (select saga_id from k)),
t as (
  insert into syncor.step (saga_id, seq, ordinal, name, status, attempts, fence, called_at, started_at)
  select n.id, 0, 1, n.first_step, 'running', 1, nextval('syncor.fence'), n.started_at, n.started_at
    from n where n.first_step is not null and n.id in (select saga_id from k)
  returning saga_id, fence),
e as (
  insert into syncor.events (type, topic, source, subject, correlation_id, causation_id, depth, saga_id, data)
  select type, topic, source, subject, correlation_id, causation_id, depth, saga_id, data::jsonb
    from unnest($15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::uuid[], $21::smallint[], $22::uuid[], $23::text[])
         as e(type, topic, source, subject, correlation_id, causation_id, depth, saga_id, data)
   where e.saga_id in (select saga_id from k)),
o as (
  insert into syncor.event_note (event_id, note) select * from unnest($24::uuid[], $25::text[]) on conflict do nothing),
b as (delete from syncor.backlog where event_id = any($33::uuid[])),
c as (
  insert into syncor.cursor (seq, done, target, after_tx, after_pos, floor_pos, worker)
  values ($26, $27::text::pg_snapshot, $28::text::pg_snapshot, $29::text::xid8, $30, $31, $32))
select k.saga_id, t.fence from k left join t on t.saga_id = k.saga_id";

/// Writes the batch. Of the sagas, those come back that really started: the others' keys were used before.
///
/// # Errors
/// When the database cannot be asked, or another router wrote this position first (23505 on the cursor).
pub async fn start(client: &Client, worker: i32, batch: &StartBatch<'_>) -> Result<Vec<Started>, Error> {
    let StartBatch { sagas, notes, position, backlog, arrivals, ends, fresh_waits } = batch;
    let ids: Vec<Uuid> = sagas.iter().map(|saga| saga.id).collect();
    let numbers: Vec<i32> = sagas.iter().map(|saga| saga.definition_no).collect();
    let families: Vec<&str> = sagas.iter().map(|saga| saga.family.as_str()).collect();
    let keys: Vec<&str> = sagas.iter().map(|saga| saga.key.as_str()).collect();
    let again: Vec<Option<&str>> = sagas.iter().map(|saga| saga.again).collect();
    let event_ids: Vec<Uuid> = sagas.iter().map(|saga| saga.event_id).collect();
    let event_times: Vec<DateTime<Utc>> = sagas.iter().map(|saga| time::to_sql(saga.event_at)).collect();
    let correlations: Vec<&str> = sagas.iter().map(|saga| saga.correlation_id.as_str()).collect();
    let states: Vec<&str> = sagas.iter().map(|saga| saga.state).collect();
    let owners: Vec<Option<i32>> = sagas.iter().map(|saga| saga.owner).collect();
    let deadlines: Vec<Option<DateTime<Utc>>> = sagas.iter().map(|saga| saga.deadline_at.map(time::to_sql)).collect();
    let reasons: Vec<Option<&str>> = sagas.iter().map(|saga| saga.reason.as_deref()).collect();
    let first_steps: Vec<Option<&str>> = sagas.iter().map(|saga| saga.first_step.as_deref()).collect();
    let started: Vec<DateTime<Utc>> = sagas.iter().map(|saga| time::to_sql(saga.started_at)).collect();
    let events = EventRows::of(sagas.iter().flat_map(|saga| &saga.events));
    let noted: Vec<Uuid> = notes.iter().map(|(id, _)| *id).collect();
    let texts: Vec<&str> = notes.iter().map(|(_, text)| text.as_str()).collect();
    let target = position.page.as_ref().map(|page| page.target.as_str());
    let after_tx = position.page.as_ref().map(|page| page.after_tx.to_string());
    let after_pos = position.page.as_ref().map(|page| page.after_pos);
    let own: [&(dyn ToSql + Sync); 14] = [
        &ids,
        &numbers,
        &families,
        &keys,
        &again,
        &event_ids,
        &event_times,
        &correlations,
        &states,
        &owners,
        &deadlines,
        &reasons,
        &first_steps,
        &started,
    ];
    let cursor: [&(dyn ToSql + Sync); 10] =
        [&noted, &texts, &position.seq, &position.done, &target, &after_tx, &after_pos, &position.floor_pos, &worker, backlog];
    let mut params: Vec<&(dyn ToSql + Sync)> = own.to_vec();
    params.extend(events.params());
    params.extend(cursor);
    let arrived: Vec<i64> = sagas.iter().map(|saga| saga.arrived).collect();
    params.push(&arrived);
    let statement = client.prepare_cached(START).await?;
    let lines = Lines::of(sagas, arrivals, ends, *fresh_waits);
    if lines.is_empty() {
        let rows = client.query(&statement, &params).await?;
        return Ok(rows.iter().map(|row| Started { id: row.get(0), fence: row.get(1), locked: None }).collect());
    }
    client.batch_execute(BEGIN).await?;
    let written = async {
        let rows = client.query(&statement, &params).await?;
        let locked = lines.write(client).await?;
        client.batch_execute("commit").await?;
        Ok::<_, Error>(rows.iter().map(|row| Started { id: row.get(0), fence: row.get(1), locked: locked.get(&row.get(0)).copied() }).collect())
    };
    let written = written.await;
    if written.is_err() && !client.is_closed() {
        client.batch_execute("rollback").await?;
    }
    written
}

/// Remembers why events started nothing.
///
/// # Errors
/// When the database cannot be asked.
pub async fn note(client: &Client, notes: &[(Uuid, String)]) -> Result<(), Error> {
    let (ids, texts): (Vec<Uuid>, Vec<&str>) = notes.iter().map(|(id, text)| (*id, text.as_str())).unzip();
    client
        .execute(
            "insert into syncor.event_note (event_id, note) select * from unnest($1::uuid[], $2::text[]) on conflict do nothing",
            &[&ids, &texts],
        )
        .await?;
    Ok(())
}
