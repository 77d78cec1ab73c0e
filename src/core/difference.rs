//! What two revisions of a file differ in, said by the names of their steps.

use std::fmt;

use serde_json::Value;

/// A value longer than this is cut where people read it, characters.
const SHOWN_CHARS_MAX: usize = 200;

/// One place where two files differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The place: `steps.mail.retry.attempts`; a group of steps is known by its number in its list: `steps.(1)`.
    pub path: String,
    /// What stood there; absent where it is new.
    pub before: Option<Value>,
    /// What stands there now; absent where it was removed.
    pub after: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "~ {}: {} -> {}", self.path, shown(before), shown(after)),
            (None, Some(after)) => write!(f, "+ {}: {}", self.path, shown(after)),
            (Some(before), None) => write!(f, "- {}: {}", self.path, shown(before)),
            (None, None) => write!(f, "  {}", self.path),
        }
    }
}

/// The changes from one stored file to another, in the order of the keys; empty if they mean the same.
#[must_use]
pub fn between(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", Some(before), Some(after), &mut changes);
    changes
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    match (before, after) {
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                compare(&below(path, name), old.get(name), new.get(name), changes);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if is_list_of_steps(old) && is_list_of_steps(new) => {
            let (old, new) = (labelled(old), labelled(new));
            let (old_order, new_order) = (shared(&old, &new), shared(&new, &old));
            if old_order != new_order {
                let path = format!("{path} (order)");
                changes.push(Change { path, before: Some(Value::Array(old_order)), after: Some(Value::Array(new_order)) });
            }
            for (label, item) in &new {
                compare(&below(path, label), find(&old, label), Some(item), changes);
            }
            for (label, item) in old.iter().filter(|(label, _)| find(&new, label).is_none()) {
                compare(&below(path, label), Some(item), None, changes);
            }
        }
        _ => changes.push(Change { path: path.to_owned(), before: before.cloned(), after: after.cloned() }),
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Whether all items are maps or lists, and one of them has a name: their places are no names for them.
fn is_list_of_steps(items: &[Value]) -> bool {
    items.iter().all(|item| item.is_object() || item.is_array())
        && items.iter().any(|item| item.get("name").is_some_and(Value::is_string) || item.get("steps").is_some() || item.is_array())
}

/// An item with its name.
type Labelled<'v> = (String, &'v Value);

/// Steps by their names, groups and markers by their number among those without one.
fn labelled(items: &[Value]) -> Vec<Labelled<'_>> {
    let mut nameless = 0;
    let label = |item: &Value| match item.get("name").and_then(Value::as_str) {
        Some(name) => name.to_owned(),
        None => {
            nameless += 1;
            format!("({nameless})")
        }
    };
    items.iter().map(label).collect::<Vec<_>>().into_iter().zip(items).collect()
}

fn find<'v>(list: &[Labelled<'v>], label: &str) -> Option<&'v Value> {
    list.iter().find(|(other, _)| other == label).map(|(_, item)| *item)
}

/// The labels that another list has too, in their order.
fn shared(list: &[Labelled<'_>], other: &[Labelled<'_>]) -> Vec<Value> {
    list.iter().filter(|(label, _)| find(other, label).is_some()).map(|(label, _)| Value::from(label.as_str())).collect()
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_CHARS_MAX { text } else { text.chars().take(SHOWN_CHARS_MAX).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(before: &Value, after: &Value) -> Vec<String> {
        between(before, after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn steps_are_compared_by_their_names() {
        let before = json!({"id": "a", "retry": {"attempts": 3}, "trigger": "x", "steps": [
            {"name": "one", "call": "s:/1"}, {"name": "two", "call": "s:/2", "timeoutMs": 5}, {"name": "three", "call": "s:/3"}]});
        let after = json!({"id": "a", "retry": {"attempts": 4, "jitter": 0}, "trigger": ["x", "y"], "steps": [
            {"name": "new", "delayMs": 1}, {"name": "two", "call": "s:/zwei"}, {"name": "one", "call": "s:/1"}]});
        let expected = [
            "~ retry.attempts: 3 -> 4",
            "+ retry.jitter: 0",
            "~ steps (order): [\"one\",\"two\"] -> [\"two\",\"one\"]",
            "+ steps.new: {\"delayMs\":1,\"name\":\"new\"}",
            "~ steps.two.call: \"s:/2\" -> \"s:/zwei\"",
            "- steps.two.timeoutMs: 5",
            "- steps.three: {\"call\":\"s:/3\",\"name\":\"three\"}",
            "~ trigger: \"x\" -> [\"x\",\"y\"]",
        ];
        assert_eq!(lines(&before, &after), expected);
        assert_eq!(lines(&before, &before), [""; 0]);
    }

    #[test]
    fn groups_are_compared_inside() {
        let file = |n: u32| json!({"steps": [{"name": "a"}, {"parallel": true, "steps": [{"name": "b", "delayMs": n}]}, [{"name": "c"}]]});
        assert_eq!(lines(&file(1), &file(2)), ["~ steps.(1).steps.b.delayMs: 1 -> 2"]);
        assert_eq!(lines(&json!([1]), &json!([2])), ["~ : [1] -> [2]"]);
        let long = json!({ "a": "x".repeat(9000) });
        assert!(lines(&json!({}), &long)[0].len() < 300);
    }
}
