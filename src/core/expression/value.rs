//! Between JSON and CEL: only the parts that an expression names are converted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::objects::{Key, Map};
use serde_json::{Number, Value as Json};

/// Which parts of a variable an expression looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Parts {
    /// Nothing yet.
    #[default]
    None,
    /// These fields.
    Fields(BTreeMap<String, Self>),
    /// The variable as a whole.
    All,
}

impl Parts {
    /// Notes that the value at the end of `path` is looked at.
    pub(super) fn add(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else {
            *self = Self::All;
            return;
        };
        match self {
            Self::All => {}
            Self::Fields(fields) => fields.entry((*first).to_owned()).or_default().add(rest),
            Self::None => {
                let mut part = Self::None;
                part.add(rest);
                *self = Self::Fields(BTreeMap::from([((*first).to_owned(), part)]));
            }
        }
    }

    /// The parts of one field; `None` when nobody looks at it.
    pub(super) fn of(&self, field: &str) -> Option<&Self> {
        match self {
            Self::None => None,
            Self::All => Some(self),
            Self::Fields(fields) => fields.get(field),
        }
    }
}

/// The CEL value of the parts of a JSON value. `longest` becomes the size of the longest list or object seen.
pub(super) fn from_json(json: &Json, parts: &Parts, longest: &mut usize) -> cel::Value {
    match json {
        Json::Null => cel::Value::Null,
        Json::Bool(value) => cel::Value::Bool(*value),
        Json::Number(number) => from_number(number),
        Json::String(text) => cel::Value::String(Arc::new(text.clone())),
        Json::Array(items) => {
            *longest = items.len().max(*longest);
            cel::Value::List(Arc::new(items.iter().map(|item| from_json(item, &Parts::All, longest)).collect()))
        }
        Json::Object(fields) => match parts {
            Parts::Fields(named) => map(named.iter().filter_map(|(name, part)| Some((name.as_str(), from_json(fields.get(name)?, part, longest))))),
            Parts::All | Parts::None => {
                *longest = fields.len().max(*longest);
                map(fields.iter().map(|(name, item)| (name.as_str(), from_json(item, &Parts::All, longest))))
            }
        },
    }
}

/// A CEL map with text keys.
pub(super) fn map<'a>(fields: impl Iterator<Item = (&'a str, cel::Value)>) -> cel::Value {
    let fields: HashMap<Key, cel::Value> = fields.map(|(name, value)| (Key::String(Arc::new(name.to_owned())), value)).collect();
    cel::Value::Map(Map { map: Arc::new(fields) })
}

fn from_number(number: &Number) -> cel::Value {
    if let Some(whole) = number.as_i64() {
        cel::Value::Int(whole)
    } else if let Some(whole) = number.as_u64() {
        cel::Value::UInt(whole)
    } else {
        cel::Value::Float(number.as_f64().unwrap_or(f64::NAN))
    }
}

/// The JSON form of a result, or the name of the type that has none.
pub(super) fn to_json(value: &cel::Value) -> Result<Json, String> {
    Ok(match value {
        cel::Value::Null => Json::Null,
        cel::Value::Bool(value) => Json::Bool(*value),
        cel::Value::Int(value) => Json::from(*value),
        cel::Value::UInt(value) => Json::from(*value),
        cel::Value::Float(value) => Json::Number(Number::from_f64(*value).ok_or("a number without end")?),
        cel::Value::String(text) => Json::String(text.to_string()),
        cel::Value::List(items) => Json::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        cel::Value::Map(fields) => {
            Json::Object(fields.map.iter().map(|(key, item)| Ok((key.to_string(), to_json(item)?))).collect::<Result<_, String>>()?)
        }
        cel::Value::Timestamp(time) => Json::String(time.to_rfc3339()),
        // The JSON form of a protobuf duration, which `duration()` reads again.
        cel::Value::Duration(duration) => Json::String(seconds(*duration)),
        other => return Err(format!("a {}", other.type_of())),
    })
}

fn seconds(duration: chrono::Duration) -> String {
    let millis = duration.num_milliseconds();
    let sign = if millis < 0 { "-" } else { "" };
    let (whole, rest) = (millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000);
    if rest == 0 { format!("{sign}{whole}s") } else { format!("{sign}{whole}.{rest:03}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_named_parts_are_converted() {
        let mut parts = Parts::None;
        parts.add(&["a", "b"]);
        parts.add(&["c"]);
        parts.add(&["c", "d"]);
        let mut longest = 0;
        let value = from_json(&json!({"a": {"b": 1, "x": [1, 2, 3]}, "c": {"d": 2, "e": 3}, "z": 0}), &parts, &mut longest);
        assert_eq!(to_json(&value), Ok(json!({"a": {"b": 1}, "c": {"d": 2, "e": 3}})));
        assert_eq!(longest, 2);
    }

    #[test]
    fn numbers_keep_their_kind() {
        for number in ["1", "1.0", "-3", "18446744073709551615", "1.5e300"] {
            let json: Json = serde_json::from_str(number).expect(number);
            assert_eq!(to_json(&from_json(&json, &Parts::All, &mut 0)), Ok(json));
        }
    }
}
