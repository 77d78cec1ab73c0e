//! A saga in a worker's memory.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::said;
use crate::core::call::Reply;
use crate::core::definition::Definition;
use crate::core::emission;
use crate::core::event::Event;
use crate::core::machine::{Advance, Emission, Input};
use crate::core::matching::Deployed;
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::reply;
use crate::core::saga::{Saga, SagaState, StepProgress, Wait};
use crate::core::story::StoryLine;
use crate::core::time::Timestamp;
use crate::store::claim::{Kin, Loaded};
use crate::store::commit::{EventRow, SagaRow, SagaWrite, StepRow};
use crate::store::extras::Extras;
use crate::store::function::FunctionSession;
use crate::store::inputs::InputRow;

/// A saga that this worker owns, with what it takes to go on.
#[derive(Debug)]
pub struct Live {
    /// The saga, ahead of the database by at most the write in flight.
    pub saga: Saga,
    /// The revision it is pinned to.
    pub deployed: Arc<Deployed>,
    /// The event that started it.
    pub event: Arc<Event>,
    /// The epoch it is owned at.
    pub epoch: i32,
    /// The rev of its row.
    pub rev: i32,
    /// When it was started.
    pub started_at: Timestamp,
    /// Which steps have rows.
    pub stored: Vec<bool>,
    /// Where it stands among other sagas.
    pub kin: Kin,
    /// Callback tokens that were given out here.
    pub tokens: HashMap<(usize, Action), String>,
    /// Inputs that came to this place already.
    pub seen: HashSet<i64>,
    /// Orders whose time has not come: asked again after each change.
    pub deferred: Vec<InputRow>,
    /// The write in flight, if one is: a saga has at most one.
    pub writing: Option<InFlight>,
    /// The last decision could not be stored and was made again without the reply: once is enough.
    pub mended: bool,
    /// What happened meanwhile.
    pub waiting: VecDeque<Occurrence>,
}

/// What follows from a write once it is durable.
#[derive(Debug, Default)]
pub struct InFlight {
    /// Calls to make.
    pub calls: Vec<(usize, Action)>,
    /// The saga is let go of.
    pub release: bool,
    /// Lines to tell.
    pub story: Vec<StoryLine>,
    /// Event types that were published.
    pub published: Vec<Cow<'static, str>>,
    /// Others have something to do then.
    pub rings: bool,
    /// The reply that led to it, in case it cannot be stored.
    pub cause: Option<(usize, Action, u32)>,
}

/// Something that happened to a saga, before anybody judged it.
#[derive(Debug)]
pub enum Occurrence {
    /// A reply to an attempt.
    Reply {
        /// Place of the step.
        seq: usize,
        /// Do or undo.
        action: Action,
        /// Number of the attempt.
        attempt: u32,
        /// What came back.
        reply: Reply,
    },
    /// A function came to its end.
    FunctionEnded {
        /// Place of the step.
        seq: usize,
        /// Do or undo.
        action: Action,
        /// Number of the attempt.
        attempt: u32,
        /// What it returned, or why it was not done.
        reply: Reply,
        /// Its open transaction, if it returned: the outcome is written there.
        session: Option<Box<FunctionSession>>,
    },
    /// An attempt that ended without a call or cannot be stored.
    Judged {
        /// Place of the step.
        seq: usize,
        /// Do or undo.
        action: Action,
        /// Number of the attempt.
        attempt: u32,
        /// What became of it.
        outcome: Outcome,
    },
    /// It was made: begin.
    Started,
    /// Somebody had something to say.
    Said(Box<InputRow>),
    /// A service that was parked takes calls again.
    Reopened(String),
    /// A timer rang.
    Due,
    /// It was taken from a worker that is gone.
    TakenOver,
}

impl Occurrence {
    /// The open transaction that its outcome is to be written in, if it has one.
    pub fn take_session(&mut self) -> Option<Box<FunctionSession>> {
        match self {
            Self::FunctionEnded { session, .. } => session.take(),
            _ => None,
        }
    }
}

impl Live {
    /// A saga that was loaded. Whatever its last owner had in flight is lost.
    #[must_use]
    pub fn revive(loaded: Loaded, deployed: Arc<Deployed>) -> Self {
        let (saga, stored) = completed_steps(loaded.saga, loaded.steps, &deployed.definition);
        let mut waiting = VecDeque::from([if saga.state == SagaState::Pending { Occurrence::Started } else { Occurrence::TakenOver }]);
        let seen = loaded.inputs.iter().map(|said| said.id).collect();
        waiting.extend(loaded.inputs.into_iter().map(|said| Occurrence::Said(Box::new(said))));
        Self {
            saga,
            deployed,
            event: Arc::new(loaded.event),
            epoch: loaded.epoch,
            rev: loaded.rev,
            started_at: loaded.started_at,
            stored,
            kin: loaded.kin,
            tokens: HashMap::new(),
            seen,
            deferred: Vec::new(),
            writing: None,
            mended: false,
            waiting,
        }
    }

    /// A saga that was just started and has still to begin.
    #[must_use]
    pub fn fresh(saga: Saga, deployed: &Arc<Deployed>, event: &Arc<Event>, kin: Kin, now: Timestamp) -> Self {
        let stored = vec![false; deployed.definition.steps.len()];
        Self {
            saga,
            deployed: Arc::clone(deployed),
            event: Arc::clone(event),
            epoch: 0,
            rev: 0,
            started_at: now,
            stored,
            kin,
            tokens: HashMap::new(),
            seen: HashSet::new(),
            deferred: Vec::new(),
            writing: None,
            mended: false,
            waiting: VecDeque::from([Occurrence::Started]),
        }
    }

    /// The id of the child saga that does, or undoes, a step: the same whoever asks, another one for each attempt.
    #[must_use]
    pub fn child_id(&self, seq: usize, action: Action) -> Uuid {
        let step = &self.saga.steps[seq];
        // A fork, or an undo, speaks of the children of the saga that did the step.
        let parent = if action == Action::Do { step.done_by.unwrap_or(self.saga.id) } else { self.saga.id };
        let name = format!("{}/{}/{}", self.definition().steps[seq].name, action.as_str(), step.attempt(action));
        Uuid::new_v5(&parent, name.as_bytes())
    }

    /// The definition it is pinned to.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.deployed.definition
    }

    /// Judges an occurrence: what the machine is told, if anything, and which attempt it is about.
    #[must_use]
    pub fn judge(&self, occurrence: &Occurrence) -> (Option<Input>, Option<(usize, Action, u32)>) {
        match occurrence {
            Occurrence::Reply { seq, action, attempt, reply } | Occurrence::FunctionEnded { seq, action, attempt, reply, .. } => {
                let outcome = reply::judge(self.definition(), &self.saga, &self.event, *seq, *action, reply.clone());
                (Some(Input::Reply { seq: *seq, action: *action, attempt: *attempt, outcome: Box::new(outcome) }), Some((*seq, *action, *attempt)))
            }
            Occurrence::Judged { seq, action, attempt, outcome } => {
                let outcome = Box::new(outcome.clone());
                (Some(Input::Reply { seq: *seq, action: *action, attempt: *attempt, outcome }), Some((*seq, *action, *attempt)))
            }
            Occurrence::Started => (Some(Input::Start), None),
            Occurrence::Said(said) => (said::judge(self, said), None),
            Occurrence::Reopened(service) => (Some(Input::Reopened(service.clone())), None),
            Occurrence::Due => (Some(Input::Due), None),
            Occurrence::TakenOver => (Some(Input::TakenOver), None),
        }
    }

    /// A saga that was woken because its service is back has its parked steps due at once: the time in their rows is the time
    /// by which it would have looked by itself.
    pub fn unpark(&mut self, now: Timestamp, is_back: impl Fn(&str) -> bool) {
        for (progress, step) in self.saga.steps.iter_mut().zip(&self.deployed.definition.steps) {
            if is_parked(progress) && step.calls().any(|call| is_back(&call.service)) {
                progress.due_at = Some(now);
            }
        }
    }

    /// The services that its parked steps wait for.
    pub fn parked_at(&self) -> impl Iterator<Item = &str> {
        let parked = self.saga.steps.iter().zip(&self.definition().steps).filter(|(progress, _)| is_parked(progress));
        parked.flat_map(|(_, step)| step.calls().map(|call| call.service.as_str()))
    }

    /// The write for what the machine decided; with `release` the saga is let go of, until `next_due` if it is not at its end.
    #[must_use]
    pub fn write(&mut self, advance: &Advance, release: bool, next_due: Option<Timestamp>, extras: Extras, told: Vec<EventRow>) -> SagaWrite {
        let steps: Vec<StepRow> = advance
            .steps
            .iter()
            .map(|&seq| StepRow {
                seq,
                name: self.definition().steps[seq].name.clone(),
                stored: self.stored[seq],
                call: advance.calls.iter().any(|(called, _)| *called == seq),
                progress: self.saga.steps[seq].clone(),
            })
            .collect();
        for &seq in &advance.steps {
            self.stored[seq] = true;
        }
        let emitted = advance.emissions.iter().map(|emission| event_row(self.definition(), &self.saga, &self.event, emission));
        let events = emitted.chain(told).collect();
        SagaWrite {
            id: self.saga.id,
            epoch: self.epoch,
            rev: self.rev,
            row: SagaRow::of(&self.saga, if release { next_due } else { None }),
            release,
            progress: advance.attempts.iter().any(|attempt| attempt.outcome.class == Class::Succeeded),
            steps,
            attempts: advance.attempts.clone(),
            events,
            extras: if extras.is_empty() { None } else { Some(Box::new(extras)) },
        }
    }
}

fn is_parked(progress: &StepProgress) -> bool {
    progress.waits_for() == Some(Wait::Service) || progress.undo_waits_for() == Some(Wait::Service)
}

/// The ledger row of an emission.
#[must_use]
pub fn event_row(definition: &Definition, saga: &Saga, event: &Event, emission: &Emission) -> EventRow {
    EventRow {
        kind: emission::kind(emission),
        topic: if let Emission::Published(publication) = emission { Some(publication.topic.clone()) } else { None },
        saga_id: saga.id,
        subject: event.subject.clone(),
        correlation_id: event.correlation_id.clone(),
        causation_id: event.id,
        depth: i16::try_from(event.depth.saturating_add(1)).unwrap_or(i16::MAX),
        data: emission::data(definition, saga, emission),
    }
}

/// The saga of a row that was loaded, with a place for every step of its definition.
#[must_use]
pub fn completed_steps(mut saga: Saga, steps: Vec<(usize, StepProgress)>, definition: &Definition) -> (Saga, Vec<bool>) {
    let mut stored = vec![false; definition.steps.len()];
    saga.steps.resize_with(definition.steps.len(), StepProgress::default);
    for (seq, step) in steps {
        if seq < stored.len() {
            (stored[seq], saga.steps[seq]) = (true, step);
        }
    }
    (saga, stored)
}

/// How the id of a new saga is made: version 7, so that it sorts by its start.
#[must_use]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
