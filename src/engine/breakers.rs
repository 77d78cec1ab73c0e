//! The breakers of one worker: who may call which service, and who is woken when one is back.
//!
//! `core::breaker` decides, `syncor.breaker` is shared by all workers, and this memory of it makes asking free of charge. It may
//! be old by a look: a call that goes out late is one more failure that is not held against anybody, a call that is parked late
//! sleeps for a moment. What must not happen twice, a probe, is decided by the database.
//!
//! One saga of each service stands ready for the next probe and stays in memory; the others may leave it and are woken. Waking
//! is repeated a few times, because a saga may be on its way to bed while the news arrives; whoever misses it all the same
//! wakes by itself in the end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::runner::Message;
use super::{Worker, measures};
use crate::core::breaker::{self, Breaker, FAILURES, Sign, Verdict};
use crate::core::call::Reply;
use crate::core::time::Timestamp;
use crate::store::breaker::{self as shared, Held, Probe};
use crate::store::{Client, Error};

/// How often to look at the shared rows while any service is held back.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// When sleepers are woken after a service was reopened.
const WAKE_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)];
/// A saga that stood ready and has not asked for so long after its time will not come.
const READY_SLACK: Duration = Duration::from_secs(2);
/// How often to fetch a sleeping saga for a probe that nobody stands ready for.
const FETCH_EVERY: Duration = Duration::from_secs(1);

/// What a worker knows of the services that it calls.
#[derive(Debug, Default)]
pub struct Breakers {
    known: Mutex<Known>,
    /// Rung when the shared rows should be looked at.
    pub bell: Notify,
}

#[derive(Debug, Default)]
struct Known {
    services: HashMap<String, Entry>,
    /// Rises with every change made here: what was read before it is old.
    changes: u64,
}

#[derive(Debug, Default)]
struct Entry {
    breaker: Breaker,
    /// Opened here; the shared row is being written.
    unwritten: bool,
    /// A call is asking the database for the right to probe.
    asking: bool,
    /// The saga that stands ready for the next probe, and until when it is waited for.
    ready: Option<(Uuid, Instant)>,
    /// When a sleeping saga was last fetched for a probe.
    fetched: Option<Instant>,
}

/// The answer to who asks for a call.
#[derive(Debug)]
pub enum Permit {
    /// It may be made, perhaps as a probe.
    Call(Option<Probe>),
    /// It is not made; ask again after so long.
    Park(Duration),
}

impl Entry {
    fn rest(&mut self, worker: &Worker, saga: Uuid, now: Timestamp) -> Duration {
        let vacant = self.ready.is_none_or(|(id, until)| id == saga || until <= Instant::now());
        let ready = vacant && matches!(self.breaker, Breaker::Open { .. });
        // Half of the memory is kept free for sagas that can do something.
        let room = worker.room() > worker.capacity() / 2;
        let rest = breaker::rest(&self.breaker, ready, room, now, rand::rng().random());
        if ready {
            self.ready = Some((saga, Instant::now() + rest + READY_SLACK));
        }
        rest
    }

    /// Whether a probe is due that nobody stands ready for.
    fn lacks_prober(&self, now: Timestamp) -> bool {
        self.breaker.ask(now) == Verdict::Probe && !self.asking && self.ready.is_none_or(|(_, until)| until <= Instant::now())
    }
}

impl Breakers {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the database says, before the first call.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn load(&self, client: &Client) -> Result<(), Error> {
        let held = shared::held(client).await?;
        let mut known = self.known();
        for Held { service, breaker } in held {
            known.services.entry(service).or_default().breaker = breaker;
        }
        Ok(())
    }

    fn is_holding(&self) -> bool {
        self.known().services.values().any(|entry| !entry.breaker.is_closed())
    }

    /// Whether calls to a service are held back.
    #[must_use]
    pub fn is_held(&self, service: &str) -> bool {
        self.known().services.get(service).is_some_and(|entry| !entry.breaker.is_closed())
    }

    /// Whether a saga that sleeps until the service is back should try: it is back, or a probe is due that nobody else makes.
    #[must_use]
    pub fn wants(&self, service: &str, now: Timestamp) -> bool {
        self.known().services.get(service).is_none_or(|entry| entry.breaker.is_closed() || entry.lacks_prober(now))
    }

    /// Asks without any cost: how long to sleep, if there is no chance to call now.
    pub fn held_back(&self, worker: &Worker, service: &str, saga: Uuid) -> Option<Duration> {
        let mut known = self.known();
        let entry = known.services.get_mut(service)?;
        let now = worker.clock.now();
        match entry.breaker.ask(now) {
            Verdict::Go => None,
            Verdict::Probe if !entry.asking => None,
            Verdict::Probe | Verdict::Park => Some(entry.rest(worker, saga, now)),
        }
    }

    /// Asks for a call that would be made at once.
    pub async fn ask(&self, worker: &Worker, service: &str, saga: Uuid) -> Permit {
        {
            let mut known = self.known();
            let Some(entry) = known.services.get_mut(service) else {
                return Permit::Call(None);
            };
            let now = worker.clock.now();
            match entry.breaker.ask(now) {
                Verdict::Go => return Permit::Call(None),
                Verdict::Probe if !entry.asking => entry.asking = true,
                Verdict::Probe | Verdict::Park => return Permit::Park(entry.rest(worker, saga, now)),
            }
        }
        let won = async { shared::probe(&worker.store.client().await?, worker.lease.worker, service).await }.await;
        let mut known = self.known();
        known.changes += 1;
        let entry = known.services.entry(service.to_owned()).or_default();
        entry.asking = false;
        match won {
            Ok(Some(probe)) => {
                if let Breaker::Open { probe_at, .. } = &mut entry.breaker {
                    *probe_at = probe.until;
                }
                entry.ready = None;
                return Permit::Call(Some(probe));
            }
            // Somebody else probes, or it is back: the shared rows know.
            Ok(None) => {}
            Err(error) => warn!(service, %error, "the database cannot be asked for a probe"),
        }
        let now = worker.clock.now();
        if let Breaker::Open { probe_at, .. } = &mut entry.breaker {
            *probe_at = now.plus(LOOK_EVERY);
        }
        let rest = entry.rest(worker, saga, now);
        drop(known);
        self.bell.notify_one();
        Permit::Park(rest)
    }

    /// Tells what came of a call. The reply comes back as the machine is to see it.
    pub async fn report(&self, worker: &Arc<Worker>, service: &str, probe: Option<Probe>, sign: Sign, reply: Reply) -> Reply {
        match probe {
            Some(probe) => self.probed(worker, service, probe, sign, reply).await,
            None => self.called(worker, service, sign, reply).await,
        }
    }

    async fn called(&self, worker: &Worker, service: &str, sign: Sign, reply: Reply) -> Reply {
        let effect = {
            let mut known = self.known();
            // A service that never failed needs no place here.
            if sign != Sign::Down && !known.services.contains_key(service) {
                return reply;
            }
            let entry = known.services.entry(service.to_owned()).or_default();
            let effect = entry.breaker.ended(sign, worker.clock.now());
            entry.unwritten |= effect.opens;
            known.changes += u64::from(effect.opens);
            effect
        };
        if effect.opens {
            let reason = error_of(&reply);
            warn!(service, reason, "the service keeps failing: its steps are parked");
            measures::service_opened(service);
            let written = async { shared::open(&worker.store.client().await?, worker.lease.worker, service, FAILURES, &reason).await }.await;
            if let Err(error) = written {
                warn!(service, %error, "the others could not be told that a service is down");
            }
            let mut known = self.known();
            known.changes += 1;
            known.services.entry(service.to_owned()).or_default().unwritten = false;
            drop(known);
            self.bell.notify_one();
        }
        if effect.free { Reply::Probed(Box::new(reply)) } else { reply }
    }

    async fn probed(&self, worker: &Arc<Worker>, service: &str, probe: Probe, sign: Sign, reply: Reply) -> Reply {
        let told = async {
            let client = worker.store.client().await?;
            Ok::<_, Error>(match sign {
                Sign::Alive => shared::close(&client, service, &probe).await?.then_some(Breaker::reopened()),
                Sign::Down => shared::failed(&client, service, &probe, &error_of(&reply)).await?.map(|held| held.breaker),
                Sign::Silent => {
                    shared::give_back(&client, service, &probe).await?;
                    None
                }
            })
        };
        match told.await {
            Ok(Some(breaker)) => {
                let mut known = self.known();
                known.changes += 1;
                known.services.entry(service.to_owned()).or_default().breaker = breaker;
                drop(known);
                if breaker.is_closed() {
                    reopened(worker, service);
                }
            }
            Ok(None) => {}
            // The row says when the next one may be made.
            Err(error) => warn!(service, %error, "what a probe found could not be told to the others"),
        }
        self.bell.notify_one();
        if sign == Sign::Down { Reply::Probed(Box::new(reply)) } else { reply }
    }

    /// Looks at the shared rows whenever the bell rings, and often while any service is held back.
    pub async fn watch(&self, worker: Arc<Worker>, stop: CancellationToken) {
        // What was reopened while no worker lived that knew of it: nobody has woken its sagas.
        if !self.is_holding()
            && let Err(error) = wake_sleepers(&worker).await
        {
            warn!(%error, "cannot wake the sagas that sleep until a service is back: they wake by themselves in a few minutes");
        }
        loop {
            let holding = self.is_holding();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.bell.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY), if holding => {}
            }
            if let Err(error) = self.look(&worker).await {
                warn!(%error, "cannot see which services are held back");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    async fn look(&self, worker: &Arc<Worker>) -> Result<(), Error> {
        let before = self.known().changes;
        let client = worker.store.client().await?;
        let held = shared::held(&client).await?;
        let now = worker.clock.now();
        let (mut back, mut lacking, mut fetch) = (Vec::new(), Vec::new(), false);
        {
            let mut known = self.known();
            if known.changes != before {
                // Something changed here while we looked: look again.
                self.bell.notify_one();
                return Ok(());
            }
            for Held { service, breaker } in &held {
                known.services.entry(service.clone()).or_default().breaker = *breaker;
            }
            for (service, entry) in &mut known.services {
                let is_held = held.iter().any(|held| held.service == *service);
                if !is_held && !entry.unwritten && !entry.breaker.is_closed() {
                    (entry.breaker, entry.ready) = (Breaker::reopened(), None);
                    back.push(service.clone());
                }
                if is_held && entry.lacks_prober(now) {
                    lacking.push(service.clone());
                    if entry.fetched.is_none_or(|at| at.elapsed() >= FETCH_EVERY) {
                        entry.fetched = Some(Instant::now());
                        fetch = true;
                    }
                }
                measures::service_parked(service, !entry.breaker.is_closed());
            }
        }
        for service in back {
            reopened(worker, &service);
        }
        for service in lacking {
            worker.send(Message::Reopened { service, all: false });
        }
        if fetch && shared::wake_one(&client).await? {
            worker.ring();
        }
        Ok(())
    }
}

/// Wakes whoever waits for a service: here by a message, elsewhere by the time in the row.
fn reopened(worker: &Arc<Worker>, service: &str) {
    info!(service, "the service takes calls again");
    let (waking, service) = (Arc::clone(worker), service.to_owned());
    worker.calls.spawn(async move {
        let dead = waking.lease.dead.clone();
        let began = Instant::now();
        for after in WAKE_AFTER {
            tokio::select! {
                () = dead.cancelled() => return,
                () = tokio::time::sleep(after.saturating_sub(began.elapsed())) => {}
            }
            if waking.breakers.is_held(&service) {
                return;
            }
            waking.send(Message::Reopened { service: service.clone(), all: true });
            if let Err(error) = wake_sleepers(&waking).await {
                warn!(service, %error, "cannot wake the sagas that sleep until it is back");
            }
        }
    });
}

async fn wake_sleepers(worker: &Worker) -> Result<(), Error> {
    let mut last = Uuid::nil();
    while let Some(next) = shared::wake(&worker.store.client().await?, last).await? {
        last = next;
        worker.ring();
    }
    Ok(())
}

fn error_of(reply: &Reply) -> String {
    match reply {
        Reply::NotSent(error) | Reply::Broken(error) => error.clone(),
        Reply::Answered { status, .. } => format!("HTTP {status}"),
        _ => String::new(),
    }
}
