//! Printing: lines, tables and JSON on stdout, talk on stderr. Colours and pipes are anstream's business.

use std::io::{self, Write};

use anyhow::Result;
use owo_colors::OwoColorize;
use serde::Serialize;
use serde_json::json;

use super::code::{Code, Stop};

/// One line of data.
pub(super) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// A document, as it is to be read by programs.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// One line of talk. A stderr that is closed is nobody to talk to.
pub(super) fn talk(text: impl std::fmt::Display) {
    let _nobody = writeln!(anstream::stderr(), "{text}");
}

/// Says on stderr why the command failed.
pub(super) fn complain(error: &anyhow::Error, code: Code, as_json: bool) {
    // Some errors print their source themselves: what was said already is not said again.
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !cause.is_empty() && !text.contains(&cause) && cause != "db error" {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    if as_json {
        talk(json!({"error": text, "exitCode": code.number()}));
    } else {
        talk(format_args!("{} {text}", "error:".red().bold()));
    }
}

/// Rows under headings, each column as wide as its widest cell.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", laid_out(&headings.map(str::to_owned), &widths).dimmed())?;
    for row in rows {
        writeln!(out, "{}", laid_out(row, &widths))?;
    }
    out.flush()
}

fn laid_out(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    // What services and files say must not move the cursor.
    padded.join("  ").trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// There is no such thing.
pub(super) fn not_found(text: impl Into<String>) -> anyhow::Error {
    Stop::new(Code::NotFound, text).into()
}

/// The command cannot be understood.
pub(super) fn usage(text: impl Into<String>) -> anyhow::Error {
    Stop::new(Code::Usage, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_line_up_and_carry_no_control_characters() {
        let cells = ["a".to_owned(), "b\u{1b}[2J\nc".to_owned()];
        assert_eq!(laid_out(&cells, &[4, 3]), "a     b [2J c");
    }
}
