//! The one write that moves sagas: everything that finished since the last commit, in one statement.
//!
//! Each saga row is locked in id order and only if owner, epoch and rev are the writer's: a zombie's write matches no row and
//! everything that depends on it is left out. The plan is pinned to index scans, because the tables are empty when the
//! statement is first planned and a sequential scan would stay cached for ever.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures_util::future::{try_join_all, try_join3};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::columns::{AttemptColumns, EventRows, SagaColumns, StepColumns};
use super::extras::{Extras, Statements};
use super::{Client, Error, time};
use crate::core::machine::Attempt;
use crate::core::saga::{Saga, SagaState, StepProgress};
use crate::core::time::Timestamp;

/// What one saga has to write.
#[derive(Debug)]
pub struct SagaWrite {
    /// The saga.
    pub id: Uuid,
    /// The epoch it is owned at.
    pub epoch: i32,
    /// The rev that memory holds; the write makes it one more.
    pub rev: i32,
    /// The new state of the row.
    pub row: SagaRow,
    /// Let go of it with this write.
    pub release: bool,
    /// Something succeeded: earlier take-overs are forgiven.
    pub progress: bool,
    /// Steps whose rows changed.
    pub steps: Vec<StepRow>,
    /// Attempts that ended.
    pub attempts: Vec<Attempt>,
    /// Events to publish.
    pub events: Vec<EventRow>,
    /// What else it brings along.
    pub extras: Option<Box<Extras>>,
}

/// The columns of a saga row that change on the way.
#[derive(Debug)]
pub struct SagaRow {
    pub(super) state: SagaState,
    pub(super) target: Option<&'static str>,
    pub(super) clean: bool,
    pub(super) waiting_for: Option<&'static str>,
    pub(super) next_due: Option<DateTime<Utc>>,
    pub(super) deadline_at: Option<DateTime<Utc>>,
    pub(super) reason: Option<String>,
    pub(super) resume_to: Option<&'static str>,
    pub(super) paused_at: Option<DateTime<Utc>>,
    pub(super) lock_until: Option<DateTime<Utc>>,
}

impl SagaRow {
    /// The row of a saga; `next_due` says when somebody must pick it up, if it is let go of and not at its end.
    #[must_use]
    pub fn of(saga: &Saga, next_due: Option<Timestamp>) -> Self {
        Self {
            state: saga.state,
            target: saga.target.map(|target| target.state().as_str()),
            clean: saga.clean,
            waiting_for: saga.waiting_for(),
            next_due: next_due.map(time::to_sql),
            deadline_at: saga.deadline_at.map(time::to_sql),
            reason: saga.reason.clone(),
            resume_to: saga.paused.map(|paused| paused.resume_to.as_str()),
            paused_at: saga.paused.map(|paused| time::to_sql(paused.at)),
            lock_until: saga.lock_until.map(time::to_sql),
        }
    }

    /// Whether nothing will change after this.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.state.is_terminal()
    }
}

/// A step row, whole.
#[derive(Debug)]
pub struct StepRow {
    /// Place in the definition.
    pub seq: usize,
    /// Its name.
    pub name: String,
    /// Whether the row exists already.
    pub stored: bool,
    /// Whether this write commits to a call: it gets a new fence.
    pub call: bool,
    /// How far it has come.
    pub progress: StepProgress,
}

/// An event that a saga publishes.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// `saga.completed`
    pub kind: Cow<'static, str>,
    /// Where it is published, if not in `default`.
    pub topic: Option<String>,
    /// The saga.
    pub saga_id: Uuid,
    /// The triggering event's subject.
    pub subject: Option<String>,
    /// The saga's correlation id.
    pub correlation_id: String,
    /// The event that started the saga.
    pub causation_id: Uuid,
    /// One more than that event's.
    pub depth: i16,
    /// JSON text.
    pub data: String,
}

impl EventRow {
    /// The same row with another type.
    #[must_use]
    pub fn of_kind(self, kind: &'static str) -> Self {
        Self { kind: Cow::Borrowed(kind), ..self }
    }
}

/// What became of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is durable; these steps got these fences.
    Done(Vec<(usize, i64)>),
    /// The saga belongs to somebody else now: nothing was written.
    Fenced,
    /// Postgres cannot store it, and why. Nothing was written.
    Unstorable(String),
}

const PIN_PLAN: &str = "set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off; \
                        set local lock_timeout = '2s'; set local syncor.engine = 'on'";
const BEGIN: &str = "begin isolation level read committed; ";

const COMMIT: &str = "
with w as materialized (
  select * from unnest($2::uuid[], $3::int[], $4::int[], $5::text[], $6::text[], $7::bool[], $8::text[], $9::timestamptz[], $10::timestamptz[],
                       $11::text[], $12::bool[], $13::bool[], $14::text[], $15::timestamptz[], $16::timestamptz[])
         as w(id, epoch, rev, state, target, clean, waiting_for, next_due, deadline_at, reason, release, progress, resume_to, paused_at, lock_until)),
held as materialized (
  select s.id from w join syncor.saga s on s.id = w.id
   where s.owner = $1 and s.epoch = w.epoch and s.rev = w.rev
   order by s.id for no key update of s),
u as (
  update syncor.saga s
     set rev = s.rev + 1, state = w.state, target = w.target, clean = w.clean, waiting_for = w.waiting_for, next_due = w.next_due,
         deadline_at = w.deadline_at, reason = w.reason, resume_to = w.resume_to, paused_at = w.paused_at, lock_until = w.lock_until,
         takeovers = case when w.progress then 0 else s.takeovers end,
         owner = case when w.release then null else s.owner end,
         finished_at = case when w.state in ('completed', 'failed', 'cancelled', 'aborted', 'rejected') then now() end
    from w join held on held.id = w.id
   where s.id = w.id
  returning s.id),
x as materialized (
  select x.*, case when x.call then nextval('syncor.fence') else x.fence end as new_fence
    from unnest($17::uuid[], $18::smallint[], $19::text[], $20::bool[], $21::bool[], $22::text[], $23::text[], $24::bool[], $25::int[], $26::int[],
                $27::int[], $28::int[], $29::bigint[], $30::timestamptz[], $31::timestamptz[], $32::timestamptz[], $33::timestamptz[],
                $34::text[], $35::text[], $36::int[], $37::text[], $38::timestamptz[], $39::text[])
         as x(saga_id, seq, name, stored, call, status, compensation, ambiguous, attempts, spent, undo_attempts, undo_spent, fence, called_at,
              due_at, started_at, finished_at, message, error, ordinal, wait, wait_until, detail)
   where x.saga_id in (select id from u)),
ti as (
  insert into syncor.step (saga_id, seq, name, status, compensation, ambiguous, attempts, spent, undo_attempts, undo_spent, fence, called_at,
                           due_at, started_at, finished_at, message, error, ordinal, wait, wait_until, detail)
  select saga_id, seq, name, status, compensation, ambiguous, attempts, spent, undo_attempts, undo_spent, new_fence, called_at, due_at,
         started_at, finished_at, message, error, ordinal, wait, wait_until, detail::jsonb
    from x where not stored),
tu as (
  update syncor.step t
     set status = x.status, compensation = x.compensation, ambiguous = x.ambiguous, attempts = x.attempts, spent = x.spent,
         undo_attempts = x.undo_attempts, undo_spent = x.undo_spent, fence = x.new_fence, called_at = x.called_at, due_at = x.due_at,
         started_at = x.started_at, finished_at = x.finished_at, message = x.message, error = x.error, ordinal = x.ordinal, wait = x.wait,
         wait_until = x.wait_until, detail = x.detail::jsonb
    from x where x.stored and t.saga_id = x.saga_id and t.seq = x.seq),
a as (
  insert into syncor.attempt (saga_id, seq, action, attempt, fence, outcome, http_status, error, output, context, worker, started_at)
  select a.saga_id, a.seq, a.action, a.attempt, a.fence, a.outcome, a.http_status, a.error, a.output::jsonb, a.context::jsonb, $1, a.started_at
    from unnest($40::uuid[], $41::smallint[], $42::text[], $43::int[], $44::bigint[], $45::text[], $46::smallint[], $47::text[], $48::text[],
                $49::text[], $50::timestamptz[])
         as a(saga_id, seq, action, attempt, fence, outcome, http_status, error, output, context, started_at)
   where a.saga_id in (select id from u)),
e as (
  insert into syncor.events (type, topic, source, subject, correlation_id, causation_id, depth, saga_id, data)
  select type, topic, source, subject, correlation_id, causation_id, depth, saga_id, data::jsonb
    from unnest($51::text[], $52::text[], $53::text[], $54::text[], $55::text[], $56::uuid[], $57::smallint[], $58::uuid[], $59::text[])
         as e(type, topic, source, subject, correlation_id, causation_id, depth, saga_id, data)
   where e.saga_id in (select id from u))
select u.id, x.seq, x.new_fence from u left join x on x.saga_id = u.id and x.call";

/// Writes a batch, at most one write per saga, all or nothing.
///
/// # Errors
/// When the database cannot be asked (the batch may have landed: ask `landed`), or refuses one of the rows (send them singly).
pub async fn commit(client: &Client, worker: i32, batch: &[SagaWrite]) -> Result<Vec<Written>, Error> {
    match send(client, worker, batch, Around::Whole).await {
        Ok(written) => Ok(written),
        Err(error) => {
            // After an error inside the transaction the pipelined commit has rolled it back; a broken connection ends it as well.
            if !client.is_closed() {
                client.batch_execute("rollback").await?;
            }
            Err(error)
        }
    }
}

/// The same inside a transaction that somebody began, who also ends it: nothing is durable yet.
///
/// # Errors
/// When the database refuses, or is gone: then the transaction is lost.
pub(super) async fn write_within(client: &Client, worker: i32, batch: &[SagaWrite]) -> Result<Vec<Written>, Error> {
    send(client, worker, batch, Around::Nothing).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    /// A transaction of its own.
    Whole,
    /// It is part of one.
    Nothing,
}

async fn send(client: &Client, worker: i32, batch: &[SagaWrite], around: Around) -> Result<Vec<Written>, Error> {
    let sagas = SagaColumns::of(batch);
    let steps = StepColumns::of(batch);
    let attempts = AttemptColumns::of(batch);
    let events = EventRows::of(batch.iter().flat_map(|write| &write.events));
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&worker];
    params.extend(sagas.params());
    params.extend(steps.params());
    params.extend(attempts.params());
    params.extend(events.params());
    let statement = client.prepare_cached(COMMIT).await?;
    let extras = match Statements::of(batch) {
        Some(statements) => Some(statements.prepare(client).await?),
        None => None,
    };
    let mut behind = extras.as_ref().map(|extras| extras.sendings(client)).unwrap_or_default();
    let before = match around {
        Around::Whole => {
            behind.push(Box::pin(client.batch_execute("commit")));
            [BEGIN, PIN_PLAN].concat()
        }
        Around::Nothing => PIN_PLAN.to_owned(),
    };
    // Polled together, all of it goes out in one packet: one round trip for the whole transaction.
    let ((), rows, _) = try_join3(client.batch_execute(&before), client.query(&statement, &params), try_join_all(behind)).await?;
    let mut fences: HashMap<Uuid, Vec<(usize, i64)>> = HashMap::with_capacity(batch.len());
    for row in &rows {
        let entry = fences.entry(row.get(0)).or_default();
        if let (Some(seq), Some(fence)) = (row.get::<_, Option<i16>>(1), row.get::<_, Option<i64>>(2)) {
            entry.push((usize::try_from(seq).unwrap_or_default(), fence));
        }
    }
    Ok(batch.iter().map(|write| fences.remove(&write.id).map_or(Written::Fenced, Written::Done)).collect())
}

/// After a lost connection: which of the writes are durable. `None` means that it is not, and may be sent again.
///
/// # Errors
/// When the database cannot be asked.
pub async fn landed(client: &Client, worker: i32, batch: &[SagaWrite]) -> Result<Vec<Option<Written>>, Error> {
    let ids: Vec<Uuid> = batch.iter().map(|write| write.id).collect();
    let rows = client.query("select id, owner, epoch, rev from syncor.saga where id = any($1)", &[&ids]).await?;
    let now: HashMap<Uuid, (Option<i32>, i32, i32)> = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3)))).collect();
    let steps = client.query("select saga_id, seq, fence from syncor.step where saga_id = any($1)", &[&ids]).await?;
    let fences: HashMap<(Uuid, usize), i64> =
        steps.iter().map(|row| ((row.get(0), usize::try_from(row.get::<_, i16>(1)).unwrap_or_default()), row.get(2))).collect();
    let judged = batch.iter().map(|write| match now.get(&write.id) {
        Some((owner, epoch, rev)) if *epoch == write.epoch && *rev == write.rev + 1 && owner.is_none_or(|owner| owner == worker) => {
            let calls = write.steps.iter().filter(|step| step.call);
            Some(Written::Done(calls.filter_map(|step| fences.get(&(write.id, step.seq)).map(|fence| (step.seq, *fence))).collect()))
        }
        Some((owner, epoch, rev)) if *epoch == write.epoch && *rev == write.rev && *owner == Some(worker) => None,
        _ => Some(Written::Fenced),
    });
    Ok(judged.collect())
}
