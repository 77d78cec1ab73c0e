//! Where events go and sagas are read from: the database, or a server over HTTP. Both give the same documents.

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use uuid::Uuid;

use super::database::Place;
use super::output;
use super::remote::Remote;
use super::story::{Limits, Record};
use crate::config;
use crate::core::definition_file::{self, File};
use crate::core::payload::Payload;
use crate::store::Store;
use crate::store::events::{self, NewEvent};
use crate::store::lookup;
use crate::store::read::ReadStore;

/// The one or the other.
#[derive(Debug)]
pub(super) enum Source {
    /// By SQL.
    Database {
        /// Writes.
        store: Store,
        /// Reads.
        read: ReadStore,
    },
    /// By HTTP.
    Server(Remote),
}

/// What an event came to so far.
#[derive(Debug)]
pub(super) struct Effect {
    /// The sagas that it started.
    pub sagas: Vec<Uuid>,
    /// One sentence about it.
    pub why: String,
}

impl Effect {
    /// Whether it has been looked at by the router.
    pub fn is_routed(&self) -> bool {
        !self.sagas.is_empty() || !self.why.contains("is not routed yet")
    }
}

impl Source {
    /// The server where one is named, else the database.
    pub async fn open(client: &config::Client, database: &config::Database) -> Result<Self> {
        match &client.url {
            Some(url) => Ok(Self::Server(Remote::new(url, client.api_key.clone())?)),
            None => Self::of_database(&Place::find(database).await?).await,
        }
    }

    /// The database.
    pub async fn of_database(place: &Place) -> Result<Self> {
        Ok(Self::Database { store: place.checked_store().await?, read: place.read(2).await? })
    }

    /// Publishes one event and returns its id.
    pub async fn publish(&self, event: NewEvent) -> Result<Uuid> {
        match self {
            Self::Database { store, .. } => {
                let published = events::publish(store, &[event]).await?;
                Ok(published.first().context("nothing was published")?.id)
            }
            Self::Server(remote) => {
                let NewEvent { kind, data, topic, source, subject, correlation_id, dedupe_key, .. } = event;
                let mut document = json!({"type": kind, "data": data.value()});
                let optional = [("topic", topic), ("source", source), ("subject", subject), ("correlationId", correlation_id), ("id", dedupe_key)];
                for (name, value) in optional {
                    if let Some(value) = value {
                        document[name] = value.into();
                    }
                }
                let answer = remote.post("/v1/events", &document).await?;
                serde_json::from_value(answer["id"].clone()).context("the server's answer holds no id")
            }
        }
    }

    /// What an event came to.
    pub async fn effect(&self, event: Uuid) -> Result<Effect> {
        let missing = || output::not_found(format!("no event has the id {event}"));
        match self {
            Self::Database { read, .. } => {
                let detail = read.event(event).await?.ok_or_else(missing)?;
                Ok(Effect { sagas: detail.sagas.iter().map(|saga| saga.id).collect(), why: detail.why.unwrap_or_default() })
            }
            Self::Server(remote) => {
                let document = remote.get(&format!("/v1/events/{event}")).await?.ok_or_else(missing)?;
                let ids = document["sagas"].as_array().into_iter().flatten().map(|saga| serde_json::from_value(saga["id"].clone()));
                let why = document["why"].as_str().unwrap_or_default().to_owned();
                Ok(Effect { sagas: ids.collect::<Result<_, _>>().context("the server's answer is not ours")?, why })
            }
        }
    }

    /// A saga with all its steps and attempts, as `GET /v1/sagas/{id}` shows it.
    pub async fn saga(&self, id: Uuid) -> Result<Value> {
        let document = match self {
            Self::Database { read, .. } => read.saga(id).await?.map(serde_json::to_value).transpose()?,
            Self::Server(remote) => remote.get(&format!("/v1/sagas/{id}")).await?,
        };
        document.ok_or_else(|| output::not_found(format!("no saga has the id {id}")))
    }

    /// One sentence about a saga or an event; `None` for an id that nothing has.
    pub async fn why(&self, id: Uuid) -> Result<Option<String>> {
        match self {
            Self::Database { store, .. } => Ok(lookup::why(&store.client().await?, id).await?),
            Self::Server(remote) => {
                let document = match remote.get(&format!("/v1/sagas/{id}")).await? {
                    None => remote.get(&format!("/v1/events/{id}")).await?,
                    saga => saga,
                };
                Ok(document.map(|document| document["why"].as_str().unwrap_or_default().to_owned()))
            }
        }
    }

    /// A saga, as far as its story goes.
    pub async fn record(&self, id: Uuid) -> Result<Record> {
        serde_json::from_value(self.saga(id).await?).map_err(|error| anyhow!("the saga {id} cannot be read: {error}"))
    }

    /// How often the steps of a definition are tried at most. What cannot be found out is left out.
    pub async fn limits(&self, definition: &str) -> Limits {
        let source = match self {
            Self::Database { read, .. } => {
                let revisions = read.revisions(definition).await.ok();
                revisions.and_then(|found| found.into_iter().next()?.source).and_then(|source| serde_json::from_str(source.0.get()).ok())
            }
            Self::Server(remote) => {
                let document = remote.get(&format!("/v1/definitions/{definition}")).await.ok().flatten();
                document.map(|mut document| document["revisions"][0]["source"].take())
            }
        };
        match source.map(|source: Value| definition_file::from_stored(&source)) {
            Some(Ok(File::Saga(saga, ..))) => {
                let undo = |step: &crate::core::definition::Step| step.compensate.as_ref().map_or(0, |undo| undo.retry.attempts);
                saga.steps.iter().map(|step| (step.name.clone(), (step.retry.attempts, undo(step)))).collect()
            }
            _ => Limits::new(),
        }
    }
}

/// Data as it is given on the command line: JSON, `@file` or `-` for stdin.
pub(super) fn data(argument: &str) -> Result<Payload> {
    let text = match argument.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("read {path}"))?,
        None if argument == "-" => std::io::read_to_string(std::io::stdin()).context("read stdin")?,
        None => argument.to_owned(),
    };
    let reason = match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Err(error) => format!("the data is no JSON: {error}"),
        Ok(_) => "the data holds a NUL character, which Postgres cannot store".to_owned(),
    };
    Payload::parse(&text).ok_or_else(|| super::code::Stop::new(super::code::Code::Invalid, reason).into())
}
