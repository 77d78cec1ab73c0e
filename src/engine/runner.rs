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
use tracing::warn;
use uuid::Uuid;

use super::Worker;
use super::committer::{Results, WriteResult};
use super::gather::gather;
use super::live::{InFlight, Live, Occurrence};
use super::{functions, measures};
use crate::core::machine::{self, Advance, Emission};
use crate::core::matching::Deployed;
use crate::core::order::Answer;
use crate::core::outcome::{Action, Class};
use crate::core::saga::{Saga, SagaState, Wait};
use crate::core::story::{Happening, StoryLine};
use crate::core::time::Timestamp;
use crate::store::claim::{Loaded, Place};
use crate::store::commit::{SagaWrite, Written};
use crate::store::inputs::InputRow;

mod effects;

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
    /// What others had to say to sagas that are owned here.
    Said(Vec<InputRow>),
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
    /// Where the results of writes go that no committer makes.
    results: mpsc::UnboundedSender<Results>,
    stopping: bool,
}

impl Runner {
    /// A runner without sagas.
    #[must_use]
    pub fn new(worker: Arc<Worker>, writes: mpsc::UnboundedSender<SagaWrite>, results: mpsc::UnboundedSender<Results>) -> Self {
        Self { worker, sagas: HashMap::new(), timers: BinaryHeap::new(), writes, results, stopping: false }
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
            Message::Said(inputs) => {
                for said in inputs {
                    self.say(said);
                }
            }
            Message::Missing(mut places, answer) => {
                places.retain(|place| !self.sagas.contains_key(&place.id));
                // Who asked may have been stopped meanwhile.
                let _stopped = answer.send(places);
            }
        }
    }

    fn own(&mut self, mut live: Live) {
        let id = live.saga.id;
        let fresh_start = live.saga.state == SagaState::Running && live.rev == 0 && live.epoch == 0;
        let now = self.worker.clock.now();
        live.unpark(now, |service| self.worker.breakers.wants(service, now));
        if self.sagas.insert(id, live).is_some() {
            // It was let go of, and claimed again before the answer came: it is one saga, not two.
            self.worker.let_go();
        }
        if fresh_start {
            let calls: Vec<_> = self.sagas[&id].saga.in_flight().collect();
            self.perform(id, &calls);
            self.set_timer(id);
        }
        self.next_waiting(id);
    }

    fn say(&mut self, said: InputRow) {
        let Some(live) = self.sagas.get_mut(&said.saga_id) else {
            // It was let go of meanwhile: whoever claims it finds what was said.
            self.worker.orphans.notify_one();
            return;
        };
        if live.seen.insert(said.id) {
            self.happen(said.saga_id, Occurrence::Said(Box::new(said)));
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
    fn apply(&mut self, id: Uuid, mut occurrence: Occurrence) {
        let Some(live) = self.sagas.get_mut(&id) else {
            return;
        };
        let now = self.worker.clock.now();
        let before = (live.saga.state, live.saga.target, live.saga.deadline_at);
        let session = occurrence.take_session();
        let (input, cause) = live.judge(&occurrence);
        let said = if let Occurrence::Said(said) = occurrence { Some(*said) } else { None };
        let (deployed, event) = (Arc::clone(&live.deployed), Arc::clone(&live.event));
        let decide = if self.stopping { machine::record } else { machine::advance };
        let advance = match input {
            Some(input) => decide(&deployed.definition, &event, &mut live.saga, input, now, rand::rng().random::<f64>()),
            None => Advance { stale: true, ..Advance::default() },
        };
        if advance.stale {
            metrics::counter!("hms_stale_inputs_total").increment(1);
        }
        // Only what counts as done joins its outcome.
        let done = advance.attempts.iter().any(|attempt| attempt.outcome.class == Class::Succeeded);
        let session = match session {
            Some(session) if !done => {
                functions::roll_back(&self.worker, *session);
                None
            }
            session => session,
        };
        let deferred = advance.answer == Some(Answer::Deferred);
        let changed = before != (live.saga.state, live.saga.target, live.saga.deadline_at)
            || !advance.steps.is_empty()
            || !advance.emissions.is_empty()
            || said.is_some() && !deferred;
        if deferred {
            live.deferred.extend(said.clone());
        }
        // Whatever has still to be told comes first, and what was put off would have it claimed again at once; but what has ended
        // belongs to nobody: what is still said to it is answered as too late.
        let rests = self.stopping || may_park(&live.saga, now) && live.deferred.is_empty();
        let release = live.saga.state.is_terminal() || rests && live.waiting.is_empty();
        if !changed && (!release || live.saga.in_flight().next().is_some()) {
            // What rang without effect must not ring again at once: the runner would do nothing else.
            if let Some(due) = live.saga.next_due() {
                self.timers.push(Reverse((due.max(now.plus(RING_AGAIN)), id)));
            }
            return;
        }
        // A saga with a call in flight stays here until the reply, whatever else is decided.
        let release = release && live.saga.in_flight().next().is_none();
        let mut story = live.story(&advance, before.0, now);
        if advance.emissions.contains(&Emission::Started) {
            story.insert(0, StoryLine { definition: deployed.definition.id.clone(), what: Happening::Started });
        }
        // Handed over, it can go on at once; parked, when it is due; at its end, never.
        let next_due = if live.saga.state.is_terminal() {
            None
        } else if self.stopping {
            Some(now)
        } else {
            live.saga.next_due()
        };
        let catalog = self.worker.definitions.active();
        let (extras, told) = gather(live, &catalog, &advance, said.as_ref());
        // Other routers and owners are told once it is durable.
        let rings = !extras.waits.is_empty()
            || !extras.children.is_empty()
            || !extras.child_orders.is_empty()
            || !extras.failures.is_empty()
            || extras.ended.as_ref().is_some_and(|ended| ended.had_locks || ended.has_parent);
        let write = live.write(&advance, release, next_due, extras, told);
        measures::attempts(&deployed.definition, &advance.attempts, now);
        if live.saga.state.is_terminal() {
            measures::ended(&deployed.definition.id, &live.saga, now.since(live.started_at));
        }
        let published = write.events.iter().map(|event| event.kind.clone()).collect();
        live.writing = Some(InFlight { calls: advance.calls, release, story, published, cause, rings });
        match session {
            Some(session) => functions::write_with_session(&self.worker, *session, write, self.results.clone()),
            None => {
                // The committers outlive the runner.
                let _closed = self.writes.send(write);
            }
        }
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
                if in_flight.rings {
                    self.worker.ring();
                }
                // What was put off is asked again: the saga has changed.
                let deferred: Vec<_> = live.deferred.drain(..).map(|said| Occurrence::Said(Box::new(said))).collect();
                live.waiting.extend(deferred);
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
}

/// Whether a saga is let go of: it has ended, others must act, or it waits for longer than memory is worth.
fn may_park(saga: &Saga, now: Timestamp) -> bool {
    if matches!(saga.state, SagaState::CompFailed | SagaState::Hitl | SagaState::LockWait | SagaState::Paused) || saga.state.is_terminal() {
        return true;
    }
    if saga.in_flight().next().is_some() {
        return false;
    }
    // What others must do may take any time; heartbeats are looked up when the saga is claimed again.
    let waits_for_others = saga.steps.iter().any(|step| {
        let wait = step.waits_for().or(step.undo_waits_for());
        wait.is_some_and(|wait| !matches!(wait, Wait::Timer | Wait::Service))
    });
    waits_for_others || saga.next_due().is_none_or(|due| due.since(now) > PARK_AFTER)
}
