//! JSON that is carried far more often than it is looked at.
//!
//! A payload keeps the text as it came from the database or the wire and parses it at most once, when an expression asks.
//! Invariant: the text is valid JSON without NUL characters, so it can always be stored as `jsonb`.

use std::sync::{Arc, OnceLock};

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// An immutable JSON document: cheap to clone, parsed on first use.
#[derive(Clone)]
pub struct Payload(Arc<Inner>);

struct Inner {
    text: Box<str>,
    value: OnceLock<Value>,
}

impl Payload {
    /// Takes JSON text over; `None` when it is not JSON or holds a NUL character, which Postgres cannot store.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // RawValue validates without building a tree: most payloads are never looked into.
        let raw: &RawValue = serde_json::from_str(text).ok()?;
        if raw.get().contains("\\u0000") {
            let value: Value = serde_json::from_str(text).ok()?;
            return (!has_nul(&value)).then(|| Self::from(value));
        }
        Some(Self::trusted(raw.get().into()))
    }

    /// Text that is known to be JSON, such as what Postgres prints of a `jsonb` column.
    #[must_use]
    pub fn trusted(text: Box<str>) -> Self {
        Self(Arc::new(Inner { text, value: OnceLock::new() }))
    }

    /// The JSON text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The parsed document. Text beyond the parser's depth limit reads as `null`.
    #[must_use]
    pub fn value(&self) -> &Value {
        self.0.value.get_or_init(|| serde_json::from_str(&self.0.text).unwrap_or(Value::Null))
    }

    /// Size of the text, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.text.len()
    }

    /// Whether the text is empty: never, but clippy and readers expect the pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.text.is_empty()
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        let text = value.to_string().into_boxed_str();
        let cell = OnceLock::new();
        // A fresh cell: setting it cannot fail.
        let _first = cell.set(value);
        Self(Arc::new(Inner { text, value: cell }))
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(&self.0.text) {
            Ok(raw) => raw.serialize(serializer),
            Err(_) => serializer.serialize_none(),
        }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text || self.value() == other.value()
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Payloads may hold personal data: a log line says how long they are, not what they say.
        write!(f, "Payload({} bytes)", self.0.text.len())
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, item)| key.contains('\0') || has_nul(item)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept_and_parsed_once() {
        let payload = Payload::parse(r#"{"n": 1.50}"#).expect("valid");
        assert_eq!(payload.text(), r#"{"n": 1.50}"#);
        assert_eq!(payload.value()["n"], 1.5);
    }

    #[test]
    fn what_postgres_cannot_store_is_refused() {
        assert!(Payload::parse("{").is_none());
        assert!(Payload::parse(r#"{"a":"\u0000"}"#).is_none());
        assert!(Payload::parse(r#"{"a":"\\u0000"}"#).is_some(), "an escaped backslash is no NUL");
    }
}
