//! Everybody who is neither a worker nor a service: operators, deciders, publishers, consumers.

use syncor::core::human::TaskKind;
use syncor::core::saga::{SagaState, StepStatus, Wait};
use uuid::Uuid;

use super::store::Message;
use super::world::World;

impl World {
    /// In the storm somebody does something to some saga; in the calm everybody does what is waited for.
    pub fn people(&mut self) {
        let all: Vec<Uuid> = self.store.rows.keys().copied().collect();
        let chosen = if self.calm { all } else { vec![all[self.chance.place(all.len())]] };
        for id in chosen {
            if !self.store.rows[&id].saga.state.is_terminal() {
                self.attend(id);
            }
        }
    }

    fn attend(&mut self, id: Uuid) {
        let saga = &self.store.rows[&id].saga;
        let (state, waits) = (saga.state, saga.steps.iter().position(|step| step.waits_for() == Some(Wait::Event)));
        if state == SagaState::Paused && (self.calm || self.chance.happens(50)) {
            self.tell(id, Message::Order("resume"));
        }
        if let Some(seq) = waits
            && (self.calm || self.chance.happens(40))
        {
            self.tell(id, Message::Event(seq));
        }
        let open = self.store.tasks.iter().filter(|((of, ..), open)| *of == id && **open).map(|((_, seq, kind), _)| (*seq, *kind));
        let open: Vec<_> = open.collect();
        for (seq, kind) in open {
            if self.calm || self.chance.happens(40) {
                self.decide(id, seq, kind);
            }
        }
        if !self.calm && self.chance.happens(12) {
            let order = self.chance.one_of(&["cancel", "pause", "retry", "cancel", "pause", "retry", "skip", "abort"]);
            self.tell(id, Message::Order(order));
        }
    }

    fn decide(&mut self, id: Uuid, seq: usize, kind: &'static str) {
        let step = self.store.rows[&id].saga.steps[seq].clone();
        let state = self.store.rows[&id].saga.state;
        let name = self.definitions[self.pinned[&id]].steps[seq].name.clone();
        let is_done = self.services.held(id, &name) == 1;
        let Some(kind) = TaskKind::parse(kind) else { return };
        let word = match kind {
            TaskKind::Approval => self.chance.one_of(&["approve", "reject"]),
            TaskKind::PivotUnknown if is_done => "done",
            // Who says so has made sure of it.
            TaskKind::PivotUnknown => {
                self.services.block(id, &name);
                "not_done"
            }
            TaskKind::CompFailed => match self.chance.below(if self.calm { 2 } else { 3 }) {
                0 => {
                    self.services.undo(id, &name);
                    "undone"
                }
                1 => "skip",
                _ => "retry",
            },
            TaskKind::StepFailed => {
                let stands = matches!(step.status, StepStatus::Failed | StepStatus::Unknown);
                if self.calm && !(state == SagaState::Hitl && stands) {
                    return; // Nobody waits for it.
                }
                match self.chance.below(if self.calm { 2 } else { 4 }) {
                    0 if is_done && step.status == StepStatus::Unknown => "done",
                    0 | 1 => "skip",
                    2 => "retry",
                    _ => "compensate",
                }
            }
            _ => return,
        };
        if self.tell(id, Message::Decided(seq, kind, word)) {
            self.tally.decisions += 1;
            self.store.tasks.insert((id, seq, kind.as_str()), false);
        }
    }
}
