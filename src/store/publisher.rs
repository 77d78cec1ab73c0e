//! Many publishers, few statements: what arrives while a statement is under way goes into the next one.
//!
//! Nobody waits on purpose: an event that finds a free lane is sent at once, alone. Invariant: a request is answered as if
//! it had been published alone. A refused batch is therefore taken apart and each of its requests is published by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::events::{self, NewEvent, PublishError, Published};
use super::{Error, Store};

/// Statements under way at once. Two keep the database busy while an answer travels; more would only make smaller batches.
const LANES: usize = 2;
/// Requests that are published by themselves at once, after their batch was refused.
const ALONE: usize = 4;
/// Events and bytes of one statement.
const BATCH_EVENTS: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;
/// Requests that may wait; a full queue makes the next one wait for room.
const QUEUE: usize = 4096;
/// How long a batch waits for a key in somebody's open transaction before it is taken apart.
const LOCK_TOGETHER: Duration = Duration::from_millis(250);
/// How long a single request waits for that.
const LOCK_ALONE: Duration = Duration::from_secs(2);

/// A handle on the publishing task: cheap to clone; the task ends when the last handle is gone.
#[derive(Clone, Debug)]
pub struct Publisher {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    events: Vec<NewEvent>,
    answer: oneshot::Sender<Result<Vec<Published>, PublishError>>,
}

impl Publisher {
    /// Starts the task on the current runtime.
    #[must_use]
    pub fn start(store: Store) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        tokio::spawn(run(store, queue));
        Self { requests }
    }

    /// Publishes `events`, all or none, together with whatever else is being published now.
    ///
    /// # Errors
    /// Those of `events::publish`.
    pub async fn publish(&self, events: Vec<NewEvent>) -> Result<Vec<Published>, PublishError> {
        let (answer, result) = oneshot::channel();
        let gone = || PublishError::Store(Error::Unavailable("the publisher has stopped".to_owned()));
        self.requests.send(Request { events, answer }).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

async fn run(store: Store, mut queue: mpsc::Receiver<Request>) {
    let lanes = Arc::new(Semaphore::new(LANES));
    let alone = Arc::new(Semaphore::new(ALONE));
    let mut spare = None;
    loop {
        // A lane first and then the requests: what arrives while all lanes are taken gathers in the queue.
        let Ok(lane) = Arc::clone(&lanes).acquire_owned().await else { return };
        let first = match spare.take() {
            Some(request) => request,
            None => match queue.recv().await {
                Some(request) => request,
                None => return,
            },
        };
        let batch = gather(first, &mut queue, &mut spare);
        let (store, alone) = (store.clone(), Arc::clone(&alone));
        tokio::spawn(async move {
            let refused = publish_together(&store, batch).await;
            drop(lane);
            for request in refused {
                tokio::spawn(publish_alone(store.clone(), Arc::clone(&alone), request));
            }
        });
    }
}

/// Takes what is queued already, as far as it fits into one statement. What no longer fits opens the next one.
fn gather(first: Request, queue: &mut mpsc::Receiver<Request>, spare: &mut Option<Request>) -> Vec<Request> {
    let (mut count, mut bytes) = (first.events.len(), size(&first));
    let mut batch = vec![first];
    while let Ok(next) = queue.try_recv() {
        if next.answer.is_closed() {
            // Its client has gone before anything was sent.
            continue;
        }
        count += next.events.len();
        bytes += size(&next);
        if count > BATCH_EVENTS || bytes > BATCH_BYTES {
            *spare = Some(next);
            break;
        }
        batch.push(next);
    }
    batch
}

fn size(request: &Request) -> usize {
    request.events.iter().map(|event| event.data.len()).sum()
}

/// Publishes the batch and answers it; returns the requests that have to be published by themselves.
async fn publish_together(store: &Store, mut batch: Vec<Request>) -> Vec<Request> {
    let counts: Vec<usize> = batch.iter().map(|request| request.events.len()).collect();
    let is_single = batch.len() == 1;
    let events = if let [only] = batch.as_mut_slice() {
        std::mem::take(&mut only.events)
    } else {
        // Cloned, not moved: a refused request is published again.
        batch.iter().flat_map(|request| request.events.iter().cloned()).collect()
    };
    metrics::histogram!("hms_publish_batch_size").record(f64::from(u32::try_from(events.len()).unwrap_or(u32::MAX)));
    match events::publish_within(store, &events, Some(LOCK_TOGETHER)).await {
        Ok(published) => {
            let mut rest = published.as_slice();
            for (request, count) in batch.into_iter().zip(counts) {
                let (mine, others) = rest.split_at(count.min(rest.len()));
                rest = others;
                // Nobody listens any more: the client has gone, its events are in.
                let _gone = request.answer.send(Ok(mine.to_vec()));
            }
            Vec::new()
        }
        Err(error) if is_lock_timeout(&error) && is_single => {
            if let [only] = batch.as_mut_slice() {
                only.events = events;
            }
            batch
        }
        Err(error) if is_single => {
            if let Some(request) = batch.pop() {
                let _gone = request.answer.send(Err(error));
            }
            Vec::new()
        }
        // Only what Postgres has certainly rolled back may be sent again: a lost connection may hide a commit.
        Err(PublishError::Store(error)) if error.sqlstate().is_none() => {
            let reason = error.to_string();
            for request in batch {
                let _gone = request.answer.send(Err(Error::Unavailable(reason.clone()).into()));
            }
            Vec::new()
        }
        Err(_) => batch,
    }
}

async fn publish_alone(store: Store, alone: Arc<Semaphore>, request: Request) {
    let Ok(_place) = alone.acquire_owned().await else { return };
    let result = events::publish_within(&store, &request.events, Some(LOCK_ALONE)).await;
    let _gone = request.answer.send(result);
}

fn is_lock_timeout(error: &PublishError) -> bool {
    matches!(error, PublishError::Store(error) if error.sqlstate() == Some("55P03"))
}
