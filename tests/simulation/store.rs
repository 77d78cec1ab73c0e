//! A model of the tables and of the one write that moves sagas: fenced by (owner, epoch, rev), all or nothing.

use std::collections::{BTreeMap, BTreeSet};

use syncor::core::emission;
use syncor::core::human::TaskKind;
use syncor::core::machine::{Attempt, Emission, TaskChange};
use syncor::core::outcome::{Action, Class};
use syncor::core::saga::Saga;
use uuid::Uuid;

use super::moves;

/// A saga's rows.
#[derive(Debug)]
pub struct Row {
    pub owner: Option<u32>,
    pub epoch: i32,
    pub rev: i32,
    pub next_due: Option<i64>,
    /// As it is loaded: what the steps and the attempts hold.
    pub saga: Saga,
}

/// What one saga has to write.
#[derive(Clone, Debug)]
pub struct Write {
    pub id: Uuid,
    pub epoch: i32,
    pub rev: i32,
    pub release: bool,
    pub next_due: Option<i64>,
    /// The saga row; of its steps only those in `steps` are written.
    pub saga: Saga,
    pub steps: Vec<usize>,
    pub calls: Vec<(usize, Action)>,
    pub attempts: Vec<Attempt>,
    pub emissions: Vec<Emission>,
    pub tasks: Vec<TaskChange>,
    /// The input that was answered.
    pub consumed: Option<u64>,
    /// The task of a decision that was refused, if it is still a question.
    pub reopened: Option<(usize, TaskKind)>,
}

/// What somebody else wants a saga to know: a row of `syncor.input`.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Event(usize),
    Undone(usize),
    Callback(usize, Action, bool),
    Order(&'static str),
    Decided(usize, TaskKind, &'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// These steps got these fences.
    Done(Vec<(usize, i64)>),
    Fenced,
}

#[derive(Debug)]
pub struct Store {
    pub rows: BTreeMap<Uuid, Row>,
    pub attempts: BTreeMap<(Uuid, usize, Action, u32), Attempt>,
    /// Calls that were committed to, with their fences.
    pub intents: BTreeMap<(Uuid, usize, Action, u32), i64>,
    pub events: BTreeMap<Uuid, Vec<String>>,
    /// In order of arrival, until they are answered.
    pub inputs: BTreeMap<u64, (Uuid, Message)>,
    next_input: u64,
    /// Callbacks that ended well: one per saga, step and action.
    ended: BTreeSet<(Uuid, usize, Action)>,
    /// Human tasks: whether they are open.
    pub tasks: BTreeMap<(Uuid, usize, &'static str), bool>,
    /// Workers with a tombstone.
    pub dead: BTreeSet<u32>,
    pub fenced: u64,
    /// Off only to show that it is needed.
    fences: bool,
    fence: i64,
    legal: [BTreeSet<(String, String)>; 3],
}

impl Store {
    pub fn new(fences: bool) -> Self {
        Self {
            fences,
            rows: BTreeMap::new(),
            attempts: BTreeMap::new(),
            intents: BTreeMap::new(),
            events: BTreeMap::new(),
            inputs: BTreeMap::new(),
            next_input: 0,
            ended: BTreeSet::new(),
            tasks: BTreeMap::new(),
            dead: BTreeSet::new(),
            fenced: 0,
            fence: 0,
            legal: ["saga", "step", "undo"].map(moves::of_machine),
        }
    }

    /// Writes if the writer owns the saga and knows its latest row.
    pub fn commit(&mut self, worker: u32, write: &Write) -> Result<Written, String> {
        let Some(row) = self.rows.get_mut(&write.id) else { return Err("no such saga".to_owned()) };
        let stranger = row.owner != Some(worker) || row.epoch != write.epoch || row.rev != write.rev;
        if stranger && self.fences {
            self.fenced += 1;
            return Ok(Written::Fenced);
        }
        if row.saga.state.is_terminal() {
            return Err(format!("a finished saga is written: {row:?}"));
        }
        let refuse = |kind: usize, from: &'static str, to: &'static str| {
            let legal = from == to || self.legal[kind].contains(&(from.to_owned(), to.to_owned()));
            if legal { Ok(()) } else { Err(format!("{from} to {to} is no legal move: {write:?}")) }
        };
        refuse(0, row.saga.state.as_str(), write.saga.state.as_str())?;
        for &seq in &write.steps {
            let (old, new) = (&row.saga.steps[seq], &write.saga.steps[seq]);
            // The first write of a step inserts its row.
            if old.order > 0 {
                refuse(1, old.status.as_str(), new.status.as_str())?;
                refuse(2, old.compensation.as_str(), new.compensation.as_str())?;
            }
        }
        for attempt in &write.attempts {
            let key = (write.id, attempt.seq, attempt.action, attempt.number);
            // A wait has no intent.
            if self.intents.get(&key).is_some_and(|fence| *fence != attempt.fence) {
                return Err(format!("an attempt without its intent: {attempt:?}"));
            }
            if self.attempts.insert(key, attempt.clone()).is_some() {
                return Err(format!("an attempt is recorded twice: {attempt:?}"));
            }
        }
        row.saga = Saga { steps: std::mem::take(&mut row.saga.steps), looked_at: None, ..write.saga.clone() };
        for &seq in &write.steps {
            let mut step = write.saga.steps[seq].clone();
            let kept = row.saga.steps[seq].output.take();
            // Output and context are columns of the attempt; what a human or a late callback said is one of the step.
            let done = write.attempts.iter().find(|a| (a.seq, a.outcome.class) == (seq, Class::Succeeded) && a.action != Action::Undo);
            match done {
                Some(attempt) => (step.output, step.context) = (attempt.outcome.output.clone(), attempt.outcome.context.clone()),
                None => step.output = kept,
            }
            row.saga.steps[seq] = step;
        }
        let mut fences = Vec::new();
        for &(seq, action) in &write.calls {
            self.fence += 1;
            row.saga.steps[seq].fence = self.fence;
            fences.push((seq, self.fence));
            self.intents.insert((write.id, seq, action, row.saga.steps[seq].attempt(action)), self.fence);
        }
        self.events.entry(write.id).or_default().extend(write.emissions.iter().map(|emitted| emission::kind(emitted).into_owned()));
        for change in &write.tasks {
            match change {
                TaskChange::Open(task) if self.tasks.insert((write.id, task.seq, task.kind.as_str()), true) == Some(true) => {
                    return Err(format!("a task is opened twice: {task:?}"));
                }
                TaskChange::Open(_) => {}
                TaskChange::Withdraw { seq, kind } => drop(self.tasks.insert((write.id, *seq, kind.as_str()), false)),
            }
        }
        if let Some((seq, kind)) = write.reopened {
            self.tasks.insert((write.id, seq, kind.as_str()), true);
        }
        if let Some(input) = write.consumed
            && self.inputs.remove(&input).is_none()
        {
            return Err(format!("an input is answered twice: {write:?}"));
        }
        if row.saga.state.is_terminal() {
            // Whatever else was said comes too late.
            self.inputs.retain(|_, (id, _)| *id != write.id);
        }
        row.rev += 1;
        row.next_due = write.next_due;
        if write.release {
            row.owner = None;
            // Something came while it was being let go of.
            if self.inputs.values().any(|(id, _)| *id == write.id) {
                row.next_due = Some(0);
            }
        }
        Ok(Written::Done(fences))
    }

    /// Somebody else says something; the same thing waits only once.
    pub fn tell(&mut self, id: Uuid, message: Message) -> bool {
        let Some(row) = self.rows.get_mut(&id) else { return false };
        let again = self.inputs.values().any(|input| *input == (id, message.clone()));
        if again || row.saga.state.is_terminal() {
            return false;
        }
        if let Message::Callback(seq, action, true) = message
            && !self.ended.insert((id, seq, action))
        {
            return false;
        }
        self.next_input += 1;
        self.inputs.insert(self.next_input, (id, message));
        if row.owner.is_none() {
            row.next_due = Some(0);
        }
        true
    }

    /// After a lost connection: what became of the write. `None` means that it is not there, and may be sent again.
    pub fn landed(&self, worker: u32, write: &Write) -> Option<Written> {
        let row = &self.rows[&write.id];
        let mine = row.epoch == write.epoch;
        if mine && row.rev == write.rev + 1 && row.owner.is_none_or(|owner| owner == worker) {
            return Some(Written::Done(write.calls.iter().map(|(seq, _)| (*seq, row.saga.steps[*seq].fence)).collect()));
        }
        if mine && row.rev == write.rev && row.owner == Some(worker) { None } else { Some(Written::Fenced) }
    }

    /// Claims what is due and unowned, or whose owner is dead.
    pub fn claim(&mut self, worker: u32, now: i64, limit: usize) -> Vec<Uuid> {
        let dead = &self.dead;
        let free = |row: &Row| match row.owner {
            Some(owner) => dead.contains(&owner),
            None => row.next_due.is_some_and(|due| due <= now),
        };
        let claimable = self.rows.iter_mut().filter(|(_, row)| !row.saga.state.is_terminal() && free(row)).take(limit);
        claimable
            .map(|(id, row)| {
                (row.owner, row.next_due) = (Some(worker), None);
                row.epoch += 1;
                row.rev += 1;
                *id
            })
            .collect()
    }

    pub fn is_settled(&self) -> bool {
        self.rows.values().all(|row| row.saga.state.is_terminal())
    }
}
