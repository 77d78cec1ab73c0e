//! `definitions`: what is deployed.

use anyhow::Result;
use clap::Args;

use super::code::Code;
use super::database::Place;
use super::output;
use super::validate::short;
use crate::config;
use crate::store::read::LIMIT;
use crate::store::read::definitions::Filter;

/// Arguments of `definitions`.
#[derive(Args, Debug)]
pub(super) struct Definitions {
    /// Only this kind: saga or services
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Also those that were retired
    #[arg(long)]
    all: bool,
}

/// Lists definitions.
pub(super) async fn list(arguments: &Definitions, given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    place.checked_store().await?;
    let read = place.read(1).await?;
    let state = if arguments.all { None } else { Some("active".to_owned()) };
    let mut filter = Filter { kind: arguments.kind.clone(), state, ..Filter::default() };
    let mut found = Vec::new();
    loop {
        let page = read.definitions(&filter, LIMIT).await?;
        filter.after = page.items.last().map(|definition| definition.id.clone());
        found.extend(page.items);
        if !page.has_more {
            break;
        }
    }
    if as_json {
        output::json(&found)?;
        return Ok(Code::Ok);
    }
    if found.is_empty() {
        output::talk("nothing is deployed: `hms-orch init` writes a saga to begin with, `hms-orch deploy` takes files and folders");
        return Ok(Code::Ok);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|item| {
            let deployed_at = item.deployed_at.format("%Y-%m-%d %H:%M:%SZ").to_string();
            [item.id.clone(), item.kind.clone(), short(&item.revision).to_owned(), item.state.clone(), deployed_at, item.deployed_by.clone()]
        })
        .collect();
    output::table(["ID", "KIND", "REVISION", "STATE", "DEPLOYED", "BY"], &rows)?;
    Ok(Code::Ok)
}
