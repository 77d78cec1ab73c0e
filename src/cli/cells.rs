//! Values of documents as cells of tables.

use chrono::{DateTime, Utc};
use serde_json::Value;

/// The elements of a JSON array.
pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A JSON value as a cell.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The time of day, which is what attempts differ in.
pub(super) fn clock(value: &Value) -> String {
    value.as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok()).map(|time| time.format("%H:%M:%S%.3fZ").to_string()).unwrap_or_default()
}

/// A point in time, to the second.
pub(super) fn moment(value: &Value) -> String {
    value.as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok()).map(|time| time.format("%Y-%m-%d %H:%M:%SZ").to_string()).unwrap_or_default()
}
