//! Files as people write them, read into definitions and registries: every mistake found, each with its place.
//!
//! Invariant: what is read is valid, whole and has one revision, and a file of any content is answered quickly and without overflow.

use serde_json::{Map, Value};

use super::definition::Definition;
use super::expression::on_big_stack;
use super::lint::{self, Finding};
use super::nearest::nearest;
use super::service::ServiceRegistry;
pub use outline::{children, step_names};
use page::Page;
pub use problem::{Problem, Severity};
use reader::Reader;
pub use scenario::{scenario_saga, scenarios};
pub use schema::schema;
use tree::{Kind, Node, Place};

mod call;
mod canonical;
mod cel;
mod flow;
mod order;
mod outline;
mod page;
mod place;
mod problem;
mod reader;
mod retry;
mod saga;
mod scenario;
mod schema;
mod services;
mod step;
mod tree;
mod work;

/// The largest file, bytes.
pub const FILE_BYTES_MAX: usize = 256 * 1024;

/// A file that is right.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few of them live at a time, and none is moved often")]
pub enum File {
    /// A saga, with warnings and the canonical source to store.
    Saga(Definition, Vec<Problem>, Value),
    /// A services registry, with warnings and the canonical source to store.
    Services(ServiceRegistry, Vec<Problem>, Value),
}

/// Reads a file with one document.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(file_name: &str, text: &str) -> Result<File, Vec<Problem>> {
    let mut files = read_all(file_name, text)?;
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file),
        _ => Err(vec![whole_file(file_name, "the file holds several documents; one is expected")]),
    }
}

/// Reads a file with one or more documents, separated by `---`.
///
/// # Errors
/// Everything that is wrong with any of them.
pub fn read_all(file_name: &str, text: &str) -> Result<Vec<File>, Vec<Problem>> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes: at most {FILE_BYTES_MAX} are allowed", text.len());
        // The line that the limit falls on; the file itself is too long to be looked at.
        let breaks = text.as_bytes()[..FILE_BYTES_MAX].iter().filter(|byte| **byte == b'\n').count();
        return Err(vec![at_line(file_name, breaks + 1, &message, "give each saga a file of its own, and keep data out of it")]);
    }
    // Editors of some systems put a byte order mark first.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let page = Page::new(file_name, text);
    let read = || {
        let documents = tree::of_yaml(&page)?;
        if documents.is_empty() {
            return Err(vec![at_line(file_name, 1, "the file is empty", "`hms-orch init` writes files to begin with")]);
        }
        let mut files = Vec::new();
        let mut problems = Vec::new();
        for document in &documents {
            match lower(&page, document) {
                Ok(file) => files.push(file),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(files) } else { Err(problems) }
    };
    on_big_stack(read).unwrap_or_else(|reason| Err(vec![whole_file(file_name, &reason)]))
}

/// A finding about one of the sagas of a file, at its place; `None` if the file has no such saga, or it counts for nothing there.
#[must_use]
pub fn point_out(file_name: &str, text: &str, finding: &Finding) -> Option<Problem> {
    let page = Page::new(file_name, text.strip_prefix('\u{feff}').unwrap_or(text));
    let find = || {
        let documents = tree::of_yaml(&page).ok()?;
        let is_it = |node: &&Node| matches!(node.get("id"), Some(Node { kind: Kind::Text(id, _), .. }) if *id == finding.saga);
        place::problem(&page, documents.iter().find(is_it)?, finding)
    };
    on_big_stack(find).ok().flatten()
}

/// Reads the canonical source that [`File`] carried. It gives the same revision.
///
/// # Errors
/// Everything that is wrong with it: nothing, unless an older or newer program wrote it.
pub fn from_stored(value: &Value) -> Result<File, Vec<Problem>> {
    let page = Page::new("the stored definition", "");
    on_big_stack(|| lower(&page, &tree::of_json(value, 0))).unwrap_or_else(|reason| Err(vec![whole_file(page.file, &reason)]))
}

/// What a document is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Document {
    Saga,
    Services,
}

fn lower(page: &Page<'_>, node: &Node) -> Result<File, Vec<Problem>> {
    let mut reader = Reader::new(page);
    let file = match recognise(&mut reader, node) {
        Some(Document::Saga) => {
            let source = canonical::value_of(node);
            saga::read(&mut reader, node, canonical::revision(&source)).map(|definition| (Some(definition), None, source))
        }
        Some(Document::Services) => match services_id(&mut reader, node) {
            Some(id) => {
                // What is stored must not depend on a file's name.
                let mut fields = match canonical::value_of(node) {
                    Value::Object(fields) => fields,
                    _ => Map::new(),
                };
                fields.insert("id".to_owned(), Value::from(id.as_str()));
                let source = Value::Object(fields);
                services::read(&mut reader, node, id, canonical::revision(&source)).map(|registry| (None, Some(registry), source))
            }
            None => None,
        },
        None => None,
    };
    let Reader { mut problems, warnings, .. } = reader;
    match file {
        Some((Some(definition), _, source)) if problems.is_empty() => {
            let mut warnings = warnings;
            // A stored file has no text: nobody would read what is said of it.
            if !page.text.is_empty() {
                warnings.extend(lint::alone(&definition).iter().filter_map(|finding| place::problem(page, node, finding)));
                warnings.sort_by_key(|problem| (problem.line, problem.column));
            }
            Ok(File::Saga(definition, warnings, source))
        }
        Some((_, Some(registry), source)) if problems.is_empty() => Ok(File::Services(registry, warnings, source)),
        _ => {
            problems.sort_by_key(|problem| (problem.line, problem.column));
            Err(problems)
        }
    }
}

/// A file is what its keys say it is.
fn recognise(reader: &mut Reader<'_>, node: &Node) -> Option<Document> {
    let start = Place { width: 1, ..node.place };
    let later = |kind: &str| format!("{kind} are not yet supported");
    let entries = match &node.kind {
        Kind::Map(entries) => entries,
        Kind::List(items) if items.iter().any(|item| item.get("when").is_some() || item.get("then").is_some()) => {
            reader.error(start, later("rules"), None);
            return None;
        }
        _ => {
            reader.error(start, format!("a file must be a map with keys such as `id`, `trigger` and `steps`, not {}", node.what()), None);
            return None;
        }
    };
    let has = |name: &str| node.get(name).is_some();
    if has("steps") || has("trigger") {
        return Some(Document::Saga);
    }
    if has("services") {
        return Some(Document::Services);
    }
    for (keys, kind) in [(&["rules", "then"], "rules"), (&["policies", "policies"], "policies")] {
        if let Some((key, _)) = entries.iter().find(|(key, _)| keys.contains(&key.name.as_str())) {
            reader.error(key.place, later(kind), None);
            return None;
        }
    }
    let telling = [("steps", Document::Saga), ("trigger", Document::Saga), ("services", Document::Services)];
    let meant = entries.iter().take(50).find_map(|(key, _)| nearest(&key.name, telling.map(|(word, _)| word)));
    if let Some((_, document)) = telling.into_iter().find(|(word, _)| Some(*word) == meant) {
        return Some(document);
    }
    reader.error(start, "this is no file of this program", Some("a saga has `trigger` and `steps`, a registry has `services`"));
    None
}

/// The `id`, else the stem of the file's name.
fn services_id(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    if let Some(id) = node.get("id") {
        return if matches!(id.kind, Kind::Null) { Some(String::new()) } else { reader.id(id, "id").map(str::to_owned) };
    }
    let name = reader.page.file.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    if reader::is_id(stem) && stem.len() <= 255 {
        return Some(stem.to_owned());
    }
    reader.error(Place { width: 1, ..node.place }, format!("the name of the file, `{name}`, is no id"), Some("add `id: …` to the file"));
    None
}

fn whole_file(file: &str, message: &str) -> Problem {
    Page::new(file, "").error(Place::default(), message, None)
}

/// As [`whole_file`], where one line is the place to begin at.
fn at_line(file: &str, line: usize, message: &str, help: &str) -> Problem {
    let place = Place { line, column: 1, width: 1, end_line: line, end_column: 2 };
    Page::new(file, "").error(place, message, Some(help))
}

#[cfg(test)]
pub(in crate::core) mod tests;
