//! Deployed files as people look at them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder};
use utoipa::ToSchema;

use super::{Page, ReadStore, with_one_more};
use crate::store::Error;

/// Which definitions to list. Absent means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `saga` or `services`.
    pub kind: Option<String>,
    /// `active` or `retired`.
    pub state: Option<String>,
    /// The id without `.vN`.
    pub family: Option<String>,
    /// The last id of the page before.
    pub after: Option<String>,
}

/// One revision of a deployed file.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// Full id.
    pub id: String,
    /// `saga` or `services`.
    pub kind: String,
    /// The id without `.vN`.
    pub family: String,
    /// The N of `.vN`.
    pub version: i32,
    /// SHA-256 of the meaning of the file.
    pub revision: String,
    /// `active` or `retired`.
    pub state: String,
    /// When it was deployed.
    pub deployed_at: DateTime<Utc>,
    /// Who deployed it.
    pub deployed_by: String,
    /// When it stopped starting sagas.
    pub retired_at: Option<DateTime<Utc>>,
    /// The file as JSON; only where one definition is asked for.
    #[sqlx(default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub source: Option<Json<Box<RawValue>>>,
}

impl Definition {
    /// The file as JSON; null where it was not asked for.
    #[must_use]
    pub fn document(&self) -> Value {
        self.source.as_ref().and_then(|source| serde_json::from_str(source.0.get()).ok()).unwrap_or_default()
    }
}

impl ReadStore {
    /// The newest revision of every id that matches, by id.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn definitions(&self, filter: &Filter, limit: u32) -> Result<Page<Definition>, Error> {
        let mut query = QueryBuilder::new(
            "select distinct on (d.id) d.id, d.kind, d.family, d.version, d.revision, d.state, d.deployed_at, d.deployed_by, d.retired_at
               from syncor.definition d where true",
        );
        for (column, wanted) in [
            (" and d.kind = ", &filter.kind),
            (" and d.state = ", &filter.state),
            (" and d.family = ", &filter.family),
            (" and d.id > ", &filter.after),
        ] {
            if let Some(wanted) = wanted {
                query.push(column).push_bind(wanted);
            }
        }
        query.push(" order by d.id, d.state, d.no desc limit ").push_bind(with_one_more(limit));
        let mut snapshot = self.snapshot().await?;
        Ok(Page::cut(query.build_query_as().fetch_all(&mut *snapshot).await?, limit))
    }

    /// All revisions of one id, newest first, at most 200; empty if there are none.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn revisions(&self, id: &str) -> Result<Vec<Definition>, Error> {
        let mut snapshot = self.snapshot().await?;
        let query = sqlx::query_as(
            "select d.id, d.kind, d.family, d.version, d.revision, d.state, d.deployed_at, d.deployed_by, d.retired_at, d.source
               from syncor.definition d where d.id = $1 order by d.no desc limit 200",
        );
        Ok(query.bind(id).fetch_all(&mut *snapshot).await?)
    }

    /// What a definition is compared with: the revision of it that begins with `with`, else the newest one of the id `with`.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn counterpart(&self, of: &Definition, revisions: &[Definition], with: &str) -> Result<Option<Definition>, Error> {
        if let Some(found) = revisions.iter().find(|other| !with.is_empty() && other.revision.starts_with(with) && other.kind == of.kind) {
            return Ok(Some(found.clone()));
        }
        Ok(self.revisions(with).await?.into_iter().find(|other| other.kind == of.kind))
    }
}
