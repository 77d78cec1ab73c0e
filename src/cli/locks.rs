//! `locks`: who holds which object, and who waits for it.

use anyhow::Result;
use clap::Args;

use super::cells::{moment, text};
use super::code::Code;
use super::identify::identify;
use super::output;
use super::source::Source;
use crate::config;
use crate::store::lookup::Kind;
use crate::store::read::locks::Filter;

/// Arguments of `locks`.
#[derive(Args, Debug)]
pub(super) struct Locks {
    /// Only this object
    #[arg(long)]
    key: Option<String>,
    /// Only those that this saga holds or waits for
    #[arg(long, value_name = "ID")]
    saga: Option<String>,
    /// Only those that are held, or waiting
    #[arg(long, value_parser = ["held", "waiting"])]
    state: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    client: config::Client,
}

/// Lists object locks.
pub(super) async fn list(arguments: &Locks, given: &config::Database, as_json: bool) -> Result<Code> {
    let source = Source::open(&arguments.client, given).await?;
    let saga = match &arguments.saga {
        Some(text) => Some(identify(&source, text, Kind::Saga).await?),
        None => None,
    };
    let filter = Filter { key: arguments.key.clone(), saga, state: arguments.state.clone(), after: None };
    let limit = arguments.limit as usize;
    let found = source.locks(filter, limit).await?;
    if found.more {
        output::talk(format_args!("there are more: --limit {}", limit.saturating_mul(2)));
    }
    if as_json {
        output::json(&found.items)?;
        return Ok(Code::Ok);
    }
    if found.items.is_empty() {
        output::talk("no locks");
        return Ok(Code::Ok);
    }
    let rows: Vec<_> = found
        .items
        .iter()
        .map(|lock| {
            [
                text(&lock["key"]),
                text(&lock["state"]),
                text(&lock["place"]),
                text(&lock["sagaId"]),
                text(&lock["definition"]),
                moment(&lock["askedAt"]),
                moment(&lock["grantedAt"]),
            ]
        })
        .collect();
    output::table(["KEY", "STATE", "PLACE", "SAGA", "DEFINITION", "ASKED", "GRANTED"], &rows)?;
    Ok(Code::Ok)
}
