//! Ids on the command line: whole, or how they begin.

use anyhow::Result;
use uuid::Uuid;

use super::output;
use super::source::Source;
use crate::store::lookup::{self, Kind};

/// Fewest digits that stand for an id.
const PREFIX_MIN: usize = 6;

/// The id that a text means.
pub(super) async fn identify(source: &Source, text: &str, kind: Kind) -> Result<Uuid> {
    let noun = match kind {
        Kind::Saga => "saga",
        Kind::SagaOrEvent => "saga and no event",
        Kind::Task => "human task",
    };
    if let Ok(id) = Uuid::parse_str(text) {
        return Ok(id);
    }
    let digits = text.chars().filter(|c| *c != '-').count();
    if digits < PREFIX_MIN {
        return Err(output::usage(format!("{text:?} is too short: give at least {PREFIX_MIN} characters of the id")));
    }
    let Source::Database { store, .. } = source else {
        return Err(output::usage(format!("{text:?} is no id: over HTTP an id is given whole")));
    };
    let client = store.client().await?;
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
