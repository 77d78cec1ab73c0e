//! Object locks as people look at them: who holds what, and who waits for it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, QueryBuilder};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Page, ReadStore, with_one_more};
use crate::store::Error;

/// Which locks to list. Absent means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The object.
    pub key: Option<String>,
    /// The saga that holds it or waits for it.
    pub saga: Option<Uuid>,
    /// `held` or `waiting`.
    pub state: Option<String>,
    /// The last row of the page before.
    pub after: Option<(String, i64)>,
}

/// A saga in the queue of an object; the first one holds it once it heads all its queues.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    /// The object.
    pub key: String,
    /// The saga.
    pub saga_id: Uuid,
    /// Its definition.
    pub definition: String,
    /// `held` or `waiting`.
    pub state: String,
    /// How many are before it in the queue of this object.
    pub place: i32,
    /// When it asked.
    pub asked_at: DateTime<Utc>,
    /// When it got all its objects.
    pub granted_at: Option<DateTime<Utc>>,
    /// Number in the order of asking: what the next page starts after.
    #[serde(skip)]
    pub no: i64,
}

const COLUMNS: &str = "
select t.key, t.saga_id, d.id as definition, case when t.granted_at is null then 'waiting' else 'held' end as state,
       (select count(*) from syncor.lock_ticket b where b.key = t.key and b.no < t.no)::int as place, t.asked_at, t.granted_at, t.no
  from syncor.lock_ticket t
  join syncor.saga s on s.id = t.saga_id
  join syncor.definition d on d.no = s.definition_no
 where true";

impl ReadStore {
    /// The locks that match, by object and in the order of its queue.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn locks(&self, filter: &Filter, limit: u32) -> Result<Page<Lock>, Error> {
        let mut query = QueryBuilder::new(COLUMNS);
        if let Some(key) = &filter.key {
            query.push(" and t.key = ").push_bind(key);
        }
        if let Some(saga) = filter.saga {
            query.push(" and t.saga_id = ").push_bind(saga);
        }
        match filter.state.as_deref() {
            None => {}
            Some("held") => {
                query.push(" and t.granted_at is not null");
            }
            Some(_) => {
                query.push(" and t.granted_at is null");
            }
        }
        if let Some((key, no)) = &filter.after {
            query.push(" and (t.key, t.no) > (").push_bind(key).push(", ").push_bind(no).push(")");
        }
        query.push(" order by t.key, t.no limit ").push_bind(with_one_more(limit));
        let mut snapshot = self.snapshot().await?;
        Ok(Page::cut(query.build_query_as().fetch_all(&mut *snapshot).await?, limit))
    }
}
