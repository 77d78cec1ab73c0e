//! `deploy`: files into the database, all or none.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::code::Code;
use super::database::{self, Place};
use super::files::{self, Document, Read};
use super::output;
use super::validate::{short, show, summary};
use crate::config;
use crate::store::definitions::{self, Deployed, NewDefinition, Order, Outcome};
use crate::store::{Store, migrate};

/// Arguments of `deploy`.
#[derive(Args, Debug)]
pub(super) struct Deploy {
    /// Files, or folders with files; `*.scenario.yaml` in folders is skipped
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Retire the other versions of each family
    #[arg(long)]
    replace: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Deploys files that are all valid.
pub(super) async fn deploy(arguments: &Deploy, given: &config::Database, as_json: bool) -> Result<Code> {
    // The files first: what is wrong in them is known without a database.
    let read = files::read(&arguments.paths)?;
    if !read.problems.is_empty() {
        if as_json {
            let problems: Vec<_> = read.problems.iter().chain(&read.warnings).map(files::as_json).collect();
            output::json(&json!({"deployed": [], "problems": problems}))?;
        } else {
            show(&read.problems, &read.warnings)?;
            output::talk(format_args!("{}: nothing was deployed", summary(&read.problems)));
        }
        return Ok(Code::Invalid);
    }
    let place = Place::find(given).await?;
    let report = migrate::migrate(&place.listen).await?;
    if !report.applied.is_empty() {
        output::talk(format_args!("{}: schema syncor is now at version {}", place.dsn, report.version));
    }
    let store = place.checked_store().await?;
    let by = database::who(&place.dsn);
    let order = Order { by: &by, reason: arguments.reason.as_deref(), replace: arguments.replace };
    let deployed = all(&store, &read.documents, order).await?;
    let missing = unregistered(&store, &read).await?;
    let childless = without_children(&store, &read).await?;
    if as_json {
        let list: Vec<_> = read.documents.iter().zip(&deployed).map(|(document, deployed)| as_value(document, deployed)).collect();
        let warnings: Vec<_> = read.warnings.iter().map(files::as_json).collect();
        output::json(&json!({"deployed": list, "warnings": warnings, "unregisteredServices": missing, "missingSagas": childless}))?;
        return Ok(Code::Ok);
    }
    show(&[], &read.warnings)?;
    for (document, deployed) in read.documents.iter().zip(&deployed) {
        for sentence in sentences(document, deployed) {
            output::line(sentence)?;
        }
    }
    for (service, sagas) in missing {
        output::talk(format_args!(
            "warning: service {service} (called by {}) is not registered: deploy a services file that names it",
            sagas.join(", ")
        ));
    }
    for (child, sagas) in childless {
        output::talk(format_args!("warning: saga {child} (run by a step of {}) is not deployed: that step fails until it is", sagas.join(", ")));
    }
    Ok(Code::Ok)
}

/// Deploys documents in one transaction.
pub(super) async fn all(store: &Store, documents: &[Document], order: Order<'_>) -> Result<Vec<Deployed>> {
    let mut new = Vec::with_capacity(documents.len());
    for Document { kind, id, family, version, revision, source, .. } in documents {
        let version = i32::try_from(*version)?;
        new.push(NewDefinition { kind, id, family, version, revision, source });
    }
    Ok(definitions::deploy(store, &new, order).await?)
}

/// Sagas that steps run and that are not deployed, each with those that run it.
async fn without_children(store: &Store, read: &Read) -> Result<Vec<(String, Vec<String>)>> {
    let wanted: Vec<String> = read.documents.iter().flat_map(|document| document.children()).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let missing = definitions::missing_children(&**store.client().await?, &wanted).await?;
    let parents =
        |child: &String| read.documents.iter().filter(|document| document.children().contains(child)).map(|document| document.id.clone()).collect();
    Ok(missing.into_iter().map(|child| (child.clone(), parents(&child))).collect())
}

/// Services that are called and not known, each with the sagas that call it.
async fn unregistered(store: &Store, read: &Read) -> Result<Vec<(String, Vec<String>)>> {
    let known: BTreeSet<String> = definitions::active_services(&**store.client().await?).await?.into_iter().collect();
    let wanted: BTreeSet<&String> = read.documents.iter().flat_map(|document| &document.calls).collect();
    let callers =
        |service: &String| read.documents.iter().filter(|document| document.calls.contains(service)).map(|document| document.id.clone()).collect();
    Ok(wanted.into_iter().filter(|service| !known.contains(*service)).map(|service| (service.clone(), callers(service))).collect())
}

/// What became of one file, for people.
fn sentences(document: &Document, deployed: &Deployed) -> Vec<String> {
    let (id, revision) = (&document.id, short(&document.revision));
    let mut lines = vec![match (deployed.outcome, &deployed.replaced) {
        (Outcome::Unchanged, _) => format!("unchanged {id} (revision {revision})"),
        (_, Some(old)) => format!("deployed {id} (revision {revision}; revision {} replaced)", short(old)),
        (Outcome::Reactivated, None) => format!("deployed {id} (revision {revision}, active again)"),
        (_, None) => format!("deployed {id} (revision {revision})"),
    }];
    lines.extend(deployed.retired.iter().map(|other| format!("retired {other}: sagas under way finish with it")));
    lines
}

fn as_value(document: &Document, deployed: &Deployed) -> serde_json::Value {
    json!({
        "id": document.id, "kind": document.kind, "revision": document.revision, "outcome": deployed.outcome.as_str(),
        "replaced": deployed.replaced, "retired": deployed.retired,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_file_is_said_in_a_sentence() {
        let mut read = Read::default();
        read.add("a.yaml", include_str!("../../sagas/benefit-increase.yaml"));
        let document = &read.documents[0];
        let revision = short(&document.revision).to_owned();
        let check = |outcome, replaced: Option<&str>, expected: String| {
            let deployed = Deployed { id: document.id.clone(), outcome, replaced: replaced.map(str::to_owned), retired: Vec::new() };
            assert_eq!(sentences(document, &deployed), [expected]);
        };
        check(Outcome::New, None, format!("deployed dol.benefit.increase.v1 (revision {revision})"));
        check(Outcome::Unchanged, None, format!("unchanged dol.benefit.increase.v1 (revision {revision})"));
        check(
            Outcome::NewRevision,
            Some("0123456789"),
            format!("deployed dol.benefit.increase.v1 (revision {revision}; revision 01234567 replaced)"),
        );
    }
}
