//! A saga in a worker's memory.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use crate::core::call::Reply;
use crate::core::definition::Definition;
use crate::core::emission;
use crate::core::event::Event;
use crate::core::machine::{Advance, Emission, Input};
use crate::core::matching::Deployed;
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::reply;
use crate::core::saga::{Compensation, Saga, StepProgress, StepStatus, Wait};
use crate::core::story::{Happening, StoryLine};
use crate::core::time::Timestamp;
use crate::store::claim::Loaded;
use crate::store::commit::{EventRow, SagaRow, SagaWrite, StepRow};

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
    /// Steps whose rows exist.
    pub stored: usize,
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
    /// A timer rang.
    Due,
    /// A service that was parked takes calls again.
    Reopened(String),
    /// It was taken from a worker that is gone.
    TakenOver,
}

impl Live {
    /// A saga that was loaded. Whatever its last owner had in flight is lost.
    #[must_use]
    pub fn revive(loaded: Loaded, deployed: Arc<Deployed>) -> Self {
        let (saga, stored) = completed_steps(loaded.saga, &deployed.definition);
        Self {
            saga,
            deployed,
            event: Arc::new(loaded.event),
            epoch: loaded.epoch,
            rev: loaded.rev,
            started_at: loaded.started_at,
            stored,
            writing: None,
            mended: false,
            waiting: VecDeque::from([Occurrence::TakenOver]),
        }
    }

    /// The definition it is pinned to.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.deployed.definition
    }

    /// Judges an occurrence: what the machine is told, and which attempt it is about.
    #[must_use]
    pub fn judge(&self, occurrence: Occurrence) -> (Input, Option<(usize, Action, u32)>) {
        match occurrence {
            Occurrence::Reply { seq, action, attempt, reply } => {
                let outcome = reply::judge(self.definition(), &self.saga, &self.event, seq, action, reply);
                (Input::Reply { seq, action, attempt, outcome: Box::new(outcome) }, Some((seq, action, attempt)))
            }
            Occurrence::Judged { seq, action, attempt, outcome } => {
                (Input::Reply { seq, action, attempt, outcome: Box::new(outcome) }, Some((seq, action, attempt)))
            }
            Occurrence::Due => (Input::Due, None),
            Occurrence::Reopened(service) => (Input::Reopened(service), None),
            Occurrence::TakenOver => (Input::TakenOver, None),
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
    pub fn write(&mut self, advance: &Advance, release: bool, next_due: Option<Timestamp>) -> SagaWrite {
        let steps: Vec<StepRow> = advance
            .steps
            .iter()
            .map(|&seq| StepRow {
                seq,
                name: self.definition().steps[seq].name.clone(),
                stored: seq < self.stored,
                call: advance.calls.iter().any(|(called, _)| *called == seq),
                progress: self.saga.steps[seq].clone(),
            })
            .collect();
        if let Some(last) = advance.steps.last() {
            self.stored = self.stored.max(last + 1);
        }
        SagaWrite {
            id: self.saga.id,
            epoch: self.epoch,
            rev: self.rev,
            row: SagaRow::of(&self.saga, if release { next_due } else { None }),
            release,
            progress: advance.attempts.iter().any(|attempt| attempt.outcome.class == Class::Succeeded),
            steps,
            attempts: advance.attempts.clone(),
            events: advance.emissions.iter().map(|emission| event_row(self.definition(), &self.saga, &self.event, emission)).collect(),
        }
    }

    /// The lines that the decision adds to the story.
    #[must_use]
    pub fn story(&self, advance: &Advance, now: Timestamp) -> Vec<StoryLine> {
        let mut lines = Vec::new();
        for attempt in advance.attempts.iter().filter(|attempt| attempt.action != Action::Verify) {
            let step = &self.definition().steps[attempt.seq];
            let progress = &self.saga.steps[attempt.seq];
            let error = || attempt.outcome.error.clone().unwrap_or_else(|| "no reason given".to_owned());
            lines.push(match (attempt.action, attempt.outcome.class) {
                (Action::Do, Class::Succeeded) if progress.status != StepStatus::Running => {
                    Happening::Done { step: step.name.clone(), message: attempt.outcome.message.clone() }
                }
                (Action::Do | Action::Verify, _) => Happening::AttemptFailed {
                    step: step.name.clone(),
                    error: error(),
                    attempt: attempt.number,
                    of: step.retry.attempts.max(attempt.number),
                },
                (Action::Undo, _) if progress.compensation == Compensation::Compensated => {
                    Happening::Undone { step: step.name.clone(), message: attempt.outcome.message.clone() }
                }
                (Action::Undo, _) if progress.compensation == Compensation::Failed => {
                    Happening::UndoFailed { step: step.name.clone(), error: error() }
                }
                (Action::Undo, _) => Happening::AttemptFailed {
                    step: format!("undo {}", step.name),
                    error: error(),
                    attempt: attempt.number,
                    of: step.compensate.as_ref().map_or(attempt.number, |undo| undo.retry.attempts.max(attempt.number)),
                },
            });
        }
        for (seq, action) in &advance.calls {
            lines.push(Happening::Calling { step: self.definition().steps[*seq].name.clone(), undo: *action == Action::Undo });
        }
        if self.saga.state.is_terminal() {
            lines.push(Happening::Ended { state: self.saga.state, clean: self.saga.clean, took: now.since(self.started_at) });
        }
        lines.into_iter().map(|what| StoryLine { definition: self.definition().id.clone(), what }).collect()
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
pub fn completed_steps(mut saga: Saga, definition: &Definition) -> (Saga, usize) {
    let stored = saga.steps.len();
    saga.steps.resize_with(definition.steps.len(), Default::default);
    (saga, stored)
}

/// How the id of a new saga is made: version 7, so that it sorts by its start.
#[must_use]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
