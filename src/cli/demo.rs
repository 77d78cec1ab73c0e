//! `demo`: the story of a benefit increase, once with a happy end and once rolled back to the cent.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;

use super::code::Code;
use super::database::{self, Place};
use super::files::{Document, Read};
use super::node::{self, Node};
use super::source::Source;
use super::up::Signals;
use super::{deploy, follow, output};
use crate::config::{self, Worker};
use crate::core::payload::Payload;
use crate::demo::{self, Services};
use crate::http::auth::Auth;
use crate::store::Store;
use crate::store::definitions::{self, Order, Outcome};
use crate::store::events::NewEvent;
use crate::store::migrate;
use crate::telemetry::Metrics;

const SAGA: &str = include_str!("../../sagas/benefit-increase.yaml");
/// Longest time that one story may take.
const STORY_TIME: Duration = Duration::from_secs(600);
/// Longest time to take the demo's files out of force.
const RETIRE_TIME: Duration = Duration::from_secs(10);

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Stay up afterwards, for a look around
    #[arg(long)]
    keep: bool,
    /// How many claimants there are to tell
    #[arg(long, default_value_t = 2_001_445, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    claimants: u32,
    #[command(flatten)]
    worker: config::Worker,
}

/// Arguments of `demo-service`.
#[derive(Args, Debug)]
pub(super) struct DemoService {
    /// Which one
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(demo::NAMES))]
    name: String,
    /// Address to serve at
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where the orchestrator publishes its keys: `<its address>/.well-known/jwks.json`
    #[arg(long, value_name = "URL")]
    jwks_url: String,
    /// How many claimants there are to tell; the same for all three services
    #[arg(long, default_value_t = 2_001_445, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    claimants: u32,
}

/// Runs one of the demo's services until SIGINT or SIGTERM.
pub(super) async fn serve(arguments: &DemoService, given: &config::Database) -> Result<Code> {
    let place = Place::find(given).await?;
    output::talk(&place);
    let options = options(place.url, arguments.jwks_url.clone(), arguments.claimants);
    demo::serve_one(&arguments.name, arguments.listen, options).await?;
    Ok(Code::Ok)
}

/// A register of that many people.
fn options(database_url: String, jwks_url: String, claimants: u32) -> demo::Options {
    let story = demo::Options::new(database_url, jwks_url);
    let mut options = demo::Options { claimants, payments: story.payments.min(claimants), ..story.clone() };
    if claimants != story.claimants {
        // Registers of other sizes live beside each other.
        options.schema = format!("agency_{claimants}");
    }
    options
}

/// Tells both stories and says whether they went as they must.
pub(super) async fn demo(arguments: &Demo, given: &config::Database) -> Result<Code> {
    let deployed = OnceLock::new();
    let end = perform(arguments, given, &deployed).await;
    if let Some(deployed) = deployed.get() {
        retire(deployed).await;
    }
    end
}

async fn perform(arguments: &Demo, given: &config::Database, deployed: &OnceLock<Deployed>) -> Result<Code> {
    let mut signals = Signals::new()?;
    tokio::select! {
        result = play(arguments, given, deployed) => {
            let stage = result?;
            if arguments.keep {
                output::talk("it stays up until you press Ctrl-C");
                signals.next().await;
            }
            stage.clear().await;
            Ok(Code::Ok)
        }
        () = signals.next() => Ok(Code::Interrupted),
    }
}

/// What the demo put into force, and where.
struct Deployed {
    store: Store,
    by: String,
    documents: Vec<Document>,
}

/// Takes it out of force again: its addresses lead nowhere from now on. Finished sagas stay as they are.
async fn retire(deployed: &Deployed) {
    let Deployed { store, by, documents } = deployed;
    let order = Order { by, reason: Some("hms-orch demo has ended"), replace: false };
    let work = async {
        let (_, active) = definitions::active(&**store.client().await?).await?;
        for document in documents {
            // What somebody deployed in its place meanwhile is theirs.
            if active.iter().any(|other| other.kind == document.kind && other.id == document.id && other.source == document.source) {
                definitions::retire(store, document.kind, &document.id, order).await?;
            }
        }
        Ok::<_, crate::store::Error>(())
    };
    let failure = match tokio::time::timeout(RETIRE_TIME, work).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the database does not answer".to_owned(),
    };
    output::talk(format_args!("warning: the demo's saga and services stay deployed: {failure}"));
}

/// Everything that is up while the stories are told.
struct Stage {
    node: Node,
    services: Services,
    source: Source,
}

impl Stage {
    async fn clear(self) {
        self.node.stop().await;
        self.services.stop().await;
    }
}

async fn play(arguments: &Demo, given: &config::Database, deployed: &OnceLock<Deployed>) -> Result<Stage> {
    let listener = listener(&arguments.worker).await?;
    let address = listener.local_addr()?;
    let place = Place::find(given).await?;
    output::talk(&place);
    migrate::migrate(&place.listen).await?;

    output::talk(format_args!("making a register of {} claimants", grouped(arguments.claimants.into())));
    let options = options(place.url.clone(), format!("http://{address}/.well-known/jwks.json"), arguments.claimants);
    let services = Services::start(options).await?;

    let store = place.checked_store().await?;
    let mut files = Read::default();
    files.add("sagas/benefit-increase.yaml", SAGA);
    files.add("sagas/agency-services.yaml", &services.registry_yaml());
    ensure!(files.problems.is_empty(), "the demo's own files are not valid: {:?}", files.problems);
    let by = database::who(&place.dsn);
    let order = Order { by: &by, reason: Some("hms-orch demo"), replace: false };
    let outcomes = deploy::all(&store, &files.documents, order).await?;
    // What was in force already stays so.
    let new = files.documents.into_iter().zip(&outcomes).filter(|(_, done)| done.outcome != Outcome::Unchanged).map(|(document, _)| document);
    deployed.get_or_init(|| Deployed { store, by, documents: new.collect() });

    let node = Node::start(&arguments.worker, &place, Some(listener), Metrics::record()?, None).await?;
    let source = Source::of_database(&place).await?;
    let stage = Stage { node, services, source };
    tell(&stage).await?;

    output::line("")?;
    output::line(format_args!("dashboard        http://{address}/"))?;
    if let Some(psql) = place.psql() {
        output::line(format_args!("psql             {psql}"))?;
    }
    output::line("in SQL           select id, definition, state, duration_ms from syncor.sagas order by started_at desc;")?;
    output::line("                 or: select name, status, compensation, message from syncor.steps where saga_id = '...';")?;
    output::line("                 or: select type, subject, data from syncor.events order by created_at desc limit 10;")?;
    output::line("on this console  hms-orch sagas")?;
    Ok(stage)
}

async fn tell(stage: &Stage) -> Result<()> {
    let before = stage.services.payments_total_cents().await?;
    output::line(format_args!("All weekly payments together: {}", dollars(before)))?;
    output::line("A policy raises them by 5 percent.\n")?;
    let end = one(stage, "happy").await?;
    ensure!(end == Code::Ok, "the happy story ended otherwise: {end:?}");
    let raised = stage.services.payments_total_cents().await?;
    output::line(format_args!("\nAll weekly payments together: {}", dollars(raised)))?;
    ensure!(raised > before, "no payment was raised");

    output::line("The same again, but now the notice system is down for good.\n")?;
    stage.services.set_failure("notice-svc", Some(500));
    let told = one(stage, "rolled-back").await;
    stage.services.set_failure("notice-svc", None);
    let end = told?;
    ensure!(end == Code::SagaFailed, "the second story ended otherwise: {end:?}");
    let restored = stage.services.payments_total_cents().await?;
    output::line(format_args!("\nAll weekly payments together: {}", dollars(restored)))?;
    ensure!(restored == raised, "the payments are {} after the rollback and were {} before", dollars(restored), dollars(raised));
    output::line("Restored to the cent.")?;
    Ok(())
}

/// Publishes one policy change, tells what comes of it and returns how it ended.
async fn one(stage: &Stage, name: &str) -> Result<Code> {
    // A subject of its own each time, so that the demo can be shown again on the same database.
    let subject = format!("{name}-{}", uuid::Uuid::now_v7().simple());
    let data = json!({"policyId": "dol.unemployment.v3", "percent": 5, "subject": subject});
    let event = NewEvent {
        kind: "policy.changed".to_owned(),
        data: Payload::parse(&data.to_string()).context("the demo's event")?,
        topic: Some("policy.v1".to_owned()),
        source: Some("hms-orch demo".to_owned()),
        subject: Some(subject.clone()),
        correlation_id: Some(subject.clone()),
        causation_id: None,
        dedupe_key: Some(subject),
    };
    let event = stage.source.publish(event).await?;
    // Told from the database: another server on it may be the one that runs the saga.
    follow::event(&stage.source, event, Some(Instant::now() + STORY_TIME), false).await
}

/// The address asked for, or a free port where that is the usual one and taken.
async fn listener(settings: &Worker) -> Result<TcpListener> {
    match node::bind(settings.listen, &Auth::Open).await {
        Err(_) if settings.listen.to_string() == config::DEFAULT_LISTEN => node::bind(([127, 0, 0, 1], 0).into(), &Auth::Open).await,
        bound => bound,
    }
}

/// 123456789 as "$1 234 567.89".
fn dollars(cents: i64) -> String {
    format!("${}.{:02}", grouped(cents.unsigned_abs() / 100), cents.unsigned_abs() % 100)
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_compose_file_runs_the_services_that_its_registry_names() {
        let mut files = super::Read::default();
        files.add("compose/services.yaml", include_str!("../../compose/services.yaml"));
        assert!(files.problems.is_empty() && files.warnings.is_empty(), "{:?}", files.problems);
        let services = files.documents[0].source["services"].as_object().expect("a map").clone();
        assert_eq!(services.len(), crate::demo::NAMES.len());
        let compose = include_str!("../../docker-compose.yml");
        for name in crate::demo::NAMES {
            let (_, port) = services[name]["url"].as_str().expect("a url").rsplit_once(':').expect("a port");
            assert_eq!(services[name]["url"], format!("http://{name}:{port}"));
            let command = format!("command: [\"demo-service\", \"{name}\", \"--listen\", \"0.0.0.0:{port}\",");
            assert!(compose.contains(&command), "{command}");
        }
    }

    #[test]
    fn money_reads_as_money() {
        assert_eq!(super::dollars(123_456_789), "$1 234 567.89");
        assert_eq!(super::dollars(5), "$0.05");
    }
}
