//! Owns the sagas of one worker in memory and asks the machine what to do next.
//!
//! One task, fed by one channel: replies, results of commits, new and claimed sagas, timers. A saga has at most one write in
//! flight; what happens meanwhile waits for it. Effects follow only from writes that are durable.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::Worker;
use super::committer::{Results, WriteResult};
use super::live::{InFlight, Live, Occurrence, completed_steps};
use super::{calls, measures, mending};
use crate::core::call::Sending;
use crate::core::machine;
use crate::core::matching::Deployed;
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::request;
use crate::core::saga::{Saga, SagaState};
use crate::core::story::{Happening, StoryLine};
use crate::core::time::Timestamp;
use crate::store::claim::{Loaded, Place};
use crate::store::commit::{SagaWrite, Written};

/// Waits longer than this are not kept in memory: the saga is let go of until it is due.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// A timer that changed nothing rings again no sooner than this.
const RING_AGAIN: Duration = Duration::from_millis(100);
/// Most messages handled between two looks at the timers.
const MESSAGES_MAX: usize = 512;

/// What the runner is told.
#[derive(Debug)]
pub enum Message {
    /// A saga that is owned from here on: newly started, with its first call committed to, or claimed.
    Owned(Box<Live>),
    /// Something happened to a saga.
    Happened(Uuid, Occurrence),
    /// Sagas that wait for a parked service may try it again: all of them, or one that probes it.
    Reopened {
        /// Its name.
        service: String,
        /// All of them.
        all: bool,
    },
    /// A write could not be stored: the saga as the database has it, the attempt that led to it, and why.
    Reloaded(Box<Loaded>, Arc<Deployed>, Option<(usize, Action, u32)>, String),
    /// Lets go of a saga that cannot be helped here.
    Forget(Uuid),
    /// Which of these sagas, that the table says are this worker's, are not here.
    Missing(Vec<Place>, oneshot::Sender<Vec<Place>>),
}

/// The runner's state.
#[derive(Debug)]
pub struct Runner {
    worker: Arc<Worker>,
    sagas: HashMap<Uuid, Live>,
    timers: BinaryHeap<Reverse<(Timestamp, Uuid)>>,
    writes: mpsc::UnboundedSender<SagaWrite>,
    stopping: bool,
}

impl Runner {
    /// A runner without sagas.
    #[must_use]
    pub fn new(worker: Arc<Worker>, writes: mpsc::UnboundedSender<SagaWrite>) -> Self {
        Self { worker, sagas: HashMap::new(), timers: BinaryHeap::new(), writes, stopping: false }
    }

    /// Runs until `stop` is cancelled and nothing is in flight any more, or the drain limit has passed.
    pub async fn run(
        mut self,
        mut messages: mpsc::UnboundedReceiver<Message>,
        mut results: mpsc::UnboundedReceiver<Results>,
        stop: CancellationToken,
        drain_limit: Duration,
    ) {
        let mut inbox = Vec::with_capacity(MESSAGES_MAX);
        let mut give_up_at: Option<tokio::time::Instant> = None;
        loop {
            if self.stopping && !self.is_busy() {
                return;
            }
            let next_timer = self.timers.peek().map(|Reverse((at, _))| self.worker.clock.until(*at));
            tokio::select! {
                biased;
                Some(batch) = results.recv() => {
                    for result in batch {
                        self.written(result);
                    }
                }
                count = messages.recv_many(&mut inbox, MESSAGES_MAX) => {
                    if count == 0 {
                        return;
                    }
                    for message in inbox.drain(..) {
                        self.hear(message);
                    }
                }
                () = tokio::time::sleep(next_timer.unwrap_or_default()), if next_timer.is_some() => self.ring_timers(),
                () = stop.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    give_up_at = Some(tokio::time::Instant::now() + drain_limit);
                }
                () = tokio::time::sleep_until(give_up_at.unwrap_or_else(tokio::time::Instant::now)), if give_up_at.is_some() => {
                    warn!(sagas = self.sagas.len(), "drain limit reached with calls in flight: others will take them over");
                    return;
                }
            }
        }
    }

    /// Whether a call or a write is in flight.
    fn is_busy(&self) -> bool {
        self.sagas.values().any(|live| live.writing.is_some() || live.saga.in_flight().next().is_some())
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Owned(live) => self.own(*live),
            Message::Happened(id, occurrence) => self.happen(id, occurrence),
            Message::Reopened { service, all } => self.reopen(&service, all),
            Message::Reloaded(loaded, deployed, cause, reason) => self.mend(*loaded, &deployed, cause, &reason),
            Message::Forget(id) => self.forget(id),
            Message::Missing(mut places, answer) => {
                places.retain(|place| !self.sagas.contains_key(&place.id));
                // Who asked may have been stopped meanwhile.
                let _stopped = answer.send(places);
            }
        }
    }

    fn own(&mut self, mut live: Live) {
        let id = live.saga.id;
        let fresh_start = live.saga.state == SagaState::Running && live.rev == 0;
        let now = self.worker.clock.now();
        live.unpark(now, |service| self.worker.breakers.wants(service, now));
        let waiting = std::mem::take(&mut live.waiting);
        if self.sagas.insert(id, live).is_some() {
            // It was let go of, and claimed again before the answer came: it is one saga, not two.
            self.worker.let_go();
        }
        if fresh_start {
            let calls: Vec<_> = self.sagas[&id].saga.in_flight().collect();
            self.perform(id, &calls);
            self.set_timer(id);
        }
        for occurrence in waiting {
            self.happen(id, occurrence);
        }
    }

    /// Tells sagas that wait for a service to try it again.
    fn reopen(&mut self, service: &str, all: bool) {
        if self.stopping {
            return;
        }
        let waiting = self.sagas.iter().filter(|(_, live)| live.parked_at().any(|parked| parked == service)).map(|(id, _)| *id);
        let ids: Vec<Uuid> = if all { waiting.collect() } else { waiting.take(1).collect() };
        for id in ids {
            self.happen(id, Occurrence::Reopened(service.to_owned()));
        }
    }

    fn happen(&mut self, id: Uuid, occurrence: Occurrence) {
        let Some(live) = self.sagas.get_mut(&id) else {
            metrics::counter!("hms_stale_inputs_total").increment(1);
            return;
        };
        if live.writing.is_some() {
            live.waiting.push_back(occurrence);
        } else {
            self.apply(id, occurrence);
        }
    }

    /// Asks the machine and hands what it decided to the committer.
    fn apply(&mut self, id: Uuid, occurrence: Occurrence) {
        let Some(live) = self.sagas.get_mut(&id) else {
            return;
        };
        let now = self.worker.clock.now();
        let before = (live.saga.state, live.saga.target);
        let (mut input, cause) = live.judge(occurrence);
        if live.saga.state == SagaState::Pending {
            input = machine::Input::Start;
        }
        let (deployed, event) = (Arc::clone(&live.deployed), Arc::clone(&live.event));
        let decide = if self.stopping { machine::record } else { machine::advance };
        let advance = decide(&deployed.definition, &event, &mut live.saga, input, now, rand::rng().random());
        if advance.stale {
            metrics::counter!("hms_stale_inputs_total").increment(1);
        }
        let changed = before != (live.saga.state, live.saga.target) || !advance.steps.is_empty() || !advance.emissions.is_empty();
        let release = self.stopping || may_park(&live.saga, now);
        if !changed && (!release || live.saga.in_flight().next().is_some()) {
            // What rang without effect must not ring again at once: the runner would do nothing else.
            if let Some(due) = live.saga.next_due() {
                self.timers.push(Reverse((due.max(now.plus(RING_AGAIN)), id)));
            }
            return;
        }
        // A saga with a call in flight stays here until the reply, whatever else is decided.
        let release = release && live.saga.in_flight().next().is_none();
        let mut story = live.story(&advance, now);
        if before.0 == SagaState::Pending && live.saga.state != SagaState::Pending {
            story.insert(0, StoryLine { definition: deployed.definition.id.clone(), what: Happening::Started });
        }
        // Handed over, it can go on at once; parked, when it is due; at its end or with a human, never.
        let rests = live.saga.state.is_terminal() || live.saga.state == SagaState::CompFailed;
        let next_due = if rests {
            None
        } else if self.stopping {
            Some(now)
        } else {
            live.saga.next_due()
        };
        let write = live.write(&advance, release, next_due);
        measures::attempts(&deployed.definition, &advance.attempts, now);
        if live.saga.state.is_terminal() {
            measures::ended(&deployed.definition.id, &live.saga, now.since(live.started_at));
        }
        live.writing =
            Some(InFlight { calls: advance.calls, release, story, published: write.events.iter().map(|event| event.kind.clone()).collect(), cause });
        // The committers outlive the runner.
        let _closed = self.writes.send(write);
    }

    /// A write came back.
    fn written(&mut self, result: WriteResult) {
        let WriteResult { id, epoch, rev, written } = result;
        // An answer that comes late may be about an earlier ownership of the same saga.
        let Some(live) = self.sagas.get_mut(&id).filter(|live| live.epoch == epoch && live.rev == rev) else {
            return;
        };
        let Some(in_flight) = live.writing.take() else {
            return;
        };
        match written {
            Written::Done(fences) => {
                live.rev += 1;
                live.mended = false;
                for (seq, fence) in fences {
                    live.saga.steps[seq].fence = fence;
                }
                self.worker.published(&in_flight.published);
                for line in in_flight.story {
                    self.worker.tell(line);
                }
                if in_flight.release {
                    self.forget(id);
                    return;
                }
                self.perform(id, &in_flight.calls);
                self.set_timer(id);
                self.next_waiting(id);
            }
            Written::Fenced => {
                metrics::counter!("hms_fenced_total").increment(1);
                self.forget(id);
            }
            Written::Unstorable(reason) => self.reload(id, in_flight.cause, reason),
        }
    }

    fn next_waiting(&mut self, id: Uuid) {
        while let Some(live) = self.sagas.get_mut(&id) {
            if live.writing.is_some() {
                return;
            }
            let Some(occurrence) = live.waiting.pop_front() else {
                return;
            };
            self.apply(id, occurrence);
        }
    }

    fn forget(&mut self, id: Uuid) {
        if self.sagas.remove(&id).is_some() {
            self.worker.let_go();
        }
    }

    fn set_timer(&mut self, id: Uuid) {
        if let Some(due) = self.sagas.get(&id).and_then(|live| live.saga.next_due()) {
            self.timers.push(Reverse((due, id)));
        }
    }

    fn ring_timers(&mut self) {
        let now = self.worker.clock.now();
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            // A timer that was overtaken rings for nothing: only what is due now counts.
            let due = self.sagas.get(&id).is_some_and(|live| live.saga.next_due().is_some_and(|due| due <= now));
            if due && !self.stopping {
                self.happen(id, Occurrence::Due);
            }
        }
    }

    /// Makes the calls that were committed to.
    fn perform(&mut self, id: Uuid, calls: &[(usize, Action)]) {
        for &(seq, action) in calls {
            let Some(live) = self.sagas.get_mut(&id) else {
                return;
            };
            let attempt = live.saga.steps[seq].attempt(action);
            match request::build(live.definition(), &live.saga, &live.event, seq, action) {
                Ok(None) => {}
                Ok(Some(Sending::Function(call))) => warn!(function = call.function, "functions are not called yet"),
                Ok(Some(Sending::Call(call))) => {
                    if live.rev == 0 && seq == 0 {
                        measures::first_call(self.worker.clock.now().since(live.event.created_at));
                    }
                    calls::spawn(&self.worker, *call, id, seq);
                }
                Err(problem) => {
                    let outcome = Outcome::without_reply(Class::Refused, format!("the call could not be made: {problem}"));
                    live.waiting.push_back(Occurrence::Judged { seq, action, attempt, outcome });
                }
            }
        }
        self.next_waiting(id);
    }

    /// What the machine decided cannot be stored: go back to what the database has.
    fn reload(&mut self, id: Uuid, cause: Option<(usize, Action, u32)>, reason: String) {
        error!(saga.id = %id, reason, "a decision cannot be stored");
        let Some(live) = self.sagas.get_mut(&id) else {
            return;
        };
        // Memory is ahead of the database by something that will never be written: nothing else may be judged by it.
        live.writing = Some(InFlight::default());
        let rests = live.mended || cause.is_none();
        let worker = Arc::clone(&self.worker);
        tokio::spawn(async move {
            let dead = worker.lease.dead.clone();
            let message = tokio::select! {
                () = dead.cancelled() => return,
                message = async { if rests { mending::put_back(&worker, id).await } else { mending::load_again(&worker, id, cause, reason).await } } => message,
            };
            worker.send(message);
        });
    }

    /// Judges the reply that cannot be stored anew: as one of unknown effect, without what it said.
    fn mend(&mut self, loaded: Loaded, deployed: &Deployed, cause: Option<(usize, Action, u32)>, reason: &str) {
        let id = loaded.saga.id;
        let Some(live) = self.sagas.get_mut(&id) else {
            return;
        };
        let (saga, stored) = completed_steps(loaded.saga, &deployed.definition);
        (live.saga, live.stored, live.rev, live.epoch) = (saga, stored, loaded.rev, loaded.epoch);
        (live.writing, live.mended) = (None, true);
        if let Some((seq, action, attempt)) = cause {
            let outcome = Outcome::without_reply(Class::Unknown, format!("the result cannot be stored: {}", crate::core::reply::line(reason)));
            self.apply(id, Occurrence::Judged { seq, action, attempt, outcome });
        }
        self.next_waiting(id);
    }
}

/// Whether a saga is let go of: it has ended, needs a human, or waits for longer than memory is worth.
fn may_park(saga: &Saga, now: Timestamp) -> bool {
    if saga.state.is_terminal() || saga.state == SagaState::CompFailed {
        return true;
    }
    saga.in_flight().next().is_none() && saga.next_due().is_some_and(|due| due.since(now) > PARK_AFTER)
}
