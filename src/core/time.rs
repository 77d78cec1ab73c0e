//! A point in time by the database's clock. The core never asks what time it is: it is told.

use std::time::Duration;

/// Microseconds since 1970-01-01 UTC by the database's clock: exactly what `timestamptz` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This time plus `duration`, at most the end of time.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long from `earlier` to this time; zero if it lies before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads a time in RFC 3339, such as `2026-07-01T08:00:00Z`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        chrono::DateTime::parse_from_rfc3339(text.trim()).ok().map(|time| Self(time.timestamp_micros()))
    }

    /// Whole seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}
