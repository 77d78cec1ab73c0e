//! Services that are held back: rows that all workers share.
//!
//! A row exists while calls are held back. One probe at a time over the whole pool: the update that finds `probe_at` in the
//! past moves it ahead, and Postgres lets one of any number of such updates find it there. What comes of a probe is written
//! only while the row is still of the same opening and the same probe.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Client, Error, Store, time};
use crate::core::breaker::{Breaker, PROBE_LIMIT, pause};
use crate::core::time::Timestamp;

/// Sagas that are woken in one statement.
const WAKE_MAX: i64 = 500;
/// Reasons are lines for people, characters.
const REASON_MAX: usize = 500;

/// A service that is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub service: String,
    /// How it stands.
    pub breaker: Breaker,
}

/// The right to make one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    opened_at: DateTime<Utc>,
    probes: i32,
    /// Until when nobody else probes.
    pub until: Timestamp,
}

/// All services that are held back.
///
/// # Errors
/// When the database cannot be asked.
pub async fn held(client: &Client) -> Result<Vec<Held>, Error> {
    let statement = client.prepare_cached("select service, probes, probe_at, prober from syncor.breaker order by service").await?;
    let rows = client.query(&statement, &[]).await?;
    let held = rows.iter().map(|row| {
        let breaker = match row.get::<_, Option<DateTime<Utc>>>(2) {
            None => Breaker::Paused,
            Some(probe_at) => {
                let made = u32::try_from(row.get::<_, i32>(1)).unwrap_or(0);
                // The one that is under way has not failed yet.
                let under_way = u32::from(row.get::<_, Option<i32>>(3).is_some());
                Breaker::Open { probes: made.saturating_sub(under_way), probe_at: time::from_sql(probe_at) }
            }
        };
        Held { service: row.get(0), breaker }
    });
    Ok(held.collect())
}

/// Holds a service back, unless it is already.
///
/// # Errors
/// When the database cannot be asked.
pub async fn open(client: &Client, worker: i32, service: &str, failures: u32, reason: &str) -> Result<(), Error> {
    let failures = i32::try_from(failures).unwrap_or(i32::MAX);
    client
        .execute(
            "insert into syncor.breaker (service, state, failures, probe_at, reason, by)
             values ($1, 'open', $2, now() + make_interval(secs => $3), $4, 'worker ' || $5::int) on conflict (service) do nothing",
            &[&service, &failures, &pause(0).as_secs_f64(), &line(reason), &worker],
        )
        .await?;
    Ok(())
}

/// Asks for the right to probe: one of all workers gets it, while it is due.
///
/// # Errors
/// When the database cannot be asked: then nobody may probe until the limit of a probe has passed.
pub async fn probe(client: &Client, worker: i32, service: &str) -> Result<Option<Probe>, Error> {
    let statement = client
        .prepare_cached(
            "update syncor.breaker set probes = probes + 1, prober = $2, probe_at = clock_timestamp() + make_interval(secs => $3)
              where service = $1 and state = 'open' and probe_at <= clock_timestamp()
             returning opened_at, probes, probe_at",
        )
        .await?;
    let row = client.query_opt(&statement, &[&service, &worker, &PROBE_LIMIT.as_secs_f64()]).await?;
    Ok(row.map(|row| Probe { opened_at: row.get(0), probes: row.get(1), until: time::from_sql(row.get(2)) }))
}

/// A probe found the service down; when the next one may be made, if nobody else was faster.
///
/// # Errors
/// When the database cannot be asked.
pub async fn failed(client: &Client, service: &str, probe: &Probe, reason: &str) -> Result<Option<Held>, Error> {
    let failed = u32::try_from(probe.probes).unwrap_or(0);
    let row = client
        .query_opt(
            "update syncor.breaker set prober = null, probe_at = clock_timestamp() + make_interval(secs => $4), reason = $5
              where service = $1 and state = 'open' and opened_at = $2 and probes = $3
             returning probe_at",
            &[&service, &probe.opened_at, &probe.probes, &pause(failed).as_secs_f64(), &line(reason)],
        )
        .await?;
    Ok(row.map(|row| Held { service: service.to_owned(), breaker: Breaker::Open { probes: failed, probe_at: time::from_sql(row.get(0)) } }))
}

/// A probe was not made after all: somebody else may.
///
/// # Errors
/// When the database cannot be asked.
pub async fn give_back(client: &Client, service: &str, probe: &Probe) -> Result<(), Error> {
    client
        .execute(
            "update syncor.breaker set prober = null, probes = probes - 1, probe_at = clock_timestamp()
              where service = $1 and state = 'open' and opened_at = $2 and probes = $3",
            &[&service, &probe.opened_at, &probe.probes],
        )
        .await?;
    Ok(())
}

/// A probe found the service alive: calls go again. Somebody who paused it meanwhile keeps it paused.
///
/// # Errors
/// When the database cannot be asked.
pub async fn close(client: &Client, service: &str, probe: &Probe) -> Result<bool, Error> {
    let closed =
        client.execute("delete from syncor.breaker where service = $1 and state = 'open' and opened_at = $2", &[&service, &probe.opened_at]).await?;
    Ok(closed > 0)
}

/// Wakes sagas that sleep until a service is back, a bounded number of them: those after `after`, by id. Returns the last one,
/// if there may be more.
///
/// Only their time is brought forward: whoever claims one decides, and one whose service is still held back sleeps on.
///
/// # Errors
/// When the database cannot be asked.
pub async fn wake(client: &Client, after: Uuid) -> Result<Option<Uuid>, Error> {
    let statement = client
        .prepare_cached(
            "with asleep as materialized (
               select id from syncor.saga
                where owner is null and finished_at is null and next_due > now() and waiting_for = 'service' and id > $1
                order by id limit $2 for no key update skip locked),
             woken as (update syncor.saga s set next_due = now() from asleep where s.id = asleep.id)
             select id from asleep order by id desc limit 1",
        )
        .await?;
    Ok(client.query_opt(&statement, &[&after, &WAKE_MAX]).await?.map(|row| row.get(0)))
}

/// Wakes one saga that sleeps until a service is back, any one, so that somebody probes; false if there is none.
///
/// # Errors
/// When the database cannot be asked.
pub async fn wake_one(client: &Client) -> Result<bool, Error> {
    // Which service a saga waits for is not in its row: a random one finds the right one in the end.
    let statement = client
        .prepare_cached(
            "with asleep as materialized (
               select id from syncor.saga
                where owner is null and finished_at is null and next_due > now() and waiting_for = 'service'
                order by random() limit 1)
             update syncor.saga s set next_due = now() from asleep
              where s.id = asleep.id and s.owner is null and s.finished_at is null and s.next_due > now()",
        )
        .await?;
    Ok(client.execute(&statement, &[]).await? > 0)
}

const PAUSE: &str = "
insert into syncor.breaker as b (service, state, reason, by) values ($1, 'paused', $2, $3)
    on conflict (service) do update
   set state = 'paused', opened_at = now(), probe_at = null, prober = null, reason = excluded.reason, by = excluded.by
 where b.state <> 'paused'";

/// Holds a service back by hand; `false` if it was paused already.
///
/// # Errors
/// When the database refuses.
pub async fn pause_by_hand(store: &Store, service: &str, by: &str, reason: &str) -> Result<bool, Error> {
    order(store, service, by, reason, Order::Pause).await
}

/// Takes a service up again, whether it was paused or its breaker is open; `false` if calls go already.
///
/// # Errors
/// When the database refuses.
pub async fn resume_by_hand(store: &Store, service: &str, by: &str, reason: Option<&str>) -> Result<bool, Error> {
    let resumed = order(store, service, by, reason.unwrap_or_default(), Order::Resume).await?;
    // Workers wake them as well, if one lives that knows of it.
    let mut last = Uuid::nil();
    while let Some(next) = wake(&store.client().await?, last).await? {
        last = next;
    }
    Ok(resumed)
}

#[derive(Clone, Copy)]
enum Order {
    Pause,
    Resume,
}

async fn order(store: &Store, service: &str, by: &str, reason: &str, order: Order) -> Result<bool, Error> {
    let mut client = store.client().await?;
    let transaction = client.transaction().await?;
    let changed = match order {
        Order::Pause => transaction.execute(PAUSE, &[&service, &line(reason), &by]).await?,
        Order::Resume => transaction.execute("delete from syncor.breaker where service = $1", &[&service]).await?,
    } > 0;
    let (status, result) = match (order, changed) {
        (Order::Pause, true) => ("applied", "paused"),
        (Order::Resume, true) => ("applied", "resumed"),
        (Order::Pause, false) => ("refused", "it is paused already"),
        (Order::Resume, false) => ("refused", "calls go already"),
    };
    transaction
        .execute(
            "insert into syncor.command (kind, target, reason, requested_by, status, result, settled_at)
             values ('service', $1, nullif($2, ''), $3, $4, $5, now())",
            &[&service, &line(reason), &by, &status, &result],
        )
        .await?;
    transaction.commit().await?;
    Ok(changed)
}

/// A service as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Its address; none if it is held back without being registered.
    pub url: Option<String>,
    /// `closed`, `open`, `probing` or `paused`.
    pub state: String,
    /// Since when calls are held back.
    pub held_since: Option<DateTime<Utc>>,
    /// When the next probe may be made.
    pub probe_at: Option<DateTime<Utc>>,
    /// What went wrong, or why it was paused.
    pub reason: Option<String>,
    /// The worker that opened it, or who paused it.
    pub by: Option<String>,
}

/// All services, and whatever else is held back.
///
/// # Errors
/// When the database cannot be asked.
pub async fn list(client: &Client) -> Result<Vec<Shown>, Error> {
    let rows = client
        .query(
            "select coalesce(s.name, b.service), s.url, coalesce(s.state, b.state), b.opened_at, b.probe_at, b.reason, b.by
               from syncor.services s full join syncor.breaker b on b.service = s.name order by 1",
            &[],
        )
        .await?;
    let shown = rows.iter().map(|row| Shown {
        name: row.get(0),
        url: row.get(1),
        state: row.get(2),
        held_since: row.get(3),
        probe_at: row.get(4),
        reason: row.get(5),
        by: row.get(6),
    });
    Ok(shown.collect())
}

fn line(text: &str) -> String {
    text.replace('\0', "\u{fffd}").chars().take(REASON_MAX).collect()
}
