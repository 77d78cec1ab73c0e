//! Between the core's timestamps and the driver's.

use chrono::{DateTime, Utc};

use crate::core::time::Timestamp;

/// For a statement's parameter.
#[must_use]
pub fn to_sql(at: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// From a row.
#[must_use]
pub fn from_sql(at: DateTime<Utc>) -> Timestamp {
    Timestamp(at.timestamp_micros())
}
