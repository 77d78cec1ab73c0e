//! How long to wait before the next attempt.

use std::time::Duration;

use super::definition::Retry;

/// The longest wish of a service (`Retry-After`) that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The delay after `spent` failed attempts. `chance` in 0..1 decides within the jitter; a service's own wish is a lower bound.
///
/// The result is at least `backoff * (1 - jitter)`, whatever the chance.
#[must_use]
pub fn delay(retry: &Retry, spent: u32, chance: f64, retry_after: Option<Duration>) -> Duration {
    let exponent = i32::try_from(spent.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = retry.backoff.as_secs_f64() * retry.multiplier.powi(exponent);
    let capped = grown.min(retry.backoff_max.as_secs_f64());
    let spread = capped * (1.0 + retry.jitter * (2.0 * chance - 1.0));
    let delay = Duration::try_from_secs_f64(spread).unwrap_or(retry.backoff_max);
    delay.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { attempts: 3, backoff: Duration::from_secs(2), multiplier: 2.0, backoff_max: Duration::from_secs(60), jitter: 0.1 };

    #[test]
    fn delays_double_up_to_the_cap() {
        let check = |spent, expected| assert_eq!(delay(&RETRY, spent, 0.5, None), Duration::from_secs(expected), "after {spent}");
        check(1, 2);
        check(2, 4);
        check(5, 32);
        check(6, 60);
        check(u32::MAX, 60);
    }

    #[test]
    fn jitter_stays_within_its_share() {
        assert_eq!(delay(&RETRY, 1, 0.0, None), Duration::from_millis(1800));
        assert_eq!(delay(&RETRY, 1, 1.0, None), Duration::from_millis(2200));
    }

    #[test]
    fn a_service_may_ask_for_more_but_not_for_ever() {
        assert_eq!(delay(&RETRY, 1, 0.5, Some(Duration::from_secs(90))), Duration::from_secs(90));
        assert_eq!(delay(&RETRY, 1, 0.5, Some(Duration::from_secs(1))), Duration::from_secs(2));
        assert_eq!(delay(&RETRY, 1, 0.5, Some(Duration::from_secs(1 << 40))), Duration::from_secs(3600));
    }
}
