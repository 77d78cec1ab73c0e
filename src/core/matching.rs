//! Which sagas an event starts, and why it starts no other.

use std::collections::HashMap;
use std::sync::Arc;

use super::definition::Definition;
use super::event::Event;
use super::expression::Scope;

/// The active definitions of one moment, indexed by the event types that trigger them.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Rises with every change of the definitions.
    pub revision: i64,
    by_trigger: HashMap<String, Vec<Arc<Deployed>>>,
}

/// A definition with the short number that sagas are pinned to.
#[derive(Debug)]
pub struct Deployed {
    /// `definition.no`
    pub no: i32,
    /// The definition.
    pub definition: Definition,
}

/// What one definition says to one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A saga with this dedupe key; `None` for the event's id.
    Start(Option<String>),
    /// A saga that is refused at once, and why.
    Reject(String),
    /// Nothing, and why.
    Pass(String),
    /// Nothing, because the filter could not be evaluated.
    Error(String),
}

impl Catalog {
    /// A catalog of the given active definitions.
    #[must_use]
    pub fn new(revision: i64, active: impl IntoIterator<Item = Arc<Deployed>>) -> Self {
        let mut by_trigger: HashMap<String, Vec<Arc<Deployed>>> = HashMap::new();
        for deployed in active {
            for kind in &deployed.definition.trigger {
                by_trigger.entry(kind.clone()).or_default().push(Arc::clone(&deployed));
            }
        }
        Self { revision, by_trigger }
    }

    /// Event types that may start something.
    pub fn triggers(&self) -> impl Iterator<Item = &str> {
        self.by_trigger.keys().map(String::as_str)
    }

    /// Asks every definition that the event's type triggers.
    pub fn ask<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = (&'a Arc<Deployed>, Verdict)> {
        let candidates = self.by_trigger.get(&event.kind).map_or(&[][..], Vec::as_slice);
        candidates.iter().map(move |deployed| (deployed, judge(&deployed.definition, event)))
    }
}

fn judge(definition: &Definition, event: &Event) -> Verdict {
    if !definition.topics.is_empty() && !definition.topics.contains(&event.topic) {
        return Verdict::Pass(format!("{} does not listen to topic {}", definition.id, event.topic));
    }
    let scope = Scope::of_event(event);
    if let Some(filter) = &definition.filter {
        match filter.test(&scope) {
            Ok(true) => {}
            Ok(false) => return Verdict::Pass(format!("the filter of {} is false: {}", definition.id, filter.source())),
            Err(error) => return Verdict::Error(format!("the filter of {} cannot be evaluated: {error}", definition.id)),
        }
    }
    match &definition.dedupe.key {
        None => Verdict::Start(None),
        Some(key) => match key.text(&scope) {
            Ok(key) => Verdict::Start(Some(key)),
            Err(error) => Verdict::Reject(format!("the dedupe key of {} cannot be evaluated: {error}", definition.id)),
        },
    }
}
