//! Takes on sagas that nobody runs: those of dead workers, those that are due, those that were left to whoever has room.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::Worker;
use super::live::Live;
use super::runner::Message;
use crate::store::claim::Place;
use crate::store::{Error, claim, inputs};

/// Most sagas taken on at once.
const BATCH_MAX: usize = 200;

/// How often to compare the table with the memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Claims at every ring of the orphans' bell and at every poll, as far as there is room.
pub async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let mut lost = HashSet::new();
    let mut looked = Instant::now();
    loop {
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            if let Err(error) = sweep_inputs(&worker).await {
                warn!(%error, "settling what came too late failed");
            }
            if let Err(error) = find_lost(&worker, &mut lost).await {
                warn!(%error, "comparing the table with the memory failed");
            }
        }
        if let Err(error) = read_inputs(&worker).await {
            warn!(%error, "reading inputs failed");
        }
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

/// Takes anew what this worker owns without knowing of it.
///
/// A connection that breaks between a claim, or a start, and its answer leaves such sagas behind: the database says they are
/// ours, the memory has never heard of them, and nobody else will touch them. One look is not enough, since a saga may be on
/// its way to the runner: two looks that find it missing at the same place are.
async fn find_lost(worker: &Arc<Worker>, lost: &mut HashSet<Place>) -> Result<(), Error> {
    let client = worker.store.client().await?;
    let owned = claim::owned(&client, worker.lease.worker).await?;
    let (answer, missing) = oneshot::channel();
    worker.send(Message::Missing(owned, answer));
    let missing: HashSet<Place> = missing.await.unwrap_or_default().into_iter().collect();
    let certain: Vec<Place> = missing.intersection(lost).copied().collect();
    *lost = missing;
    if !certain.is_empty() {
        let ids = claim::reclaim(&client, worker.lease.worker, &certain).await?;
        info!(worker = worker.lease.worker, sagas = ids.len(), "found sagas that an answer was lost for");
        take_on(worker, &client, &ids).await?;
    }
    Ok(())
}

/// What was said to sagas that had ended by then is answered: nobody owns them.
async fn sweep_inputs(worker: &Worker) -> Result<(), Error> {
    let client = worker.store.client().await?;
    inputs::sweep(&client).await.map(drop)
}

/// Hands what others had to say to the sagas that are here.
async fn read_inputs(worker: &Arc<Worker>) -> Result<(), Error> {
    let client = worker.store.client().await?;
    let said = inputs::owned(&client, worker.lease.worker).await?;
    if !said.is_empty() {
        worker.send(Message::Said(said));
    }
    Ok(())
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
