//! `graph`: a saga file as a picture.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::code::Code;
use super::validate::{show, summary};
use super::{files, output};
use crate::core::graph;

/// Arguments of `graph`.
#[derive(Args, Debug)]
pub(super) struct Graph {
    /// A file with a saga
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How to draw it
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    format: Format,
    /// Which saga, where the file holds several
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Text for documents that draw Mermaid charts
    Mermaid,
    /// A picture for browsers
    Svg,
}

/// Prints the picture.
pub(super) fn graph(arguments: &Graph) -> Result<Code> {
    let read = files::read(std::slice::from_ref(&arguments.file))?;
    if !read.problems.is_empty() {
        show(&read.problems, &[])?;
        output::talk(summary(&read.problems));
        return Ok(Code::Invalid);
    }
    let wanted = |id: &str| arguments.id.as_deref().is_none_or(|wanted| wanted == id);
    let mut sagas = read.documents.iter().filter_map(|document| document.saga.as_ref()).filter(|saga| wanted(&saga.id));
    let Some(saga) = sagas.next() else {
        let name = arguments.file.display();
        let what = arguments.id.as_ref().map_or_else(|| "saga".to_owned(), |id| format!("saga {id}"));
        return Err(output::not_found(format!("{name} holds no {what}")));
    };
    if let Some(other) = sagas.next() {
        return Err(output::usage(format!("the file holds several sagas: say --id {} or --id {}", saga.id, other.id)));
    }
    let drawn = match arguments.format {
        Format::Mermaid => graph::mermaid(saga),
        Format::Svg => graph::svg(saga),
    };
    output::line(drawn.trim_end())?;
    Ok(Code::Ok)
}
