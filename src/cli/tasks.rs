//! `tasks`, `decide`: what people are asked, and what they decide.

use anyhow::Result;
use clap::Args;

use super::cells::{moment, text};
use super::code::Code;
use super::identify::identify;
use super::source::{self, Source};
use super::{operate, output};
use crate::config;
use crate::core::human::TaskKind;
use crate::store::lookup::Kind;
use crate::store::read::tasks::Filter;

/// Arguments of `tasks`.
#[derive(Args, Debug)]
pub(super) struct Tasks {
    /// Only this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only this kind, such as approval
    #[arg(long, value_parser = kind)]
    kind: Option<String>,
    /// Only those about this saga
    #[arg(long, value_name = "ID")]
    saga: Option<String>,
    /// Only those meant for this person
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// Also those that are decided or withdrawn
    #[arg(long)]
    all: bool,
    /// How many at most, newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    client: config::Client,
}

/// Arguments of `decide`.
#[derive(Args, Debug)]
pub(super) struct Decide {
    /// The task's id, or how it begins (at least 6 characters)
    task: String,
    /// What `tasks` says that it takes, such as approve or retry
    decision: String,
    /// Why; kept with the command
    #[arg(long, value_name = "TEXT", visible_alias = "reason")]
    note: String,
    /// What the form is filled in with, or what the step is to have answered: JSON, @file, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    output: Option<String>,
    #[command(flatten)]
    client: config::Client,
}

fn kind(text: &str) -> Result<String, String> {
    let known = || TaskKind::ALL.map(TaskKind::as_str).join(", ");
    TaskKind::parse(text).map(|kind| kind.as_str().to_owned()).ok_or_else(|| format!("kinds are {}", known()))
}

/// Lists human tasks.
pub(super) async fn list(arguments: &Tasks, given: &config::Database, as_json: bool) -> Result<Code> {
    let source = Source::open(&arguments.client, given).await?;
    let saga = match &arguments.saga {
        Some(text) => Some(identify(&source, text, Kind::Saga).await?),
        None => None,
    };
    let filter = Filter {
        status: (!arguments.all).then(|| "open".to_owned()),
        queue: arguments.queue.clone(),
        kind: arguments.kind.clone(),
        saga,
        assignee: arguments.assignee.clone(),
        after: None,
    };
    let limit = arguments.limit as usize;
    let found = source.tasks(filter, limit).await?;
    if found.more {
        output::talk(format_args!("there are more: --limit {}", limit.saturating_mul(2)));
    }
    if as_json {
        output::json(&found.items)?;
        return Ok(Code::Ok);
    }
    if found.items.is_empty() {
        output::talk("nobody is asked anything");
        return Ok(Code::Ok);
    }
    let rows: Vec<_> = found
        .items
        .iter()
        .map(|task| {
            let takes: Vec<String> = super::cells::items(&task["decisions"]).map(text).collect();
            let answer = if takes.is_empty() { format!("{} {}", text(&task["status"]), text(&task["decision"])) } else { takes.join(", ") };
            let asked = if task["prompt"].is_null() { &task["reason"] } else { &task["prompt"] };
            [
                text(&task["id"]),
                text(&task["kind"]),
                text(&task["queue"]),
                text(&task["sagaId"]),
                text(&task["step"]),
                moment(&task["openedAt"]),
                moment(&task["dueAt"]),
                answer,
                text(asked),
            ]
        })
        .collect();
    output::table(["ID", "KIND", "QUEUE", "SAGA", "STEP", "OPENED", "DUE", "TAKES", "ABOUT"], &rows)?;
    Ok(Code::Ok)
}

/// Decides about a human task.
pub(super) async fn decide(arguments: &Decide, given: &config::Database, as_json: bool) -> Result<Code> {
    if arguments.note.trim().is_empty() {
        return Err(output::usage("say why: --note TEXT is required"));
    }
    let filled_in = arguments.output.as_deref().map(source::data).transpose()?;
    let source = Source::open(&arguments.client, given).await?;
    let task = identify(&source, &arguments.task, Kind::Task).await?;
    let receipt = source.decide(task, &arguments.decision, &arguments.note, filled_in.as_ref()).await?;
    operate::report(&source, &[receipt], as_json).await
}
