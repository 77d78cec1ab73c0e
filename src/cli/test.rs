//! `test`: scenario files, played in virtual time. Needs no database and no network.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::code::Code;
use super::{files, output, validate};
use crate::core::matching::Deployed;
use crate::core::scenario::{self, Difference, Moment, Suite};

mod junit;
mod load;
mod report;

/// Arguments of `test`.
#[derive(Args, Debug)]
pub(super) struct Test {
    /// Scenario files, or folders with `*.scenario.yaml`; a saga file stands for the scenarios beside it
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Only scenarios with this text in their name
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write a `JUnit` report as well
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Tell what happened in scenarios that pass, too
    #[arg(long)]
    story: bool,
}

/// A file with what it is about.
#[derive(Debug)]
struct Loaded {
    file: String,
    deployed: Arc<Deployed>,
    suite: Suite,
}

/// What became of one scenario.
#[derive(Debug)]
struct Played {
    file: String,
    line: usize,
    /// `file::name`, as it is shown and filtered.
    title: String,
    name: String,
    differences: Vec<Difference>,
    story: Vec<Moment>,
    elapsed: Duration,
    took: Duration,
}

/// Plays the scenarios.
pub(super) fn test(arguments: &Test, as_json: bool) -> Result<Code> {
    let began = Instant::now();
    let (loaded, problems) = load::all(&arguments.paths)?;
    if !problems.is_empty() {
        if as_json {
            output::json(&json!({"valid": false, "problems": problems.iter().map(files::as_json).collect::<Vec<_>>()}))?;
        } else {
            validate::show(&problems, &[])?;
            output::talk(format_args!("{}: nothing was tested", validate::summary(&problems)));
        }
        return Ok(Code::Invalid);
    }
    let wanted = |title: &str| arguments.filter.as_ref().is_none_or(|filter| title.contains(filter.as_str()));
    let all = loaded.iter().map(|loaded| loaded.suite.scenarios.len()).sum::<usize>();
    let chosen = loaded.iter().flat_map(|loaded| loaded.suite.scenarios.iter().map(|scenario| title(&loaded.file, &scenario.name)));
    let count = chosen.filter(|title| wanted(title)).count();
    if !as_json {
        output::line(report::heading(count))?;
    }
    let mut played = Vec::new();
    for Loaded { file, deployed, suite } in &loaded {
        for scenario in suite.scenarios.iter().filter(|scenario| wanted(&title(file, &scenario.name))) {
            let began = Instant::now();
            let record = scenario::run(deployed, scenario);
            let differences = scenario::judge(&deployed.definition, scenario, &record);
            let one = Played {
                file: file.clone(),
                line: scenario.line,
                title: title(file, &scenario.name),
                name: scenario.name.clone(),
                differences,
                story: record.story,
                elapsed: record.elapsed,
                took: began.elapsed(),
            };
            if !as_json {
                output::line(report::line(&one))?;
                if arguments.story {
                    report::story(&one)?;
                }
            }
            played.push(one);
        }
    }
    let failed = played.iter().any(|one| !one.differences.is_empty());
    if let Some(path) = &arguments.junit {
        std::fs::write(path, junit::report(&played)).with_context(|| format!("write {}", path.display()))?;
    }
    if as_json {
        output::json(&report::as_json(&played, all - played.len()))?;
    } else {
        report::failures(&played)?;
        output::line(report::summary(&played, all - played.len(), began.elapsed()))?;
    }
    Ok(if failed { Code::Failed } else { Code::Ok })
}

/// A scenario as people call it: the file without its folder and ending, and the name.
fn title(file: &str, name: &str) -> String {
    let stem = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let stem = stem.split(".scenario.").next().unwrap_or(stem);
    format!("{stem}::{name}")
}
