//! Figures for metrics and for the first page. Each is read from a small index: a scrape must not scan history.

use uuid::Uuid;

use super::ReadStore;
use crate::store::Error;

/// Finished sagas are counted among this many that started last.
const RECENT: i64 = 10_000;
/// And no earlier than this.
const RECENT_SECS: u64 = 3600;

/// How much there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Unfinished sagas by state.
    pub unfinished: Vec<(String, i64)>,
    /// Sagas that started in the last hour (at most the last 10,000) and have ended, by state.
    pub recent: Vec<(String, i64)>,
    /// How long the oldest saga that a worker could take has been waiting for one.
    pub oldest_runnable_secs: f64,
    /// Open human tasks.
    pub open_tasks: i64,
    /// Sagas that queue for their object locks.
    pub waiting_for_locks: i64,
}

impl ReadStore {
    /// Counts sagas.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn counts(&self) -> Result<Counts, Error> {
        let mut snapshot = self.snapshot().await?;
        let unfinished = sqlx::query_as("select state, count(*) from syncor.saga where finished_at is null group by state order by state")
            .fetch_all(&mut *snapshot)
            .await?;
        let recent = sqlx::query_as(
            "select r.state, count(*)
               from (select s.state, s.finished_at from syncor.saga s where s.id >= $1 order by s.id desc limit $2) r
              where r.finished_at is not null group by r.state order by r.state",
        );
        let recent = recent.bind(an_hour_ago()).bind(RECENT).fetch_all(&mut *snapshot).await?;
        let oldest: Option<f64> = sqlx::query_scalar(
            "select extract(epoch from now() - min(next_due))::float8 from syncor.saga where owner is null and finished_at is null and next_due <= now()",
        )
        .fetch_one(&mut *snapshot)
        .await?;
        let open_tasks = sqlx::query_scalar("select count(*) from syncor.task where status = 'open'").fetch_one(&mut *snapshot).await?;
        let waiting_for_locks = sqlx::query_scalar("select count(distinct t.saga_id) from syncor.lock_ticket t where t.granted_at is null")
            .fetch_one(&mut *snapshot)
            .await?;
        Ok(Counts { unfinished, recent, oldest_runnable_secs: oldest.unwrap_or(0.0), open_tasks, waiting_for_locks })
    }
}

/// Ids sort by time: the smallest one of an hour ago, by this host's clock. A figure for people may be a little off.
fn an_hour_ago() -> Uuid {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let millis = now.as_millis().saturating_sub(u128::from(RECENT_SECS) * 1000);
    Uuid::from_u128(millis << 80)
}
