//! Files to deploy or validate: found, read, and every problem in them gathered.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::output;
use crate::core::definition::Definition;
use crate::core::definition_file::{self, File, Problem, Severity};
use crate::core::{lint, nesting};

/// Endings of files that a folder is searched for.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// One document, ready to be deployed.
#[derive(Debug)]
pub(super) struct Document {
    /// `saga` or `services`.
    pub kind: &'static str,
    /// Full id.
    pub id: String,
    /// The id without `.vN`.
    pub family: String,
    /// The N of `.vN`.
    pub version: u32,
    /// SHA-256 of its meaning.
    pub revision: String,
    /// What to store.
    pub source: Value,
    /// Services that it calls, sorted.
    pub calls: Vec<String>,
    /// The saga itself, if it is one.
    pub saga: Option<Definition>,
    /// Which of the texts it was read from.
    text: usize,
}

impl Document {
    /// Sagas that its steps run, sorted.
    pub fn children(&self) -> Vec<String> {
        definition_file::children(&self.source)
    }
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The documents in the order of the arguments.
    pub documents: Vec<Document>,
    /// What keeps files from being used.
    pub problems: Vec<Problem>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Problem>,
    /// Files looked at.
    pub files: usize,
    /// Names and texts of the files.
    texts: Vec<(String, String)>,
}

/// Reads all files, and those in folders but scenarios. What cannot be opened is an error, what is wrong in it a problem.
pub(super) fn read(paths: &[PathBuf]) -> Result<Read> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = found.len();
            gather(path, &is_definition, &mut found)?;
            if found.len() == before {
                return Err(output::not_found(format!("{} holds no YAML file", path.display())));
            }
        } else {
            found.push(path.clone());
        }
    }
    let mut read = Read::default();
    for path in found {
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        read.add(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
    }
    read.look_at_all();
    Ok(read)
}

/// All files in a folder, and in those inside it, whose names are wanted.
pub(super) fn gather(folder: &Path, wanted: &dyn Fn(&str) -> bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut entries: Vec<PathBuf> = entries.with_context(|| format!("read {}", folder.display()))?.iter().map(fs::DirEntry::path).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        // Links to folders are not followed: they can go in circles.
        if path.is_dir() && !path.is_symlink() {
            gather(&path, wanted, found)?;
        } else if wanted(&name) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether a name is one of a file with definitions.
pub(super) fn is_definition(name: &str) -> bool {
    let Some((stem, ending)) = name.rsplit_once('.') else { return false };
    ENDINGS.contains(&ending) && !stem.ends_with(".scenario")
}

impl Read {
    /// Reads one text under the name that problems are to show.
    pub fn add(&mut self, name: &str, text: &str) {
        self.files += 1;
        self.texts.push((name.to_owned(), text.to_owned()));
        let number = self.texts.len() - 1;
        match definition_file::read_all(name, text) {
            Ok(files) => {
                for file in files {
                    let (document, warnings) = document(file, number);
                    self.warnings.extend(warnings);
                    self.refuse_twice(name, &document);
                    self.documents.push(document);
                }
            }
            Err(problems) => self.problems.extend(problems),
        }
    }

    /// What shows only when all files have been read: sagas that run or start each other in circles, that share objects.
    pub fn look_at_all(&mut self) {
        let families =
            self.documents.iter().filter(|document| document.saga.is_some()).map(|document| (document.id.clone(), document.children())).collect();
        if let Err(message) = nesting::check(&families) {
            self.problems.push(whole(self.texts.first().map_or("", |(name, _)| name), message));
        }
        let sagas: Vec<&Definition> = self.documents.iter().filter_map(|document| document.saga.as_ref()).collect();
        for finding in lint::together(&sagas) {
            let document = self.documents.iter().find(|document| document.saga.is_some() && document.id == finding.saga);
            let text = document.and_then(|document| self.texts.get(document.text));
            self.warnings.extend(text.and_then(|(name, text)| definition_file::point_out(name, text, &finding)));
        }
    }

    /// Two files of one id would mean whichever comes last.
    fn refuse_twice(&mut self, file: &str, document: &Document) {
        if self.documents.iter().any(|other| (other.kind, &other.id) == (document.kind, &document.id)) {
            self.problems.push(whole(file, format!("{} is defined by another of these files as well", document.id)));
        }
    }
}

/// A problem of a file as a whole.
fn whole(file: &str, message: String) -> Problem {
    let file = file.to_owned();
    Problem { severity: Severity::Error, file, line: 0, column: 0, width: 1, message, help: None, excerpt: String::new() }
}

fn document(file: File, text: usize) -> (Document, Vec<Problem>) {
    match file {
        File::Saga(saga, warnings, source) => {
            let calls = services_of(&saga);
            let Definition { id, family, version, revision, .. } = &saga;
            let (id, family, version, revision) = (id.clone(), family.clone(), *version, revision.clone());
            (Document { kind: "saga", id, family, version, revision, source, calls, saga: Some(saga), text }, warnings)
        }
        File::Services(registry, warnings, source) => {
            let (id, revision) = (registry.id, registry.revision);
            let calls = Vec::new();
            (Document { kind: "services", family: id.clone(), id, version: 1, revision, source, calls, saga: None, text }, warnings)
        }
    }
}

fn services_of(saga: &Definition) -> Vec<String> {
    let mut names: Vec<String> = saga.steps.iter().flat_map(|step| step.calls()).map(|call| call.service.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// A problem for programs.
pub(super) fn as_json(problem: &Problem) -> Value {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let Problem { file, line, column, width, message, help, .. } = problem;
    json!({"severity": severity, "file": file, "line": line, "column": column, "width": width, "message": message, "help": help})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_searched_for_definitions_without_scenarios() {
        for (name, expected) in
            [("a.yaml", true), ("a.yml", true), ("a.json", true), ("a.scenario.yaml", false), ("README.md", false), ("yaml", false)]
        {
            assert_eq!(is_definition(name), expected, "{name}");
        }
    }

    #[test]
    fn one_id_in_two_files_is_a_problem() {
        let mut read = Read::default();
        let text = include_str!("../../sagas/benefit-increase.yaml");
        read.add("a.yaml", text);
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        assert_eq!(read.documents[0].calls, ["archive-svc", "notice-svc", "payment-svc"]);
        read.add("b.yaml", text);
        assert_eq!(read.problems.len(), 1);
    }
}
