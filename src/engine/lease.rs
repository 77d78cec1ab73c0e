//! A worker's right to act: its heartbeat, and what it sees of the others'.
//!
//! The lease belongs to the worker, not to a step. Every quarter of it the worker beats; no call is sent unless the last good
//! beat is younger than half of it, so a worker that was stopped and goes on asks first. The same beat shows the others: one
//! whose count stands still for its whole lease, by our own monotonic clock while our own beats succeed, or whose listening
//! session is gone twice in a row, is declared dead by one compare-and-set.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clock::Clock;
use super::measures;
use crate::store::workers::{self, Beat, Peer};
use crate::store::{Error, Store};

/// How soon to look again at a worker whose session is gone.
const SECOND_LOOK: Duration = Duration::from_millis(400);

/// One worker's lease. It ends for good when somebody declares the worker dead.
#[derive(Debug)]
pub struct Lease {
    /// The worker's number.
    pub worker: i32,
    length: Duration,
    last_good: Mutex<Instant>,
    refreshed: Notify,
    /// Cancelled when the worker was declared dead: everything it holds is worthless then.
    pub dead: CancellationToken,
    /// Calls that other workers could take on, as of the last beat.
    pub free_elsewhere: AtomicI32,
    /// The revision of the catalogue, as of the last beat.
    pub catalog: watch::Sender<i64>,
}

impl Lease {
    /// A lease that was just granted.
    #[must_use]
    pub fn new(worker: i32, length: Duration) -> Self {
        Self {
            worker,
            length,
            last_good: Mutex::new(Instant::now()),
            refreshed: Notify::new(),
            dead: CancellationToken::new(),
            free_elsewhere: AtomicI32::new(0),
            catalog: watch::Sender::new(0),
        }
    }

    /// Whether the last good beat is younger than half the lease.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.last_good.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed() < self.length / 2
    }

    /// Waits until a call may be sent.
    pub async fn fresh(&self) {
        loop {
            let refreshed = self.refreshed.notified();
            if self.is_fresh() {
                return;
            }
            refreshed.await;
        }
    }

    fn refresh(&self, sent: Instant) {
        // The time it was sent counts, not the time it was answered: the others may have seen it that early.
        *self.last_good.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = sent;
        self.refreshed.notify_waiters();
    }
}

/// What the keeper needs to know about its own worker at each beat.
#[derive(Debug, Default)]
pub struct Vitals {
    /// Calls in flight.
    pub slots_used: AtomicI32,
    /// Its listening session's backend; 0 for none.
    pub session_pid: AtomicI32,
}

/// Beats until the lease is lost or the worker stops; rings `orphans` when somebody else died, `breakers` while services are
/// held back.
pub async fn keep(store: Store, lease: &Lease, clock: &Clock, vitals: &Vitals, orphans: &Notify, breakers: &Notify, stop: CancellationToken) {
    let mut watched = HashMap::new();
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let sent = Instant::now();
        let answer = tokio::time::timeout(lease.length, beat(&store, lease, vitals)).await;
        pause = lease.length / 4;
        match answer {
            Ok(Ok(beat)) if !beat.alive => {
                warn!(worker = lease.worker, "declared dead by another worker: dropping everything and starting anew");
                lease.dead.cancel();
                return;
            }
            Ok(Ok(beat)) => {
                lease.refresh(sent);
                clock.set(beat.now, sent + sent.elapsed() / 2);
                lease.free_elsewhere.store(beat.peers.iter().map(|peer| peer.free_slots).sum(), Ordering::Relaxed);
                lease.catalog.send_replace(beat.catalog_revision);
                if beat.holding {
                    breakers.notify_one();
                }
                if beat.peers.iter().any(|peer| peer.session_gone) {
                    pause = pause.min(SECOND_LOOK);
                }
                if bury_the_dead(&store, &mut watched, &beat.peers).await {
                    orphans.notify_one();
                }
            }
            Ok(Err(error)) => {
                warn!(worker = lease.worker, %error, "heartbeat failed");
                watched.clear();
                pause = pause.min(Duration::from_millis(250));
            }
            Err(_) => {
                warn!(worker = lease.worker, "heartbeat was not answered");
                watched.clear();
            }
        }
    }
}

async fn beat(store: &Store, lease: &Lease, vitals: &Vitals) -> Result<Beat, Error> {
    let client = store.client().await?;
    measures::slots_used(vitals.slots_used.load(Ordering::Relaxed));
    let session = Some(vitals.session_pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0);
    workers::beat(&client, lease.worker, vitals.slots_used.load(Ordering::Relaxed), session).await
}

/// What was seen of another worker.
struct Sight {
    beat: i64,
    since: Instant,
    gone: u32,
}

async fn bury_the_dead(store: &Store, watched: &mut HashMap<i32, Sight>, peers: &[Peer]) -> bool {
    let now = Instant::now();
    watched.retain(|no, _| peers.iter().any(|peer| peer.no == *no));
    let mut buried = false;
    for peer in peers {
        let sight = watched.entry(peer.no).or_insert(Sight { beat: peer.beat, since: now, gone: 0 });
        if sight.beat != peer.beat {
            *sight = Sight { beat: peer.beat, since: now, gone: 0 };
        }
        sight.gone = if peer.session_gone { sight.gone + 1 } else { 0 };
        let lease = Duration::from_millis(u64::try_from(peer.lease_ms).unwrap_or(0));
        let silent = now.duration_since(sight.since) >= lease;
        if silent || sight.gone >= 2 {
            match bury(store, peer).await {
                Ok(true) => {
                    info!(worker = peer.no, silent, "declared a silent worker dead");
                    buried = true;
                }
                Ok(false) => {}
                Err(error) => warn!(worker = peer.no, %error, "a dead worker could not be declared so"),
            }
        }
    }
    buried
}

async fn bury(store: &Store, peer: &Peer) -> Result<bool, Error> {
    let client = store.client().await?;
    workers::bury(&client, peer.no, peer.beat).await
}
