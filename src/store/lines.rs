//! What the router writes beside the sagas it starts, in the same transaction: their places in the lines for object locks, the
//! events that somebody may wait for, and who waited for them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::start::{Arrival, NewSaga, SagaEnd};
use super::{Client, Error, time};

/// Opens the transaction. Inputs that are written in it ring by other means.
pub(super) const BEGIN: &str = "begin isolation level read committed; set local syncor.engine = 'on'; set local lock_timeout = '2s'";

/// All keys of the batch at once, in their order: two transactions that each ask once cannot wait for each other.
const HOLD_KEYS: &str = "
select syncor.hold_keys('{}', array(select jsonb_array_elements_text(x.doc -> 'keys') from jsonb_array_elements($1::jsonb) as x(doc)))";

/// In the order in which the sagas were started: that is the order of the line.
const LOCKS: &str = "
select (x.doc ->> 'id')::uuid,
       syncor.take_locks((x.doc ->> 'id')::uuid, null, array(select jsonb_array_elements_text(x.doc -> 'keys')))
  from jsonb_array_elements($1::jsonb) with ordinality as x(doc, n)
 where exists (select from syncor.saga s where s.id = (x.doc ->> 'id')::uuid)
 order by x.n";

const LOCK_KEYS: &str = "
update syncor.saga s set lock_keys = array(select jsonb_array_elements_text(x.doc -> 'keys'))
  from jsonb_array_elements($1::jsonb) as x(doc) where s.id = (x.doc ->> 'id')::uuid";

const WAITS: &str = "
insert into syncor.wait (saga_id, seq, event_type, key, since, fresh)
select (x.doc ->> 'saga_id')::uuid, (x.doc ->> 'seq')::smallint, x.doc ->> 'event_type', x.doc ->> 'key', (x.doc ->> 'since')::bigint, true
  from jsonb_array_elements($1::jsonb) as x(doc)
 where exists (select from syncor.saga s where s.id = (x.doc ->> 'saga_id')::uuid)
on conflict do nothing";

const ARRIVALS: &str = "
insert into syncor.arrival (no, event_id, created_at, type, keys)
select (x.doc ->> 'no')::bigint, (x.doc ->> 'event_id')::uuid, (x.doc ->> 'created_at')::timestamptz, x.doc ->> 'type',
       array(select jsonb_array_elements_text(x.doc -> 'keys'))
  from jsonb_array_elements($1::jsonb) as x(doc)
on conflict do nothing";

/// Waits that are new look at everything that arrived since their saga's event; those that are old, at what arrives now.
const MATCH_FRESH: &str = "
with f as (update syncor.wait set fresh = false where fresh returning saga_id, seq, event_type, key, since)
insert into syncor.input (saga_id, kind, key, seq, payload)
select f.saga_id, 'event', 'event:' || f.seq || ':' || a.event_id, f.seq, jsonb_build_object('eventId', a.event_id, 'eventAt', a.created_at)
  from f join syncor.arrival a on a.type = f.event_type and a.no > f.since and (f.key = '' or f.key = any(a.keys))
 order by a.no
on conflict do nothing";

const MATCH_OLD: &str = "
insert into syncor.input (saga_id, kind, key, seq, payload)
select w.saga_id, 'event', 'event:' || w.seq || ':' || (x.doc ->> 'event_id'), w.seq,
       jsonb_build_object('eventId', x.doc ->> 'event_id', 'eventAt', x.doc ->> 'created_at')
  from jsonb_array_elements($1::jsonb) with ordinality as x(doc, n)
 cross join lateral (select '' union all select jsonb_array_elements_text(x.doc -> 'keys')) as k(key)
  join syncor.wait w on w.event_type = x.doc ->> 'type' and w.key = k.key and w.since < (x.doc ->> 'no')::bigint and not w.fresh
 order by x.n
on conflict do nothing";

/// What there is to write.
pub(super) struct Lines {
    locks: Vec<Value>,
    waits: Vec<Value>,
    arrivals: Vec<Value>,
    ends: Vec<Value>,
    fresh: bool,
}

impl Lines {
    pub(super) fn of(sagas: &[NewSaga], arrivals: &[Arrival], ends: &[SagaEnd], fresh: bool) -> Self {
        let locks = sagas.iter().filter_map(|saga| Some(json!({"id": saga.id, "keys": saga.lock_keys.as_ref()?}))).collect();
        let waits = sagas.iter().flat_map(|saga| {
            saga.waits.iter().map(|wait| {
                let mut row = super::extras::wait_row(wait);
                row["saga_id"] = json!(saga.id);
                row
            })
        });
        let waits: Vec<Value> = waits.collect();
        let arrival = |arrival: &Arrival| {
            let created_at: DateTime<Utc> = time::to_sql(arrival.created_at);
            json!({"no": arrival.no, "event_id": arrival.event_id, "created_at": created_at, "type": arrival.kind, "keys": arrival.keys})
        };
        let end = |end: &SagaEnd| json!({"family": end.family, "failed": end.failed, "saga_id": end.saga_id, "reason": end.reason});
        Self {
            locks,
            ends: ends.iter().map(end).collect(),
            fresh: fresh || !waits.is_empty(),
            waits,
            arrivals: arrivals.iter().map(arrival).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.locks.is_empty() && self.waits.is_empty() && self.arrivals.is_empty() && self.ends.is_empty() && !self.fresh
    }

    /// Writes it all. Of the sagas that need locks, those that hold them now are true.
    pub(super) async fn write(self, client: &Client) -> Result<HashMap<Uuid, bool>, Error> {
        let mut locked = HashMap::new();
        if !self.locks.is_empty() {
            let document = Json(Value::Array(self.locks));
            let statement = client.prepare_cached(HOLD_KEYS).await?;
            client.execute(&statement, &[&document]).await?;
            let statement = client.prepare_cached(LOCK_KEYS).await?;
            client.execute(&statement, &[&document]).await?;
            let statement = client.prepare_cached(LOCKS).await?;
            for row in client.query(&statement, &[&document]).await? {
                locked.insert(row.get(0), row.get::<_, &str>(1) == "held");
            }
        }
        let waits = if self.waits.is_empty() { None } else { Some((WAITS, self.waits)) };
        let arrivals = if self.arrivals.is_empty() { None } else { Some(self.arrivals) };
        for (sql, rows) in waits.into_iter().chain(arrivals.clone().map(|rows| (ARRIVALS, rows))) {
            let statement = client.prepare_cached(sql).await?;
            client.execute(&statement, &[&Json(Value::Array(rows))]).await?;
        }
        // The old before the new: a wait that was just compared with everything is no old one yet.
        if let Some(rows) = arrivals {
            let statement = client.prepare_cached(MATCH_OLD).await?;
            client.execute(&statement, &[&Json(Value::Array(rows))]).await?;
        }
        if !self.ends.is_empty() {
            let statement = client.prepare_cached("select syncor.count_ends($1::jsonb)").await?;
            client.execute(&statement, &[&Json(Value::Array(self.ends))]).await?;
        }
        if self.fresh {
            let statement = client.prepare_cached(MATCH_FRESH).await?;
            client.execute(&statement, &[]).await?;
        }
        Ok(locked)
    }
}
