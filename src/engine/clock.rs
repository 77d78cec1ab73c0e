//! The database's time between two heartbeats, carried on by the monotonic clock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::core::time::Timestamp;

/// Knows what the database's clock shows, without asking it each time. This machine's wall clock plays no part.
#[derive(Debug)]
pub struct Clock {
    base: Mutex<(Timestamp, Instant)>,
    /// The latest time that was told: a reading on a busy machine may be off by as long as its answer took.
    latest: AtomicI64,
}

impl Clock {
    /// A clock that was just read.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { base: Mutex::new((now, Instant::now())), latest: AtomicI64::new(now.0) }
    }

    /// Takes a new reading, made at `taken`.
    pub fn set(&self, now: Timestamp, taken: Instant) {
        *self.base.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = (now, taken);
    }

    /// The database's time. It never goes back: what comes later is never told as earlier.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let (base, taken) = *self.base.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let read = base.plus(taken.elapsed()).0;
        Timestamp(self.latest.fetch_max(read, Ordering::Relaxed).max(read))
    }

    /// How long until then; zero if it has passed.
    #[must_use]
    pub fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_from_the_past_stops_the_clock_instead_of_turning_it_back() {
        let clock = Clock::new(Timestamp(2_000_000));
        let before = clock.now();
        clock.set(Timestamp(1_000_000), Instant::now());
        assert!(clock.now() >= before);
        clock.set(Timestamp(9_000_000), Instant::now());
        assert!(clock.now() >= Timestamp(9_000_000));
    }
}
