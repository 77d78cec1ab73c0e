//! `service`: holding services back and taking them up again.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::code::{Code, Stop};
use super::database::{self, Place};
use super::output;
use crate::config;
use crate::core::nearest::nearest;
use crate::store::breaker;

/// Arguments of `service`.
#[derive(Args, Debug)]
pub(super) struct Service {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the services, and what is held back
    List,
    /// Hold a service back: its steps wait, spend no attempts, and nothing probes it
    Pause {
        /// Its name in the services file
        name: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Take a service up again, whether it was paused or kept failing
    Resume {
        /// Its name in the services file
        name: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
}

/// Lists, pauses or resumes services.
pub(super) async fn service(arguments: &Service, given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    let store = place.checked_store().await?;
    let by = database::who(&place.dsn);
    let services = breaker::list(&store.client().await?).await?;
    let (name, done, vain) = match &arguments.verb {
        Verb::List => {
            list(&services, as_json)?;
            return Ok(Code::Ok);
        }
        Verb::Pause { name, reason } => {
            if reason.trim().is_empty() {
                return Err(output::usage("say why: --reason must not be empty"));
            }
            known(&services, name)?;
            (name, breaker::pause_by_hand(&store, name, &by, reason).await?, "is paused already")
        }
        Verb::Resume { name, reason } => {
            known(&services, name)?;
            (name, breaker::resume_by_hand(&store, name, &by, reason.as_deref()).await?, "takes calls already")
        }
    };
    if !done {
        return Err(Stop::new(Code::Conflict, format!("the service {name} {vain}: see `hms-orch service list`")).into());
    }
    let now = breaker::list(&store.client().await?).await?;
    let state = now.iter().find(|service| service.name == *name).map_or("closed", |service| service.state.as_str());
    if as_json {
        output::json(&json!({"name": name, "state": state}))?;
    } else {
        let what = if state == "paused" { "is paused: its steps wait until `hms-orch service resume`" } else { "takes calls again" };
        output::talk(format_args!("{name} {what}; workers notice within a second"));
    }
    Ok(Code::Ok)
}

fn known(services: &[breaker::Shown], name: &str) -> Result<()> {
    if services.iter().any(|service| service.name == name) {
        return Ok(());
    }
    let hint = nearest(name, services.iter().map(|service| service.name.as_str())).map(|near| format!(", did you mean {near}?")).unwrap_or_default();
    Err(output::not_found(format!("no service is called {name}{hint}: see `hms-orch service list`")))
}

fn list(services: &[breaker::Shown], as_json: bool) -> Result<()> {
    if as_json {
        let list: Vec<_> = services
            .iter()
            .map(|service| {
                json!({"name": service.name, "url": service.url, "state": service.state, "heldSince": service.held_since,
                       "probeAt": service.probe_at, "reason": service.reason, "by": service.by})
            })
            .collect();
        return output::json(&list);
    }
    let when = |time: Option<chrono::DateTime<chrono::Utc>>| time.map(|time| time.format("%Y-%m-%d %H:%M:%SZ").to_string()).unwrap_or_default();
    let rows: Vec<_> = services
        .iter()
        .map(|service| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            [service.name.clone(), service.state.clone(), when(service.held_since), text(&service.by), text(&service.reason), text(&service.url)]
        })
        .collect();
    output::table(["NAME", "STATE", "HELD SINCE", "BY", "REASON", "URL"], &rows)?;
    Ok(())
}
