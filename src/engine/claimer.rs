//! Takes on sagas that nobody runs: those of dead workers, those that are due, those that were left to whoever has room.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::Worker;
use super::live::Live;
use super::runner::Message;
use crate::store::{Error, claim};

/// Most sagas taken on at once.
const BATCH_MAX: usize = 200;

/// Claims at every ring of the orphans' bell and at every poll, as far as there is room.
pub async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    loop {
        let pause = match claim_batch(&worker).await {
            Ok(Claimed::All { next_due }) => next_due.map_or(worker.options.poll, |due| due.min(worker.options.poll)),
            Ok(Claimed::Full) => Duration::ZERO,
            Ok(Claimed::NoRoom) => Duration::from_millis(50),
            Err(error) => {
                warn!(%error, "claiming sagas failed");
                Duration::from_millis(250)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = worker.orphans.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

enum Claimed {
    /// Everything there was; when the next one is due, if soon.
    All { next_due: Option<Duration> },
    /// A whole batch: there may be more.
    Full,
    /// There is no room for any.
    NoRoom,
}

async fn claim_batch(worker: &Arc<Worker>) -> Result<Claimed, Error> {
    let limit = worker.room().min(BATCH_MAX);
    if limit == 0 {
        return Ok(Claimed::NoRoom);
    }
    let client = worker.store.client().await?;
    let ids = claim::claim(&client, worker.lease.worker, i64::try_from(limit).unwrap_or(i64::MAX)).await?;
    if ids.is_empty() {
        let next_due = claim::next_due(&client).await?;
        return Ok(Claimed::All { next_due });
    }
    debug!(worker = worker.lease.worker, sagas = ids.len(), "took on sagas");
    take_on(worker, &client, &ids).await?;
    Ok(Claimed::Full)
}

async fn take_on(worker: &Arc<Worker>, client: &crate::store::Client, ids: &[Uuid]) -> Result<(), Error> {
    let loaded = claim::load(client, worker.lease.worker, ids).await?;
    let numbers: Vec<i32> = loaded.iter().map(|loaded| loaded.definition_no).collect();
    let definitions = worker.definitions.by_no(client, &numbers).await?;
    for loaded in loaded {
        let Some(deployed) = definitions.get(&loaded.definition_no) else {
            warn!(saga.id = %loaded.saga.id, "its definition cannot be used by this version: leaving it to another worker");
            claim::put_back(client, worker.lease.worker, loaded.saga.id).await?;
            continue;
        };
        let live = Live::revive(loaded, Arc::clone(deployed));
        worker.take_on();
        worker.send(Message::Owned(Box::new(live)));
    }
    Ok(())
}
