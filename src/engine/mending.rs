//! For sagas whose decision Postgres cannot store: back to what the database has, or a rest.

use std::time::Duration;

use tracing::{error, warn};
use uuid::Uuid;

use super::Worker;
use super::runner::Message;
use crate::core::outcome::Action;
use crate::store::claim;

/// Between two tries to read or put back such a saga.
const RELOAD_PAUSE: Duration = Duration::from_millis(200);

/// The saga as the database has it; asked for until the database answers.
pub async fn load_again(worker: &Worker, id: Uuid, cause: Option<(usize, Action, u32)>, reason: String) -> Message {
    loop {
        let answer = async {
            let client = worker.store.client().await?;
            let Some(loaded) = claim::load(&client, worker.lease.worker, &[id]).await?.pop() else {
                return Ok(None);
            };
            let deployed = worker.definitions.by_no(&client, &[loaded.definition_no]).await?.remove(&loaded.definition_no);
            Ok::<_, crate::store::Error>(deployed.map(|deployed| (loaded, deployed)))
        };
        match answer.await {
            Ok(Some((loaded, deployed))) => return Message::Reloaded(Box::new(loaded), deployed, cause, reason),
            Ok(None) => return Message::Forget(id),
            Err(error) => warn!(saga.id = %id, %error, "cannot be loaded again, asking once more"),
        }
        tokio::time::sleep(RELOAD_PAUSE).await;
    }
}

/// Lets a saga rest that cannot go on: whoever claims it in a minute tries again.
pub async fn put_back(worker: &Worker, id: Uuid) -> Message {
    error!(saga.id = %id, "cannot go on: resting for a minute");
    loop {
        let done = async { claim::put_back(&worker.store.client().await?, worker.lease.worker, id).await };
        match done.await {
            Ok(()) => return Message::Forget(id),
            Err(error) => warn!(saga.id = %id, %error, "cannot be put back, trying again"),
        }
        tokio::time::sleep(RELOAD_PAUSE).await;
    }
}
