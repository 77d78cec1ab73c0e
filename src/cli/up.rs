//! `up`: the server.

use anyhow::Result;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::code::Code;
use super::console::Console;
use super::database::Place;
use super::node::{self, Node};
use super::output;
use crate::config;
use crate::store::migrate;
use crate::telemetry::Metrics;

/// Lines of the story that wait to be printed; further ones are dropped by the engine.
const STORY: usize = 4096;

/// Arguments of `up`.
#[derive(Args, Debug)]
pub(super) struct Up {
    /// Do not print the story of the sagas
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    worker: config::Worker,
}

/// Runs until it is told to stop.
pub(super) async fn up(arguments: &Up, given: &config::Database) -> Result<Code> {
    let settings = &arguments.worker;
    let mut signals = Signals::new()?;
    let ready = async {
        // What fails fast goes first: nobody wants to wait for a database to hear that the port is taken.
        let early = if settings.role.serves() && settings.listen.ip().is_loopback() {
            Some(node::bind(settings.listen, &crate::http::auth::Auth::Open).await?)
        } else {
            None
        };
        let place = Place::find(given).await?;
        output::talk(&place);
        let report = migrate::migrate(&place.listen).await?;
        if !report.applied.is_empty() {
            output::talk(format_args!("schema syncor is now at version {}", report.version));
        }
        let listener = match early {
            None if settings.role.serves() => {
                let auth = node::authentication(settings, &place.store(1)).await?;
                Some(node::bind(settings.listen, &auth).await?)
            }
            early => early,
        };
        let (story, lines) = mpsc::channel(STORY);
        let story = (!arguments.quiet && settings.role.works()).then_some(story);
        let node = Node::start(settings, &place, listener, Metrics::record()?, story).await?;
        Ok::<_, anyhow::Error>((node, lines, place))
    };
    let (node, lines, place) = tokio::select! {
        ready = ready => ready?,
        () = signals.next() => return Ok(Code::Interrupted),
    };
    if let Some(address) = node.address {
        output::line(format_args!("listening on http://{address}"))?;
    } else {
        output::line("working")?;
    }
    if let Some(psql) = place.psql() {
        output::line(format_args!("in SQL: {psql}"))?;
    }
    // A reader of the story that has had enough does not stop the server.
    let story = tokio::spawn(Console::bounded().tell_all(lines));
    signals.next().await;
    output::talk("stopping: calls under way are finished or handed over; a second signal ends at once");
    tokio::select! {
        in_time = node.stop() => {
            if !in_time {
                output::talk("stopped with calls under way: other workers take over when the lease is over");
            }
        }
        () = signals.next() => return Ok(Code::Interrupted),
    }
    story.abort();
    Ok(Code::Ok)
}

/// SIGINT and SIGTERM.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on they do not end the process.
    pub fn new() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
