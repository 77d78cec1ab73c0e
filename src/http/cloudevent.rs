//! What publishers send: CloudEvents 1.0 in its three HTTP modes, and a plain form for `curl`.
//!
//! Pure: bytes and headers in, events or a problem out. The (source, id) of a CloudEvent is its identity; here they become the
//! source and the dedupe key of the ledger.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::problem::Problem;
use crate::core::payload::Payload;
use crate::store::events::NewEvent;

/// Events in the largest batch.
pub const BATCH_MAX: usize = 1000;
/// Levels of the deepest data: beyond the parser's own limit expressions would read null.
const DEPTH_MAX: usize = 64;

/// One event or a list: decides the shape of the answer.
#[derive(Debug)]
pub enum Message {
    /// A single event.
    One(Box<NewEvent>),
    /// A batch: all or none.
    Batch(Vec<NewEvent>),
}

/// Reads the events of a request. `caller` names the source where the plain form does not.
///
/// # Errors
/// 400 for what cannot be read, with a JSON pointer; 415 for data that is not JSON; 422 for what cannot be stored.
pub fn read(headers: &HeaderMap, body: &[u8], caller: &str) -> Result<Message, Problem> {
    let content_type = text_header(headers, header::CONTENT_TYPE.as_str())?.unwrap_or_default();
    let media = media_type(&content_type);
    if media == "application/cloudevents-batch+json" {
        let items: Vec<&RawValue> = parse(utf8(body)?)?;
        if items.len() > BATCH_MAX {
            return Err(Problem::too_large(format!("a batch has at most {BATCH_MAX} events, this one has {}", items.len())));
        }
        let read_item = |(index, item): (usize, &&RawValue)| structured(item.get()).map_err(|problem| problem.below(&format!("/{index}")));
        return Ok(Message::Batch(items.iter().enumerate().map(read_item).collect::<Result<_, _>>()?));
    }
    let event = if media == "application/cloudevents+json" {
        structured(utf8(body)?)?
    } else if media.starts_with("application/cloudevents") {
        return Err(Problem::not_json(format!("{media} is not supported: send application/cloudevents+json")));
    } else if headers.contains_key("ce-specversion") || headers.contains_key("ce-type") {
        binary(headers, &media, body)?
    } else if is_json(&media) {
        plain(utf8(body)?, caller)?
    } else {
        return Err(Problem::not_json("send application/json, application/cloudevents+json or a CloudEvent in binary mode with JSON data"));
    };
    Ok(Message::One(Box::new(event)))
}

/// A CloudEvent as one JSON object. Attributes are read by hand: extensions may have any name, and data stays text.
fn structured(text: &str) -> Result<NewEvent, Problem> {
    let mut attributes: BTreeMap<String, &RawValue> = parse(text)?;
    let data = attributes.remove("data");
    if attributes.contains_key("data_base64") {
        return Err(Problem::not_json("data_base64 holds data that is not JSON").at("/data_base64"));
    }
    let mut get = |name: &str| -> Result<Option<String>, Problem> {
        let Some(raw) = attributes.remove(name) else { return Ok(None) };
        match serde_json::from_str(raw.get()) {
            Ok(Value::Null) => Ok(None),
            Ok(Value::String(text)) => no_nul(text, name).map(Some),
            _ => Err(Problem::malformed(format!("{name} must be a string")).at(format!("/{name}"))),
        }
    };
    let attributes = Attributes {
        spec_version: get("specversion")?,
        id: get("id")?,
        source: get("source")?,
        kind: get("type")?,
        subject: get("subject")?,
        data_content_type: get("datacontenttype")?,
        correlation_id: first(get("correlationid")?, get("correlationId")?),
        causation_id: first(get("causationid")?, get("causationId")?),
        topic: get("topic")?,
    };
    attributes.into_event(data.map_or("null", RawValue::get), "/")
}

/// A CloudEvent whose attributes are headers and whose data is the body.
fn binary(headers: &HeaderMap, media: &str, body: &[u8]) -> Result<NewEvent, Problem> {
    let get = |name: &str| -> Result<Option<String>, Problem> {
        let name = format!("ce-{name}");
        match text_header(headers, &name)? {
            Some(text) => no_nul(percent_decoded(&text, &name)?, &name).map(Some),
            None => Ok(None),
        }
    };
    let data = utf8(body)?;
    let attributes = Attributes {
        spec_version: get("specversion")?,
        id: get("id")?,
        source: get("source")?,
        kind: get("type")?,
        subject: get("subject")?,
        data_content_type: Some(media.to_owned()).filter(|media| !media.is_empty()),
        correlation_id: get("correlationid")?,
        causation_id: get("causationid")?,
        topic: get("topic")?,
    };
    attributes.into_event(if data.trim().is_empty() { "null" } else { data }, "ce-")
}

/// `{"type", "data", ...}`: unknown keys are refused, as a misspelt `topic` would silently publish elsewhere.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    /// What happened.
    #[serde(rename = "type")]
    kind: String,
    /// What there is to know; `{}` unless given.
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    /// Any string; makes publishing repeatable.
    id: Option<String>,
    /// Where to publish; `default` unless given.
    topic: Option<String>,
    /// The business object it is about; the id unless given.
    subject: Option<String>,
    /// Who publishes; the API key's name unless given.
    source: Option<String>,
    /// Ties everything one fact caused.
    #[serde(rename = "correlationId", alias = "correlationid")]
    correlation_id: Option<String>,
    /// The event that caused it.
    #[serde(rename = "causationId", alias = "causationid")]
    causation_id: Option<String>,
}

fn plain(text: &str, caller: &str) -> Result<NewEvent, Problem> {
    let plain: Plain<'_> = parse(text)?;
    for (name, value) in [
        ("type", Some(&plain.kind)),
        ("id", plain.id.as_ref()),
        ("topic", plain.topic.as_ref()),
        ("subject", plain.subject.as_ref()),
        ("source", plain.source.as_ref()),
        ("correlationId", plain.correlation_id.as_ref()),
    ] {
        check_nul(value.map_or("", String::as_str), name)?;
    }
    if plain.id.as_deref() == Some("") {
        return Err(Problem::malformed("id must not be empty").at("/id"));
    }
    Ok(NewEvent {
        data: payload(plain.data.map_or("{}", RawValue::get), "/data")?,
        kind: named(plain.kind, "type", "/")?,
        topic: plain.topic,
        source: Some(plain.source.unwrap_or_else(|| caller.to_owned())),
        subject: plain.subject.or_else(|| plain.id.clone()),
        correlation_id: plain.correlation_id,
        causation_id: causation(plain.causation_id, "/causationId")?,
        dedupe_key: plain.id,
    })
}

struct Attributes {
    spec_version: Option<String>,
    id: Option<String>,
    source: Option<String>,
    kind: Option<String>,
    subject: Option<String>,
    data_content_type: Option<String>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    topic: Option<String>,
}

impl Attributes {
    /// `place` precedes an attribute's name where it is at fault: `/` in a document, `ce-` among headers.
    fn into_event(self, data: &str, place: &str) -> Result<NewEvent, Problem> {
        let version = required(self.spec_version, "specversion", place)?;
        if version != "1.0" {
            return Err(Problem::malformed(format!("specversion {version} is not supported: 1.0 is")).at(format!("{place}specversion")));
        }
        if let Some(other) = self.data_content_type.as_deref().filter(|kind| !is_json(&media_type(kind))) {
            return Err(Problem::not_json(format!("data of type {other} is not JSON")));
        }
        let causation_id = causation(self.causation_id, &format!("{place}causationid"))?;
        let data_place = if place == "/" { "/data" } else { "/" };
        Ok(NewEvent {
            dedupe_key: Some(required(self.id, "id", place)?),
            source: Some(required(self.source, "source", place)?),
            kind: required(self.kind, "type", place)?,
            data: payload(data, data_place)?,
            topic: self.topic.filter(|topic| !topic.is_empty()),
            subject: self.subject,
            correlation_id: self.correlation_id,
            causation_id,
        })
    }
}

fn required(value: Option<String>, name: &str, place: &str) -> Result<String, Problem> {
    let missing = || Problem::malformed(format!("{name} is missing")).at(format!("{place}{name}"));
    named(value.ok_or_else(missing)?, name, place)
}

fn named(value: String, name: &str, place: &str) -> Result<String, Problem> {
    if value.is_empty() { Err(Problem::malformed(format!("{name} must not be empty")).at(format!("{place}{name}"))) } else { Ok(value) }
}

fn causation(value: Option<String>, pointer: &str) -> Result<Option<Uuid>, Problem> {
    let parse = |text: String| Uuid::parse_str(&text).map_err(|_| Problem::malformed("the causation id is the UUID of an event").at(pointer));
    value.map(parse).transpose()
}

/// JSON text that Postgres can keep and expressions can read.
fn payload(text: &str, pointer: &str) -> Result<Payload, Problem> {
    if depth(text) > DEPTH_MAX {
        return Err(Problem::invalid(format!("data is nested deeper than {DEPTH_MAX} levels")).at(pointer));
    }
    match Payload::parse(text) {
        Some(payload) => Ok(payload),
        // It may still be JSON, with a character that Postgres cannot keep.
        None if serde_json::from_str::<&RawValue>(text).is_ok() => {
            Err(Problem::invalid("data holds a NUL character, which cannot be stored").at(pointer))
        }
        None => Err(Problem::malformed("data is not JSON").at(pointer)),
    }
}

/// How many brackets are open at once, at most, outside strings.
fn depth(text: &str) -> usize {
    let (mut open, mut most, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                open += 1;
                most = most.max(open);
            }
            b'}' | b']' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    most
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| {
        // serde names the field it stumbled over in backticks: that is the pointer.
        let message = error.to_string();
        let field = message.split('`').nth(1).filter(|_| message.contains("field `")).unwrap_or_default().to_owned();
        let item = super::problem::Item {
            detail: message.clone(),
            pointer: Some(if field.is_empty() { String::new() } else { format!("/{field}") }),
            line: u64::try_from(error.line()).ok(),
            column: u64::try_from(error.column()).ok(),
        };
        Problem::malformed(message).with_errors(vec![item])
    })
}

fn utf8(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|_| Problem::malformed("the body is not UTF-8"))
}

fn text_header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let text = |value: &axum::http::HeaderValue| std::str::from_utf8(value.as_bytes()).map(str::to_owned);
    headers.get(name).map(text).transpose().map_err(|_| Problem::malformed(format!("header {name} is not UTF-8")).at(name))
}

/// The media type in lower case, without its parameters.
#[must_use]
pub fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// `application/json`, `text/json` and anything that ends in `+json`.
fn is_json(media: &str) -> bool {
    matches!(media, "application/json" | "text/json") || media.ends_with("+json")
}

/// Header values of the binary mode: percent-encoded UTF-8.
fn percent_decoded(text: &str, name: &str) -> Result<String, Problem> {
    let wrong = || Problem::malformed(format!("header {name} is not percent-encoded UTF-8")).at(name);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(wrong)?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn no_nul(text: String, name: &str) -> Result<String, Problem> {
    check_nul(&text, name)?;
    Ok(text)
}

fn check_nul(text: &str, name: &str) -> Result<(), Problem> {
    if text.contains('\0') {
        return Err(Problem::invalid(format!("{name} holds a NUL character, which cannot be stored")).at(format!("/{name}")));
    }
    Ok(())
}

fn first(one: Option<String>, other: Option<String>) -> Option<String> {
    one.or(other)
}

#[cfg(test)]
mod tests;
