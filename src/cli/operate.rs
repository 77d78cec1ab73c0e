//! `cancel`, `pause`, `resume`, `abort`, `retry`, `skip`, `fork`: what operators order, of single sagas or of all that match.

use std::io::IsTerminal;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::cells::{items, text};
use super::code::Code;
use super::identify::identify;
use super::output;
use super::source::Source;
use crate::config;
use crate::store::bulk::{self, Bulk};
use crate::store::lookup::Kind;
use crate::store::orders::Verb;
use crate::store::read::sagas::Filter;

/// Arguments of an order.
#[derive(Args, Debug)]
pub(super) struct Order {
    /// The sagas, by their ids or how those begin (at least 6 characters)
    ids: Vec<String>,
    /// Why; kept with the command
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    client: config::Client,
}

/// Arguments of an order that may name a step.
#[derive(Args, Debug)]
pub(super) struct StepOrder {
    #[command(flatten)]
    order: Order,
    /// The step; of itself whichever the order fits
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
}

/// Which sagas, where no ids are given. Sagas that have ended never match.
#[derive(Args, Debug)]
#[command(next_help_heading = "Instead of ids")]
struct Which {
    /// Those in these states, with commas between them
    #[arg(long, value_delimiter = ',', value_parser = super::sagas::state, conflicts_with = "ids")]
    state: Vec<String>,
    /// Those of this definition, or of this family
    #[arg(long, value_name = "ID", conflicts_with = "ids")]
    definition: Option<String>,
    /// Those that wait for this: worker, human, timer ...
    #[arg(long, value_name = "WHAT", conflicts_with = "ids")]
    waiting_for: Option<String>,
    /// Those with this correlation id
    #[arg(long, value_name = "ID", conflicts_with = "ids")]
    correlation_id: Option<String>,
    /// Those that need the lock of this object
    #[arg(long, value_name = "KEY", conflicts_with = "ids")]
    lock_key: Option<String>,
    /// All that match, without asking; every saga where no filter is given
    #[arg(long, conflicts_with = "ids")]
    all_matching: bool,
    /// Only show which sagas match
    #[arg(long, conflicts_with = "ids")]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How many at most, oldest first
    #[arg(long, default_value_t = bulk::LIMIT, value_parser = clap::value_parser!(u32).range(1..=i64::from(bulk::LIMIT)))]
    limit: u32,
}

/// Arguments of `fork`.
#[derive(Args, Debug)]
pub(super) struct Fork {
    /// The saga, which must have ended
    id: String,
    /// The step to begin with; what was done before it is kept
    #[arg(long, value_name = "STEP")]
    from: String,
    /// Why; kept with the command
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    client: config::Client,
}

/// Gives an order that may name a step.
pub(super) async fn order_step(verb: Verb, arguments: &StepOrder, given: &config::Database, as_json: bool) -> Result<Code> {
    give(verb, &arguments.order, arguments.step.as_deref(), given, as_json).await
}

/// Gives an order about whole sagas.
pub(super) async fn order(verb: Verb, arguments: &Order, given: &config::Database, as_json: bool) -> Result<Code> {
    give(verb, arguments, None, given, as_json).await
}

async fn give(verb: Verb, arguments: &Order, step: Option<&str>, given: &config::Database, as_json: bool) -> Result<Code> {
    let which = &arguments.which;
    let reason = match arguments.reason.as_deref().map(str::trim) {
        Some(reason) if !reason.is_empty() => reason,
        _ if which.dry_run => "",
        _ => return Err(output::usage("say why: --reason TEXT is required")),
    };
    if arguments.ids.is_empty() {
        return many(verb, arguments, step, reason, given, as_json).await;
    }
    let source = Source::open(&arguments.client, given).await?;
    let mut receipts = Vec::with_capacity(arguments.ids.len());
    for text in &arguments.ids {
        let id = identify(&source, text, Kind::Saga).await?;
        receipts.push(source.order(verb, id, step, reason).await?);
    }
    report(&source, &receipts, as_json).await
}

/// Prints what became of orders, and says it by the code: refused ones are worst.
pub(super) async fn report(source: &Source, receipts: &[Value], as_json: bool) -> Result<Code> {
    match receipts {
        [only] if as_json => output::json(only)?,
        several if as_json => output::json(&several)?,
        several => {
            for receipt in several {
                say(receipt)?;
            }
        }
    }
    code(source, receipts).await
}

fn say(receipt: &Value) -> Result<()> {
    let about = if receipt["sagaId"].is_null() { String::new() } else { format!("{} ", text(&receipt["sagaId"])) };
    let result = if receipt["result"].is_null() { String::new() } else { format!(": {}", text(&receipt["result"])) };
    output::line(format_args!("{about}{} {}{result}", text(&receipt["order"]), text(&receipt["status"])))?;
    Ok(())
}

/// 0 if all were carried out, 5 if one was refused; of what is still pending 8 if its saga waits for a human, else 7.
async fn code(source: &Source, receipts: &[Value]) -> Result<Code> {
    let with = |status: &'static str| receipts.iter().filter(move |receipt| receipt["status"] == status);
    if with("refused").next().is_some() {
        return Ok(Code::Conflict);
    }
    let Some(pending) = with("pending").next() else { return Ok(Code::Ok) };
    let saga = serde_json::from_value(pending["sagaId"].clone()).ok();
    let needs_human = match saga {
        Some(saga) => source.record(saga).await?.needs_human(),
        None => false,
    };
    if needs_human {
        output::talk("the order is kept: the saga waits for a human first, see `hms-orch tasks`");
        return Ok(Code::NeedsHuman);
    }
    output::talk("the order is kept, but no worker has come to it yet: is one running?");
    Ok(Code::TimedOut)
}

async fn many(verb: Verb, arguments: &Order, step: Option<&str>, reason: &str, given: &config::Database, as_json: bool) -> Result<Code> {
    let which = &arguments.which;
    let filter = Filter {
        states: which.state.clone(),
        waiting_for: which.waiting_for.clone(),
        definition: which.definition.clone(),
        correlation_id: which.correlation_id.clone(),
        lock_key: which.lock_key.clone(),
        ..Filter::default()
    };
    let has_filter = !filter.states.is_empty()
        || [&filter.waiting_for, &filter.definition, &filter.correlation_id, &filter.lock_key].into_iter().any(Option::is_some);
    if !has_filter && !which.all_matching {
        return Err(output::usage("say which sagas: ids, a filter such as --state running, or --all-matching for every one"));
    }
    if filter.states.iter().any(|state| crate::store::read::sagas::is_terminal(state)) {
        return Err(output::usage("sagas that have ended take no orders; fork them one by one"));
    }
    let source = Source::open(&arguments.client, given).await?;
    let order = |dry_run| Bulk { verb, filter: filter.clone(), step, reason, dry_run, limit: which.limit };
    if which.dry_run {
        return show(&source.order_many(order(true)).await?, as_json);
    }
    // Every saga is more than a filter can mean by mistake.
    let is_confirmed = which.yes || which.all_matching && has_filter;
    if !is_confirmed {
        let found = source.order_many(order(true)).await?;
        if !confirm(verb, &found)? {
            return Ok(Code::Failed);
        }
    }
    let outcome = source.order_many(order(false)).await?;
    let receipts: Vec<Value> = items(&outcome["items"]).cloned().collect();
    if as_json {
        output::json(&outcome)?;
    } else {
        for receipt in &receipts {
            say(receipt)?;
        }
    }
    let count = |name: &str| outcome[name].as_u64().unwrap_or_default();
    output::talk(format_args!("{} applied, {} refused, {} pending", count("applied"), count("refused"), count("pending")));
    if outcome["more"] == json!(true) {
        output::talk("more sagas match: order it again");
    }
    code(&source, &receipts).await
}

fn show(found: &Value, as_json: bool) -> Result<Code> {
    if as_json {
        output::json(found)?;
    } else {
        for id in items(&found["ids"]) {
            output::line(text(id))?;
        }
        output::talk(format_args!("{} match; nothing was ordered", sagas(found)));
    }
    Ok(Code::Ok)
}

fn sagas(found: &Value) -> String {
    match found["count"].as_u64().unwrap_or_default() {
        1 => "1 saga".to_owned(),
        count => format!("{count} sagas"),
    }
}

/// Asks on the terminal; without one nothing is ordered that was not confirmed.
fn confirm(verb: Verb, found: &Value) -> Result<bool> {
    let question = format!("{} {}", verb.as_str(), sagas(found));
    if !std::io::stdin().is_terminal() {
        return Err(output::usage(format!("this would {question}: add --yes, or look first with --dry-run")));
    }
    output::talk(format_args!("{question}? [y/N]"));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    let is_yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !is_yes {
        output::talk("nothing was ordered");
    }
    Ok(is_yes)
}

/// Starts an ended saga anew.
pub(super) async fn fork(arguments: &Fork, given: &config::Database, as_json: bool) -> Result<Code> {
    if arguments.reason.trim().is_empty() {
        return Err(output::usage("say why: --reason TEXT is required"));
    }
    let source = Source::open(&arguments.client, given).await?;
    let id = identify(&source, &arguments.id, Kind::Saga).await?;
    let receipt = source.fork(id, &arguments.from, &arguments.reason).await?;
    if !as_json && let Some(new) = receipt["newSagaId"].as_str() {
        output::line(new)?;
        return Ok(Code::Ok);
    }
    report(&source, &[receipt], as_json).await
}
