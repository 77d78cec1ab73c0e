//! What is seen of a turn from outside, and what was seen in all of them.

use std::collections::{BTreeMap, BTreeSet};

use syncor::core::emission;
use syncor::core::machine::{Advance, Emission, TaskChange};
use syncor::core::order::Answer;
use syncor::core::saga::Saga;

use super::told::Act;

/// What is seen after one input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    pub stale: bool,
    /// Place and act.
    pub calls: BTreeSet<(usize, Act)>,
    /// Place and act.
    pub children: BTreeSet<(usize, Act)>,
    /// Place and order.
    pub child_orders: BTreeSet<(usize, &'static str)>,
    /// Place, act, number, outcome.
    pub attempts: BTreeSet<(usize, Act, u32, &'static str)>,
    /// Event type and place.
    pub events: Vec<(String, Option<usize>)>,
    /// Place, kind, and whether it opens.
    pub tasks: BTreeSet<(usize, &'static str, bool)>,
    pub answer: Option<&'static str>,
}

impl Turn {
    pub fn of(advance: &Advance) -> Self {
        let with_act = |list: &[(usize, _)]| list.iter().map(|(seq, action)| (*seq, Act::of(*action))).collect();
        Self {
            stale: advance.stale,
            calls: with_act(&advance.calls),
            children: with_act(&advance.children),
            child_orders: advance.child_orders.iter().map(|(seq, order)| (*seq, order.as_str())).collect(),
            attempts: advance.attempts.iter().map(|a| (a.seq, Act::of(a.action), a.number, a.outcome.as_str())).collect(),
            events: advance
                .emissions
                .iter()
                .map(|emitted| match emitted {
                    Emission::Compensate(seq) | Emission::CompensationFailed(seq) => (emission::kind(emitted).into_owned(), Some(*seq)),
                    _ => (emission::kind(emitted).into_owned(), None),
                })
                .collect(),
            tasks: advance
                .tasks
                .iter()
                .map(|change| match change {
                    TaskChange::Open(task) => (task.seq, task.kind.as_str(), true),
                    TaskChange::Withdraw { seq, kind } => (*seq, kind.as_str(), false),
                })
                .collect(),
            answer: advance.answer.as_ref().map(|answer| match answer {
                Answer::Applied(_) => "applied",
                Answer::Refused(_) => "refused",
                Answer::Deferred => "deferred",
            }),
        }
    }
}

pub type Moves = BTreeMap<(&'static str, &'static str), u64>;

/// What was seen in all cases together.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub saga_moves: Moves,
    pub step_moves: Moves,
    pub undo_moves: Moves,
    /// Kind of input or order, state, and what became of it.
    pub answers: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    pub ends: BTreeMap<(&'static str, bool), u64>,
    pub turns: u64,
    pub calls: u64,
    pub stale: u64,
    pub resumed: u64,
}

impl Seen {
    pub fn note(&mut self, before: &Saga, after: &Saga, advance: &Advance) {
        self.turns += 1;
        self.calls += advance.calls.len() as u64;
        self.stale += u64::from(advance.stale);
        let note = |moves: &mut Moves, from: &'static str, to: &'static str| {
            if from != to {
                *moves.entry((from, to)).or_default() += 1;
            }
        };
        note(&mut self.saga_moves, before.state.as_str(), after.state.as_str());
        for (old, new) in before.steps.iter().zip(&after.steps) {
            note(&mut self.step_moves, old.status.as_str(), new.status.as_str());
            note(&mut self.undo_moves, old.compensation.as_str(), new.compensation.as_str());
        }
    }

    /// Adds every move that was seen to `legal_moves.txt`.
    pub fn write_moves(&self) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/properties/legal_moves.txt");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let mut lines: BTreeSet<String> = old.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        for (kind, moves) in [("saga", &self.saga_moves), ("step", &self.step_moves), ("undo", &self.undo_moves)] {
            lines.extend(moves.keys().map(|(from, to)| format!("{kind} {from}>{to}")));
        }
        let head = "# Every move that one write of the machine can make, as seen in random cases: SYNCOR_WRITE_MOVES=1 adds to it.\n";
        std::fs::write(path, lines.into_iter().fold(head.to_owned(), |text, line| text + &line + "\n")).expect("a file");
    }

    pub fn add(&mut self, other: Self) {
        let add = |mine: &mut Moves, theirs: Moves| theirs.into_iter().for_each(|(key, count)| *mine.entry(key).or_default() += count);
        add(&mut self.saga_moves, other.saga_moves);
        add(&mut self.step_moves, other.step_moves);
        add(&mut self.undo_moves, other.undo_moves);
        other.answers.into_iter().for_each(|(key, count)| *self.answers.entry(key).or_default() += count);
        other.ends.into_iter().for_each(|(key, count)| *self.ends.entry(key).or_default() += count);
        self.turns += other.turns;
        self.calls += other.calls;
        self.stale += other.stale;
        self.resumed += other.resumed;
    }
}
