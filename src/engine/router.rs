//! Reads new events in batches and starts what they trigger, each batch in one statement with the read position.
//!
//! One router per database: its host is the sentinel that decides whether the pool sleeps. Election only saves work; what
//! fences a second router is the primary key of the read position.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::plan::Plan;
use super::runner::Message;
use super::{Wake, Worker, measures};
use crate::core::saga::{Locks, SagaState};
use crate::core::story::{Happening, StoryLine};
use crate::store::cursor::{self, NewEvent, Position};
use crate::store::start::{self, StartBatch, Started};
use crate::store::wake::Listener;
use crate::store::{Client, Error};

/// Most events read at once.
const BATCH_MAX: usize = 500;
/// A read position that starts nothing is kept in memory for this long before it is written.
const POSITION_REST: Duration = Duration::from_secs(1);
/// How long to go on polling after work before falling asleep: events often come in bursts.
const LINGER: Duration = Duration::from_millis(5);
/// Longest pause between polls while a writer is under way.
const WRITER_PAUSE_MAX: Duration = Duration::from_millis(50);

/// The router of one worker; it works while it holds the seat.
#[derive(Debug)]
pub struct Router {
    worker: Arc<Worker>,
    position: Option<Position>,
    written_at: Instant,
    data_bytes: usize,
    /// Some family has failed lately: its successes count as well.
    streaks: bool,
}

/// How a turn of the router ended.
enum Turn {
    /// There may be more.
    Busy,
    /// Nothing new.
    Idle,
    /// There is more, but nobody has room for it.
    Full,
}

impl Router {
    /// A router that has read nothing yet.
    #[must_use]
    pub fn new(worker: Arc<Worker>) -> Self {
        Self { worker, position: None, written_at: Instant::now(), data_bytes: 0, streaks: false }
    }

    /// Runs until `stop` is cancelled. Whatever goes wrong with the database is tried again.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut pause = Duration::from_millis(50);
        loop {
            let began = Instant::now();
            let session = tokio::select! {
                () = stop.cancelled() => return,
                session = self.session(&stop) => session,
            };
            if stop.is_cancelled() {
                return;
            }
            if let Err(error) = session {
                warn!(%error, "the router lost its session, connecting again");
            }
            self.worker.vitals.session_pid.store(0, Ordering::Relaxed);
            metrics::gauge!("hms_listen_ok").set(0.0);
            // A session that lasted shows that the database was there: begin with short pauses again.
            pause = if began.elapsed() > Duration::from_secs(5) { Duration::from_millis(50) } else { (pause * 2).min(Duration::from_secs(1)) };
            tokio::time::sleep(pause).await;
            self.position = None;
        }
    }

    /// One listening session, until it breaks.
    async fn session(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let listener = Listener::connect(&self.worker.options.listen).await?;
        self.worker.vitals.session_pid.store(listener.session_pid(), Ordering::Relaxed);
        let hears = self.worker.options.wake == Wake::Notify && self.hears_itself(&listener).await?;
        metrics::gauge!("hms_listen_ok").set(if hears { 1.0 } else { 0.0 });
        // What was due while nobody listened is looked for now.
        self.worker.orphans.notify_one();
        let bell = listener.bell();
        while !stop.is_cancelled() {
            if listener.take_seat().await? {
                debug!(worker = self.worker.lease.worker, "this worker routes");
                let outcome = self.route(&listener, &bell, hears, stop).await;
                self.position = None;
                outcome?;
            } else {
                self.wait(&bell, self.worker.options.poll).await;
                self.worker.orphans.notify_one();
                if self.worker.take_ring() {
                    listener.ring_others().await?;
                }
            }
            if listener.is_closed() {
                return Err(Error::Unavailable("the listening session ended".to_owned()));
            }
        }
        Ok(())
    }

    /// Notifications that never arrive are the mark of a pooler in transaction mode: then polling serves.
    async fn hears_itself(&self, listener: &Listener) -> Result<bool, Error> {
        let bell = listener.bell();
        listener.ring_others().await?;
        let heard = tokio::time::timeout(Duration::from_secs(1), bell.notified()).await.is_ok();
        if !heard {
            warn!(
                poll_ms = self.worker.options.poll.as_millis(),
                "LISTEN does not deliver here (a transaction pooler?): polling instead; set HMS_LISTEN_URL to a direct address"
            );
        }
        Ok(heard)
    }

    /// Routes for as long as it holds the seat.
    async fn route(&mut self, listener: &Listener, bell: &Notify, hears: bool, stop: &CancellationToken) -> Result<(), Error> {
        let mut worked_at = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !stop.is_cancelled() {
            match self.turn().await {
                Ok(Turn::Busy) => {
                    worked_at = Instant::now();
                    continue;
                }
                Ok(Turn::Full) => {
                    // Not asleep: writers need not notify. Room rings the bell.
                    self.wait(&self.worker.router_bell, Duration::from_millis(100)).await;
                    continue;
                }
                Ok(Turn::Idle) => {}
                Err(error) => {
                    warn!(%error, "routing failed, reading the position again");
                    self.position = None;
                    if listener.is_closed() {
                        return Err(error);
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            }
            if !hears {
                self.wait(&self.worker.router_bell, self.worker.options.poll).await;
                self.worker.orphans.notify_one();
                // Asking again for a seat that is ours is a question that a broken session cannot answer.
                listener.ping().await?;
                continue;
            }
            if worked_at.elapsed() < LINGER {
                self.wait(&self.worker.router_bell, Duration::from_millis(1)).await;
                continue;
            }
            if !listener.arm().await? {
                // A writer is under way: its row is about to appear.
                self.wait(&self.worker.router_bell, pause).await;
                pause = (pause * 2).min(WRITER_PAUSE_MAX);
                continue;
            }
            pause = Duration::from_millis(1);
            let last_look = self.turn().await;
            if matches!(last_look, Ok(Turn::Idle)) {
                tokio::select! {
                    () = bell.notified() => {}
                    () = self.worker.router_bell.notified() => {}
                    () = tokio::time::sleep(self.worker.options.poll) => {}
                    () = stop.cancelled() => {}
                }
            } else {
                worked_at = Instant::now();
            }
            // First thing after waking: from here on writers need not notify.
            listener.disarm().await?;
            self.worker.orphans.notify_one();
            last_look?;
        }
        Ok(())
    }

    async fn wait(&self, bell: &Notify, limit: Duration) {
        let _rung_or_not = tokio::time::timeout(limit, bell.notified()).await;
    }

    /// Reads and handles one batch.
    async fn turn(&mut self) -> Result<Turn, Error> {
        let room = self.worker.room();
        let elsewhere = usize::try_from(self.worker.lease.free_elsewhere.load(Ordering::Relaxed)).unwrap_or(0);
        if room + elsewhere == 0 {
            return Ok(Turn::Full);
        }
        let client = self.worker.store.client().await?;
        let mut catalog = self.worker.definitions.active();
        if catalog.revision == 0 {
            catalog = self.worker.definitions.reload(&client, &self.worker.dispatcher).await?;
        }
        let position = match self.position.take() {
            Some(position) => position,
            None => {
                self.streaks = cursor::has_streaks(&client).await?;
                cursor::current(&client).await?
            }
        };
        let wanted = catalog.triggers().chain(catalog.awaited()).chain(["saga.failed"]).chain(self.streaks.then_some("saga.completed"));
        let triggers: Vec<String> = wanted.map(str::to_owned).collect();
        let limit = self.batch_limit(room + elsewhere);
        let batch = cursor::read(&client, &position, limit, &triggers).await?;
        if batch.catalog_revision != catalog.revision {
            self.position = Some(position);
            self.worker.definitions.reload(&client, &self.worker.dispatcher).await?;
            return Ok(Turn::Busy);
        }
        let found = !batch.events.is_empty();
        self.learn_size(&batch.events);
        let plan = Plan::of(&self.worker, &catalog, batch.events, room, batch.next.seq);
        self.position = Some(self.write(&client, plan, position.seq, batch.next, &batch.backlog, batch.fresh_waits).await?);
        Ok(if batch.more || found { Turn::Busy } else { Turn::Idle })
    }

    /// Batches are bounded by room and, after the first, by bytes.
    fn batch_limit(&self, room: usize) -> i64 {
        const BATCH_BYTES: usize = 8 * 1024 * 1024;
        let by_bytes = BATCH_BYTES / self.data_bytes.max(1);
        i64::try_from(BATCH_MAX.min(room).min(by_bytes).max(1)).unwrap_or(1)
    }

    fn learn_size(&mut self, events: &[NewEvent]) {
        if let Some(largest) = events.iter().map(|new| new.event.data.len()).max() {
            self.data_bytes = largest.max(self.data_bytes / 2);
        }
    }

    /// Writes the plan and hands the sagas that are ours to the runner.
    async fn write(&mut self, client: &Client, plan: Plan, seq: i64, next: Position, backlog: &[Uuid], fresh_waits: bool) -> Result<Position, Error> {
        measures::routed(plan.count, plan.filter_errors);
        if plan.sagas.is_empty() && plan.notes.is_empty() && backlog.is_empty() && plan.arrivals.is_empty() && plan.ends.is_empty() && !fresh_waits {
            // Reading it again would do no harm, so a position alone is no reason for a commit each time.
            if plan.count == 0 || self.written_at.elapsed() < POSITION_REST {
                return Ok(Position { seq, ..next });
            }
        }
        self.written_at = Instant::now();
        // While any family has failed lately its successes are looked at as well: they end its streak.
        self.streaks |= plan.ends.iter().any(|end| end.failed);
        let batch =
            StartBatch { sagas: &plan.sagas, notes: &plan.notes, position: &next, backlog, arrivals: &plan.arrivals, ends: &plan.ends, fresh_waits };
        let started = start::start(client, self.worker.lease.worker, &batch).await?;
        if fresh_waits || !plan.arrivals.is_empty() {
            // Somebody may have been told of an event.
            self.worker.ring();
        }
        let fences: HashMap<Uuid, Started> = started.into_iter().map(|started| (started.id, started)).collect();
        let mut live = plan.live;
        let mut repeated = Vec::new();
        let mut handed_over = false;
        for saga in &plan.sagas {
            match fences.get(&saga.id) {
                None => repeated.push((saga.event_id, format!("a saga of {} with the dedupe key {} exists already", saga.family, saga.key))),
                Some(started) => {
                    let Some(definition) = plan.names.get(&saga.id) else {
                        continue;
                    };
                    measures::started(definition);
                    match live.remove(&saga.id) {
                        Some(mut live) if live.saga.state == SagaState::Pending => {
                            live.saga.locks = match started.locked {
                                None => Locks::None,
                                Some(true) => Locks::Held,
                                Some(false) => Locks::Queued,
                            };
                            self.worker.take_on();
                            self.worker.send(Message::Owned(Box::new(live)));
                        }
                        Some(mut live) => {
                            live.saga.steps[0].fence = started.fence.unwrap_or_default();
                            self.worker.tell(StoryLine { definition: definition.clone(), what: Happening::Started });
                            self.worker.tell(StoryLine {
                                definition: definition.clone(),
                                what: Happening::Calling { step: live.definition().steps[0].name.clone(), undo: false },
                            });
                            self.worker.take_on();
                            self.worker.send(Message::Owned(Box::new(live)));
                        }
                        None => handed_over |= saga.state == "pending",
                    }
                }
            }
        }
        if !repeated.is_empty() {
            start::note(client, &repeated).await?;
        }
        if handed_over {
            info!("more sagas than this worker has room for: leaving some to the others");
            self.worker.ring();
        }
        Ok(next)
    }
}
