//! Compares what was expected with what was found, and says where they differ.

use serde_json::Value;

/// Differences of one comparison that are shown.
const SHOWN_MAX: usize = 10;
/// Characters of a value that are shown.
const VALUE_CHARS_MAX: usize = 200;

/// Where `found` lacks a part of `expected`: in an object only the fields that are expected count, lists are compared whole.
pub(super) fn parts(path: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    if differences.len() >= SHOWN_MAX {
        return;
    }
    match (expected, found) {
        (Value::Object(wanted), Value::Object(fields)) => {
            for (name, value) in wanted {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match fields.get(name) {
                    Some(found) => parts(&below, value, found, differences),
                    // What is null in an expression is missing in many a document.
                    None if value.is_null() => {}
                    None => differences.push(format!("{below}: expected {}, found nothing", show(value))),
                }
            }
        }
        (Value::Array(wanted), Value::Array(items)) if wanted.len() == items.len() => {
            for (index, (value, found)) in wanted.iter().zip(items).enumerate() {
                parts(&format!("{path}[{index}]"), value, found, differences);
            }
        }
        _ if is_same(expected, found) => {}
        _ => {
            let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
            differences.push(format!("{place}expected {}, found {}", show(expected), show(found)));
        }
    }
}

/// Whether `found` has all parts of `expected`.
pub(super) fn has_parts(expected: &Value, found: &Value) -> bool {
    let mut differences = Vec::new();
    parts("", expected, found, &mut differences);
    differences.is_empty()
}

/// 5 and 5.0 are one number.
fn is_same(expected: &Value, found: &Value) -> bool {
    expected == found || expected.as_f64().is_some_and(|expected| found.as_f64() == Some(expected))
}

/// A value in one line of bounded length.
pub(super) fn show(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text;
    }
    text.chars().take(VALUE_CHARS_MAX).chain("…".chars()).collect()
}

/// Two lists beside each other: what is in both, what is missing (`-`), what is too much (`+`). Empty when they are equal.
pub(super) fn lists(expected: &[String], found: &[String], same: impl Fn(usize, usize) -> bool) -> Vec<String> {
    let mut common = vec![vec![0_usize; found.len() + 1]; expected.len() + 1];
    for left in (0..expected.len()).rev() {
        for right in (0..found.len()).rev() {
            common[left][right] =
                if same(left, right) { common[left + 1][right + 1] + 1 } else { common[left + 1][right].max(common[left][right + 1]) };
        }
    }
    let (mut left, mut right, mut differ) = (0, 0, false);
    let mut lines = Vec::new();
    while left < expected.len() || right < found.len() {
        if left < expected.len() && right < found.len() && same(left, right) {
            lines.push(format!("    {}", found[right]));
            (left, right) = (left + 1, right + 1);
            continue;
        }
        differ = true;
        if right >= found.len() || left < expected.len() && common[left + 1][right] >= common[left][right + 1] {
            lines.push(format!("  - {}", expected[left]));
            left += 1;
        } else {
            lines.push(format!("  + {}", found[right]));
            right += 1;
        }
    }
    if differ { lines } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_expected_counts() {
        let check = |expected: Value, found: Value, lines: &[&str]| {
            let mut differences = Vec::new();
            parts("body", &expected, &found, &mut differences);
            assert_eq!(differences, lines);
        };
        check(json!({"a": {"b": 5}}), json!({"a": {"b": 5.0, "c": 1}, "d": 2}), &[]);
        check(json!({"a": {"b": 5}}), json!({"a": {"b": 6}}), &["body.a.b: expected 5, found 6"]);
        check(json!({"a": 1}), json!({}), &["body.a: expected 1, found nothing"]);
        check(json!({"a": null}), json!({}), &[]);
        check(json!([1, 2]), json!([1, 2, 3]), &["body: expected [1,2], found [1,2,3]"]);
        check(json!([{"x": 1}]), json!([{"x": 2}]), &["body[0].x: expected 1, found 2"]);
        check(json!("5"), json!(5), &["body: expected \"5\", found 5"]);
    }

    #[test]
    fn lists_show_what_is_missing_and_what_is_too_much() {
        let check = |expected: &[&str], found: &[&str], lines: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
            assert_eq!(lists(&own(expected), &own(found), |left, right| expected[left] == found[right]), lines);
        };
        check(&["a", "b"], &["a", "b"], &[]);
        check(&["a", "b", "c"], &["a", "c"], &["    a", "  - b", "    c"]);
        check(&["a"], &["x", "a"], &["  + x", "    a"]);
        check(&[], &["x"], &["  + x"]);
        check(&["a"], &["b"], &["  - a", "  + b"]);
    }
}
