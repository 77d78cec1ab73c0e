//! `migrate`, `grants`, `uninstall`, `doctor`: looking after the database.

use std::io::{self, BufRead, IsTerminal};

use anyhow::Result;
use clap::{Args, ValueEnum};
use owo_colors::OwoColorize;
use serde_json::json;

use super::code::Code;
use super::database::Place;
use super::output;
use crate::config;
use crate::store::doctor::{self, Level};
use crate::store::{grants, migrate, uninstall};

/// Arguments of `grants`.
#[derive(Args, Debug)]
pub(super) struct Grants {
    /// The database role
    role: String,
    /// What it is for
    #[arg(long = "as", value_enum)]
    kind: Kind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Publishes events and sees none
    Publisher,
    /// Sees everything, changes nothing
    Reader,
    /// Sees everything, gives orders
    Operator,
}

/// Arguments of `uninstall`.
#[derive(Args, Debug)]
pub(super) struct Uninstall {
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Go on although workers are alive or objects of others depend on ours
    #[arg(long)]
    force: bool,
}

/// Brings the schema up to date.
pub(super) async fn migrate(given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    let report = migrate::migrate(&place.listen).await?;
    if as_json {
        output::json(&json!({"applied": report.applied, "version": report.version}))?;
    } else if report.applied.is_empty() {
        output::line(format_args!("schema syncor is at version {}: nothing to do", report.version))?;
    } else {
        for name in &report.applied {
            output::line(format_args!("applied {name}"))?;
        }
        output::line(format_args!("schema syncor is at version {}", report.version))?;
    }
    Ok(Code::Ok)
}

/// Prints the GRANTs of a role.
pub(super) fn grants(arguments: &Grants) -> Result<Code> {
    let kind = match arguments.kind {
        Kind::Publisher => grants::Kind::Publisher,
        Kind::Reader => grants::Kind::Reader,
        Kind::Operator => grants::Kind::Operator,
    };
    output::line(grants::grants(&arguments.role, kind).trim_end())?;
    Ok(Code::Ok)
}

/// Takes everything of ours out of the database.
pub(super) async fn uninstall(arguments: &Uninstall, given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    let client = place.listen.connect("hms-orch uninstall").await?;
    let plan = uninstall::plan(&client).await?;
    drop(client);
    if as_json {
        let tables: Vec<_> = plan.tables.iter().map(|table| json!({"name": table.name, "rows": table.rows, "exact": table.exact})).collect();
        output::json(&json!({"statements": plan.statements, "tables": tables, "dependents": plan.dependents, "workers": plan.workers}))?;
    } else if plan.statements.is_empty() {
        output::line(format_args!("{}: nothing of ours is there", place.dsn))?;
    } else {
        output::line(plan.to_string().trim_end())?;
    }
    if arguments.dry_run || plan.statements.is_empty() {
        return Ok(Code::Ok);
    }
    if !arguments.yes && !confirmed(&place) {
        return Err(output::usage("nothing was removed: say --yes, or --dry-run to only look"));
    }
    uninstall::uninstall(&place.listen, arguments.force).await?;
    output::talk(format_args!("{}: removed", place.dsn));
    Ok(Code::Ok)
}

/// Asks on a terminal; elsewhere nobody can answer.
fn confirmed(place: &Place) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    output::talk(format_args!("This removes all of it from {} for good. Type the name of the database to go on:", place.dsn));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == place.dsn.database()
}

/// Looks the database over.
pub(super) async fn doctor(given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    let direct = given.listen_url.is_some().then_some(&place.listen);
    let findings = doctor::examine(&place.dsn, direct).await;
    let word = |level: Level| match level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "fail",
    };
    if as_json {
        let list: Vec<_> = findings.iter().map(|f| json!({"name": f.name, "level": word(f.level), "detail": f.detail, "remedy": f.remedy})).collect();
        output::json(&list)?;
    } else {
        for finding in &findings {
            let mark = match finding.level {
                Level::Ok => "✓".green().to_string(),
                Level::Warn => "!".yellow().to_string(),
                Level::Fail => "✘".red().to_string(),
            };
            output::line(format_args!("{mark} {:<22} {}", finding.name, finding.detail))?;
            if let Some(remedy) = &finding.remedy {
                output::line(format_args!("  {:<22} {}", "", remedy.dimmed()))?;
            }
        }
    }
    let worst = findings.iter().map(|finding| finding.level).max();
    let is_unreachable = matches!(findings.as_slice(), [only] if only.name == "connection" && only.level == Level::Fail);
    Ok(match worst {
        _ if is_unreachable => Code::Unavailable,
        Some(Level::Fail) => Code::Failed,
        _ => Code::Ok,
    })
}
