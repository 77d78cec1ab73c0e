//! Worker rows: registering, beating, and declaring the dead.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Client, Error, time};
use crate::core::time::Timestamp;

/// What a worker says of itself when it starts.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Fresh at every start.
    pub id: Uuid,
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: i32,
    /// Calls it may have in flight.
    pub slots: i32,
    /// How long it may be silent, milliseconds.
    pub lease_ms: i32,
}

/// What a heartbeat brought back.
#[derive(Debug)]
pub struct Beat {
    /// False if somebody declared this worker dead.
    pub alive: bool,
    /// The database's time.
    pub now: Timestamp,
    /// Some service is held back.
    pub holding: bool,
    /// The revision of the catalogue: another one means that something was deployed or retired.
    pub catalog_revision: i64,
    /// The other workers that are not gone.
    pub peers: Vec<Peer>,
}

/// Another worker, as the database knows it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its number.
    pub no: i32,
    /// Its heartbeats so far.
    pub beat: i64,
    /// How long it may be silent, milliseconds.
    pub lease_ms: i32,
    /// Its listening session is gone.
    pub session_gone: bool,
    /// Calls that it could take on.
    pub free_slots: i32,
}

/// Registers a worker and returns its number.
///
/// # Errors
/// When the database cannot be asked.
pub async fn register(client: &Client, worker: &Registration) -> Result<i32, Error> {
    let row = client
        .query_one(
            "insert into syncor.worker (id, host, pid, version, slots, lease_ms) values ($1, $2, $3, $4, $5, $6) returning no",
            &[&worker.id, &worker.host, &worker.pid, &env!("CARGO_PKG_VERSION"), &worker.slots, &worker.lease_ms],
        )
        .await?;
    Ok(row.get(0))
}

const BEAT: &str = "
with me as (
  update syncor.worker set beat = beat + 1, beat_at = now(), slots_used = $2, session_pid = $3
   where no = $1 and died_at is null and stopped_at is null
  returning no)
select exists (select from me), clock_timestamp(), w.no, w.beat, w.lease_ms,
       w.session_pid is not null and not exists (select from pg_stat_activity a where a.pid = w.session_pid),
       greatest(w.slots - w.slots_used, 0), exists (select from syncor.breaker),
       (select c.revision from syncor.catalog c)
  from (select 1) one
  left join syncor.worker w on w.died_at is null and w.stopped_at is null and w.no <> $1";

/// Beats, and looks at the others.
///
/// # Errors
/// When the database cannot be asked: then the beat may or may not have counted.
pub async fn beat(client: &Client, no: i32, slots_used: i32, session_pid: Option<i32>) -> Result<Beat, Error> {
    let statement = client.prepare_cached(BEAT).await?;
    let rows = client.query(&statement, &[&no, &slots_used, &session_pid]).await?;
    let first = rows.first().ok_or_else(|| Error::Unreadable("an empty heartbeat".to_owned()))?;
    let peers = rows.iter().filter(|row| row.get::<_, Option<i32>>(2).is_some()).map(|row| Peer {
        no: row.get(2),
        beat: row.get(3),
        lease_ms: row.get(4),
        session_gone: row.get(5),
        free_slots: row.get(6),
    });
    Ok(Beat {
        alive: first.get(0),
        now: time::from_sql(first.get::<_, DateTime<Utc>>(1)),
        holding: first.get(7),
        catalog_revision: first.get(8),
        peers: peers.collect(),
    })
}

/// Declares a worker dead, unless it has beaten since. One of any number of observers succeeds.
///
/// # Errors
/// When the database cannot be asked.
pub async fn bury(client: &Client, no: i32, beat: i64) -> Result<bool, Error> {
    // Its session is ended with it: a half-open listener would hold the router's seat.
    let row = client
        .query_opt(
            "with dead as (
               update syncor.worker set died_at = now() where no = $1 and beat = $2 and died_at is null and stopped_at is null
               returning session_pid)
             select (select pg_terminate_backend(a.pid) from pg_stat_activity a where a.pid = dead.session_pid and a.usename = current_user
                        and a.application_name = 'hms-listen')
               from dead",
            &[&no, &beat],
        )
        .await?;
    Ok(row.is_some())
}

/// Marks a clean stop and lets go of whatever the worker still owns.
///
/// # Errors
/// When the database cannot be asked.
pub async fn stop(client: &Client, no: i32) -> Result<u64, Error> {
    let released = client
        .execute(
            "with stopped as (update syncor.worker set stopped_at = now(), slots_used = 0 where no = $1 and died_at is null)
             update syncor.saga set owner = null, epoch = epoch + 1, rev = rev + 1, next_due = now()
              where owner = $1 and finished_at is null",
            &[&no],
        )
        .await?;
    Ok(released)
}

/// Removes what nobody will ask for again: read positions, and workers that are long gone and own nothing.
///
/// # Errors
/// When the database cannot be asked.
pub async fn sweep(client: &Client) -> Result<(), Error> {
    client
        .batch_execute(
            "delete from syncor.arrival
              where at < now() - interval '1 hour'
                and no < coalesce((select min(s.arrived) from syncor.saga s where s.finished_at is null), 9223372036854775807);
             delete from syncor.cursor where seq < (select max(seq) from syncor.cursor) - 100;
             delete from syncor.worker w
              where coalesce(w.stopped_at, w.died_at) < now() - interval '30 days'
                and not exists (select from syncor.saga s where s.owner = w.no and s.finished_at is null)",
        )
        .await?;
    Ok(())
}

/// What threatens the database from outside.
#[derive(Clone, Copy, Debug)]
pub struct Strain {
    /// Part of the notification queue in use, 0 to 1.
    pub notify_queue: f64,
    /// Age of the oldest snapshot, seconds: vacuum can remove nothing younger.
    pub snapshot_age: f64,
}

/// Looks at what threatens the database from outside.
///
/// # Errors
/// When the database cannot be asked.
pub async fn strain(client: &Client) -> Result<Strain, Error> {
    let row = client
        .query_one(
            "select pg_notification_queue_usage(),
                    coalesce((select max(extract(epoch from now() - a.xact_start))::float8 from pg_stat_activity a where a.backend_xmin is not null), 0)",
            &[],
        )
        .await?;
    Ok(Strain { notify_queue: row.get(0), snapshot_age: row.get(1) })
}
