//! `validate` and `schema`: files looked at without a database, a runtime or TLS, so that an editor can ask at every save.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::code::Code;
use super::{files, output};
use crate::core::definition_file::{self, Problem};

/// Arguments of `validate`.
#[derive(Args, Debug)]
pub(super) struct Validate {
    /// Files, or folders with files; `*.scenario.yaml` in folders is skipped
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

/// Arguments of `schema`.
#[derive(Args, Debug)]
pub(super) struct Schema {
    /// Kind of file: saga, services or scenario
    #[arg(value_name = "KIND")]
    kind: String,
}

/// Says what is wrong with the files.
pub(super) fn validate(arguments: &Validate, as_json: bool) -> Result<Code> {
    let read = files::read(&arguments.paths)?;
    if as_json {
        let problems: Vec<_> = read.problems.iter().chain(&read.warnings).map(files::as_json).collect();
        output::json(&json!({"valid": read.problems.is_empty(), "files": read.files, "problems": problems}))?;
    } else {
        show(&read.problems, &read.warnings)?;
        if read.problems.is_empty() {
            for document in &read.documents {
                output::line(format_args!("{} is valid ({} {})", document.id, document.kind, short(&document.revision)))?;
            }
        } else {
            output::talk(summary(&read.problems));
        }
    }
    Ok(if read.problems.is_empty() { Code::Ok } else { Code::Invalid })
}

/// Prints problems as the reader renders them: they are what was asked for.
pub(super) fn show(problems: &[Problem], warnings: &[Problem]) -> Result<()> {
    for problem in problems {
        output::line(format_args!("{problem}\n"))?;
    }
    for warning in warnings {
        output::talk(format_args!("{warning}\n"));
    }
    Ok(())
}

/// How many there are.
pub(super) fn summary(problems: &[Problem]) -> String {
    let mut names: Vec<&str> = problems.iter().map(|problem| problem.file.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let plural = |count: usize, word: &str| if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") };
    format!("{} in {}", plural(problems.len(), "problem"), plural(names.len(), "file"))
}

/// The first digits of a revision.
pub(super) fn short(revision: &str) -> &str {
    revision.get(..8).unwrap_or(revision)
}

/// Prints the JSON Schema of a kind of file.
pub(super) fn schema(arguments: &Schema) -> Result<Code> {
    let Some(schema) = definition_file::schema(&arguments.kind) else {
        return Err(output::usage(format!("there is no schema of {:?}: saga, services and scenario have one", arguments.kind)));
    };
    output::json(&schema)?;
    Ok(Code::Ok)
}
