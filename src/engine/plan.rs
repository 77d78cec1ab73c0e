//! What a batch of events leads to, before anything is written.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::Worker;
use super::live::{Live, event_row, new_id};
use crate::core::definition::DedupeAfter;
use crate::core::event::Event;
use crate::core::machine::{self, Emission, Input};
use crate::core::matching::{Catalog, Deployed, Verdict};
use crate::core::saga::{Saga, SagaState};
use crate::core::time::Timestamp;
use crate::store::cursor::NewEvent;
use crate::store::start::NewSaga;

/// Events caused by events caused by events ... up to here.
const DEPTH_MAX: u16 = 16;

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
}

impl Plan {
    /// Asks the definitions about each event, in order.
    pub(super) fn of(worker: &Worker, catalog: &Catalog, events: Vec<NewEvent>, room: usize) -> Self {
        let now = worker.clock.now();
        let mut plan = Self { count: events.len(), ..Self::default() };
        let mut keys = HashSet::new();
        for new in events.into_iter().filter(|new| new.wanted) {
            let event = Arc::new(new.event);
            let mut reasons = Vec::new();
            let before = plan.sagas.len();
            if event.depth >= DEPTH_MAX {
                plan.notes.push((event.id, format!("{DEPTH_MAX} events stand between it and the outside world: that looks like a loop")));
                continue;
            }
            for (deployed, verdict) in catalog.ask(&event) {
                match verdict {
                    Verdict::Start(key) => {
                        let key = key.unwrap_or_else(|| event.id.to_string());
                        if keys.insert((deployed.definition.family.clone(), key.clone())) {
                            let owned = plan.live.len() < room;
                            plan.start(worker, deployed, &event, key, owned, now);
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

    fn start(&mut self, worker: &Worker, deployed: &Arc<Deployed>, event: &Arc<Event>, key: String, owned: bool, now: Timestamp) {
        let definition = &deployed.definition;
        let mut saga = Saga::new(new_id(), definition.steps.len());
        let id = saga.id;
        let mut row = new_saga(deployed, event, id, key, now);
        if owned {
            let advance = machine::advance(definition, event, &mut saga, Input::Start, now, 0.0);
            row.state = saga.state.as_str();
            row.owner = Some(worker.lease.worker);
            row.deadline_at = saga.deadline_at;
            row.first_step = advance.calls.first().map(|(seq, _)| definition.steps[*seq].name.clone());
            row.events = advance.emissions.iter().map(|emission| event_row(definition, &saga, event, emission)).collect();
            let live = Live {
                saga,
                deployed: Arc::clone(deployed),
                event: Arc::clone(event),
                epoch: 0,
                rev: 0,
                started_at: now,
                stored: 1,
                writing: None,
                mended: false,
                waiting: VecDeque::new(),
            };
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
        started_at: now,
        events: Vec::new(),
    }
}

fn duplicate(deployed: &Deployed, key: &str) -> String {
    format!("a saga of {} with the dedupe key {key} exists already", deployed.definition.family)
}
