//! JSON as YAML in one line: what needs no quotes has none.

use std::fmt::Write as _;

use serde_json::Value;

/// The keys that scenarios have, in the order in which people read them.
const ORDER: [&str; 34] = [
    "afterMs",
    "type",
    "topic",
    "subject",
    "source",
    "correlationId",
    "id",
    "time",
    "event",
    "decide",
    "order",
    "lock",
    "worker",
    "step",
    "kind",
    "by",
    "note",
    "state",
    "clean",
    "reason",
    "calls",
    "undone",
    "tasks",
    "steps",
    "emitted",
    "fails",
    "ends",
    "status",
    "returns",
    "raises",
    "ok",
    "error",
    "body",
    "data",
];

/// Where a key stands among others.
pub(super) fn rank(key: &str) -> usize {
    ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len())
}

/// A value.
pub(super) fn value(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// A line of a comment.
pub(super) fn comment(line: &str) -> String {
    line.chars().map(|c| if c.is_control() || is_odd(c) { ' ' } else { c }).collect()
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::String(word) => write_text(word, text),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push('{');
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| (rank(name), name.as_str()));
            for (index, (name, item)) in fields.into_iter().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write_text(name, text);
                text.push_str(": ");
                write(item, text);
            }
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

fn write_text(word: &str, text: &mut String) {
    let plain = word.starts_with(|first: char| first.is_ascii_alphabetic())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && !matches!(word, "true" | "false" | "null");
    if plain {
        text.push_str(word);
        return;
    }
    text.push('"');
    for c in word.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() || is_odd(c) => {
                // Writing to a string does not fail.
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// Characters that YAML takes for line breaks, marks or nothing printable.
fn is_odd(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_are_plain_and_the_rest_is_quoted() {
        let document = json!({"state": "failed", "a b": "it's: \"x\"\n", "n": [1, 2.5, true, null, "true", "12", ""], "odd": "\u{85}\u{2028}"});
        let expected = r#"{state: failed, "a b": "it's: \"x\"\n", n: [1, 2.5, true, null, "true", "12", ""], odd: "\u0085\u2028"}"#;
        assert_eq!(value(&document), expected);
    }
}
