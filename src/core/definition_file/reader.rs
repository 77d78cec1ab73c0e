//! Reads values out of the tree and gathers what is wrong with them.

use std::time::Duration;

use serde_json::Number;

use super::super::expression::Root;
use super::super::nearest::nearest;
use super::page::Page;
use super::problem::Problem;
use super::tree::{Kind, Node, Place, Style};

/// More than these help nobody.
const PROBLEMS_MAX: usize = 50;
/// Ids, event types, topics, names.
const NAME_CHARS_MAX: usize = 255;
/// Ten years.
const MILLIS_MAX: u64 = 10 * 365 * 24 * 3600 * 1000;

/// A file that is read, and what was found so far.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) page: &'a Page<'a>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// The keys that a map may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    /// What the map is, for messages: "a step".
    pub(super) of: &'static str,
    /// Keys that are read.
    pub(super) known: &'static [&'static str],
    /// Keys of the contract that are not read yet.
    pub(super) later: &'static [&'static str],
    /// Whether `x-…` is allowed.
    pub(super) extensible: bool,
}

/// What an expression may see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight<'a> {
    pub(super) roots: &'a [Root],
    pub(super) steps: Option<&'a [&'a str]>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(page: &'a Page<'a>) -> Self {
        Self { page, problems: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn error(&mut self, place: Place, message: impl Into<String>, help: Option<&str>) {
        if !self.is_full() {
            self.problems.push(self.page.error(place, message, help));
        }
    }

    pub(super) fn warn(&mut self, place: Place, message: impl Into<String>, help: Option<&str>) {
        if self.warnings.len() < PROBLEMS_MAX {
            self.warnings.push(self.page.warning(place, message, help));
        }
    }

    /// Whether reading on is of no use.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= PROBLEMS_MAX
    }

    /// Checks that `node` is a map and has no keys but those; false when it is no map.
    pub(super) fn map(&mut self, node: &Node, keys: Keys) -> bool {
        let Kind::Map(entries) = &node.kind else {
            self.error(node.place, format!("{} must be a map, not {}", keys.of, node.what()), None);
            return false;
        };
        for (key, value) in entries {
            let name = key.name.as_str();
            if self.is_full() {
                break;
            } else if keys.later.contains(&name) {
                self.error(key.place, format!("`{name}` is not yet supported"), None);
            } else if keys.known.contains(&name) {
                if matches!(value.kind, Kind::Null) {
                    self.error(key.place, format!("`{name}` has no value"), Some("write one, or leave the key out"));
                }
            } else if !(keys.extensible && name.starts_with("x-")) {
                let help = match nearest(name, keys.known.iter().chain(keys.later).copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("{} has {}", keys.of, keys.known.join(", ")),
                };
                self.error(key.place, format!("unknown key `{name}`"), Some(&help));
            }
        }
        true
    }

    /// A value that was given; a key without a value has been reported with its map.
    pub(super) fn given<'n>(&self, node: &'n Node, key: &str) -> Option<&'n Node> {
        node.get(key).filter(|value| !matches!(value.kind, Kind::Null))
    }

    /// As [`Self::given`], but a missing key is a problem.
    pub(super) fn required<'n>(&mut self, node: &'n Node, key: &str, of: &str) -> Option<&'n Node> {
        if node.get(key).is_none() && !is_misspelt(node, key) {
            self.error(Place { width: 1, ..node.place }, format!("{of} needs `{key}`"), None);
        }
        self.given(node, key)
    }

    /// Text that is not empty.
    pub(super) fn text<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Text(text, _) if !text.trim().is_empty() => Some(text),
            Kind::Text(..) => {
                self.error(node.place, format!("`{key}` is empty"), None);
                None
            }
            Kind::Bool(_) | Kind::Number(_) => {
                self.error(node.place, format!("`{key}` must be text, not {}", node.what()), Some("put it in quotes"));
                None
            }
            _ => {
                self.error(node.place, format!("`{key}` must be text, not {}", node.what()), None);
                None
            }
        }
    }

    /// A name that people give: an event type, a topic.
    pub(super) fn name<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n str> {
        let text = self.text(node, key)?;
        let problem = if text.chars().count() > NAME_CHARS_MAX {
            format!("`{key}` is longer than {NAME_CHARS_MAX} characters")
        } else if text.chars().any(char::is_control) || text.trim() != text {
            format!("`{key}` must not start or end with space or hold control characters")
        } else {
            return Some(text);
        };
        self.error(node.place, problem, None);
        None
    }

    /// A name that stands in addresses: ids, services.
    pub(super) fn id<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n str> {
        let text = self.name(node, key)?;
        if is_id(text) {
            return Some(text);
        }
        self.error(node.place, format!("`{key}` may hold only letters, digits, `.`, `_` and `-`, and starts with a letter or digit"), None);
        None
    }

    /// One name, or a list of them without repetition.
    pub(super) fn names(&mut self, node: &Node, key: &str) -> Vec<String> {
        let Kind::List(items) = &node.kind else {
            return self.name(node, key).map(str::to_owned).into_iter().collect();
        };
        if items.is_empty() {
            self.error(node.place, format!("`{key}` is empty"), None);
        }
        let mut names: Vec<String> = Vec::new();
        for item in items {
            match self.name(item, key) {
                Some(name) if names.iter().any(|known| known == name) => self.error(item.place, format!("`{name}` is here twice"), None),
                Some(name) => names.push(name.to_owned()),
                None => {}
            }
            if self.is_full() {
                break;
            }
        }
        names
    }

    /// A whole number within limits.
    pub(super) fn whole(&mut self, node: &Node, key: &str, least: u64, most: u64) -> Option<u64> {
        let number = self.number(node, key, "a whole number")?;
        // JSON knows no difference between 3 and 3.0.
        let whole = number.as_u64().or_else(|| number.as_f64().and_then(|float| format!("{float}").parse().ok()));
        let found = whole.filter(|value| (least..=most).contains(value));
        if found.is_none() {
            self.error(node.place, format!("`{key}` must be a whole number from {least} to {most}"), None);
        }
        found
    }

    /// A duration in milliseconds.
    pub(super) fn millis(&mut self, node: &Node, key: &str) -> Option<Duration> {
        let number = self.number(node, key, "a whole number of milliseconds")?;
        let found = number
            .as_u64()
            .or_else(|| number.as_f64().and_then(|float| format!("{float}").parse().ok()))
            .filter(|millis| (1..=MILLIS_MAX).contains(millis));
        if found.is_none() {
            self.error(node.place, format!("`{key}` must be a whole number of milliseconds from 1 to {MILLIS_MAX} (ten years)"), None);
        }
        found.map(Duration::from_millis)
    }

    /// A number within limits.
    pub(super) fn float(&mut self, node: &Node, key: &str, least: f64, most: f64) -> Option<f64> {
        let found = self.number(node, key, "a number")?.as_f64().filter(|value| (least..=most).contains(value));
        if found.is_none() {
            self.error(node.place, format!("`{key}` must be a number from {least} to {most}"), None);
        }
        found
    }

    /// True or false.
    pub(super) fn flag(&mut self, node: &Node, key: &str) -> Option<bool> {
        if let Kind::Bool(value) = node.kind {
            return Some(value);
        }
        self.error(node.place, format!("`{key}` must be true or false, not {}", node.what()), Some("only `true` and `false` are booleans"));
        None
    }

    fn number<'n>(&mut self, node: &'n Node, key: &str, what: &str) -> Option<&'n Number> {
        if let Kind::Number(number) = &node.kind {
            return Some(number);
        }
        let help = match &node.kind {
            Kind::Text(text, Style::Quoted) if text.parse::<f64>().is_ok() => Some("write it without quotes"),
            Kind::Text(text, _) if text.starts_with('0') && text.len() > 1 => Some("a leading zero makes it text: leave it out"),
            Kind::Text(..) if key.ends_with("Ms") => Some("milliseconds, only digits: 30000"),
            Kind::Text(..) => Some("only digits"),
            _ => None,
        };
        self.error(node.place, format!("`{key}` must be {what}, not {}", node.what()), help);
        None
    }

    /// True or false.
    pub(super) fn truth(&mut self, node: &Node, key: &str) -> Option<bool> {
        if let Kind::Bool(value) = node.kind {
            return Some(value);
        }
        self.error(node.place, format!("`{key}` must be true or false, not {}", node.what()), None);
        None
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, node: &Node, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            let help = nearest(text, words.iter().map(|(word, _)| *word)).map(|near| format!("did you mean `{near}`?"));
            self.error(node.place, format!("`{key}` must be {}, not `{text}`", known.join(" or ")), help.as_deref());
        }
        found
    }

    /// A text that must be one of a few, in a list without repetition.
    pub(super) fn words<T: Copy>(&mut self, node: &Node, key: &str, words: &[(&str, T)]) -> Vec<T> {
        let Kind::List(items) = &node.kind else {
            self.error(node.place, format!("`{key}` must be a list, not {}", node.what()), None);
            return Vec::new();
        };
        if items.is_empty() {
            self.error(node.place, format!("`{key}` is empty"), None);
        }
        let mut found = Vec::new();
        let mut seen = Vec::new();
        for item in items {
            if let Some(word) = self.word(item, key, words) {
                let text = if let Kind::Text(text, _) = &item.kind { text.as_str() } else { "" };
                if seen.contains(&text) {
                    self.error(item.place, format!("`{text}` is here twice"), None);
                }
                seen.push(text);
                found.push(word);
            }
            if self.is_full() {
                break;
            }
        }
        found
    }
}

/// Whether a key stands there that was probably meant to be this one, and is reported as unknown.
pub(super) fn is_misspelt(node: &Node, key: &str) -> bool {
    matches!(&node.kind, Kind::Map(entries) if entries.iter().any(|(found, _)| nearest(&found.name, [key]).is_some()))
}

/// Whether a text can stand in an address without being encoded.
pub(super) fn is_id(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
