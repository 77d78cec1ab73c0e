//! What expressions see, and how it becomes CEL.

use serde_json::Value;
use uuid::Uuid;

use super::super::event::Event;
use super::super::payload::Payload;
use super::Root;
use super::value::{self, Parts, from_json};

/// What an expression is evaluated against.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    /// `data`.
    pub data: &'a Payload,
    /// `event`.
    pub event: &'a Event,
    /// `saga`, once there is one.
    pub saga: Option<SagaScope<'a>>,
    /// `steps`.
    pub steps: &'a [StepScope<'a>],
    /// `step`, in a compensation.
    pub step: Option<UndoScope<'a>>,
    /// `response`, in `context` and `verify`.
    pub response: Option<ResponseScope<'a>>,
    /// `async`, in `match`: the event that arrives.
    pub arriving: Option<&'a Event>,
}

/// `saga`.
#[derive(Clone, Copy, Debug)]
pub struct SagaScope<'a> {
    /// The saga's id.
    pub id: Uuid,
    /// Its definition's id.
    pub definition: &'a str,
    /// Its definition's version.
    pub version: u32,
}

/// `steps.<name>`.
#[derive(Clone, Copy, Debug)]
pub struct StepScope<'a> {
    /// The step's name.
    pub name: &'a str,
    /// The step's status.
    pub status: &'static str,
    /// What it answered; `None` reads as null.
    pub output: Option<&'a Payload>,
    /// What its compensation is given; `None` reads as null.
    pub context: Option<&'a Payload>,
}

/// `step`: what a compensation undoes.
#[derive(Clone, Copy, Debug)]
pub struct UndoScope<'a> {
    /// The step's name.
    pub name: &'a str,
    /// What the step left for its undo; `None` reads as null.
    pub context: Option<&'a Payload>,
    /// The idempotency key of what is undone.
    pub do_key: &'a str,
}

/// `response`.
#[derive(Clone, Copy, Debug)]
pub struct ResponseScope<'a> {
    /// HTTP status.
    pub status: u16,
    /// Header names in lower case with their values.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a Value,
}

impl<'a> Scope<'a> {
    /// What is known before a saga exists: the event and its data.
    #[must_use]
    pub fn of_event(event: &'a Event) -> Self {
        Self { data: &event.data, event, saga: None, steps: &[], step: None, response: None, arriving: None }
    }

    /// The value of a variable, as far as `parts` of it are looked at; `None` where it does not exist.
    pub(super) fn bind(&self, root: Root, parts: &Parts, longest: &mut usize) -> Option<cel::Value> {
        let fields = |longest: &mut usize, get: &dyn Fn(&str, &Parts, &mut usize) -> cel::Value| {
            value::map(root.fields().iter().filter_map(|name| Some((*name, get(name, parts.of(name)?, longest)))))
        };
        Some(match root {
            Root::Data => from_json(self.data.value(), parts, longest),
            Root::Event => fields(longest, &|name, parts, longest| event_field(self.event, name, parts, longest)),
            Root::Saga => {
                let saga = self.saga?;
                fields(longest, &|name, _, _| match name {
                    "id" => saga.id.to_string().into(),
                    "definition" => saga.definition.into(),
                    _ => cel::Value::Int(saga.version.into()),
                })
            }
            Root::Steps => value::map(self.steps.iter().filter_map(|step| {
                let parts = parts.of(step.name)?;
                let named = root.fields().iter().filter_map(|name| {
                    let parts = parts.of(name)?;
                    Some(match *name {
                        "status" => (*name, step.status.into()),
                        "output" => (*name, optional(step.output, parts, longest)),
                        _ => (*name, optional(step.context, parts, longest)),
                    })
                });
                Some((step.name, value::map(named)))
            })),
            Root::Step => {
                let step = self.step?;
                fields(longest, &|name, parts, longest| match name {
                    "name" => step.name.into(),
                    "doKey" => step.do_key.into(),
                    _ => optional(step.context, parts, longest),
                })
            }
            Root::Response => {
                let response = self.response?;
                fields(longest, &|name, parts, longest| match name {
                    "status" => cel::Value::Int(response.status.into()),
                    "headers" => value::map(response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str().into()))),
                    _ => from_json(response.body, parts, longest),
                })
            }
            Root::Async => {
                let arriving = self.arriving?;
                fields(longest, &|name, parts, longest| event_field(arriving, name, parts, longest))
            }
        })
    }
}

fn event_field(event: &Event, name: &str, parts: &Parts, longest: &mut usize) -> cel::Value {
    match name {
        "id" => event.id.to_string().into(),
        "type" => event.kind.as_str().into(),
        "topic" => event.topic.as_str().into(),
        "source" => event.source.as_str().into(),
        "subject" => event.subject.as_deref().into(),
        "correlationId" => event.correlation_id.as_str().into(),
        "causationId" => event.causation_id.map(|id| id.to_string()).into(),
        "depth" => cel::Value::Int(event.depth.into()),
        "time" => {
            chrono::DateTime::from_timestamp_micros(event.created_at.0).map_or(cel::Value::Null, |time| cel::Value::Timestamp(time.fixed_offset()))
        }
        _ => from_json(event.data.value(), parts, longest),
    }
}

fn optional(payload: Option<&Payload>, parts: &Parts, longest: &mut usize) -> cel::Value {
    payload.map_or(cel::Value::Null, |payload| from_json(payload.value(), parts, longest))
}
