//! The tree of a file: every value with its place. Built from YAML text or from stored JSON.
//!
//! Invariant: no anchors, aliases, tags or duplicate keys, and never deeper than [`DEPTH_MAX`].

use std::collections::HashMap;

use serde_json::{Number, Value};
use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, Span};

use super::page::Page;
use super::problem::Problem;

/// Lists and maps may nest this deeply.
pub(super) const DEPTH_MAX: usize = 32;
/// More than these help nobody.
const PROBLEMS_MAX: usize = 50;

/// Where something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Line, from 1; 0 in a tree without text.
    pub(super) line: usize,
    /// Character, from 1.
    pub(super) column: usize,
    /// Characters on that line; 0 for the rest of the line.
    pub(super) width: usize,
    /// Line where it ends.
    pub(super) end_line: usize,
    /// Character behind its end.
    pub(super) end_column: usize,
}

/// A value of the file.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String, Style),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes.
    Plain,
    /// In quotes.
    Quoted,
    /// As a block, or in a tree without text.
    Block,
}

/// A key of a map.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) place: Place,
}

impl Node {
    /// What it is, in words.
    pub(super) fn what(&self) -> &'static str {
        match self.kind {
            Kind::Null => "empty",
            Kind::Bool(_) => "true or false",
            Kind::Number(_) => "a number",
            Kind::Text(..) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// The value of a key; `None` unless this is a map that has it.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node),
            _ => None,
        }
    }
}

/// The tree of a stored document. Deeper parts than the limit are left out: what is stored was read once and has none.
pub(super) fn of_json(value: &Value, depth: usize) -> Node {
    let kind = match value {
        _ if depth > DEPTH_MAX => Kind::Null,
        Value::Null => Kind::Null,
        Value::Bool(value) => Kind::Bool(*value),
        Value::Number(number) => Kind::Number(number.clone()),
        Value::String(text) => Kind::Text(text.clone(), Style::Block),
        Value::Array(items) => Kind::List(items.iter().map(|item| of_json(item, depth + 1)).collect()),
        Value::Object(fields) => {
            let entry = |(name, item): (&String, &Value)| (Key { name: name.clone(), place: Place::default() }, of_json(item, depth + 1));
            Kind::Map(fields.iter().map(entry).collect())
        }
    };
    Node { place: Place::default(), kind }
}

/// The documents of a YAML file; empty ones are left out.
pub(super) fn of_yaml(page: &Page<'_>) -> Result<Vec<Node>, Vec<Problem>> {
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        emit_comments: false,
        // The scanner stops a little later than we do, so that our message comes first.
        flow_nesting_limit: DEPTH_MAX + 8,
        block_nesting_limit: DEPTH_MAX + 8,
    };
    let mut parser = Parser::new_from_str_with_options(page.text, options);
    let mut builder = Builder { page, open: Vec::new(), documents: Vec::new(), problems: Vec::new() };
    while let Some(next) = parser.next_event() {
        match next {
            Ok((event, span)) => {
                if !builder.event(event, &span) || builder.problems.len() >= PROBLEMS_MAX {
                    return Err(builder.problems);
                }
            }
            Err(error) => {
                let mark = error.marker();
                builder.problems.push(page.broken_yaml(mark.line(), mark.col() + 1, &error.info()));
                return Err(builder.problems);
            }
        }
    }
    if builder.problems.is_empty() { Ok(builder.documents) } else { Err(builder.problems) }
}

struct Builder<'a> {
    page: &'a Page<'a>,
    open: Vec<Open>,
    documents: Vec<Node>,
    problems: Vec<Problem>,
}

/// A list or map that is not closed yet.
enum Open {
    List(Place, Vec<Node>),
    Map(Place, Vec<(Key, Node)>, Names),
}

/// The keys of an open map.
#[derive(Default)]
struct Names {
    /// The key that waits for its value.
    waiting: Option<Key>,
    /// Lines of the keys so far: a file can have tens of thousands of keys in a map.
    lines: HashMap<String, usize>,
}

impl Builder<'_> {
    /// Takes an event in; false when there is no use in going on.
    fn event(&mut self, event: Event<'_>, span: &Span) -> bool {
        let place = place(span.start, span.end);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_properties(span, place, anchor, tag.is_some());
                if text.contains('\0') {
                    self.refuse(place, "NUL characters cannot be stored", None);
                }
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                };
                if self.is_key_next() {
                    self.key(&text, place);
                } else {
                    let kind = if style == Style::Plain { plain(&text) } else { Kind::Text(text.into_owned(), style) };
                    self.close(Node { place, kind });
                }
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_properties(span, place, anchor, tag.is_some());
                return self.open(Open::List(place, Vec::new()), place);
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_properties(span, place, anchor, tag.is_some());
                return self.open(Open::Map(place, Vec::new(), Names::default()), place);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.open.pop() {
                    Some(Open::List(place, items)) => Node { place, kind: Kind::List(items) },
                    Some(Open::Map(place, entries, _)) => Node { place, kind: Kind::Map(entries) },
                    None => return false,
                };
                self.close(node);
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let help = "write the value out; an expression that starts with `*` must be quoted as a whole";
                self.refuse(place, "YAML aliases (`*`) are not allowed", Some(help));
                self.close(Node { place, kind: Kind::Null });
            }
            _ => {}
        }
        true
    }

    fn open(&mut self, open: Open, place: Place) -> bool {
        self.open.push(open);
        if self.open.len() > DEPTH_MAX {
            self.refuse(place, &format!("lists and maps nest more than {DEPTH_MAX} deep"), None);
            return false;
        }
        true
    }

    /// A scalar is a key when a map waits for one.
    fn is_key_next(&self) -> bool {
        matches!(self.open.last(), Some(Open::Map(_, _, Names { waiting: None, .. })))
    }

    fn key(&mut self, name: &str, place: Place) {
        let Some(Open::Map(_, _, names)) = self.open.last_mut() else { return };
        let first = names.lines.insert(name.to_owned(), place.line);
        names.waiting = Some(Key { name: name.to_owned(), place });
        if name == "<<" {
            self.refuse(place, "YAML merge keys (`<<`) are not allowed", Some("write the values out"));
        } else if let Some(line) = first {
            self.refuse(place, &format!("the key `{name}` is here twice"), Some(&format!("first on line {line}")));
        }
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node) {
        match self.open.last_mut() {
            None if matches!(node.kind, Kind::Null) => {}
            None => self.documents.push(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, names)) => match names.waiting.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let place = node.place;
                    names.waiting = Some(Key { name: String::new(), place });
                    let message = format!("a key must be text, not {}", node.what());
                    self.refuse(place, &message, Some("an expression or template that starts with `[` or `{` must be quoted as a whole"));
                }
            },
        }
    }

    fn refuse_properties(&mut self, span: &Span, node: Place, anchor: usize, tag: bool) {
        let quote = Some("an expression that starts with `&` or `!` must be quoted as a whole");
        if anchor != 0 {
            self.refuse(node, "YAML anchors (`&`) are not allowed", quote);
        }
        if tag {
            let start = span.tag_start.unwrap_or(span.start);
            self.refuse(place(start, start), "YAML tags (`!`) are not allowed", quote);
        }
    }

    fn refuse(&mut self, place: Place, message: &str, help: Option<&str>) {
        self.problems.push(self.page.error(place, message, help));
    }
}

fn place(start: Marker, end: Marker) -> Place {
    let width = if end.line() == start.line() { end.col().saturating_sub(start.col()) } else { 0 };
    Place { line: start.line(), column: start.col() + 1, width, end_line: end.line(), end_column: end.col() + 1 }
}

/// What a scalar without quotes means: YAML 1.2's core schema, without hexadecimal and with only the lower-case spellings of booleans.
fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" => return Kind::Null,
        "true" => return Kind::Bool(true),
        "false" => return Kind::Bool(false),
        _ => {}
    }
    let digits = text.trim_start_matches(['-', '+']);
    // `012` is octal in one YAML and decimal in another: text, and refused where a number is expected.
    let sane = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.ends_with(|last: char| last.is_ascii_digit() || last == '.')
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'))
        && !(digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit());
    let number = text.strip_prefix('+').unwrap_or(text);
    let parsed = if sane {
        number
            .parse::<i64>()
            .map(Number::from)
            .or_else(|_| number.parse::<u64>().map(Number::from))
            .ok()
            .or_else(|| number.parse::<f64>().ok().and_then(Number::from_f64))
    } else {
        None
    };
    parsed.map_or_else(|| Kind::Text(text.to_owned(), Style::Plain), Kind::Number)
}
