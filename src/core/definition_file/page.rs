//! The text of a file, for showing its lines beside what is wrong with them.

use super::problem::{Problem, Severity};
use super::tree::{DEPTH_MAX, Place};

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    /// Byte where each line starts.
    lines: Vec<usize>,
}

impl<'a> Page<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, lines }
    }

    /// A line by its number, from 1, without its end.
    pub(super) fn line(&self, number: usize) -> &'a str {
        let Some(start) = number.checked_sub(1).and_then(|index| self.lines.get(index)) else { return "" };
        let end = self.lines.get(number).map_or(self.text.len(), |next| next - 1);
        self.text.get(*start..end).unwrap_or("").trim_end_matches('\r')
    }

    /// What stands on the line behind a value.
    pub(super) fn behind(&self, place: Place) -> &'a str {
        let line = self.line(place.end_line);
        line.char_indices().nth(place.end_column.saturating_sub(1)).map_or("", |(at, _)| &line[at..])
    }

    pub(super) fn error(&self, place: Place, message: impl Into<String>, help: Option<&str>) -> Problem {
        self.problem(Severity::Error, place, message.into(), help)
    }

    pub(super) fn warning(&self, place: Place, message: impl Into<String>, help: Option<&str>) -> Problem {
        self.problem(Severity::Warning, place, message.into(), help)
    }

    fn problem(&self, severity: Severity, place: Place, message: String, help: Option<&str>) -> Problem {
        let excerpt = self.line(place.line).to_owned();
        let rest = excerpt.trim_end().chars().count().saturating_sub(place.column.saturating_sub(1));
        let width = if place.width == 0 { rest } else { place.width }.max(1);
        Problem {
            severity,
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            width,
            message,
            help: help.map(str::to_owned),
            excerpt,
        }
    }

    /// What the YAML scanner refused, with the likely reason.
    pub(super) fn broken_yaml(&self, line: usize, column: usize, info: &str) -> Problem {
        let place = |line: usize, column: usize, width: usize| Place { line, column, width, end_line: line, end_column: column + width };
        if info.contains("recursion limit") {
            return self.error(place(line, column, 1), format!("lists and maps nest more than {DEPTH_MAX} deep"), None);
        }
        // The scanner often notices on the next line: the reason lies on the last one with content.
        let suspects = [line, line.saturating_sub(1)];
        // It has read on over the line's end where it stumbles over a tab.
        let next = info.contains("tab").then_some(line + 1);
        for number in suspects.into_iter().chain(next) {
            let text = self.line(number);
            let indent = text.len() - text.trim_start().len();
            if let Some(at) = text[..indent].find('\t') {
                return self.error(place(number, at + 1, 1), "a tab indents this line: YAML allows only spaces", Some("indent with spaces"));
            }
        }
        for number in suspects {
            if let Some((at, value)) = unquoted_expression(self.line(number)) {
                let quoted =
                    if value.contains('\'') { format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")) } else { format!("'{value}'") };
                let message = format!("YAML cannot read this line ({info})");
                let in_map = value.strip_prefix('{').is_some_and(|inner| inner.trim_start().starts_with(|first: char| first.is_ascii_alphabetic()));
                let help = if in_map || value.len() > 200 {
                    "quote the whole expression; inside `{…}` also one that holds `[`, `{` or `,`".to_owned()
                } else {
                    format!("quote the whole expression: {quoted}")
                };
                return self.error(place(number, at, value.chars().count()), message, Some(&help));
            }
        }
        for number in suspects {
            let text = self.line(number);
            let item = text.trim_start();
            let at = text.len() - item.len() + 1;
            if item.starts_with('-') && item[1..].starts_with(|next: char| next.is_ascii_alphabetic()) {
                return self.error(place(number, at, 2), "a space must follow the `-` of a list", Some("write `- `"));
            }
            let word = item.trim_start_matches("- ").split(' ').next().unwrap_or_default();
            if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !item.contains(": ") && !item.trim_end().ends_with(':') {
                let at = at + (item.len() - item.trim_start_matches("- ").len());
                return self.error(place(number, at, word.len()), format!("a `:` is missing on this line ({info})"), Some("write `key: value`"));
            }
        }
        self.error(place(line, column, 1), format!("this is no valid YAML: {info}"), None)
    }
}

/// The value on a line that looks as if it were an expression which YAML breaks: its column and text.
fn unquoted_expression(line: &str) -> Option<(usize, &str)> {
    let start = line.len() - line.trim_start_matches([' ', '-']).len();
    let (key, value) = line[start..].split_once(':')?;
    let value_at = start + key.len() + 1;
    if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') || !value.starts_with(' ') {
        return None;
    }
    let text = value.trim();
    let telling = ["==", "!=", ">", "<", "&&", "||", " in ", "(", "data.", "event.", "steps.", ": "].iter().any(|mark| text.contains(mark));
    let starts_badly = text.starts_with(['"', '\'', '[', '{', '!', '*', '&', '@', '`', '%', '|', '>']);
    let at = value_at + (value.len() - value.trim_start().len());
    (telling && (starts_badly || text.contains(": ") || text.contains(" #") || text.ends_with(':'))).then(|| (line[..at].chars().count() + 1, text))
}
