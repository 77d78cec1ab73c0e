//! Workers, a store and services on one thread. Everything that is on its way somewhere is a parcel, and chance decides which
//! one arrives next, what is lost, and who dies when. What a worker does follows `engine::runner`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use syncor::core::call::{Reply, StepCall};
use syncor::core::definition::Definition;
use syncor::core::event::Event;
use syncor::core::machine::{self, Input};
use syncor::core::outcome::Action;
use syncor::core::payload::Payload;
use syncor::core::saga::{Saga, SagaState};
use syncor::core::time::Timestamp;
use syncor::core::{reply, request};
use uuid::Uuid;

use super::chance::Chance;
use super::service::Services;
use super::store::{Row, Store, Write, Written};
use super::tally::{Mistake, Tally};

/// Waits longer than this are not kept in memory.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// The most moves while anything may go wrong.
const STORM_MAX: usize = 700;
/// Moves in which everything must end once nothing goes wrong any more.
const CALM_MAX: usize = 20_000;

/// A saga in a worker's memory.
#[derive(Debug)]
struct Live {
    saga: Saga,
    epoch: i32,
    rev: i32,
    writing: Option<(Vec<(usize, Action)>, bool)>,
    waiting: VecDeque<Occurrence>,
}

#[derive(Debug)]
enum Occurrence {
    Reply { seq: usize, action: Action, attempt: u32, reply: Reply },
    Due,
    TakenOver,
}

/// A process. One with a tombstone that does not know it is a zombie.
#[derive(Debug, Default)]
struct Worker {
    stopping: bool,
    live: BTreeMap<Uuid, Live>,
}

/// Something on its way.
#[derive(Clone, Debug)]
enum Parcel {
    /// A write; `again` if an earlier sending of it may have landed.
    Commit {
        worker: u32,
        write: Box<Write>,
        again: bool,
    },
    /// A write whose sender has lost the connection: nobody hears what becomes of it.
    Ghost {
        worker: u32,
        write: Box<Write>,
    },
    /// The question whether a write has landed.
    Lookup {
        worker: u32,
        write: Box<Write>,
    },
    /// The answer to the write of one epoch and rev.
    Committed {
        worker: u32,
        id: Uuid,
        epoch: i32,
        rev: i32,
        written: Written,
    },
    Call {
        worker: u32,
        call: Box<StepCall>,
        seq: usize,
        heard: bool,
    },
    Reply {
        worker: u32,
        id: Uuid,
        seq: usize,
        action: Action,
        attempt: u32,
        reply: Reply,
    },
}

pub struct World {
    mistake: Option<Mistake>,
    chance: Chance,
    pub definitions: Arc<[Definition]>,
    event: Event,
    pub pinned: BTreeMap<Uuid, usize>,
    pub store: Store,
    pub services: Services,
    workers: BTreeMap<u32, Worker>,
    /// Processes that are gone and have no tombstone yet.
    missing: Vec<u32>,
    parcels: Vec<Parcel>,
    now: i64,
    calm: bool,
    next_worker: u32,
    pub tally: Tally,
}

type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, definitions: Arc<[Definition]>, mistake: Option<Mistake>) -> Self {
        let mut chance = Chance::new(seed);
        let mut store = Store::new(mistake != Some(Mistake::WritesWithoutFence));
        let mut pinned = BTreeMap::new();
        for number in 1..=3 + chance.below(4) {
            let id = Uuid::from_u128(number as u128);
            let definition = chance.below(definitions.len());
            let saga = Saga::new(id, definitions[definition].steps.len());
            pinned.insert(id, definition);
            store.rows.insert(id, Row { owner: None, epoch: 0, rev: 0, next_due: Some(0), saga });
        }
        let event = Event {
            id: Uuid::nil(),
            kind: "begun".to_owned(),
            topic: "default".to_owned(),
            source: "simulation".to_owned(),
            subject: None,
            data: Payload::from(serde_json::json!({"amount": 1})),
            correlation_id: "c".to_owned(),
            causation_id: None,
            dedupe_key: None,
            depth: 0,
            created_at: Timestamp(0),
        };
        let mut world = Self {
            mistake,
            chance,
            definitions,
            event,
            pinned,
            store,
            services: Services::default(),
            workers: BTreeMap::new(),
            missing: Vec::new(),
            parcels: Vec::new(),
            now: 1_000_000,
            calm: false,
            next_worker: 1,
            tally: Tally::default(),
        };
        for _ in 0..2 + world.chance.below(2) {
            world.start_worker();
        }
        world
    }

    /// A storm, then calm until the end; then everything is checked.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn run(mut self) -> Result<Tally, String> {
        for _ in 0..100 + self.chance.below(STORM_MAX - 100) {
            self.step()?;
        }
        self.calm = true;
        for worker in std::mem::take(&mut self.missing) {
            self.store.dead.insert(worker);
        }
        for _ in 0..CALM_MAX {
            if self.store.is_settled() && self.parcels.is_empty() {
                return self.judge();
            }
            self.step()?;
        }
        let rows: Vec<_> = self.store.rows.values().filter(|row| !row.saga.state.is_terminal()).collect();
        Err(format!("no end in sight; living workers {:?}, sagas {rows:?}, on the way {:?}", self.workers, self.parcels))
    }

    fn start_worker(&mut self) {
        self.workers.insert(self.next_worker, Worker::default());
        self.next_worker += 1;
    }

    fn any_worker(&mut self) -> Option<u32> {
        let all: Vec<u32> = self.workers.keys().copied().collect();
        (!all.is_empty()).then(|| self.chance.one_of(&all))
    }

    /// One thing happens somewhere.
    fn step(&mut self) -> Checked {
        self.tally.moves += 1;
        if self.workers.is_empty() {
            self.start_worker();
        }
        let dice = self.chance.below(if self.calm { 90 } else { 100 });
        match dice {
            0..60 if !self.parcels.is_empty() => {
                let next = self.chance.below(self.parcels.len());
                let parcel = self.parcels.swap_remove(next);
                return self.deliver(parcel);
            }
            60..70 => return self.claim(),
            70..80 => return self.ring(),
            90..93 => self.crash(),
            // The rescuer notices a process that is gone.
            93..95 if !self.missing.is_empty() => {
                let gone = self.chance.below(self.missing.len());
                self.store.dead.insert(self.missing.swap_remove(gone));
            }
            // It mistakes a slow one for dead: a zombie goes on.
            95..97 => {
                if let Some(worker) = self.any_worker()
                    && self.store.dead.insert(worker)
                {
                    self.tally.zombies += 1;
                    self.start_worker();
                }
            }
            97 => self.stop(),
            // Time goes by: to the next alarm, or a little.
            _ => {
                let rows = self.store.rows.values().filter_map(|row| row.next_due);
                let lives = self.workers.values().flat_map(|worker| worker.live.values()).filter_map(|live| live.saga.next_due().map(|due| due.0));
                let next = rows.chain(lives).filter(|due| *due > self.now).min();
                self.now = if self.parcels.len() < 2 { next.unwrap_or(self.now) } else { self.now } + 20_000;
            }
        }
        Ok(())
    }

    /// A process dies. Its calls and writes are on their way all the same.
    fn crash(&mut self) {
        let Some(worker) = self.any_worker() else { return };
        self.tally.crashes += 1;
        self.workers.remove(&worker);
        if !self.store.dead.contains(&worker) {
            self.missing.push(worker);
        }
        if self.workers.len() < 2 {
            self.start_worker();
        }
    }

    fn stop(&mut self) {
        let worker = self.any_worker().and_then(|worker| self.workers.get_mut(&worker));
        if let Some(worker) = worker {
            worker.stopping = true;
            self.tally.stops += 1;
        }
        self.start_worker();
    }

    /// A living worker takes on what nobody runs.
    fn claim(&mut self) -> Checked {
        let Some(worker) = self.any_worker().filter(|worker| !self.workers[worker].stopping && !self.store.dead.contains(worker)) else {
            return Ok(());
        };
        let limit = 1 + self.chance.below(3);
        for id in self.store.claim(worker, self.now, limit) {
            let row = &self.store.rows[&id];
            let live = Live { saga: row.saga.clone(), epoch: row.epoch, rev: row.rev, writing: None, waiting: VecDeque::new() };
            self.memory(worker).expect("it lives").live.insert(id, live);
            let occurrence = if self.mistake == Some(Mistake::TakesOverWithoutLoss) { Occurrence::Due } else { Occurrence::TakenOver };
            self.happen(worker, id, occurrence)?;
        }
        Ok(())
    }

    fn memory(&mut self, worker: u32) -> Option<&mut Worker> {
        self.workers.get_mut(&worker)
    }

    /// Timers ring. A worker that has stopped and has nothing left in flight goes away.
    fn ring(&mut self) -> Checked {
        let Some(worker) = self.any_worker() else { return Ok(()) };
        // A zombie notices in the end that it is one, and begins anew under another name.
        if self.store.dead.contains(&worker) && self.chance.happens(5) {
            self.workers.remove(&worker);
            self.start_worker();
            return Ok(());
        }
        let now = Timestamp(self.now);
        let memory = &self.workers[&worker];
        if memory.stopping {
            let busy = memory.live.values().any(|live| live.writing.is_some() || live.saga.in_flight().next().is_some());
            if !busy {
                self.workers.remove(&worker);
                self.store.dead.insert(worker);
            }
            return Ok(());
        }
        let due: Vec<Uuid> = memory.live.iter().filter(|(_, live)| live.saga.next_due().is_some_and(|due| due <= now)).map(|(id, _)| *id).collect();
        due.into_iter().try_for_each(|id| self.happen(worker, id, Occurrence::Due))
    }

    fn happen(&mut self, worker: u32, id: Uuid, occurrence: Occurrence) -> Checked {
        let Some(live) = self.memory(worker).and_then(|memory| memory.live.get_mut(&id)) else { return Ok(()) };
        if live.writing.is_some() {
            live.waiting.push_back(occurrence);
            return Ok(());
        }
        self.apply(worker, id, occurrence)
    }

    /// Asks the machine and sends off what it decided.
    fn apply(&mut self, worker: u32, id: Uuid, occurrence: Occurrence) -> Checked {
        let now = Timestamp(self.now);
        let share = self.chance.share();
        let definition = &self.definitions[self.pinned[&id]];
        let Some(memory) = self.workers.get_mut(&worker) else { return Ok(()) };
        let stopping = memory.stopping;
        let Some(live) = memory.live.get_mut(&id) else { return Ok(()) };
        let input = match occurrence {
            _ if live.saga.state == SagaState::Pending => Input::Start,
            Occurrence::Due => Input::Due,
            Occurrence::TakenOver => Input::TakenOver,
            Occurrence::Reply { seq, action, attempt, reply } => {
                let outcome = reply::judge(definition, &live.saga, &self.event, seq, action, reply);
                Input::Reply { seq, action, attempt, outcome: Box::new(outcome) }
            }
        };
        let before = (live.saga.state, live.saga.target);
        let decide = if stopping { machine::record } else { machine::advance };
        let advance = decide(definition, &mut live.saga, input, now, share);
        self.tally.stale += u64::from(advance.stale);
        let changed = before != (live.saga.state, live.saga.target) || !advance.steps.is_empty() || !advance.emissions.is_empty();
        let rests = live.saga.state.is_terminal() || live.saga.state == SagaState::CompFailed;
        let far = live.saga.next_due().is_some_and(|due| due.since(now) > PARK_AFTER);
        let release = (stopping || rests || far) && live.saga.in_flight().next().is_none();
        if !changed && !release {
            return Ok(());
        }
        let next_due = match (release && !rests, stopping) {
            (false, _) => None,
            (true, true) => Some(self.now),
            (true, false) => live.saga.next_due().map(|due| due.0),
        };
        let write = Write {
            id,
            epoch: live.epoch,
            rev: live.rev,
            release,
            next_due,
            saga: live.saga.clone(),
            steps: advance.steps,
            calls: advance.calls.clone(),
            attempts: advance.attempts,
            emissions: advance.emissions,
        };
        if self.mistake == Some(Mistake::CallsBeforeCommit) {
            for &(seq, action) in &advance.calls {
                let call = request::build(definition, &live.saga, &self.event, seq, action).map_err(|error| error.to_string())?;
                self.parcels.push(Parcel::Call { worker, call: Box::new(call), seq, heard: false });
            }
        }
        live.writing = Some((advance.calls, release));
        self.parcels.push(Parcel::Commit { worker, write: Box::new(write), again: false });
        Ok(())
    }

    fn deliver(&mut self, parcel: Parcel) -> Checked {
        match parcel {
            Parcel::Commit { worker, write, again } => self.commit(worker, write, again)?,
            Parcel::Ghost { worker, write } => {
                self.store.commit(worker, &write)?;
            }
            Parcel::Lookup { worker, write } => {
                let next = match self.store.landed(worker, &write) {
                    Some(written) => committed(worker, &write, written),
                    None => Parcel::Commit { worker, write, again: true },
                };
                self.parcels.push(next);
            }
            Parcel::Committed { worker, id, epoch, rev, written } => self.written(worker, id, (epoch, rev), written)?,
            Parcel::Call { worker, call, seq, heard } => self.call(worker, call, seq, heard)?,
            Parcel::Reply { worker, id, seq, action, attempt, reply } => {
                if !self.calm && self.chance.happens(3) {
                    self.parcels.push(Parcel::Reply { worker, id, seq, action, attempt, reply: reply.clone() });
                }
                self.happen(worker, id, Occurrence::Reply { seq, action, attempt, reply })?;
            }
        }
        Ok(())
    }

    /// A write reaches the database, or its connection breaks before, after or while it does.
    fn commit(&mut self, worker: u32, write: Box<Write>, again: bool) -> Checked {
        let fate = if self.calm { 99 } else { self.chance.below(100) };
        if fate < 15 {
            self.tally.unsure += 1;
            match fate {
                0..5 => {}
                5..10 => {
                    self.store.commit(worker, &write)?;
                }
                // Still being executed when its sender asks whether it landed.
                _ => self.parcels.push(Parcel::Ghost { worker, write: write.clone() }),
            }
            self.parcels.push(Parcel::Lookup { worker, write });
            return Ok(());
        }
        let mut written = self.store.commit(worker, &write)?;
        // An earlier sending may have won the race against this one.
        if written == Written::Fenced && again && self.mistake != Some(Mistake::TrustsTheSecondSending) {
            written = self.store.landed(worker, &write).unwrap_or(Written::Fenced);
        }
        self.parcels.push(committed(worker, &write, written));
        Ok(())
    }

    /// The worker learns what became of its write.
    fn written(&mut self, worker: u32, id: Uuid, version: (i32, i32), written: Written) -> Checked {
        let Some(memory) = self.workers.get_mut(&worker) else { return Ok(()) };
        let Some(live) = memory.live.get_mut(&id) else { return Ok(()) };
        // It may have let go of the saga and claimed it again before it heard of the old write.
        if (live.epoch, live.rev) != version && self.mistake != Some(Mistake::HearsOldAnswers) {
            self.tally.outdated += 1;
            return Ok(());
        }
        let Some((calls, release)) = live.writing.take() else { return Err("an answer to no write".to_owned()) };
        let Written::Done(fences) = written else {
            memory.live.remove(&id);
            return Ok(());
        };
        live.rev += 1;
        for (seq, fence) in fences {
            live.saga.steps[seq].fence = fence;
        }
        if release {
            memory.live.remove(&id);
            return Ok(());
        }
        for (seq, action) in calls {
            let definition = &self.definitions[self.pinned[&id]];
            let mut call = request::build(definition, &live.saga, &self.event, seq, action).map_err(|error| error.to_string())?;
            if self.mistake == Some(Mistake::ChangesTheKey) && call.action == Action::Do {
                call.idempotency_key += &call.attempt.to_string();
            }
            self.parcels.push(Parcel::Call { worker, call: Box::new(call), seq, heard: true });
        }
        while let Some(live) = self.memory(worker).and_then(|memory| memory.live.get_mut(&id)) {
            if live.writing.is_some() {
                break;
            }
            let Some(occurrence) = live.waiting.pop_front() else { break };
            self.apply(worker, id, occurrence)?;
        }
        Ok(())
    }

    /// A call is made, or its caller loses patience and it arrives later.
    fn call(&mut self, worker: u32, call: Box<StepCall>, seq: usize, heard: bool) -> Checked {
        let key = (call.saga_id, seq, call.action, call.attempt);
        if self.store.intents.get(&key) != Some(&call.fence) {
            return Err(format!("a call without its committed intent: {call:?}"));
        }
        let answered = |reply| Parcel::Reply { worker, id: call.saga_id, seq, action: call.action, attempt: call.attempt, reply };
        if heard && !self.calm && self.chance.happens(6) {
            let gone = answered(Reply::Broken("timeout".to_owned()));
            self.parcels.push(gone);
            self.parcels.push(Parcel::Call { worker, call, seq, heard: false });
            return Ok(());
        }
        if heard && !self.calm && self.chance.happens(3) {
            self.parcels.push(answered(Reply::NotSent("connection refused".to_owned())));
            return Ok(());
        }
        let is_late = self.store.attempts.contains_key(&key);
        self.tally.late_calls += u64::from(is_late);
        let reply = self.services.call(&call, &mut self.chance, self.calm)?;
        if heard {
            self.parcels.push(answered(reply));
        }
        Ok(())
    }
}

fn committed(worker: u32, write: &Write, written: Written) -> Parcel {
    Parcel::Committed { worker, id: write.id, epoch: write.epoch, rev: write.rev, written }
}
