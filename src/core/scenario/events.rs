//! Events that arrive in a scenario: who waits for them, and whom they cancel.

use std::collections::HashSet;

use super::world::{Coming, World};
use crate::core::definition::Work;
use crate::core::ending;
use crate::core::event::Event;
use crate::core::expression::Scope;
use crate::core::matching::wait_key;
use crate::core::order::Order;
use crate::core::outcome::{Action, Outcome};
use crate::core::request::{scope, steps_scope};
use crate::core::saga::Wait;

/// An event that arrived.
pub(super) struct Arrived {
    event: Event,
    /// What it is found by.
    keys: Vec<String>,
    /// Steps that took it.
    taken: HashSet<usize>,
}

impl World<'_> {
    /// Steps that begin to wait for an event look back to the one that started the saga.
    pub(super) fn look_at_waits(&mut self) {
        for (seq, step) in self.definition.steps.iter().enumerate() {
            let Work::Wait(wait) = &step.work else { continue };
            if self.record.saga.steps[seq].waits_for() != Some(Wait::Event) {
                self.waits.remove(&seq);
            } else if !self.waits.contains_key(&seq) {
                let views = steps_scope(self.definition, &self.record.saga);
                let scope = scope(self.definition, &self.record.saga, &self.scenario.event, &views);
                let key = wait_key(wait.matching.as_ref(), &scope);
                match key {
                    Ok(key) => {
                        self.waits.insert(seq, key);
                        (0..self.arrived.len()).any(|index| self.offer(seq, index));
                    }
                    Err(error) => {
                        self.waits.insert(seq, String::new());
                        self.plan_end(seq, ending::of_broken_match(&error.to_string()));
                    }
                }
            }
        }
    }

    fn plan_end(&mut self, seq: usize, outcome: Outcome) {
        self.plan(self.now, Coming::Ended { seq, action: Action::Do, wait: Wait::Event, outcome });
    }

    /// Offers an event that has arrived to a waiting step; true if it was taken.
    fn offer(&mut self, seq: usize, index: usize) -> bool {
        let Work::Wait(wait) = &self.definition.steps[seq].work else { return false };
        let (Some(key), arrived) = (self.waits.get(&seq), &mut self.arrived[index]) else { return false };
        if arrived.event.kind != wait.event || arrived.taken.contains(&seq) || !key.is_empty() && !arrived.keys.contains(key) {
            return false;
        }
        let matching = wait.matching.as_ref();
        let outcome = ending::of_event(self.definition, &self.record.saga, &self.scenario.event, matching, &arrived.event);
        let Some(outcome) = outcome else { return false };
        arrived.taken.insert(seq);
        self.plan_end(seq, outcome);
        true
    }

    /// An event arrives: whoever waits for it takes it, and it may cancel the saga.
    pub(super) fn arrive(&mut self, event: &Event) {
        let event = Event { created_at: self.now, ..event.clone() };
        self.tell("event", format!("{} arrives", event.kind));
        let keys = self.catalog.keys_of(&event).unwrap_or_default();
        if self.cancels(&event, &keys) {
            self.order(None, Order::Cancel, format!("cancelled by the event {} {}", event.kind, event.id));
        }
        self.arrived.push(Arrived { event, keys, taken: HashSet::new() });
        for seq in 0..self.definition.steps.len() {
            self.offer(seq, self.arrived.len() - 1);
        }
    }

    /// Whether `cancelOn` means this event. What cannot be evaluated cancels nothing.
    fn cancels(&self, event: &Event, keys: &[String]) -> bool {
        let scope = Scope::of_event(&self.scenario.event);
        self.definition.cancel_on.iter().filter(|cancel| cancel.event == event.kind).any(|cancel| {
            let matching = cancel.matching.as_ref();
            let found = wait_key(matching, &scope).is_ok_and(|key| key.is_empty() || keys.contains(&key));
            found && ending::fits(self.definition, &self.record.saga, &self.scenario.event, matching, event).unwrap_or(false)
        })
    }
}
