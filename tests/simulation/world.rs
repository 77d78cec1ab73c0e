//! Workers, a store and services on one thread. Everything that is on its way somewhere is a parcel, and chance decides which
//! one arrives next, what is lost, and who dies when. What a worker does follows `engine::runner`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use syncor::core::call::{Reply, StepCall};
use syncor::core::definition::Definition;
use syncor::core::event::Event;
use syncor::core::human::{Decided, Decision};
use syncor::core::machine::{self, Input};
use syncor::core::order::{Answer, Order};
use syncor::core::outcome::{Action, Class, Outcome};
use syncor::core::reply;
use syncor::core::saga::{Saga, SagaState, Wait};
use syncor::core::time::Timestamp;
use uuid::Uuid;

use super::chance::Chance;
use super::plan;
use super::service::Services;
use super::store::{Message, Row, Store, Write, Written};
use super::tally::{Mistake, Tally};
use super::wire::call_of;

/// Waits longer than this are not kept in memory.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// The most moves while anything may go wrong.
const STORM_MAX: usize = 700;
/// Moves in which everything must end once nothing goes wrong any more.
const CALM_MAX: usize = 20_000;

/// A saga in a worker's memory.
#[derive(Debug)]
pub struct Live {
    pub saga: Saga,
    pub epoch: i32,
    pub rev: i32,
    pub writing: Option<(Vec<(usize, Action)>, bool)>,
    pub waiting: VecDeque<Occurrence>,
    /// Inputs that were answered since the last write: deferred ones are asked again after the next.
    pub asked: BTreeSet<u64>,
}

#[derive(Debug)]
pub enum Occurrence {
    Reply {
        seq: usize,
        action: Action,
        attempt: u32,
        reply: Reply,
    },
    Due,
    TakenOver,
    /// There may be inputs.
    Look,
}

/// A process. One with a tombstone that does not know it is a zombie.
#[derive(Debug, Default)]
pub struct Worker {
    pub stopping: bool,
    pub live: BTreeMap<Uuid, Live>,
}

/// Something on its way.
#[derive(Clone, Debug)]
pub enum Parcel {
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
    /// Somebody else's word for a saga.
    Message {
        id: Uuid,
        message: Message,
    },
    /// The worker that runs a saga hears that there is an input.
    Wake(Uuid),
}

pub struct World {
    pub mistake: Option<Mistake>,
    pub chance: Chance,
    pub definitions: Arc<[Definition]>,
    pub event: Event,
    pub pinned: BTreeMap<Uuid, usize>,
    pub store: Store,
    pub services: Services,
    pub workers: BTreeMap<u32, Worker>,
    /// Processes that are gone and have no tombstone yet.
    missing: Vec<u32>,
    pub parcels: Vec<Parcel>,
    pub now: i64,
    pub calm: bool,
    next_worker: u32,
    pub tally: Tally,
}

pub type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, definitions: Arc<[Definition]>, mistake: Option<Mistake>) -> Self {
        let mut chance = Chance::of_seed(seed);
        let mut store = Store::new(mistake != Some(Mistake::WritesWithoutFence));
        let mut pinned = BTreeMap::new();
        for number in 1..=3 + chance.below(4) {
            let id = Uuid::from_u128(number.into());
            let definition = chance.place(definitions.len());
            let saga = Saga::new(id, definitions[definition].steps.len());
            pinned.insert(id, definition);
            store.rows.insert(id, Row { owner: None, epoch: 0, rev: 0, next_due: Some(0), saga });
        }
        let event = plan::event();
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
        for _ in 0..100 + self.chance.place(STORM_MAX - 100) {
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
            0..56 if !self.parcels.is_empty() => {
                let next = self.chance.place(self.parcels.len());
                let parcel = self.parcels.swap_remove(next);
                return self.deliver(parcel);
            }
            56..66 => return self.claim(),
            66..76 => return self.ring(),
            76..82 => self.people(),
            90..93 => self.crash(),
            // The rescuer notices a process that is gone.
            93..95 if !self.missing.is_empty() => {
                let gone = self.chance.place(self.missing.len());
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
        let limit = 1 + self.chance.place(3);
        for id in self.store.claim(worker, self.now, limit) {
            let row = &self.store.rows[&id];
            let live =
                Live { saga: row.saga.clone(), epoch: row.epoch, rev: row.rev, writing: None, waiting: VecDeque::new(), asked: BTreeSet::new() };
            self.memory(worker).expect("it lives").live.insert(id, live);
            let occurrence = if self.mistake == Some(Mistake::TakesOverWithoutLoss) { Occurrence::Due } else { Occurrence::TakenOver };
            self.happen(worker, id, occurrence)?;
            self.happen(worker, id, Occurrence::Look)?;
        }
        Ok(())
    }

    /// Somebody else's word for a saga arrives; whoever runs it hears of it some time.
    pub fn tell(&mut self, id: Uuid, message: Message) -> bool {
        let told = self.store.tell(id, message);
        if told {
            self.tally.inputs += 1;
            self.parcels.push(Parcel::Wake(id));
        }
        told
    }

    pub fn memory(&mut self, worker: u32) -> Option<&mut Worker> {
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
        due.into_iter().try_for_each(|id| self.happen(worker, id, Occurrence::Due))?;
        // A word that was missed is found by polling.
        let told: BTreeSet<Uuid> = self.store.inputs.values().map(|(id, _)| *id).collect();
        let told = self.workers[&worker].live.keys().filter(|id| told.contains(id)).copied().collect::<Vec<_>>();
        told.into_iter().try_for_each(|id| self.happen(worker, id, Occurrence::Look))
    }

    pub fn happen(&mut self, worker: u32, id: Uuid, occurrence: Occurrence) -> Checked {
        let Some(live) = self.memory(worker).and_then(|memory| memory.live.get_mut(&id)) else { return Ok(()) };
        if live.writing.is_some() {
            live.waiting.push_back(occurrence);
            return Ok(());
        }
        self.apply(worker, id, occurrence)
    }

    /// Asks the machine and sends off what it decided.
    pub fn apply(&mut self, worker: u32, id: Uuid, occurrence: Occurrence) -> Checked {
        let now = Timestamp(self.now);
        let share = self.chance.share();
        let definition = &self.definitions[self.pinned[&id]];
        let Some(memory) = self.workers.get_mut(&worker) else { return Ok(()) };
        let stopping = memory.stopping;
        let Some(live) = memory.live.get_mut(&id) else { return Ok(()) };
        let mut taken = None;
        if matches!(occurrence, Occurrence::Look) {
            let fresh = self.store.inputs.iter().find(|(number, (of, _))| *of == id && !live.asked.contains(number));
            taken = fresh.map(|(number, (_, message))| (*number, message.clone()));
            if taken.is_none() {
                return Ok(());
            }
        }
        let is_start = live.saga.state == SagaState::Pending && !matches!(taken, Some((_, Message::Order(_))));
        if is_start {
            taken = None;
        }
        let input = match occurrence {
            Occurrence::Look if !is_start => taken.as_ref().map_or(Input::Due, |(_, message)| input_of(message, &self.definitions[self.pinned[&id]])),
            _ if live.saga.state == SagaState::Pending => Input::Start,
            Occurrence::Due | Occurrence::Look => Input::Due,
            Occurrence::TakenOver => Input::TakenOver,
            Occurrence::Reply { seq, action, attempt, reply } => {
                let outcome = reply::judge(definition, &live.saga, &self.event, seq, action, reply);
                Input::Reply { seq, action, attempt, outcome: Box::new(outcome) }
            }
        };
        let before = (live.saga.state, live.saga.target);
        let decide = if stopping { machine::record } else { machine::advance };
        let mut advance = decide(definition, &self.event, &mut live.saga, input, now, share);
        self.tally.stale += u64::from(advance.stale);
        let is_deferred = advance.answer == Some(Answer::Deferred);
        self.tally.deferred += u64::from(is_deferred);
        let refused = matches!(advance.answer, Some(Answer::Refused(_)));
        self.tally.refused += u64::from(refused);
        let consumed = taken.as_ref().filter(|_| !is_deferred).map(|(number, _)| *number);
        if let Some((number, _)) = taken {
            live.asked.insert(number);
        }
        // A decision that comes too late leaves its task as it is: withdrawn, or open if it is still a question.
        let reopened = match taken {
            Some((_, Message::Decided(seq, kind, _))) if refused && live.saga.steps[seq].task == Some(kind) => Some((seq, kind)),
            _ => None,
        };
        let changed =
            before != (live.saga.state, live.saga.target) || !advance.steps.is_empty() || !advance.emissions.is_empty() || consumed.is_some();
        let rests = live.saga.state.is_terminal() || live.saga.next_due().is_none();
        let far = live.saga.next_due().is_some_and(|due| due.since(now) > PARK_AFTER);
        // What was deferred, or has not been read yet, keeps it at hand.
        let is_told = self.store.inputs.iter().any(|(number, (of, _))| *of == id && consumed != Some(*number));
        let release = (stopping || live.saga.state.is_terminal() || (rests || far) && !is_told) && live.saga.in_flight().next().is_none();
        if !changed && !release {
            return Ok(());
        }
        let consumed = consumed.filter(|number| {
            let early = self.mistake == Some(Mistake::TakesInputsBeforeCommit);
            if early {
                self.store.inputs.remove(number);
            }
            !early
        });
        let next_due = match (release && !live.saga.state.is_terminal(), stopping) {
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
            tasks: std::mem::take(&mut advance.tasks),
            consumed,
            reopened,
        };
        if self.mistake == Some(Mistake::CallsBeforeCommit) {
            for &(seq, action) in &advance.calls {
                let call = call_of(definition, &live.saga, &self.event, seq, action)?;
                self.parcels.push(Parcel::Call { worker, call, seq, heard: false });
            }
        }
        live.writing = Some((advance.calls, release));
        self.parcels.push(Parcel::Commit { worker, write: Box::new(write), again: false });
        Ok(())
    }
}

/// What the machine makes of a row of `syncor.input`.
fn input_of(message: &Message, definition: &Definition) -> Input {
    let ended = |seq, action, wait, outcome| Input::Ended { seq, action, wait, outcome: Box::new(outcome) };
    match *message {
        Message::Event(seq) => ended(seq, Action::Do, Wait::Event, Outcome::success(None)),
        Message::Undone(seq) => ended(seq, Action::Undo, Wait::Event, Outcome::success(None)),
        Message::Callback(seq, action, true) => ended(seq, action, Wait::Callback, Outcome::success(None)),
        Message::Callback(seq, action, false) => ended(seq, action, Wait::Callback, Outcome::without_reply(Class::Failed, "no")),
        Message::Order(word) => {
            let step = definition.steps.iter().position(|step| step.asynchronous);
            Input::Ordered { order: Order::parse(word, step.filter(|_| word == "skip")).expect("an order"), reason: "because".to_owned() }
        }
        Message::Decided(seq, kind, word) => Input::Decided(Decided {
            task: Uuid::nil(),
            kind,
            seq: Some(seq),
            decision: Decision::parse(word).expect("a decision"),
            by: "somebody".to_owned(),
            note: "because".to_owned(),
            output: None,
        }),
    }
}
