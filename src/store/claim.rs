//! Takes over sagas that nobody runs, and loads them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use super::inputs::{self, InputRow};
use super::step_detail::StepDetail;
use super::{Client, Error, time};
use crate::core::event::Event;
use crate::core::payload::Payload;
use crate::core::saga::{Compensation, Locks, Paused, Saga, SagaState, StepProgress, StepStatus, Target, Wait};

/// A saga with everything that a worker needs to go on with it.
#[derive(Debug)]
pub struct Loaded {
    /// The revision it is pinned to.
    pub definition_no: i32,
    /// The epoch it is owned at now.
    pub epoch: i32,
    /// The rev of its row.
    pub rev: i32,
    /// When it was started.
    pub started_at: crate::core::time::Timestamp,
    /// The saga, without its steps.
    pub saga: Saga,
    /// Those of its steps that have a row, by their place.
    pub steps: Vec<(usize, StepProgress)>,
    /// Where it stands among other sagas.
    pub kin: Kin,
    /// What others had to say to it.
    pub inputs: Vec<InputRow>,
    /// The event that started it.
    pub event: Event,
}

/// Where a saga stands among other sagas.
#[derive(Clone, Debug, Default)]
pub struct Kin {
    /// The saga, and its step, that this one is a part of.
    pub parent: Option<Parent>,
    /// Sagas above it.
    pub nesting: i16,
    /// The outermost of them; itself where there are none.
    pub root: Option<Uuid>,
    /// Its object locks.
    pub lock_keys: Option<Vec<String>>,
    /// The router's number of the event that started it: events since then count for its waits.
    pub arrived: i64,
}

/// The step of another saga that a saga is a part of.
#[derive(Clone, Debug)]
pub struct Parent {
    /// The saga.
    pub id: Uuid,
    /// The place of the step.
    pub seq: i16,
    /// Whether it does that step or undoes it.
    pub action: String,
}

/// Claims sagas that are due and unowned, or whose owner is gone; oldest first, at most `limit`.
///
/// # Errors
/// When the database cannot be asked.
pub async fn claim(client: &Client, worker: i32, limit: i64) -> Result<Vec<Uuid>, Error> {
    // `= any(array(...))` keeps the planner from joining: a hash join over a table that is usually empty stays cached for ever.
    let statement = client
        .prepare_cached(
            "update syncor.saga s
                set owner = $1, epoch = s.epoch + 1, rev = s.rev + 1, next_due = null,
                    takeovers = s.takeovers + (s.owner is not null)::int::smallint
              where s.id = any(array(
                      (select d.id from syncor.saga d
                        where d.owner is null and d.finished_at is null and d.next_due <= now()
                        order by d.next_due limit $2 for update skip locked)))
                 or s.id = any(array(
                      (select i.id from syncor.saga i
                        where i.owner is null and i.finished_at is null
                          and i.id = any(array(select p.saga_id from syncor.input p order by p.id limit $2))
                        for update skip locked)))
                 or s.id = any(array(
                      (select o.id from syncor.saga o
                        where o.finished_at is null
                          and o.owner = any(array(select w.no from syncor.worker w where w.died_at is not null or w.stopped_at is not null))
                        limit $2 for update skip locked)))
            returning s.id",
        )
        .await?;
    let rows = client.query(&statement, &[&worker, &limit]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

const SAGAS: &str = "
select s.id, s.definition_no, s.epoch, s.rev, s.takeovers, s.state, s.target, s.clean, s.reason, s.deadline_at, s.correlation_id,
       s.event_id, s.event_at, e.type, e.topic, e.source, e.subject, e.causation_id, e.depth, e.data::text, e.dedupe_key, s.started_at,
       s.resume_to, s.paused_at, s.lock_until, s.undoes, s.parent_id, s.parent_seq, s.parent_action, s.nesting, s.arrived, s.lock_keys,
       (select bool_and(k.granted_at is not null) from syncor.lock_ticket k where k.saga_id = s.id),
       case when s.parent_id is not null then syncor.root_of(s.id) end
  from syncor.saga s
  left join syncor.events e on e.id = s.event_id and e.created_at = s.event_at
 where s.id = any($1) and s.owner = $2";

const STEPS: &str = "
select t.saga_id, t.seq, t.status, t.compensation, t.ambiguous, t.attempts, t.spent, t.undo_attempts, t.undo_spent, t.fence,
       t.called_at, t.due_at, t.started_at, t.finished_at, t.message, t.error, a.output::text, a.context::text,
       t.ordinal, t.wait, t.wait_until, t.detail::text,
       case when t.wait = 'callback' then (select max(c.beat_at) from syncor.callback c where c.saga_id = t.saga_id and c.seq = t.seq and c.action = 'do') end
  from syncor.step t
  left join syncor.attempt a on a.saga_id = coalesce((t.detail ->> 'doneBy')::uuid, t.saga_id) and a.seq = t.seq and a.outcome = 'succeeded'
   and (a.action = 'do' and a.attempt = t.attempts or a.action = 'verify')
 where t.saga_id = any($1)
 order by t.saga_id, t.seq";

/// Loads sagas that this worker owns. One that was taken away meanwhile is left out.
///
/// # Errors
/// When the database cannot be asked or holds words that this version does not know.
pub async fn load(client: &Client, worker: i32, ids: &[Uuid]) -> Result<Vec<Loaded>, Error> {
    let sagas = client.prepare_cached(SAGAS).await?;
    let steps = client.prepare_cached(STEPS).await?;
    let rows = client.query(&sagas, &[&ids, &worker]).await?;
    let mut progress: HashMap<Uuid, Vec<(usize, StepProgress)>> = HashMap::with_capacity(ids.len());
    for row in client.query(&steps, &[&ids]).await? {
        let seq = usize::try_from(row.get::<_, i16>(1)).unwrap_or_default();
        progress.entry(row.get(0)).or_default().push((seq, step_of(&row)?));
    }
    let mut said: HashMap<Uuid, Vec<InputRow>> = HashMap::new();
    for input in inputs::of(client, ids).await? {
        said.entry(input.saga_id).or_default().push(input);
    }
    rows.iter()
        .map(|row| {
            let id = row.get(0);
            saga_of(row, progress.remove(&id).unwrap_or_default(), said.remove(&id).unwrap_or_default())
        })
        .collect()
}

fn saga_of(row: &Row, steps: Vec<(usize, StepProgress)>, inputs: Vec<InputRow>) -> Result<Loaded, Error> {
    let state: &str = row.get(5);
    let target: Option<&str> = row.get(6);
    let parent = match (row.get(26), row.get(27), row.get(28)) {
        (Some(id), Some(seq), Some(action)) => Some(Parent { id, seq, action }),
        _ => None,
    };
    let kin =
        Kin { parent, nesting: row.get(29), root: row.get(33), arrived: row.get::<_, Option<i64>>(30).unwrap_or_default(), lock_keys: row.get(31) };
    let saga = Saga {
        id: row.get(0),
        state: SagaState::parse(state).ok_or_else(|| Error::Unreadable(format!("the saga state `{state}`")))?,
        target: target.and_then(Target::parse),
        clean: row.get(7),
        reason: row.get(8),
        deadline_at: at(row, 9),
        lock_until: at(row, 24),
        paused: match (row.get::<_, Option<&str>>(22).and_then(SagaState::parse), at(row, 23)) {
            (Some(resume_to), Some(at)) => Some(Paused { resume_to, at }),
            _ => None,
        },
        undoes: row.get(25),
        locks: match (&kin.lock_keys, row.get::<_, Option<bool>>(32)) {
            (None, _) => Locks::None,
            (Some(_), Some(false)) => Locks::Queued,
            // Without tickets of its own it goes with those of its root.
            (Some(_), _) => Locks::Held,
        },
        ..Saga::new(row.get(0), 0)
    };
    let data: Option<String> = row.get(19);
    let event = Event {
        id: row.get(11),
        kind: row.get::<_, Option<String>>(13).unwrap_or_default(),
        topic: row.get::<_, Option<String>>(14).unwrap_or_default(),
        source: row.get::<_, Option<String>>(15).unwrap_or_default(),
        subject: row.get(16),
        data: Payload::trusted(data.as_deref().unwrap_or("null").into()),
        correlation_id: row.get(10),
        causation_id: row.get(17),
        dedupe_key: row.get(20),
        depth: row.get::<_, Option<i16>>(18).and_then(|depth| u16::try_from(depth).ok()).unwrap_or(0),
        created_at: time::from_sql(row.get(12)),
    };
    Ok(Loaded {
        definition_no: row.get(1),
        epoch: row.get(2),
        rev: row.get(3),
        started_at: time::from_sql(row.get(21)),
        saga,
        steps,
        kin,
        inputs,
        event,
    })
}

fn step_of(row: &Row) -> Result<StepProgress, Error> {
    let (status, compensation): (&str, &str) = (row.get(2), row.get(3));
    let payload = |column: usize| row.get::<_, Option<String>>(column).map(|text| Payload::trusted(text.into()));
    let count = |column: usize| u32::try_from(row.get::<_, i32>(column)).unwrap_or(0);
    let mut step = StepProgress {
        status: StepStatus::parse(status).ok_or_else(|| Error::Unreadable(format!("the step status `{status}`")))?,
        compensation: Compensation::parse(compensation).ok_or_else(|| Error::Unreadable(format!("the compensation `{compensation}`")))?,
        ambiguous: row.get(4),
        attempts: count(5),
        spent: count(6),
        undo_attempts: count(7),
        undo_spent: count(8),
        fence: row.get(9),
        called_at: at(row, 10),
        due_at: at(row, 11),
        started_at: at(row, 12),
        finished_at: at(row, 13),
        message: row.get(14),
        error: row.get(15),
        output: payload(16),
        context: payload(17),
        order: count(18),
        wait: row.get::<_, Option<&str>>(19).and_then(Wait::parse),
        wait_until: at(row, 20),
        beat_at: at(row, 22),
        ..StepProgress::default()
    };
    StepDetail::restore(row.get(21), &mut step);
    Ok(step)
}

fn at(row: &Row, column: usize) -> Option<crate::core::time::Timestamp> {
    row.get::<_, Option<DateTime<Utc>>>(column).map(time::from_sql)
}

/// A saga row and the place it has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The saga.
    pub id: Uuid,
    /// Its epoch.
    pub epoch: i32,
    /// Its rev.
    pub rev: i32,
}

/// Every live saga that a worker owns, as the database has it.
///
/// # Errors
/// When the database cannot be asked.
pub async fn owned(client: &Client, worker: i32) -> Result<Vec<Place>, Error> {
    let statement = client.prepare_cached("select id, epoch, rev from syncor.saga where owner = $1 and finished_at is null").await?;
    let rows = client.query(&statement, &[&worker]).await?;
    Ok(rows.iter().map(|row| Place { id: row.get(0), epoch: row.get(1), rev: row.get(2) }).collect())
}

/// Takes sagas anew that this worker owns without knowing of them, unless they have moved since.
///
/// # Errors
/// When the database cannot be asked.
pub async fn reclaim(client: &Client, worker: i32, lost: &[Place]) -> Result<Vec<Uuid>, Error> {
    let ids: Vec<Uuid> = lost.iter().map(|place| place.id).collect();
    let epochs: Vec<i32> = lost.iter().map(|place| place.epoch).collect();
    let revs: Vec<i32> = lost.iter().map(|place| place.rev).collect();
    let rows = client
        .query(
            "update syncor.saga s set epoch = s.epoch + 1, rev = s.rev + 1
               from unnest($2::uuid[], $3::int[], $4::int[]) as l(id, epoch, rev)
              where s.id = l.id and s.owner = $1 and s.epoch = l.epoch and s.rev = l.rev and s.finished_at is null
             returning s.id",
            &[&worker, &ids, &epochs, &revs],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// How long until the next unowned saga is due, if there is one.
///
/// # Errors
/// When the database cannot be asked.
pub async fn next_due(client: &Client) -> Result<Option<std::time::Duration>, Error> {
    let statement = client
        .prepare_cached(
            "select (extract(epoch from min(next_due) - clock_timestamp()) * 1000)::float8
               from syncor.saga where owner is null and finished_at is null and next_due is not null",
        )
        .await?;
    let millis: Option<f64> = client.query_one(&statement, &[]).await?.get(0);
    Ok(millis.map(|millis| std::time::Duration::from_secs_f64((millis / 1000.0).clamp(0.0, 3600.0))))
}

/// Lets go of a saga that this worker cannot run; another one may take it in a minute.
///
/// # Errors
/// When the database cannot be asked.
pub async fn put_back(client: &Client, worker: i32, id: Uuid) -> Result<(), Error> {
    client
        .execute(
            "update syncor.saga set owner = null, epoch = epoch + 1, rev = rev + 1, next_due = now() + interval '1 minute'
              where id = $1 and owner = $2 and finished_at is null",
            &[&id, &worker],
        )
        .await?;
    Ok(())
}
