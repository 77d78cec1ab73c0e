//! Requests that wait for the end of a saga. However many wait, one query per tick asks for all of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::store::read::ReadStore;

/// Between two queries while somebody has begun to wait only lately: most sagas are quick.
const TICK: Duration = Duration::from_millis(50);
/// Between two queries otherwise.
const SLOW_TICK: Duration = Duration::from_millis(250);
/// How long a waiter counts as new.
const NEW: Duration = Duration::from_secs(2);

/// Those who wait: cheap to clone.
#[derive(Clone)]
pub struct Waiters {
    read: ReadStore,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    waiting: HashMap<Uuid, Vec<Waiter>>,
    is_asking: bool,
}

struct Waiter {
    since: Instant,
    settled: oneshot::Sender<()>,
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiters").field("sagas", &self.lock().waiting.len()).finish_non_exhaustive()
    }
}

impl Waiters {
    /// Nobody waits yet.
    #[must_use]
    pub fn new(read: ReadStore) -> Self {
        Self { read, shared: Arc::default() }
    }

    /// Returns when the saga has ended or does not exist, at the latest after `limit`.
    pub async fn settled(&self, id: Uuid, limit: Duration) {
        // Asked once at once: most callers come late or ask for what is done already.
        if self.read.settled(&[id]).await.is_ok_and(|settled| !settled.is_empty()) {
            return;
        }
        let (settled, end) = oneshot::channel();
        {
            let mut shared = self.lock();
            shared.waiting.entry(id).or_default().push(Waiter { since: Instant::now(), settled });
            if !shared.is_asking {
                shared.is_asking = true;
                tokio::spawn(self.clone().ask());
            }
        }
        // Time is up or it has ended: the caller looks either way.
        let _either = tokio::time::timeout(limit, end).await;
    }

    /// Asks until nobody waits.
    async fn ask(self) {
        loop {
            let Some((ids, tick)) = self.wanted() else { return };
            tokio::time::sleep(tick).await;
            let settled = match self.read.settled(&ids).await {
                Ok(settled) => settled,
                Err(error) => {
                    tracing::warn!(%error, "cannot ask whether sagas have ended; asking again");
                    tokio::time::sleep(SLOW_TICK).await;
                    continue;
                }
            };
            let mut shared = self.lock();
            for waiter in settled.iter().filter_map(|id| shared.waiting.remove(id)).flatten() {
                // It may have gone in this moment.
                let _gone = waiter.settled.send(());
            }
        }
    }

    /// What is waited for and how soon to ask; `None`, and the end of asking, if nobody waits.
    fn wanted(&self) -> Option<(Vec<Uuid>, Duration)> {
        let mut shared = self.lock();
        shared.waiting.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.settled.is_closed());
            !waiters.is_empty()
        });
        // Decided under the lock: a waiter that comes later sees that nobody asks and starts anew.
        shared.is_asking = !shared.waiting.is_empty();
        let is_new = shared.waiting.values().flatten().any(|waiter| waiter.since.elapsed() < NEW);
        shared.is_asking.then(|| (shared.waiting.keys().copied().collect(), if is_new { TICK } else { SLOW_TICK }))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
