//! `definitions`, `activate`, `retire`: what is deployed, what its revisions differ in, and which is in force.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::code::Code;
use super::database::{self, Place};
use super::output;
use super::validate::short;
use crate::config;
use crate::core::difference::{self, Change};
use crate::store::definitions::{self, Order};
use crate::store::read::definitions::{Definition, Filter};
use crate::store::read::{LIMIT, ReadStore};

/// Arguments of `definitions`.
#[derive(Args, Debug)]
pub(super) struct Definitions {
    /// The revisions of this one
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// What its newest revision differs in from the one before, from one that begins with REV, or from another definition
    #[arg(long, value_name = "REV|ID", num_args = 0..=1, default_missing_value = "", requires = "id")]
    diff: Option<String>,
    /// Only this kind: saga or services
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Also those that were retired
    #[arg(long)]
    all: bool,
}

/// Arguments of `activate`.
#[derive(Args, Debug)]
pub(super) struct Activate {
    /// Full id
    id: String,
    /// First digits of the revision; the newest, unless said
    #[arg(long, value_name = "REV")]
    revision: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Arguments of `retire`.
#[derive(Args, Debug)]
pub(super) struct Retire {
    /// Full ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Lists definitions, or the revisions of one.
pub(super) async fn list(arguments: &Definitions, given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    place.checked_store().await?;
    let read = place.read(1).await?;
    match (&arguments.id, &arguments.diff) {
        (Some(id), Some(with)) => return compare(&read, id, with, as_json).await,
        (Some(id), None) => {
            let found = revisions(&read, id).await?;
            return print(&found, as_json);
        }
        (None, _) => {}
    }
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
    if found.is_empty() && !as_json {
        output::talk("nothing is deployed: `hms-orch init` writes a saga to begin with, `hms-orch deploy` takes files and folders");
        return Ok(Code::Ok);
    }
    print(&found, as_json)
}

fn print(found: &[Definition], as_json: bool) -> Result<Code> {
    if as_json {
        output::json(&found)?;
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

async fn revisions(read: &ReadStore, id: &str) -> Result<Vec<Definition>> {
    let found = read.revisions(id).await?;
    if found.is_empty() { Err(output::not_found(format!("no definition has the id {id}"))) } else { Ok(found) }
}

/// Says what the newest revision of a definition differs in from another one.
async fn compare(read: &ReadStore, id: &str, with: &str, as_json: bool) -> Result<Code> {
    let found = revisions(read, id).await?;
    let newest = &found[0];
    let other = if with.is_empty() {
        found.get(1).cloned().ok_or_else(|| output::not_found(format!("{id} has one revision only: name another definition")))?
    } else {
        let other = read.counterpart(newest, &found, with).await?;
        other.ok_or_else(|| output::not_found(format!("{with} is neither a revision of {id} nor the id of a definition")))?
    };
    let changes = difference::between(&other.document(), &newest.document());
    if as_json {
        let side = |definition: &Definition| json!({"id": definition.id, "revision": definition.revision});
        let list: Vec<_> = changes.iter().map(|Change { path, before, after }| json!({"path": path, "before": before, "after": after})).collect();
        output::json(&json!({"from": side(&other), "to": side(newest), "changes": list}))?;
        return Ok(Code::Ok);
    }
    for (mark, side) in [("---", &other), ("+++", newest)] {
        output::line(format_args!("{mark} {} (revision {}, {})", side.id, short(&side.revision), side.state))?;
    }
    if changes.is_empty() {
        output::talk("no difference");
    }
    for change in &changes {
        output::line(printable(&change.to_string()))?;
    }
    Ok(Code::Ok)
}

/// What files say must not move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Puts a revision in force again.
pub(super) async fn activate(arguments: &Activate, given: &config::Database, as_json: bool) -> Result<Code> {
    let Activate { id, revision, reason } = arguments;
    let place = Place::find(given).await?;
    let store = place.checked_store().await?;
    let by = database::who(&place.dsn);
    let order = Order { by: &by, reason: reason.as_deref(), replace: false };
    let kind = definitions::kind_of(&**store.client().await?, id).await?;
    let kind = kind.ok_or_else(|| output::not_found(format!("no definition has the id {id}")))?;
    let done = definitions::activate(&store, &kind, id, revision.as_deref(), order).await?;
    let done = done.ok_or_else(|| output::not_found(format!("{id} has no such revision: `hms-orch definitions {id}` lists them")))?;
    let replaced = done.replaced.as_deref().map(|old| format!("; revision {} replaced", short(old))).unwrap_or_default();
    if as_json {
        output::json(&json!({"id": id, "state": "active", "revision": done.revision, "replaced": done.replaced, "unchanged": done.unchanged}))?;
    } else if done.unchanged {
        output::line(format_args!("unchanged {id} (revision {})", short(&done.revision)))?;
    } else {
        output::line(format_args!("activated {id} (revision {}{replaced})", short(&done.revision)))?;
    }
    Ok(Code::Ok)
}

/// Takes definitions out of force. Sagas under way finish with them.
pub(super) async fn retire(arguments: &Retire, given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    let store = place.checked_store().await?;
    let by = database::who(&place.dsn);
    let order = Order { by: &by, reason: arguments.reason.as_deref(), replace: false };
    let mut done = Vec::new();
    for id in &arguments.ids {
        let kind = definitions::kind_of(&**store.client().await?, id).await?;
        let kind = kind.ok_or_else(|| output::not_found(format!("no definition has the id {id}")))?;
        let changed = definitions::retire(&store, &kind, id, order).await?;
        done.push(json!({"id": id, "state": "retired", "unchanged": !changed}));
        if !as_json {
            let sentence = if changed { format!("retired {id}: sagas under way finish with it") } else { format!("unchanged {id}: it is retired") };
            output::line(sentence)?;
        }
    }
    if as_json {
        output::json(&done)?;
    }
    Ok(Code::Ok)
}
