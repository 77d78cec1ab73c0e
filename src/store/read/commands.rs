//! Orders as people look at them: who, when, why, and what came of it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{FromRow, Postgres, Transaction};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::Error;

/// An order about a saga.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// Identity; sorts by time.
    pub id: Uuid,
    /// `cancel`, `pause`, `resume`, `abort`, `retry`, `skip`, `fork` or `decide`.
    pub kind: String,
    /// The step that it is about.
    pub step: Option<String>,
    /// The human task that it decides.
    pub task_id: Option<Uuid>,
    /// What was decided.
    pub decision: Option<String>,
    /// What came with the decision.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Json<Box<RawValue>>>,
    /// Why.
    pub reason: Option<String>,
    /// The database role, or the API key.
    pub requested_by: String,
    /// When.
    pub requested_at: DateTime<Utc>,
    /// `pending`, `applied` or `refused`.
    pub status: String,
    /// What came of it.
    pub result: Option<String>,
    /// When it was applied or refused.
    pub settled_at: Option<DateTime<Utc>>,
    /// The saga that a fork made.
    pub new_saga_id: Option<Uuid>,
}

/// The last 200 orders about one saga, in their order.
pub(super) async fn of_saga(snapshot: &mut Transaction<'static, Postgres>, saga: Uuid) -> Result<Vec<Command>, Error> {
    let query = sqlx::query_as(
        "select * from (
           select id, kind, step, task_id, decision, output, reason, requested_by, requested_at, status, result, settled_at, new_saga_id
             from syncor.command where saga_id = $1 order by id desc limit 200) c
          order by id",
    );
    Ok(query.bind(saga).fetch_all(&mut **snapshot).await?)
}
