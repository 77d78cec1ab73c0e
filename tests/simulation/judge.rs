//! The books at the end of a seed.

use std::collections::BTreeMap;

use syncor::core::definition::{Definition, Work};
use syncor::core::outcome::Class;
use syncor::core::saga::{Compensation, Saga, SagaState, StepStatus};

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
            if saga.in_flight().next().is_some() || row.owner.is_some() {
                return wrong("something is in flight, or owned, at the end");
            }
            for (step, progress) in definition.steps.iter().zip(&saga.steps).filter(|(step, _)| matches!(step.work, Work::Call(_))) {
                let held = self.services.held(*id, &step.name);
                let fits = match (progress.status, progress.compensation) {
                    _ if !(0..=1).contains(&held) => return wrong("an effect was made twice"),
                    (_, Compensation::Compensated) => held == 0,
                    (StepStatus::Succeeded, Compensation::None | Compensation::NotNeeded) => held == 1,
                    (StepStatus::Failed | StepStatus::Pending | StepStatus::Cancelled, Compensation::None) => held == 0,
                    _ => true,
                };
                if !fits {
                    return wrong(&format!("the services and the saga disagree about {}", step.name));
                }
            }
            match saga.state {
                SagaState::Completed => self.tally.completed += 1,
                SagaState::Failed => self.tally.failed += 1,
                SagaState::Cancelled => self.tally.cancelled += 1,
                SagaState::Aborted => self.tally.aborted += 1,
                _ => return wrong("no end"),
            }
            self.tally.unclean += u64::from(!saga.clean);
            if saga.state != SagaState::Completed && saga.clean != is_undone(definition, saga) {
                return wrong("clean does not say whether everything is undone");
            }
            let told = self.store.events.get(id).map(Vec::as_slice).unwrap_or_default();
            let count = |kinds: &[&str]| told.iter().filter(|kind| kinds.contains(&kind.as_str())).count();
            let ends = count(&["saga.completed", "saga.failed", "saga.cancelled", "saga.aborted"]);
            let begun = saga.steps.iter().any(|step| step.order > 0);
            if ends != 1 || count(&["saga.started"]) > 1 || begun && told.first().map(String::as_str) != Some("saga.started") {
                return wrong("the events tell another story");
            }
        }
        let open: Vec<_> = self.store.intents.keys().filter(|key| !self.store.attempts.contains_key(key)).collect();
        if !open.is_empty() {
            return Err(format!("calls that nobody settled: {open:?}"));
        }
        let mut highest = BTreeMap::new();
        for (id, seq, action, number) in self.store.attempts.keys() {
            let previous = highest.insert((*id, *seq, *action), *number).unwrap_or(0);
            if *number != previous + 1 {
                return Err(format!("attempts of step {seq} are not numbered in order: {:?}", self.store.attempts));
            }
        }
        self.tally.attempts = self.store.attempts.len() as u64;
        self.tally.lost = self.store.attempts.values().filter(|attempt| attempt.outcome.class == Class::Lost).count() as u64;
        self.tally.effects = self.services.effects;
        self.tally.fenced = self.store.fenced;
        Ok(self.tally)
    }
}

fn is_undone(definition: &Definition, saga: &Saga) -> bool {
    definition.steps.iter().zip(&saga.steps).all(|(defined, step)| {
        let on = defined.compensate_on;
        let asked = match step.status {
            StepStatus::Succeeded => on.succeeded,
            StepStatus::Unknown => on.unknown,
            StepStatus::Failed => on.failed,
            _ => false,
        };
        !(asked && defined.has_undo()) || step.compensation == Compensation::Compensated
    })
}
