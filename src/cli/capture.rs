//! `capture`: what happened to a saga, as a scenario for `test`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::json;

use super::code::{Code, Stop};
use super::database::Place;
use super::identify::identify;
use super::output;
use super::source::Source;
use crate::config;
use crate::core::definition_file::{self, File};
use crate::core::matching::Deployed;
use crate::core::saga::SagaState;
use crate::core::scenario::capture::capture as scenario_of;
use crate::store::lookup::Kind;

/// Arguments of `capture`.
#[derive(Args, Debug)]
pub(super) struct Capture {
    /// The saga's id, or how it begins (at least 6 characters)
    id: String,
    /// Where to write it; must not exist. To stdout, unless said
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes the scenario of a saga that rests.
pub(super) async fn capture(arguments: &Capture, given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    let id = identify(&Source::of_database(&place).await?, &arguments.id, Kind::Saga).await?;
    let found = place.read(1).await?.recording(id).await?;
    let (recording, source) = found.ok_or_else(|| output::not_found(format!("no saga has the id {id}, or its event is not kept any more")))?;
    let rests = recording.state.is_terminal() || matches!(recording.state, SagaState::Hitl | SagaState::CompFailed);
    if !rests {
        let state = recording.state.as_str();
        return Err(
            Stop::new(Code::Conflict, format!("the saga is {state}: only one that has ended, or waits for a decision, can be captured")).into()
        );
    }
    let Ok(File::Saga(definition, ..)) = definition_file::from_stored(&source) else {
        return Err(anyhow!("this version of the program cannot read the definition of the saga"));
    };
    let captured = scenario_of(&Arc::new(Deployed { no: 1, definition }), &recording).map_err(|problem| anyhow!(problem))?;
    if let Some(path) = &arguments.out {
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).open(path);
        let mut file = file.with_context(|| format!("write {}", path.display()))?;
        std::io::Write::write_all(&mut file, captured.text.as_bytes()).with_context(|| format!("write {}", path.display()))?;
    }
    for line in &captured.left_out {
        output::talk(format_args!("not captured: {line}"));
    }
    if as_json {
        let file = arguments.out.as_ref().map(|path| path.display().to_string());
        output::json(&json!({"saga": id, "file": file, "text": captured.text, "leftOut": captured.left_out}))?;
    } else if let Some(path) = &arguments.out {
        output::line(path.display())?;
    } else {
        output::line(captured.text.trim_end())?;
    }
    Ok(Code::Ok)
}
