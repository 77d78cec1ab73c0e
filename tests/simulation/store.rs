//! A model of the tables and of the one write that moves sagas: fenced by (owner, epoch, rev), all or nothing.

use std::collections::{BTreeMap, BTreeSet};

use syncor::core::emission;
use syncor::core::machine::{Attempt, Emission};
use syncor::core::outcome::{Action, Class};
use syncor::core::saga::{Saga, SagaState, StepProgress};
use uuid::Uuid;

use super::moves;

const MIGRATION: &str = include_str!("../../migrations/V004__sagas.sql");

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
    pub events: BTreeMap<Uuid, Vec<&'static str>>,
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
            dead: BTreeSet::new(),
            fenced: 0,
            fence: 0,
            legal: ["saga_legal_move", "step_legal_move", "step_legal_undo"].map(|trigger| moves::legal(MIGRATION, trigger)),
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
            if old.attempts > 0 {
                refuse(1, old.status.as_str(), new.status.as_str())?;
                refuse(2, old.compensation.as_str(), new.compensation.as_str())?;
            }
        }
        for attempt in &write.attempts {
            let key = (write.id, attempt.seq, attempt.action, attempt.number);
            if self.intents.get(&key) != Some(&attempt.fence) {
                return Err(format!("an attempt without its intent: {attempt:?}"));
            }
            if self.attempts.insert(key, attempt.clone()).is_some() {
                return Err(format!("an attempt is recorded twice: {attempt:?}"));
            }
        }
        row.saga = Saga { steps: std::mem::take(&mut row.saga.steps), ..write.saga.clone() };
        let mut fences = Vec::new();
        for &seq in &write.steps {
            let kept = (row.saga.steps[seq].output.take(), row.saga.steps[seq].context.take());
            // Output and context are columns of the attempt.
            let done = write.attempts.iter().find(|a| (a.seq, a.action, a.outcome.class) == (seq, Action::Do, Class::Succeeded));
            let (output, context) = done.map_or(kept, |attempt| (attempt.outcome.output.clone(), attempt.outcome.context.clone()));
            row.saga.steps[seq] = StepProgress { output, context, ..write.saga.steps[seq].clone() };
        }
        for &(seq, action) in &write.calls {
            self.fence += 1;
            row.saga.steps[seq].fence = self.fence;
            fences.push((seq, self.fence));
            self.intents.insert((write.id, seq, action, row.saga.steps[seq].attempt(action)), self.fence);
        }
        self.events.entry(write.id).or_default().extend(write.emissions.iter().map(|emitted| emission::kind(*emitted)));
        row.rev += 1;
        row.next_due = write.next_due;
        if write.release {
            row.owner = None;
        }
        Ok(Written::Done(fences))
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
        self.rows.values().all(|row| row.saga.state.is_terminal() || row.saga.state == SagaState::CompFailed)
    }
}
