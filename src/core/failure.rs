//! Why a saga turned round: the sentence that is kept, and the one word that metrics count by.
//!
//! Only the sentence is stored, so the words that tell one kind from another are made and read here, nowhere else.

use super::definition::Retry;
use super::order::Order;
use super::saga::{StepProgress, StepStatus};

/// How the error of an attempt begins that nobody answered in time.
pub const TIMED_OUT: &str = "timed out";
/// The reason of a saga that ran out of time as a whole.
pub const DEADLINE_PASSED: &str = "the deadline passed";
/// The error of a step that ran out of time as a whole.
pub const STEP_DEADLINE: &str = "timed out: the deadline of the step passed";
/// The reason of a saga that found a key taken and does not wait.
pub const LOCK_BUSY: &str = "another saga holds its lock";
/// The reason of a saga that waited too long for its locks.
pub const LOCK_TIMEOUT: &str = "timed out waiting for its lock";
/// How the error of a step begins that a person said no to.
pub const REJECTED_BY: &str = "rejected by";
/// Stands between a step and the error of an attempt whose effect nobody knows.
const UNKNOWN: &str = "has an unknown outcome: ";
/// Stands between a step and the error of an attempt that is known to have failed.
const FAILED: &str = "failed: ";

/// The sentence about a step that is used up.
#[must_use]
pub fn describe(name: &str, step: &StepProgress, retry: &Retry) -> String {
    let error = step.error.as_deref().unwrap_or("no reason given");
    let what = if step.status == StepStatus::Unknown { UNKNOWN } else { FAILED };
    format!("step {name} {what}{error} (attempt {} of {})", step.attempts, retry.attempts.max(step.attempts))
}

/// The error in a sentence about a step that failed.
fn error_of(reason: &str) -> Option<&str> {
    reason.split_once(FAILED).map(|(_, error)| error)
}

/// The sentence about an order of a person.
#[must_use]
pub fn ordered(order: Order, by: &str, why: &str) -> String {
    let what = match order {
        Order::Cancel => "cancelled",
        Order::Abort => "aborted",
        other => other.as_str(),
    };
    if why.is_empty() { format!("{what} by {by}") } else { format!("{what} by {by}: {why}") }
}

/// The contract's word for a sentence. What a service says comes after its status, so it cannot pass for a timeout.
#[must_use]
pub fn kind(reason: Option<&str>) -> &'static str {
    match reason {
        Some(DEADLINE_PASSED) => "deadline",
        Some(LOCK_BUSY | LOCK_TIMEOUT) => "lock",
        Some(reason) if reason.split_once(UNKNOWN).is_some_and(|(_, error)| error.starts_with(TIMED_OUT)) => "timeout",
        Some(reason) if error_of(reason).is_some_and(|error| error.starts_with(REJECTED_BY)) => "human",
        Some(reason) if error_of(reason).is_some_and(|error| error.starts_with(TIMED_OUT)) => "timeout",
        _ => "step_failed",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_word_is_read_from_the_sentence() {
        let retry = Retry { attempts: 3, backoff: Duration::ZERO, multiplier: 1.0, backoff_max: Duration::ZERO, jitter: 0.0 };
        let check = |status, error: &str, expected| {
            let step = StepProgress { status, error: Some(error.to_owned()), attempts: 3, ..StepProgress::default() };
            assert_eq!(kind(Some(&describe("pay", &step, &retry))), expected, "{error}");
        };
        check(StepStatus::Unknown, &format!("{TIMED_OUT}: no whole reply within 30000 ms"), "timeout");
        check(StepStatus::Unknown, "the connection was reset", "step_failed");
        check(StepStatus::Unknown, "HTTP 504: timed out", "step_failed");
        check(StepStatus::Failed, "HTTP 500: timed out", "step_failed");
        assert_eq!(kind(Some(DEADLINE_PASSED)), "deadline");
        assert_eq!(kind(None), "step_failed");
    }
}
