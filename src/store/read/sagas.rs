//! Sagas as people look at them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, Postgres, QueryBuilder};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Page, ReadStore, with_one_more};
use crate::store::Error;

/// Which sagas to list. Absent means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// One of these states.
    pub states: Vec<String>,
    /// What it waits for: `worker`, `human`, `timer`, ...
    pub waiting_for: Option<String>,
    /// The definition's full id, or its family.
    pub definition: Option<String>,
    /// The event's correlation id.
    pub correlation_id: Option<String>,
    /// The event that started it.
    pub event_id: Option<Uuid>,
    /// It needs the lock of this object.
    pub lock_key: Option<String>,
    /// It has not ended.
    pub unfinished: bool,
    /// Started at or after.
    pub since: Option<DateTime<Utc>>,
    /// Started before.
    pub until: Option<DateTime<Utc>>,
    /// The last saga of the page before.
    pub after: Option<Uuid>,
}

/// A saga in a list; its data is shown with the single saga.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Saga {
    /// Identity; sorts by start.
    pub id: Uuid,
    /// Full id of the definition.
    pub definition: String,
    /// The id without `.vN`.
    pub family: String,
    /// The N of `.vN`.
    pub version: i32,
    /// Where it stands.
    pub state: String,
    /// Whether everything that was done, if it was to be undone, was.
    pub clean: bool,
    /// What it waits for; null while a call is under way or when it is done.
    pub waiting_for: Option<String>,
    /// When it goes on, where that is known.
    pub wake_at: Option<DateTime<Utc>>,
    /// The event that started it.
    pub event_id: Uuid,
    /// The saga that it is a step of.
    pub parent_id: Option<Uuid>,
    /// The ended saga that it is a fork of.
    pub fork_of: Option<Uuid>,
    /// The saga that it undoes.
    pub undoes: Option<Uuid>,
    /// The event's correlation id.
    pub correlation_id: String,
    /// Objects that no other saga may work on meanwhile.
    pub lock_keys: Option<Vec<String>>,
    /// One saga per family and this key.
    pub dedupe_key: String,
    /// Why it was undone or refused.
    pub reason: Option<String>,
    /// The worker that runs it.
    pub worker_id: Option<Uuid>,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// When it reached its final state.
    pub finished_at: Option<DateTime<Utc>>,
    /// How long it took, or has taken so far.
    pub duration_ms: i64,
}

/// The columns of `Saga`, as `syncor.sagas` has them, on top of a cut-down `syncor.saga s`.
pub(super) const COLUMNS: &str = "
select s.id, d.id as definition, d.family, d.version, s.state, s.clean,
       case when s.finished_at is not null then null when s.waiting_for is not null then s.waiting_for
            when s.owner is null then 'worker' end as waiting_for,
       s.next_due as wake_at, s.event_id, s.parent_id, s.fork_of, s.undoes, s.correlation_id, s.lock_keys,
       coalesce(s.dedupe_key, s.event_id::text) as dedupe_key,
       s.reason, w.id as worker_id, s.started_at, s.finished_at,
       (extract(epoch from coalesce(s.finished_at, now()) - s.started_at) * 1000)::bigint as duration_ms
  from (select s.* from syncor.saga s where true";

pub(super) const JOINS: &str = ") s
  join syncor.definition d on d.no = s.definition_no
  left join syncor.worker w on w.no = s.owner
 order by s.id desc";

impl ReadStore {
    /// The sagas that match, newest first. Filter and limit apply to the table itself; the rest is joined to what is left.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn sagas(&self, filter: &Filter, limit: u32) -> Result<Page<Saga>, Error> {
        let mut query = QueryBuilder::new(COLUMNS);
        narrow(&mut query, filter);
        query.push(" order by s.id desc limit ").push_bind(with_one_more(limit)).push(JOINS);
        let mut snapshot = self.snapshot().await?;
        Ok(Page::cut(query.build_query_as().fetch_all(&mut *snapshot).await?, limit))
    }

    /// How many match, counted up to `limit`.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn count_sagas(&self, filter: &Filter, limit: u32) -> Result<i64, Error> {
        let mut query = QueryBuilder::new("select count(*) from (select from syncor.saga s where true");
        narrow(&mut query, filter);
        query.push(" limit ").push_bind(i64::from(limit)).push(") s");
        let mut snapshot = self.snapshot().await?;
        Ok(query.build_query_scalar().fetch_one(&mut *snapshot).await?)
    }

    /// The ids of those that match, oldest first, at most `limit`.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn saga_ids(&self, filter: &Filter, limit: u32) -> Result<Vec<Uuid>, Error> {
        let mut query = QueryBuilder::new("select s.id from syncor.saga s where true");
        narrow(&mut query, filter);
        query.push(" order by s.id limit ").push_bind(i64::from(limit));
        let mut snapshot = self.snapshot().await?;
        Ok(query.build_query_scalar().fetch_all(&mut *snapshot).await?)
    }

    /// Those of `ids` that have ended, and those that do not exist.
    ///
    /// # Errors
    /// `Read` when the database fails.
    pub async fn settled(&self, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let mut snapshot = self.snapshot().await?;
        let query = sqlx::query_scalar(
            "select u.id from unnest($1::uuid[]) u (id) left join syncor.saga s on s.id = u.id where s.id is null or s.finished_at is not null",
        );
        Ok(query.bind(ids).fetch_all(&mut *snapshot).await?)
    }
}

/// Adds the conditions of a filter to a query on `syncor.saga s`.
fn narrow(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if !filter.states.is_empty() {
        query.push(" and s.state = any(").push_bind(&filter.states).push(")");
    }
    if filter.unfinished || !filter.states.is_empty() && filter.states.iter().all(|state| !is_terminal(state)) {
        // Lets Postgres use the small index of what is unfinished.
        query.push(" and s.finished_at is null");
    }
    match filter.waiting_for.as_deref() {
        None => {}
        Some("worker") => {
            query.push(" and s.finished_at is null and (s.waiting_for = 'worker' or s.waiting_for is null and s.owner is null)");
        }
        Some(what) => {
            query.push(" and s.finished_at is null and s.waiting_for = ").push_bind(what);
        }
    }
    if let Some(definition) = &filter.definition {
        query.push(" and s.definition_no = any(array(select d.no from syncor.definition d where d.kind = 'saga' and (d.id = ");
        query.push_bind(definition).push(" or d.family = ").push_bind(definition).push(")))");
    }
    if let Some(correlation_id) = &filter.correlation_id {
        query.push(" and s.correlation_id = ").push_bind(correlation_id);
    }
    if let Some(event_id) = filter.event_id {
        query.push(" and s.event_id = ").push_bind(event_id);
    }
    if let Some(key) = &filter.lock_key {
        query.push(" and ").push_bind(key).push(" = any(s.lock_keys)");
    }
    if let Some(since) = filter.since {
        query.push(" and s.started_at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" and s.started_at < ").push_bind(until);
    }
    if let Some(after) = filter.after {
        query.push(" and s.id < ").push_bind(after);
    }
}

/// Whether a saga in this state has ended.
#[must_use]
pub fn is_terminal(state: &str) -> bool {
    matches!(state, "completed" | "failed" | "cancelled" | "aborted" | "rejected")
}
