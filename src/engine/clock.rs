//! The database's time between two heartbeats, carried on by the monotonic clock.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::core::time::Timestamp;

/// Knows what the database's clock shows, without asking it each time. This machine's wall clock plays no part.
#[derive(Debug)]
pub struct Clock {
    base: Mutex<(Timestamp, Instant)>,
}

impl Clock {
    /// A clock that was just read.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { base: Mutex::new((now, Instant::now())) }
    }

    /// Takes a new reading, made at `taken`.
    pub fn set(&self, now: Timestamp, taken: Instant) {
        *self.base.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = (now, taken);
    }

    /// The database's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let (base, taken) = *self.base.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        base.plus(taken.elapsed())
    }

    /// How long until then; zero if it has passed.
    #[must_use]
    pub fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }
}
