//! The books at the end of a seed.

use std::collections::BTreeMap;

use syncor::core::outcome::Class;
use syncor::core::saga::SagaState;

use super::tally::Tally;
use super::world::World;

impl World {
    /// Everything is over: does it add up?
    /// # Errors
    /// What does not.
    pub fn judge(mut self) -> Result<Tally, String> {
        for (id, row) in &self.store.rows {
            let definition = &self.definitions[self.pinned[id]];
            let saga = &row.saga;
            let wrong = |what: &str| Err(format!("{what}: {saga:#?}, balance {:?}", self.services.balance));
            let held = |seq: usize| self.services.balance.get(&(*id, definition.steps[seq].name.clone())).copied().unwrap_or(0);
            if (0..saga.steps.len()).any(|seq| !(0..=1).contains(&held(seq))) {
                return wrong("an effect was made twice");
            }
            if saga.in_flight().next().is_some() || row.owner.is_some() {
                return wrong("something is in flight, or owned, at the end");
            }
            match saga.state {
                SagaState::Completed => {
                    self.tally.completed += 1;
                    if (0..saga.steps.len()).any(|seq| held(seq) != 1) {
                        return wrong("completed, but not everything was done once");
                    }
                }
                SagaState::Failed => {
                    self.tally.failed += 1;
                    let left = definition.steps.iter().enumerate().any(|(seq, step)| step.compensate.is_some() && held(seq) != 0);
                    if left || !saga.clean {
                        return wrong("failed, but something is left");
                    }
                }
                SagaState::CompFailed => {
                    self.tally.comp_failed += 1;
                    if saga.clean {
                        return wrong("clean, but a human is needed");
                    }
                }
                _ => return wrong("no end"),
            }
            let told = self.store.events.get(id).map(Vec::as_slice).unwrap_or_default();
            let ends = told.iter().filter(|kind| matches!(**kind, "saga.completed" | "saga.failed" | "saga.compensation.failed")).count();
            if ends != 1 || told.first() != Some(&"saga.started") || told.iter().filter(|kind| **kind == "saga.started").count() != 1 {
                return wrong("the events tell another story");
            }
        }
        if self.store.attempts.len() != self.store.intents.len() {
            let open: Vec<_> = self.store.intents.keys().filter(|key| !self.store.attempts.contains_key(key)).collect();
            return Err(format!("calls that nobody settled: {open:?}"));
        }
        let mut highest = BTreeMap::new();
        for ((id, seq, action, number), fence) in &self.store.intents {
            let previous = highest.insert((*id, *seq, *action), (*number, *fence)).unwrap_or((0, 0));
            if *number != previous.0 + 1 || *fence <= previous.1 {
                return Err(format!("attempts of step {seq} are not numbered in order: {:?}", self.store.intents));
            }
        }
        self.tally.attempts = self.store.attempts.len() as u64;
        self.tally.lost = self.store.attempts.values().filter(|attempt| attempt.outcome.class == Class::Lost).count() as u64;
        self.tally.effects = self.services.effects;
        self.tally.fenced = self.store.fenced;
        Ok(self.tally)
    }
}
