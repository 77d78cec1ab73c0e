//! What a batch of events leads to, before anything is written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::Worker;
use super::live::{Live, event_row, new_id};
use crate::core::definition::{DedupeAfter, Definition};
use crate::core::event::Event;
use crate::core::expression::Scope;
use crate::core::failure;
use crate::core::machine::{self, Emission, Input};
use crate::core::matching::{Catalog, Deployed, Verdict, wait_key};
use crate::core::request::DEPTH_MAX;
use crate::core::saga::{Saga, SagaState};
use crate::core::time::Timestamp;
use crate::store::claim::Kin;
use crate::store::cursor::NewEvent;
use crate::store::extras::WaitRow;
use crate::store::start::{Arrival, NewSaga, SagaEnd};

/// Numbers of arrivals rise over all batches: more than a batch has events.
const ARRIVALS_PER_BATCH: i64 = 1000;

/// Dedupe key, lock keys and number of the event.
type Found = (String, Option<Vec<String>>, i64);

/// What a batch of events leads to.
#[derive(Debug, Default)]
pub struct Plan {
    /// Events that it is about.
    pub count: usize,
    /// Sagas to start, unless their keys were used before.
    pub sagas: Vec<NewSaga>,
    /// Those of them that this worker keeps.
    pub live: HashMap<Uuid, Live>,
    /// The definition of each saga.
    pub names: HashMap<Uuid, String>,
    /// Events that start nothing, and why.
    pub notes: Vec<(Uuid, String)>,
    /// Filters that could not be evaluated.
    pub filter_errors: u64,
    /// Events that some saga may wait for.
    pub arrivals: Vec<Arrival>,
    /// Sagas that failed or completed, by family, in their order: what streaks are counted from.
    pub ends: Vec<SagaEnd>,
}

impl Plan {
    /// Asks the definitions about each event, in order.
    pub(super) fn of(worker: &Worker, catalog: &Catalog, events: Vec<NewEvent>, room: usize, batch: i64) -> Self {
        let now = worker.clock.now();
        let mut plan = Self { count: events.len(), ..Self::default() };
        let mut keys = HashSet::new();
        for (place, new) in events.into_iter().enumerate().filter(|(_, new)| new.wanted) {
            let event = Arc::new(new.event);
            let arrived = batch * ARRIVALS_PER_BATCH + i64::try_from(place).unwrap_or_default();
            plan.ends.extend(saga_end(&event));
            if let Some(keys) = catalog.keys_of(&event) {
                plan.arrivals.push(Arrival { no: arrived, event_id: event.id, created_at: event.created_at, kind: event.kind.clone(), keys });
            }
            let mut reasons = Vec::new();
            let before = plan.sagas.len();
            if event.depth >= DEPTH_MAX {
                plan.notes.push((event.id, format!("{DEPTH_MAX} events stand between it and the outside world: that looks like a loop")));
                continue;
            }
            for (deployed, verdict) in catalog.ask(&event) {
                match verdict {
                    Verdict::Start(key, locks) => {
                        let key = key.unwrap_or_else(|| event.id.to_string());
                        if keys.insert((deployed.definition.family.clone(), key.clone())) {
                            let owned = plan.live.len() < room;
                            plan.start(worker, deployed, &event, (key, locks, arrived), owned, now);
                        } else {
                            reasons.push(duplicate(deployed, &key));
                        }
                    }
                    Verdict::Reject(reason) => plan.reject(deployed, &event, reason, now),
                    Verdict::Pass(reason) => reasons.push(reason),
                    Verdict::Error(reason) => {
                        plan.filter_errors += 1;
                        reasons.push(reason);
                    }
                }
            }
            if plan.sagas.len() == before && !reasons.is_empty() {
                plan.notes.push((event.id, reasons.join("; ")));
            }
        }
        plan
    }

    fn start(&mut self, worker: &Worker, deployed: &Arc<Deployed>, event: &Arc<Event>, (key, locks, arrived): Found, owned: bool, now: Timestamp) {
        let definition = &deployed.definition;
        let mut saga = Saga::new(new_id(), definition.steps.len());
        let id = saga.id;
        let mut row = new_saga(deployed, event, id, key, now);
        row.arrived = arrived;
        row.waits = cancel_waits(definition, event, arrived);
        row.lock_keys.clone_from(&locks);
        let simple = locks.is_none() && matches!(definition.flow_start(), Some(0)) && definition.steps[0].begins_plainly();
        if owned && !simple {
            // Its first decision is a write of its own, like every other one.
            row.owner = Some(worker.lease.worker);
            let kin = Kin { arrived, lock_keys: locks, ..Kin::default() };
            self.live.insert(id, Live::fresh(saga, deployed, event, kin, now));
        } else if owned {
            let advance = machine::advance(definition, event, &mut saga, Input::Start, now, 0.0);
            row.state = saga.state.as_str();
            row.owner = Some(worker.lease.worker);
            row.deadline_at = saga.deadline_at;
            row.first_step = advance.calls.first().map(|(seq, _)| definition.steps[*seq].name.clone());
            row.events = advance.emissions.iter().map(|emission| event_row(definition, &saga, event, emission)).collect();
            let mut live = Live::fresh(saga, deployed, event, Kin { arrived, ..Kin::default() }, now);
            live.waiting.clear();
            live.stored[0] = true;
            self.live.insert(id, live);
        }
        self.names.insert(id, definition.id.clone());
        self.sagas.push(row);
    }

    fn reject(&mut self, deployed: &Arc<Deployed>, event: &Arc<Event>, reason: String, now: Timestamp) {
        let mut saga = Saga::new(new_id(), deployed.definition.steps.len());
        saga.state = SagaState::Rejected;
        saga.reason = Some(reason);
        let mut row = new_saga(deployed, event, saga.id, event.id.to_string(), now);
        row.state = saga.state.as_str();
        row.reason.clone_from(&saga.reason);
        row.events = vec![event_row(&deployed.definition, &saga, event, &Emission::Ended(SagaState::Rejected))];
        self.names.insert(saga.id, deployed.definition.id.clone());
        self.sagas.push(row);
    }
}

/// A row that waits for whoever has room.
fn new_saga(deployed: &Deployed, event: &Event, id: Uuid, key: String, now: Timestamp) -> NewSaga {
    NewSaga {
        id,
        definition_no: deployed.no,
        family: deployed.definition.family.clone(),
        key,
        again: match deployed.definition.dedupe.after {
            DedupeAfter::Never => None,
            DedupeAfter::Failed => Some("failed"),
            DedupeAfter::Terminal => Some("terminal"),
        },
        event_id: event.id,
        event_at: event.created_at,
        correlation_id: event.correlation_id.clone(),
        state: SagaState::Pending.as_str(),
        owner: None,
        deadline_at: None,
        reason: None,
        first_step: None,
        lock_keys: None,
        arrived: 0,
        waits: Vec::new(),
        started_at: now,
        events: Vec::new(),
    }
}

/// A definition's id without its version.
fn family_of(id: &str) -> &str {
    match id.rsplit_once(".v") {
        Some((family, version)) if !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()) => family,
        _ => id,
    }
}

/// What an event says of the end of a saga. A person's no is no failure of the family.
fn saga_end(event: &Event) -> Option<SagaEnd> {
    if !event.source.starts_with("/hms/sagas/") || !matches!(event.kind.as_str(), "saga.failed" | "saga.completed") {
        return None;
    }
    let text = |name: &str| event.data.value().get(name).and_then(|value| value.as_str()).map(str::to_owned);
    let (definition, reason) = (text("definition")?, text("reason"));
    let failed = event.kind == "saga.failed";
    if failed && failure::kind(reason.as_deref()) == "human" {
        return None;
    }
    let family = family_of(&definition).to_owned();
    Some(SagaEnd { family, failed, saga_id: text("sagaId"), reason })
}

/// What cancels a saga, as waits that begin with it. One that cannot be evaluated waits for nothing.
fn cancel_waits(definition: &Definition, event: &Event, arrived: i64) -> Vec<WaitRow> {
    let scope = Scope::of_event(event);
    let waits = definition.cancel_on.iter().enumerate().filter_map(|(number, cancel)| {
        let key = wait_key(cancel.matching.as_ref(), &scope).ok()?;
        Some(WaitRow { seq: -1 - i16::try_from(number).ok()?, event_type: cancel.event.clone(), key, since: arrived })
    });
    waits.collect()
}

fn duplicate(deployed: &Deployed, key: &str) -> String {
    format!("a saga of {} with the dedupe key {key} exists already", deployed.definition.family)
}
