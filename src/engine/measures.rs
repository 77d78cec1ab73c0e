//! Every metric of the engine: names, units, labels. Labels are bounded and never carry ids.

use std::time::Duration;

use crate::core::call::Reply;
use crate::core::definition::Definition;
use crate::core::failure;
use crate::core::machine::Attempt;
use crate::core::outcome::Class;
use crate::core::saga::{Saga, SagaState};
use crate::core::time::Timestamp;
use crate::store::workers::Strain;

/// A saga reached its final state.
pub fn ended(definition: &str, saga: &Saga, took: Duration) {
    let outcome = saga.state.as_str();
    metrics::histogram!("saga_duration_ms", "definition" => definition.to_owned(), "outcome" => outcome).record(took.as_secs_f64() * 1000.0);
    if saga.state == SagaState::Failed {
        metrics::counter!("saga_fail_total", "definition" => definition.to_owned(), "reason" => failure::kind(saga.reason.as_deref())).increment(1);
    }
}

/// A saga began.
pub fn started(definition: &str) {
    metrics::counter!("hms_sagas_started_total", "definition" => definition.to_owned()).increment(1);
}

/// Attempts ended.
pub fn attempts(definition: &Definition, attempts: &[Attempt], now: Timestamp) {
    for attempt in attempts {
        let step = &definition.steps[attempt.seq];
        let outcome = attempt.outcome.as_str();
        metrics::counter!("hms_step_attempts_total", "service" => step.service().to_owned(), "outcome" => outcome).increment(1);
        metrics::histogram!("hms_step_duration_seconds", "definition" => definition.id.clone(), "step" => step.name.clone(), "outcome" => outcome)
            .record(now.since(attempt.started_at).as_secs_f64());
    }
}

/// A call came back.
pub fn call(service: &str, reply: &Reply, took: Duration) {
    let class = match reply {
        Reply::Probed(reply) => return self::call(service, reply, took),
        Reply::Parked(_) | Reply::Returned(_) | Reply::RolledBack(_) => return,
        Reply::Answered { status, .. } => match crate::core::reply::class_of(*status) {
            Class::Succeeded => "2xx",
            Class::Failed => "retryable",
            _ => "refused",
        },
        Reply::NotSent(_) => "not_sent",
        Reply::Broken(_) => "broken",
    };
    metrics::histogram!("hms_call_seconds", "service" => service.to_owned(), "reply" => class).record(took.as_secs_f64());
}

/// A breaker opened.
pub fn service_opened(service: &str) {
    metrics::counter!("hms_service_opened_total", "service" => service.to_owned()).increment(1);
}

/// Whether the steps of a service are parked, 1 or 0.
pub fn service_parked(service: &str, parked: bool) {
    metrics::gauge!("hms_service_parked", "service" => service.to_owned()).set(if parked { 1.0 } else { 0.0 });
}

/// The first call of a saga goes out.
pub fn first_call(since_event: Duration) {
    metrics::histogram!("hms_event_to_first_call_seconds").record(since_event.as_secs_f64());
}

/// Calls in flight at a heartbeat.
pub fn slots_used(slots: i32) {
    metrics::gauge!("hms_worker_slots_used").set(f64::from(slots));
}

/// What threatens the database from outside.
pub fn strain(strain: Strain) {
    metrics::gauge!("hms_notify_queue_usage").set(strain.notify_queue);
    metrics::gauge!("hms_xmin_age_seconds").set(strain.snapshot_age);
}

/// Events were routed.
pub fn routed(count: usize, filter_errors: u64) {
    metrics::counter!("hms_events_total").increment(u64::try_from(count).unwrap_or(u64::MAX));
    if filter_errors > 0 {
        metrics::counter!("hms_filter_errors_total").increment(filter_errors);
    }
}
