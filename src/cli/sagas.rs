//! `sagas`, `show`, `why`: looking at what happens.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Value, json};
use uuid::Uuid;

use super::code::Code;
use super::database::Place;
use super::source::Source;
use super::{follow, output};
use crate::config;
use crate::core::saga::SagaState;
use crate::core::story::Took;
use crate::store::lookup::{self, Kind};
use crate::store::read::LIMIT;
use crate::store::read::sagas::Filter;
use crate::store::{Store, migrate};

/// Fewest digits that stand for an id.
const PREFIX_MIN: usize = 6;

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
}

/// Arguments of `show`.
#[derive(Args, Debug)]
pub(super) struct Show {
    /// The saga's id, or how it begins (at least 6 characters)
    id: String,
    /// Tell its story so far, and on until it ends
    #[arg(long)]
    watch: bool,
}

/// Arguments of `why`.
#[derive(Args, Debug)]
pub(super) struct Why {
    /// Id of a saga or an event, or how it begins (at least 6 characters)
    id: String,
}

fn state(text: &str) -> Result<String, String> {
    let known = || SagaState::ALL.map(SagaState::as_str).join(", ");
    SagaState::parse(text).map(|state| state.as_str().to_owned()).ok_or_else(|| format!("states are {}", known()))
}

/// Lists sagas.
pub(super) async fn list(arguments: &Sagas, given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    place.checked_store().await?;
    let read = place.read(1).await?;
    let since = arguments.since.and_then(|time| chrono::Duration::from_std(time).ok()).and_then(|time| Utc::now().checked_sub_signed(time));
    let mut filter = Filter {
        states: arguments.state.clone(),
        waiting_for: arguments.waiting_for.clone(),
        definition: arguments.definition.clone(),
        correlation_id: arguments.correlation_id.clone(),
        event_id: arguments.event,
        lock_key: arguments.lock_key.clone(),
        unfinished: false,
        since,
        until: None,
        after: None,
    };
    let mut found = Vec::new();
    let limit = arguments.limit as usize;
    loop {
        let page = read.sagas(&filter, LIMIT.min(u32::try_from(limit - found.len()).unwrap_or(LIMIT))).await?;
        filter.after = page.items.last().map(|saga| saga.id);
        found.extend(page.items);
        if !page.has_more || found.len() >= limit {
            if page.has_more {
                output::talk(format_args!("there are more: --limit {}", limit.saturating_mul(2)));
            }
            break;
        }
    }
    if as_json {
        output::json(&found)?;
        return Ok(Code::Ok);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|saga| {
            let took = Took(std::time::Duration::from_millis(u64::try_from(saga.duration_ms).unwrap_or(0)));
            let waiting_for = saga.waiting_for.clone().unwrap_or_default();
            [
                saga.id.to_string(),
                saga.definition.clone(),
                saga.state.clone(),
                waiting_for,
                moment(saga.started_at),
                took.to_string(),
                saga.correlation_id.clone(),
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

fn moment(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Shows one saga, or tells its story.
pub(super) async fn show(arguments: &Show, given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    let source = Source::of_database(&place).await?;
    let id = identify(&place.store(1), &arguments.id, Kind::Saga).await?;
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
    for (label, key) in
        [("saga", "id"), ("definition", "definition"), ("state", "state"), ("event", "eventId"), ("correlation", "correlationId"), ("why", "why")]
    {
        if let Some(text) = saga[key].as_str() {
            output::line(format_args!("{label:<12} {text}"))?;
        }
    }
    output::line("")?;
    let steps: Vec<_> = items(&saga["steps"])
        .map(|step| {
            let said = if step["error"].is_null() { &step["message"] } else { &step["error"] };
            [text(&step["name"]), text(&step["status"]), text(&step["compensation"]), text(&step["attempts"]), text(said)]
        })
        .collect();
    output::table(["STEP", "STATUS", "COMPENSATION", "ATTEMPTS", "SAID"], &steps)?;
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
    Ok(Code::Ok)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The time of day, which is what attempts differ in.
fn clock(value: &Value) -> String {
    value.as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok()).map(|time| time.format("%H:%M:%S%.3fZ").to_string()).unwrap_or_default()
}

/// Says why a saga waits, or why an event started nothing.
pub(super) async fn why(arguments: &Why, given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    let store = place.checked_store().await?;
    let id = identify(&store, &arguments.id, Kind::SagaOrEvent).await?;
    let sentence = lookup::why(&store.client().await?, id).await?;
    let sentence = sentence.ok_or_else(|| output::not_found(format!("no saga and no event has the id {id}")))?;
    if as_json {
        output::json(&json!({"id": id, "why": sentence}))?;
    } else {
        output::line(sentence)?;
    }
    Ok(Code::Ok)
}

/// The id that a text means.
pub(super) async fn identify(store: &Store, text: &str, kind: Kind) -> Result<Uuid> {
    let noun = if kind == Kind::Saga { "saga" } else { "saga and no event" };
    if let Ok(id) = Uuid::parse_str(text) {
        return Ok(id);
    }
    let digits = text.chars().filter(|c| *c != '-').count();
    if digits < PREFIX_MIN {
        return Err(output::usage(format!("{text:?} is too short: give at least {PREFIX_MIN} characters of the id")));
    }
    let client = store.client().await?;
    migrate::check(&client).await?;
    let Some(found) = lookup::by_prefix(&client, text, kind).await? else {
        return Err(output::usage(format!("{text:?} is no id")));
    };
    match found.as_slice() {
        [] => Err(output::not_found(format!("no {noun} has an id that begins with {text}"))),
        [only] => Ok(*only),
        several => {
            let list: Vec<String> = several.iter().map(|id| format!("  {id}")).collect();
            Err(output::usage(format!("several ids begin with {text}:\n{}", list.join("\n"))))
        }
    }
}
