//! The rows of a batch of writes, as the arrays that its statement takes.

use chrono::{DateTime, Utc};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::commit::{EventRow, SagaWrite};
use super::step_detail::StepDetail;
use super::time;
use crate::core::saga::Wait;

/// Event columns as arrays.
#[derive(Debug, Default)]
pub(super) struct EventRows<'a> {
    kinds: Vec<&'a str>,
    topics: Vec<&'a str>,
    sources: Vec<String>,
    subjects: Vec<Option<&'a str>>,
    correlations: Vec<&'a str>,
    causations: Vec<Uuid>,
    depths: Vec<i16>,
    sagas: Vec<Uuid>,
    data: Vec<&'a str>,
}

impl<'a> EventRows<'a> {
    pub(super) fn of(events: impl Iterator<Item = &'a EventRow>) -> Self {
        let mut rows = Self::default();
        for event in events {
            rows.kinds.push(&event.kind);
            rows.topics.push(event.topic.as_deref().unwrap_or("default"));
            rows.sources.push(format!("/hms/sagas/{}", event.saga_id));
            rows.subjects.push(event.subject.as_deref());
            rows.correlations.push(&event.correlation_id);
            rows.causations.push(event.causation_id);
            rows.depths.push(event.depth);
            rows.sagas.push(event.saga_id);
            rows.data.push(&event.data);
        }
        rows
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 9] {
        [&self.kinds, &self.topics, &self.sources, &self.subjects, &self.correlations, &self.causations, &self.depths, &self.sagas, &self.data]
    }
}

/// Declares a struct of column vectors and how they become parameters, in their order.
macro_rules! columns {
    ($name:ident { $($field:ident: $kind:ty),+ $(,)? }) => {
        #[derive(Default)]
        pub(super) struct $name<'a> { $($field: Vec<$kind>,)+ _lives: std::marker::PhantomData<&'a ()> }
        impl $name<'_> {
            pub(super) fn params(&self) -> impl Iterator<Item = &(dyn ToSql + Sync)> {
                [$(&self.$field as &(dyn ToSql + Sync)),+].into_iter()
            }
        }
    };
}

columns!(SagaColumns {
    id: Uuid, epoch: i32, rev: i32, state: &'a str, target: Option<&'a str>, clean: bool, waiting_for: Option<&'a str>,
    next_due: Option<DateTime<Utc>>, deadline_at: Option<DateTime<Utc>>, reason: Option<&'a str>, release: bool, progress: bool,
    resume_to: Option<&'a str>, paused_at: Option<DateTime<Utc>>, lock_until: Option<DateTime<Utc>>,
});

impl<'a> SagaColumns<'a> {
    pub(super) fn of(batch: &'a [SagaWrite]) -> Self {
        let mut columns = Self::default();
        for write in batch {
            let row = &write.row;
            columns.id.push(write.id);
            columns.epoch.push(write.epoch);
            columns.rev.push(write.rev);
            columns.state.push(row.state.as_str());
            columns.target.push(row.target);
            columns.clean.push(row.clean);
            columns.waiting_for.push(row.waiting_for);
            columns.next_due.push(row.next_due);
            columns.deadline_at.push(row.deadline_at);
            columns.reason.push(row.reason.as_deref());
            columns.release.push(write.release);
            columns.progress.push(write.progress);
            columns.resume_to.push(row.resume_to);
            columns.paused_at.push(row.paused_at);
            columns.lock_until.push(row.lock_until);
        }
        columns
    }
}

columns!(StepColumns {
    saga_id: Uuid, seq: i16, name: &'a str, stored: bool, call: bool, status: &'a str, compensation: &'a str, ambiguous: bool,
    attempts: i32, spent: i32, undo_attempts: i32, undo_spent: i32, fence: i64, called_at: Option<DateTime<Utc>>,
    due_at: Option<DateTime<Utc>>, started_at: Option<DateTime<Utc>>, finished_at: Option<DateTime<Utc>>, message: Option<&'a str>,
    error: Option<&'a str>, ordinal: i32, wait: Option<&'a str>, wait_until: Option<DateTime<Utc>>, detail: Option<String>,
});

impl<'a> StepColumns<'a> {
    pub(super) fn of(batch: &'a [SagaWrite]) -> Self {
        let mut columns = Self::default();
        for (write, step) in batch.iter().flat_map(|write| write.steps.iter().map(move |step| (write, step))) {
            let progress = &step.progress;
            columns.saga_id.push(write.id);
            columns.seq.push(small(step.seq));
            columns.name.push(&step.name);
            columns.stored.push(step.stored);
            columns.call.push(step.call);
            columns.status.push(progress.status.as_str());
            columns.compensation.push(progress.compensation.as_str());
            columns.ambiguous.push(progress.ambiguous);
            columns.attempts.push(count(progress.attempts));
            columns.spent.push(count(progress.spent));
            columns.undo_attempts.push(count(progress.undo_attempts));
            columns.undo_spent.push(count(progress.undo_spent));
            columns.fence.push(progress.fence);
            columns.called_at.push(progress.called_at.map(time::to_sql));
            columns.due_at.push(progress.due_at.map(time::to_sql));
            columns.started_at.push(progress.started_at.map(time::to_sql));
            columns.finished_at.push(progress.finished_at.map(time::to_sql));
            columns.message.push(progress.message.as_deref());
            columns.error.push(progress.error.as_deref());
            columns.ordinal.push(count(progress.order));
            columns.wait.push(progress.wait.map(Wait::as_str));
            columns.wait_until.push(progress.wait_until.map(time::to_sql));
            columns.detail.push(StepDetail::of(progress));
        }
        columns
    }
}

columns!(AttemptColumns {
    saga_id: Uuid, seq: i16, action: &'a str, attempt: i32, fence: i64, outcome: &'a str, http_status: Option<i16>, error: Option<&'a str>,
    output: Option<&'a str>, context: Option<&'a str>, started_at: DateTime<Utc>,
});

impl<'a> AttemptColumns<'a> {
    pub(super) fn of(batch: &'a [SagaWrite]) -> Self {
        let mut columns = Self::default();
        for (write, attempt) in batch.iter().flat_map(|write| write.attempts.iter().map(move |attempt| (write, attempt))) {
            let outcome = &attempt.outcome;
            // A compensation's "gone" (410) is a success told by a refusal: the ledger keeps what was received.
            columns.saga_id.push(write.id);
            columns.seq.push(small(attempt.seq));
            columns.action.push(attempt.action.as_str());
            columns.attempt.push(count(attempt.number));
            columns.fence.push(attempt.fence);
            columns.outcome.push(outcome.as_str());
            columns.http_status.push(outcome.status.and_then(|status| i16::try_from(status).ok()));
            columns.error.push(outcome.error.as_deref());
            columns.output.push(outcome.output.as_ref().map(crate::core::payload::Payload::text));
            columns.context.push(outcome.context.as_ref().map(crate::core::payload::Payload::text));
            columns.started_at.push(time::to_sql(attempt.started_at));
        }
        columns
    }
}

fn small(seq: usize) -> i16 {
    i16::try_from(seq).unwrap_or(i16::MAX)
}

fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
