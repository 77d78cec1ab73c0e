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

use super::extras::{Extras, Statements};
use super::step_detail::StepDetail;
use super::{Client, Error, time};
use crate::core::machine::Attempt;
use crate::core::saga::{Saga, SagaState, StepProgress, Wait};
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
    state: SagaState,
    target: Option<&'static str>,
    clean: bool,
    waiting_for: Option<&'static str>,
    next_due: Option<DateTime<Utc>>,
    deadline_at: Option<DateTime<Utc>>,
    reason: Option<String>,
    resume_to: Option<&'static str>,
    paused_at: Option<DateTime<Utc>>,
    lock_until: Option<DateTime<Utc>>,
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

/// Event columns as arrays.
#[derive(Debug, Default)]
pub(super) struct EventRows<'a> {
    kinds: Vec<&'a str>,
    topics: Vec<&'a str>,
    sources: Vec<String>,
    subjects: Vec<Option<&'a str>>,
    correlations: Vec<&'a str>,
    causations: Vec<Uuid>,
    depths: Vec<i16>,
    sagas: Vec<Uuid>,
    data: Vec<&'a str>,
}

impl<'a> EventRows<'a> {
    pub(super) fn of(events: impl Iterator<Item = &'a EventRow>) -> Self {
        let mut rows = Self::default();
        for event in events {
            rows.kinds.push(&event.kind);
            rows.topics.push(event.topic.as_deref().unwrap_or("default"));
            rows.sources.push(format!("/hms/sagas/{}", event.saga_id));
            rows.subjects.push(event.subject.as_deref());
            rows.correlations.push(&event.correlation_id);
            rows.causations.push(event.causation_id);
            rows.depths.push(event.depth);
            rows.sagas.push(event.saga_id);
            rows.data.push(&event.data);
        }
        rows
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 9] {
        [&self.kinds, &self.topics, &self.sources, &self.subjects, &self.correlations, &self.causations, &self.depths, &self.sagas, &self.data]
    }
}

const PIN_PLAN: &str = "begin isolation level read committed; set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off; \
                        set local lock_timeout = '2s'; set local syncor.engine = 'on'";

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
    behind.push(Box::pin(client.batch_execute("commit")));
    // Polled together, all of it goes out in one packet: one round trip for the whole transaction.
    let sent = try_join3(client.batch_execute(PIN_PLAN), client.query(&statement, &params), try_join_all(behind)).await;
    let rows = match sent {
        Ok(((), rows, _)) => rows,
        Err(error) => {
            // After an error inside the transaction the pipelined commit has rolled it back; a broken connection ends it as well.
            if !client.is_closed() {
                client.batch_execute("rollback").await?;
            }
            return Err(error.into());
        }
    };
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

/// Declares a struct of column vectors and how they become parameters, in their order.
macro_rules! columns {
    ($name:ident { $($field:ident: $kind:ty),+ $(,)? }) => {
        #[derive(Default)]
        struct $name<'a> { $($field: Vec<$kind>,)+ _lives: std::marker::PhantomData<&'a ()> }
        impl $name<'_> {
            fn params(&self) -> impl Iterator<Item = &(dyn ToSql + Sync)> {
                [$(&self.$field as &(dyn ToSql + Sync)),+].into_iter()
            }
        }
    };
}

columns!(SagaColumns {
    id: Uuid, epoch: i32, rev: i32, state: &'a str, target: Option<&'a str>, clean: bool, waiting_for: Option<&'a str>,
    next_due: Option<DateTime<Utc>>, deadline_at: Option<DateTime<Utc>>, reason: Option<&'a str>, release: bool, progress: bool,
    resume_to: Option<&'a str>, paused_at: Option<DateTime<Utc>>, lock_until: Option<DateTime<Utc>>,
});

impl<'a> SagaColumns<'a> {
    fn of(batch: &'a [SagaWrite]) -> Self {
        let mut columns = Self::default();
        for write in batch {
            let row = &write.row;
            columns.id.push(write.id);
            columns.epoch.push(write.epoch);
            columns.rev.push(write.rev);
            columns.state.push(row.state.as_str());
            columns.target.push(row.target);
            columns.clean.push(row.clean);
            columns.waiting_for.push(row.waiting_for);
            columns.next_due.push(row.next_due);
            columns.deadline_at.push(row.deadline_at);
            columns.reason.push(row.reason.as_deref());
            columns.release.push(write.release);
            columns.progress.push(write.progress);
            columns.resume_to.push(row.resume_to);
            columns.paused_at.push(row.paused_at);
            columns.lock_until.push(row.lock_until);
        }
        columns
    }
}

columns!(StepColumns {
    saga_id: Uuid, seq: i16, name: &'a str, stored: bool, call: bool, status: &'a str, compensation: &'a str, ambiguous: bool,
    attempts: i32, spent: i32, undo_attempts: i32, undo_spent: i32, fence: i64, called_at: Option<DateTime<Utc>>,
    due_at: Option<DateTime<Utc>>, started_at: Option<DateTime<Utc>>, finished_at: Option<DateTime<Utc>>, message: Option<&'a str>,
    error: Option<&'a str>, ordinal: i32, wait: Option<&'a str>, wait_until: Option<DateTime<Utc>>, detail: Option<String>,
});

impl<'a> StepColumns<'a> {
    fn of(batch: &'a [SagaWrite]) -> Self {
        let mut columns = Self::default();
        for (write, step) in batch.iter().flat_map(|write| write.steps.iter().map(move |step| (write, step))) {
            let progress = &step.progress;
            columns.saga_id.push(write.id);
            columns.seq.push(small(step.seq));
            columns.name.push(&step.name);
            columns.stored.push(step.stored);
            columns.call.push(step.call);
            columns.status.push(progress.status.as_str());
            columns.compensation.push(progress.compensation.as_str());
            columns.ambiguous.push(progress.ambiguous);
            columns.attempts.push(count(progress.attempts));
            columns.spent.push(count(progress.spent));
            columns.undo_attempts.push(count(progress.undo_attempts));
            columns.undo_spent.push(count(progress.undo_spent));
            columns.fence.push(progress.fence);
            columns.called_at.push(progress.called_at.map(time::to_sql));
            columns.due_at.push(progress.due_at.map(time::to_sql));
            columns.started_at.push(progress.started_at.map(time::to_sql));
            columns.finished_at.push(progress.finished_at.map(time::to_sql));
            columns.message.push(progress.message.as_deref());
            columns.error.push(progress.error.as_deref());
            columns.ordinal.push(count(progress.order));
            columns.wait.push(progress.wait.map(Wait::as_str));
            columns.wait_until.push(progress.wait_until.map(time::to_sql));
            columns.detail.push(StepDetail::of(progress));
        }
        columns
    }
}

columns!(AttemptColumns {
    saga_id: Uuid, seq: i16, action: &'a str, attempt: i32, fence: i64, outcome: &'a str, http_status: Option<i16>, error: Option<&'a str>,
    output: Option<&'a str>, context: Option<&'a str>, started_at: DateTime<Utc>,
});

impl<'a> AttemptColumns<'a> {
    fn of(batch: &'a [SagaWrite]) -> Self {
        let mut columns = Self::default();
        for (write, attempt) in batch.iter().flat_map(|write| write.attempts.iter().map(move |attempt| (write, attempt))) {
            let outcome = &attempt.outcome;
            // A compensation's "gone" (410) is a success told by a refusal: the ledger keeps what was received.
            columns.saga_id.push(write.id);
            columns.seq.push(small(attempt.seq));
            columns.action.push(attempt.action.as_str());
            columns.attempt.push(count(attempt.number));
            columns.fence.push(attempt.fence);
            columns.outcome.push(outcome.as_str());
            columns.http_status.push(outcome.status.and_then(|status| i16::try_from(status).ok()));
            columns.error.push(outcome.error.as_deref());
            columns.output.push(outcome.output.as_ref().map(crate::core::payload::Payload::text));
            columns.context.push(outcome.context.as_ref().map(crate::core::payload::Payload::text));
            columns.started_at.push(time::to_sql(attempt.started_at));
        }
        columns
    }
}

fn small(seq: usize) -> i16 {
    i16::try_from(seq).unwrap_or(i16::MAX)
}

fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
