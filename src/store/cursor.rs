//! Reads the ledger by snapshot: what became visible since the last batch, in whatever order it was committed.
//!
//! An event is new if its transaction was not visible in the last snapshot and is visible in this one. Late commits, aborts and
//! long writers need no special case, and a foreign transaction that stays open delays nobody but itself.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Client, Error, time};
use crate::core::event::Event;
use crate::core::payload::Payload;

/// How far the router has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Number of the batch that wrote it.
    pub seq: i64,
    /// Everything visible in this snapshot is handled (`xmin:xmax:xip,...`).
    pub done: String,
    /// Within a large interval that is read in pages.
    pub page: Option<Page>,
    /// Events up to here came with a restore from another cluster: the backlog has those still to be handled.
    pub floor_pos: i64,
}

/// A place within an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The snapshot at the end of the interval.
    pub target: String,
    /// The last transaction handled.
    pub after_tx: u64,
    /// The last position handled within it.
    pub after_pos: i64,
}

/// What one read found.
#[derive(Debug)]
pub struct Batch {
    /// New events in order. Types that trigger nothing are counted, not fetched with their data.
    pub events: Vec<NewEvent>,
    /// Where the next read goes on, once these are handled.
    pub next: Position,
    /// Revision of the definitions in the same snapshot.
    pub catalog_revision: i64,
    /// Whether more events are known to wait.
    pub more: bool,
    /// Those of the events that came from the backlog: to be struck off it.
    pub backlog: Vec<Uuid>,
    /// Whether there are waits that were never compared with what arrived before them.
    pub fresh_waits: bool,
}

/// An event with its exact time, which finds its partition.
#[derive(Debug)]
pub struct NewEvent {
    /// The event.
    pub event: Event,
    /// Whether its data was fetched: its type triggers something.
    pub wanted: bool,
}

const CURRENT: &str = "
select c.seq, c.done::text, c.target::text, c.after_tx::text, c.after_pos, c.floor_pos,
       exists (select from syncor.origin o where o.system_identifier = (select p.system_identifier::text from pg_control_system() p))
  from syncor.cursor c order by c.seq desc limit 1";

/// The position that the last batch left behind.
///
/// # Errors
/// When the database cannot be asked, the cursor is gone, or it was restored from another cluster and not adopted yet.
pub async fn current(client: &Client) -> Result<Position, Error> {
    let statement = client.prepare_cached(CURRENT).await?;
    let row = client.query_opt(&statement, &[]).await?.ok_or_else(|| Error::Schema("syncor.cursor is empty: run `hms-orch migrate`".to_owned()))?;
    if !row.get::<_, bool>(6) {
        return Err(Error::Schema("this database was restored from another cluster: run `hms-orch migrate` to adopt it".to_owned()));
    }
    let page = match (row.get::<_, Option<String>>(2), row.get::<_, Option<String>>(3), row.get::<_, Option<i64>>(4)) {
        (Some(target), Some(tx), Some(after_pos)) => Some(Page { target, after_tx: parse_xid(&tx)?, after_pos }),
        _ => None,
    };
    Ok(Position { seq: row.get(0), done: row.get(1), page, floor_pos: row.get(5) })
}

/// Whether some family of sagas has failed lately.
///
/// # Errors
/// When the database cannot be asked.
pub async fn has_streaks(client: &Client) -> Result<bool, Error> {
    Ok(client.query_one("select exists (select from syncor.streak)", &[]).await?.get(0))
}

/// One statement, so that the snapshot it reports is the snapshot it read with. Two arms instead of OR: each has its index.
const READ: &str = "
select s.snap, c.revision, e.*, s.fresh
  from (select pg_current_snapshot()::text as snap, exists (select from syncor.wait where fresh) as fresh) s
 cross join syncor.catalog c
  left join lateral (
    select u.tx::text, u.pos, u.old, u.id, u.type, u.topic, u.source, u.subject, u.correlation_id, u.causation_id, u.depth, u.created_at,
           case when u.type = any($4::text[]) then u.data::text end as data
      from (select n.*, false as old from syncor.events n where n.tx >= $1::text::xid8 and n.pos > $8
            union all
            select l.*, false from syncor.events l where l.tx = any($2::text[]::xid8[]) and l.pos > $8
            union all
            select b.*, true from syncor.backlog k join syncor.events b on b.id = k.event_id and b.created_at = k.created_at) u
     where u.old
        or ($5::text is null or pg_visible_in_snapshot(u.tx, $5::text::pg_snapshot))
       and ($6::text is null or (u.tx, u.pos) > ($6::text::xid8, $7::bigint))
     order by u.old desc, u.tx, u.pos
     limit $3
  ) e on true";

/// Reads at most `limit` new events. `triggers` are the types whose data is wanted.
///
/// # Errors
/// When the database cannot be asked.
pub async fn read(client: &Client, from: &Position, limit: i64, triggers: &[String]) -> Result<Batch, Error> {
    let snapshot = Snapshot::parse(&from.done)?;
    let (target, after_tx, after_pos) = match &from.page {
        Some(page) => (Some(page.target.as_str()), Some(page.after_tx.to_string()), page.after_pos),
        None => (None, None, 0),
    };
    let statement = client.prepare_cached(READ).await?;
    let rows = client.query(&statement, &[&snapshot.xmax, &snapshot.xip, &limit, &triggers, &target, &after_tx, &after_pos, &from.floor_pos]).await?;
    let first = rows.first().ok_or_else(|| Error::Schema("syncor.catalog is empty: run `hms-orch migrate`".to_owned()))?;
    let (snap, catalog_revision): (String, i64) = (first.get(0), first.get(1));
    let mut events = Vec::with_capacity(rows.len());
    let mut last = from.page.as_ref().map(|page| (page.after_tx, page.after_pos));
    let mut backlog = Vec::new();
    for row in &rows {
        let Some(tx) = row.get::<_, Option<&str>>(2) else {
            continue;
        };
        let new = event_of(row, 5);
        if row.get(4) {
            backlog.push(new.event.id);
        } else {
            last = Some((parse_xid(tx)?, row.get::<_, i64>(3)));
        }
        events.push(new);
    }
    let full = i64::try_from(events.len()).is_ok_and(|count| count >= limit);
    // A batch full of nothing but backlog begins an interval of which nothing is handled yet.
    let (after_tx, after_pos) = last.unwrap_or((0, 0));
    let target = from.page.as_ref().map_or_else(|| snap.clone(), |page| page.target.clone());
    let page = full.then_some(Page { target, after_tx, after_pos });
    let done = match (&page, &from.page) {
        (Some(_), _) => from.done.clone(),
        (None, Some(finished)) => finished.target.clone(),
        (None, None) => snap,
    };
    // A page that was not full ends its interval: what came after its target is still unread.
    let more = full || from.page.is_some();
    let next = Position { seq: from.seq + 1, done, page, floor_pos: from.floor_pos };
    Ok(Batch { events, next, catalog_revision, more, backlog, fresh_waits: first.get(15) })
}

fn event_of(row: &Row, at: usize) -> NewEvent {
    let data: Option<String> = row.get(at + 9);
    let created_at: DateTime<Utc> = row.get(at + 8);
    let event = Event {
        id: row.get::<_, Uuid>(at),
        kind: row.get(at + 1),
        topic: row.get(at + 2),
        source: row.get(at + 3),
        subject: row.get(at + 4),
        correlation_id: row.get(at + 5),
        causation_id: row.get(at + 6),
        depth: u16::try_from(row.get::<_, i16>(at + 7)).unwrap_or(0),
        created_at: time::from_sql(created_at),
        dedupe_key: None,
        data: Payload::trusted(data.as_deref().unwrap_or("null").into()),
    };
    NewEvent { wanted: data.is_some(), event }
}

/// The parts of `xmin:xmax:xip,...` that a read needs.
struct Snapshot {
    xmax: String,
    xip: Vec<String>,
}

impl Snapshot {
    fn parse(text: &str) -> Result<Self, Error> {
        let mut parts = text.splitn(3, ':').skip(1);
        let xmax = parts.next().ok_or_else(|| Error::Unreadable(format!("the snapshot `{text}`")))?;
        let xip = parts.next().unwrap_or_default();
        Ok(Self { xmax: xmax.to_owned(), xip: xip.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect() })
    }
}

fn parse_xid(text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| Error::Unreadable(format!("the transaction id `{text}`")))
}
