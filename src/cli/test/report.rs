//! What came of scenarios, in the manner of `cargo test`, and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use owo_colors::OwoColorize;
use serde_json::{Value, json};

use super::Played;
use crate::cli::output;
use crate::core::story::Took;

/// The first line.
pub(super) fn heading(count: usize) -> String {
    format!("running {count} {}", if count == 1 { "scenario" } else { "scenarios" })
}

/// The line of one scenario.
pub(super) fn line(one: &Played) -> String {
    let title = clean(&one.title);
    if one.differences.is_empty() { format!("test {title} ... {}", "ok".green()) } else { format!("test {title} ... {}", "FAILED".red()) }
}

/// What happened in a scenario, in virtual time.
pub(super) fn story(one: &Played) -> Result<()> {
    for moment in &one.story {
        output::line(clean(&moment.to_string()))?;
    }
    Ok(())
}

/// What was expected and did not come true.
pub(super) fn failures(played: &[Played]) -> Result<()> {
    let failed: Vec<_> = played.iter().filter(|one| !one.differences.is_empty()).collect();
    if failed.is_empty() {
        output::line("")?;
        return Ok(());
    }
    output::line("\nfailures:\n")?;
    for one in &failed {
        output::line(format_args!("---- {} ----", clean(&one.title)))?;
        for difference in &one.differences {
            output::line(format_args!("{}:{}: {}", clean(&one.file), difference.line, cleaned_lines(&difference.to_string())))?;
        }
        output::line("what happened, in virtual time:")?;
        story(one)?;
        output::line("")?;
    }
    output::line("failures:")?;
    for one in &failed {
        output::line(format_args!("    {}", clean(&one.title)))?;
    }
    output::line("")?;
    Ok(())
}

/// The last line.
pub(super) fn summary(played: &[Played], filtered: usize, took: Duration) -> String {
    let failed = played.iter().filter(|one| !one.differences.is_empty()).count();
    let word = if failed == 0 { "ok".green().to_string() } else { "FAILED".red().to_string() };
    let virtual_time: Duration = played.iter().map(|one| one.elapsed).sum();
    format!(
        "test result: {word}. {} passed; {failed} failed; {filtered} filtered out; finished in {:.2}s ({} of virtual time)",
        played.len() - failed,
        took.as_secs_f64(),
        Took(virtual_time)
    )
}

/// The report for programs.
pub(super) fn as_json(played: &[Played], filtered: usize) -> Value {
    let failed = played.iter().filter(|one| !one.differences.is_empty()).count();
    let scenarios: Vec<_> = played
        .iter()
        .map(|one| {
            let differences: Vec<_> = one
                .differences
                .iter()
                .map(|difference| json!({"line": difference.line, "what": difference.what, "lines": difference.lines}))
                .collect();
            let story: Vec<_> = one.story.iter().map(|moment| json!({"atMs": millis(moment.at), "who": moment.who, "what": moment.what})).collect();
            json!({
                "file": one.file, "line": one.line, "name": one.name, "ok": differences.is_empty(), "elapsedMs": millis(one.elapsed),
                "differences": differences, "story": story,
            })
        })
        .collect();
    json!({"valid": true, "passed": played.len() - failed, "failed": failed, "filtered": filtered, "scenarios": scenarios})
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What files say must not move the cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn cleaned_lines(text: &str) -> String {
    text.lines().enumerate().fold(String::new(), |mut all, (index, line)| {
        // Writing to a string does not fail.
        let _ = write!(all, "{}{}", if index > 0 { "\n" } else { "" }, clean(line));
        all
    })
}
