//! `hms-bus publish`: one event, by SQL or over HTTP.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::code::Code;
use super::source::{self, Source};
use super::{follow, output};
use crate::config;
use crate::store::events::NewEvent;

/// Arguments of `publish`.
#[derive(Args, Debug)]
pub(super) struct Publish {
    /// What happened, such as policy.changed
    #[arg(value_name = "TYPE")]
    kind: String,
    /// The event's data: JSON, @file, or - for stdin
    #[arg(long, default_value = "{}", value_name = "JSON|@FILE|-")]
    data: String,
    /// Where to publish it
    #[arg(long, default_value = "default")]
    topic: String,
    /// The business object it is about
    #[arg(long)]
    subject: Option<String>,
    /// One event per source and key: publishing again changes nothing
    #[arg(long)]
    key: Option<String>,
    /// Ties together what one fact causes; the subject, else the id, unless said
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Who publishes; the database role or the API key unless said
    #[arg(long)]
    source: Option<String>,
    /// Follow what it starts to the end, with the story
    #[arg(long)]
    wait: bool,
    /// Wait at most this long
    #[arg(long, value_name = "MS", requires = "wait")]
    timeout_ms: Option<u64>,
    #[command(flatten)]
    client: config::Client,
}

/// Publishes.
pub(super) async fn publish(arguments: Publish, given: &config::Database, as_json: bool) -> Result<Code> {
    let Publish { kind, data, topic, subject, key, correlation_id, source, wait, timeout_ms, client } = arguments;
    let data = source::data(&data)?;
    let destination = Source::open(&client, given).await?;
    let event = NewEvent { kind, data, topic: Some(topic.clone()), source, subject, correlation_id, causation_id: None, dedupe_key: key };
    let id = destination.publish(event).await?;
    if as_json {
        output::json(&json!({"id": id, "topic": topic}))?;
    } else {
        output::line(format_args!("{id} {topic}"))?;
    }
    if !wait {
        return Ok(Code::Ok);
    }
    let deadline = timeout_ms.map(|millis| Instant::now() + Duration::from_millis(millis));
    follow::event(&destination, id, deadline, as_json).await
}
