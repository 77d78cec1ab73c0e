//! Events as people look at them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Page, ReadStore, with_one_more};
use crate::store::Error;

/// Which events to list. Absent means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// What happened.
    pub kind: Option<String>,
    /// Where it was published.
    pub topic: Option<String>,
    /// The business object it is about.
    pub subject: Option<String>,
    /// Who published it.
    pub source: Option<String>,
    /// Ties everything one fact caused.
    pub correlation_id: Option<String>,
    /// Published at or after.
    pub since: Option<DateTime<Utc>>,
    /// Published before.
    pub until: Option<DateTime<Utc>>,
    /// The last event of the page before.
    pub after: Option<Uuid>,
}

/// An event in the ledger.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Identity in the ledger.
    pub id: Uuid,
    /// What happened.
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub kind: String,
    /// Where it was published.
    pub topic: String,
    /// Who published it.
    pub source: String,
    /// The business object it is about.
    pub subject: Option<String>,
    /// What there is to know.
    #[schema(value_type = Object)]
    pub data: Json<Box<RawValue>>,
    /// Ties everything one fact caused.
    pub correlation_id: String,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
    /// The publisher's own key.
    pub dedupe_key: Option<String>,
    /// How many events stand between it and the outside world.
    pub depth: i16,
    /// When it was published.
    #[sqlx(rename = "created_at")]
    pub time: DateTime<Utc>,
}

/// A saga that an event started.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// Identity.
    pub id: Uuid,
    /// Full id of the definition.
    pub definition: String,
    /// Where it stands.
    pub state: String,
}

/// An event and what came of it.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The event.
    pub event: Event,
    /// One sentence: what it started, or why it started nothing.
    pub why: Option<String>,
    /// The sagas it started.
    pub sagas: Vec<Started>,
}

const COLUMNS: &str = "
select e.id, e.type, e.topic, e.source, e.subject, e.data, e.correlation_id, e.causation_id, e.dedupe_key, e.depth, e.created_at
  from syncor.events e where true";

impl ReadStore {
    /// The events that match, newest first.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn events(&self, filter: &Filter, limit: u32) -> Result<Page<Event>, Error> {
        let mut query = QueryBuilder::new(COLUMNS);
        for (column, wanted) in [
            (" and e.type = ", &filter.kind),
            (" and e.topic = ", &filter.topic),
            (" and e.subject = ", &filter.subject),
            (" and e.source = ", &filter.source),
            (" and e.correlation_id = ", &filter.correlation_id),
        ] {
            if let Some(wanted) = wanted {
                query.push(column).push_bind(wanted);
            }
        }
        if let Some(since) = filter.since {
            query.push(" and e.created_at >= ").push_bind(since);
        }
        if let Some(until) = filter.until {
            query.push(" and e.created_at < ").push_bind(until);
        }
        if let Some(after) = filter.after {
            query.push(" and e.id < ").push_bind(after);
        }
        query.push(" order by e.id desc limit ").push_bind(with_one_more(limit));
        let mut snapshot = self.snapshot().await?;
        Ok(Page::cut(query.build_query_as().fetch_all(&mut *snapshot).await?, limit))
    }

    /// One event with what came of it; `None` if there is none.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn event(&self, id: Uuid) -> Result<Option<Detail>, Error> {
        let mut snapshot = self.snapshot().await?;
        let mut query = QueryBuilder::new(COLUMNS);
        query.push(" and e.id = ").push_bind(id);
        let Some(event) = query.build_query_as().fetch_optional(&mut *snapshot).await? else { return Ok(None) };
        let why = sqlx::query_scalar("select syncor.why($1)").bind(id).fetch_one(&mut *snapshot).await?;
        let sagas = sqlx::query_as(
            "select s.id, d.id as definition, s.state from syncor.saga s join syncor.definition d on d.no = s.definition_no
              where s.event_id = $1 order by s.id limit 200",
        );
        let sagas = sagas.bind(id).fetch_all(&mut *snapshot).await?;
        Ok(Some(Detail { event, why, sagas }))
    }
}
