//! What happened to a saga, in order, from everything the ledger knows about it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, Postgres, Transaction};
use utoipa::ToSchema;
use uuid::Uuid;

use super::saga::Attempt;
use super::sagas::Saga;
use crate::store::Error;

/// Entries of the longest timeline.
const LIMIT: i64 = 1000;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When.
    pub at: DateTime<Utc>,
    /// `event`, `started`, `call`, `outcome`, `command`, `emitted` or `finished`.
    pub what: String,
    /// The step, where it is about one.
    pub step: Option<String>,
    /// One line for people.
    pub text: String,
    /// The event or command it is about.
    pub id: Option<Uuid>,
}

/// Events and orders are read; attempts are at hand already.
const QUERY: &str = "
select e.created_at as at, case when e.id = $2 then 'event' else 'emitted' end as what, e.data #>> '{step,name}' as step,
       e.type as text, e.id
  from syncor.events e
 where e.correlation_id = $3 and (e.id = $2 or e.saga_id = $1)
union all
select c.requested_at, 'command', c.step, c.kind || coalesce(' (' || c.decision || ')', '') || ' by ' || c.requested_by || ': ' || c.status || coalesce(' (' || c.result || ')', ''), c.id
  from syncor.command c
 where c.saga_id = $1
 order by 1
 limit $4";

pub(super) async fn read(snapshot: &mut Transaction<'static, Postgres>, saga: &Saga, attempts: &[Attempt]) -> Result<Vec<Entry>, Error> {
    let query = sqlx::query_as(QUERY).bind(saga.id).bind(saga.event_id).bind(&saga.correlation_id).bind(LIMIT);
    Ok(merge(query.fetch_all(&mut **snapshot).await?, saga, attempts))
}

/// Sorts by time; what shares a time stays in the order cause before effect.
fn merge(mut entries: Vec<Entry>, saga: &Saga, attempts: &[Attempt]) -> Vec<Entry> {
    let plain = |at, what: &str, text: String| Entry { at, what: what.to_owned(), step: None, text, id: None };
    entries.push(plain(saga.started_at, "started", saga.definition.clone()));
    for attempt in attempts {
        let number = format!("{} {}, attempt {}", attempt.action, attempt.step, attempt.attempt);
        if let Some(at) = attempt.started_at {
            entries.push(Entry { step: Some(attempt.step.clone()), ..plain(at, "call", number.clone()) });
        }
        if let (Some(at), Some(outcome)) = (attempt.finished_at, &attempt.outcome) {
            let error = attempt.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            entries.push(Entry { step: Some(attempt.step.clone()), ..plain(at, "outcome", format!("{number}: {outcome}{error}")) });
        }
    }
    if let Some(at) = saga.finished_at {
        let reason = saga.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        entries.push(plain(at, "finished", format!("{}{reason}", saga.state)));
    }
    entries.sort_by_key(|entry| (entry.at, rank(&entry.what)));
    entries
}

/// Rows of one transaction share a time.
fn rank(what: &str) -> u8 {
    match what {
        "event" => 0,
        "started" => 1,
        "outcome" => 2,
        "command" => 3,
        "call" => 4,
        "emitted" => 5,
        _ => 6,
    }
}
