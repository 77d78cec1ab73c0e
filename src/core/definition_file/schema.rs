//! placeholder
use serde_json::Value;
/// placeholder
#[must_use]
pub fn schema(_kind: &str) -> Option<Value> {
    None
}
