//! Worker processes as people look at them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{LIMIT, ReadStore};
use crate::store::Error;

/// A worker process, living or gone.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Fresh at every start.
    pub id: Uuid,
    /// Host name.
    pub host: String,
    /// Process id on that host.
    pub pid: i32,
    /// Version of the program.
    pub version: String,
    /// Calls it may have in flight.
    pub slots: i32,
    /// Calls in flight at the last beat.
    pub slots_used: i32,
    /// `alive`, `silent`, `stopped` or `dead`.
    pub state: String,
    /// Sagas that it owns.
    pub sagas: i64,
    /// Last heartbeat.
    pub beat_at: DateTime<Utc>,
    /// When it started.
    pub started_at: DateTime<Utc>,
}

impl ReadStore {
    /// The workers that have not ended, newest first.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        let mut snapshot = self.snapshot().await?;
        let query = sqlx::query_as(
            "select id, host, pid, version, slots, slots_used, state, sagas, beat_at, started_at
               from syncor.workers where ended_at is null order by started_at desc limit $1",
        );
        Ok(query.bind(i64::from(LIMIT)).fetch_all(&mut *snapshot).await?)
    }
}
