//! The meaning of a file: JSON with sorted keys, and the hash that a saga is pinned to.
//!
//! Invariant: text, tree and stored JSON of one file have one revision, whatever `jsonb` does to order and numbers.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use super::tree::{Kind, Node};

/// The JSON that a node means. Whole numbers lose their fraction: Postgres and YAML write `1e3` and `1000` for the same.
pub(super) fn value_of(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => Value::Bool(*value),
        Kind::Number(number) => Value::Number(whole(number)),
        Kind::Text(text, _) => Value::String(text.clone()),
        Kind::List(items) => Value::Array(items.iter().map(value_of).collect()),
        Kind::Map(entries) => {
            let mut fields: Vec<_> = entries.iter().map(|(key, item)| (key.name.clone(), value_of(item))).collect();
            fields.sort_by(|left, right| left.0.cmp(&right.0));
            Value::Object(Map::from_iter(fields))
        }
    }
}

fn whole(number: &Number) -> Number {
    let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) else { return number.clone() };
    // Through text: an exact conversion or none.
    let text = format!("{float:.0}");
    text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from)).unwrap_or_else(|_| number.clone())
}

/// SHA-256 of the canonical text, lower-case hex.
pub(super) fn revision(value: &Value) -> String {
    let mut text = String::new();
    write_sorted(value, &mut text);
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Sorted here as well: a dependency can turn on `preserve_order` for the whole program.
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                write_sorted(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (index, (name, item)) in sorted.into_iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_sorted(item, text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_is_the_hash_of_sorted_json() {
        let mut text = String::new();
        write_sorted(&json!({"b": [1, {"d": null, "c": "x\n"}], "a": true}), &mut text);
        assert_eq!(text, r#"{"a":true,"b":[1,{"c":"x\n","d":null}]}"#);
        assert_eq!(revision(&json!({})), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    }

    #[test]
    fn whole_numbers_are_written_one_way() {
        let as_text = |json: Value| whole(json.as_number().expect("a number")).to_string();
        assert_eq!(as_text(json!(1e3)), "1000");
        assert_eq!(as_text(json!(1.5)), "1.5");
        assert_eq!(as_text(json!(-0.0)), "0");
        assert_eq!(as_text(json!(1e300)), "1e+300");
    }
}
