//! `sagas`, `show`, `why`: looking at what happens.

use anyhow::Result;
use chrono::Utc;
use clap::Args;
use serde_json::{Value, json};
use uuid::Uuid;

use super::cells::{clock, items, moment, text};
use super::code::Code;
use super::identify::identify;
use super::source::Source;
use super::{follow, output};
use crate::config;
use crate::core::saga::SagaState;
use crate::core::story::Took;
use crate::store::lookup::Kind;
use crate::store::read::sagas::Filter;

/// Arguments of `sagas`.
#[derive(Args, Debug)]
pub(super) struct Sagas {
    /// Only these states, with commas between them
    #[arg(long, value_delimiter = ',', value_parser = state)]
    state: Vec<String>,
    /// Only those that wait for this: worker, human, timer ...
    #[arg(long, value_name = "WHAT")]
    waiting_for: Option<String>,
    /// Only this definition, or this family
    #[arg(long, value_name = "ID")]
    definition: Option<String>,
    /// Only this correlation id
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Only those that need the lock of this object
    #[arg(long, value_name = "KEY")]
    lock_key: Option<String>,
    /// Only those that this event started
    #[arg(long, value_name = "ID")]
    event: Option<Uuid>,
    /// Only those started within this time, such as 1h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<std::time::Duration>,
    /// How many at most, newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    client: config::Client,
}

/// Arguments of `show`.
#[derive(Args, Debug)]
pub(super) struct Show {
    /// The saga's id, or how it begins (at least 6 characters)
    id: String,
    /// Tell its story so far, and on until it ends
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    client: config::Client,
}

/// Arguments of `why`.
#[derive(Args, Debug)]
pub(super) struct Why {
    /// Id of a saga or an event, or how it begins (at least 6 characters)
    id: String,
    #[command(flatten)]
    client: config::Client,
}

/// A state, as an argument.
pub(super) fn state(text: &str) -> Result<String, String> {
    let known = || SagaState::ALL.map(SagaState::as_str).join(", ");
    SagaState::parse(text).map(|state| state.as_str().to_owned()).ok_or_else(|| format!("states are {}", known()))
}

/// Lists sagas.
pub(super) async fn list(arguments: &Sagas, given: &config::Database, as_json: bool) -> Result<Code> {
    let source = Source::open(&arguments.client, given).await?;
    let since = arguments.since.and_then(|time| chrono::Duration::from_std(time).ok()).and_then(|time| Utc::now().checked_sub_signed(time));
    let filter = Filter {
        states: arguments.state.clone(),
        waiting_for: arguments.waiting_for.clone(),
        definition: arguments.definition.clone(),
        correlation_id: arguments.correlation_id.clone(),
        event_id: arguments.event,
        lock_key: arguments.lock_key.clone(),
        since,
        ..Filter::default()
    };
    let limit = arguments.limit as usize;
    let found = source.sagas(filter, limit).await?;
    if found.more {
        output::talk(format_args!("there are more: --limit {}", limit.saturating_mul(2)));
    }
    let found = found.items;
    if as_json {
        output::json(&found)?;
        return Ok(Code::Ok);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|saga| {
            let took = Took(std::time::Duration::from_millis(saga["durationMs"].as_u64().unwrap_or(0)));
            [
                text(&saga["id"]),
                text(&saga["definition"]),
                text(&saga["state"]),
                text(&saga["waitingFor"]),
                moment(&saga["startedAt"]),
                took.to_string(),
                text(&saga["correlationId"]),
            ]
        })
        .collect();
    if rows.is_empty() {
        output::talk("no sagas");
    } else {
        output::table(["ID", "DEFINITION", "STATE", "WAITS FOR", "STARTED", "TOOK", "CORRELATION ID"], &rows)?;
    }
    Ok(Code::Ok)
}

/// Shows one saga, or tells its story.
pub(super) async fn show(arguments: &Show, given: &config::Database, as_json: bool) -> Result<Code> {
    let source = Source::open(&arguments.client, given).await?;
    let id = identify(&source, &arguments.id, Kind::Saga).await?;
    if arguments.watch {
        let code = follow::sagas(&source, &[id], None, as_json).await?;
        if as_json {
            output::json(&source.saga(id).await?)?;
        }
        return Ok(code);
    }
    let saga = source.saga(id).await?;
    if as_json {
        output::json(&saga)?;
        return Ok(Code::Ok);
    }
    head(&saga)?;
    steps(&saga)?;
    let attempts: Vec<_> = items(&saga["attempts"])
        .map(|attempt| {
            let outcome = if attempt["outcome"].is_null() { "under way".to_owned() } else { text(&attempt["outcome"]) };
            [
                text(&attempt["step"]),
                text(&attempt["action"]),
                text(&attempt["attempt"]),
                outcome,
                text(&attempt["httpStatus"]),
                clock(&attempt["finishedAt"]),
                text(&attempt["error"]),
            ]
        })
        .collect();
    if !attempts.is_empty() {
        output::line("")?;
        output::table(["ATTEMPT OF", "ACTION", "NO", "OUTCOME", "HTTP", "FINISHED", "ERROR"], &attempts)?;
    }
    related(&saga)?;
    Ok(Code::Ok)
}

/// What the saga is and where it stands.
fn head(saga: &Value) -> Result<()> {
    let keys = saga["lockKeys"].as_array().map(|keys| keys.iter().map(text).collect::<Vec<_>>().join(", "));
    let labels = [
        ("saga", text(&saga["id"])),
        ("definition", text(&saga["definition"])),
        ("state", text(&saga["state"])),
        ("event", text(&saga["eventId"])),
        ("correlation", text(&saga["correlationId"])),
        ("parent", text(&saga["parentId"])),
        ("fork of", text(&saga["forkOf"])),
        ("undoes", text(&saga["undoes"])),
        ("locks", keys.unwrap_or_default()),
        ("ordered", text(&saga["pendingCommand"])),
        ("why", text(&saga["why"])),
    ];
    for (label, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        output::line(format_args!("{label:<12} {value}"))?;
    }
    output::line("")?;
    Ok(())
}

fn steps(saga: &Value) -> Result<()> {
    let rows: Vec<_> = items(&saga["steps"])
        .map(|step| {
            let said = if step["error"].is_null() { &step["message"] } else { &step["error"] };
            [
                text(&step["name"]),
                text(&step["status"]),
                text(&step["compensation"]),
                text(&step["attempts"]),
                waits(step),
                progress(&step["progress"]),
                text(said),
            ]
        })
        .collect();
    output::table(["STEP", "STATUS", "COMPENSATION", "ATTEMPTS", "WAITS FOR", "PROGRESS", "SAID"], &rows)?;
    Ok(())
}

/// What a step waits for and until when.
fn waits(step: &Value) -> String {
    let until = |time: &Value| if time.is_null() { String::new() } else { format!(" until {}", moment(time)) };
    match step["wait"].as_str() {
        Some(wait) if step["waitsFor"].is_null() => format!("{wait}{}", until(&step["waitUntil"])),
        Some(wait) => format!("{wait} {}{}", text(&step["waitsFor"]), until(&step["waitUntil"])),
        None if step["status"] == "backoff" || step["compensation"] == "backoff" => format!("retry{}", until(&step["dueAt"])),
        None => String::new(),
    }
}

fn progress(progress: &Value) -> String {
    let figures = match (progress["done"].as_i64(), progress["total"].as_i64()) {
        (Some(done), Some(total)) => format!("{done} of {total}"),
        (Some(done), None) => done.to_string(),
        _ => String::new(),
    };
    format!("{figures} {}", text(&progress["message"])).trim().to_owned()
}

/// Human tasks, orders, children and forks, where there are any.
fn related(saga: &Value) -> Result<()> {
    let tasks: Vec<_> = items(&saga["tasks"])
        .map(|task| {
            let asked = if task["prompt"].is_null() { &task["reason"] } else { &task["prompt"] };
            [
                text(&task["id"]),
                text(&task["kind"]),
                text(&task["step"]),
                text(&task["status"]),
                text(&task["decision"]),
                text(&task["decidedBy"]),
                text(asked),
            ]
        })
        .collect();
    if !tasks.is_empty() {
        output::line("")?;
        output::table(["TASK", "KIND", "STEP", "STATUS", "DECISION", "BY", "ABOUT"], &tasks)?;
    }
    let orders: Vec<_> = items(&saga["commands"])
        .map(|order| {
            [
                text(&order["kind"]),
                text(&order["step"]),
                text(&order["requestedBy"]),
                clock(&order["requestedAt"]),
                text(&order["status"]),
                text(&order["reason"]),
                text(&order["result"]),
            ]
        })
        .collect();
    if !orders.is_empty() {
        output::line("")?;
        output::table(["ORDER", "STEP", "BY", "AT", "STATUS", "REASON", "RESULT"], &orders)?;
    }
    let children: Vec<_> = items(&saga["children"])
        .map(|child| [text(&child["id"]), text(&child["step"]), text(&child["action"]), text(&child["definition"]), text(&child["state"])])
        .collect();
    if !children.is_empty() {
        output::line("")?;
        output::table(["CHILD", "STEP", "ACTION", "DEFINITION", "STATE"], &children)?;
    }
    for fork in items(&saga["forks"]) {
        output::line(format_args!("forked as    {}", text(fork)))?;
    }
    Ok(())
}

/// Says why a saga waits, or why an event started nothing.
pub(super) async fn why(arguments: &Why, given: &config::Database, as_json: bool) -> Result<Code> {
    let source = Source::open(&arguments.client, given).await?;
    let id = identify(&source, &arguments.id, Kind::SagaOrEvent).await?;
    let sentence = source.why(id).await?;
    let sentence = sentence.ok_or_else(|| output::not_found(format!("no saga and no event has the id {id}")))?;
    if as_json {
        output::json(&json!({"id": id, "why": sentence}))?;
    } else {
        output::line(sentence)?;
    }
    Ok(Code::Ok)
}
