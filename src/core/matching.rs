//! Which sagas an event starts, and why it starts no other; what it is found by when somebody waits for it.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::definition::{Definition, Match};
use super::event::Event;
use super::expression::{EvaluationError, Scope};

/// The active definitions of one moment, indexed by the event types that trigger them.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Rises with every change of the definitions.
    pub revision: i64,
    by_trigger: HashMap<String, Vec<Arc<Deployed>>>,
    by_id: HashMap<String, Arc<Deployed>>,
    awaited: HashMap<String, Vec<Vec<String>>>,
}

/// A definition with the short number that sagas are pinned to.
#[derive(Debug)]
pub struct Deployed {
    /// `definition.no`
    pub no: i32,
    /// The definition.
    pub definition: Definition,
}

/// The most keys of one saga.
const LOCK_KEYS_MAX: usize = 100;
/// The longest key, bytes.
const LOCK_KEY_BYTES_MAX: usize = 1024;
/// Longer values are found by their hash.
const VALUE_BYTES_MAX: usize = 256;

/// What one definition says to one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A saga with this dedupe key, `None` for the event's id, and these lock keys.
    Start(Option<String>, Option<Vec<String>>),
    /// A saga that is refused at once, and why.
    Reject(String),
    /// Nothing, and why.
    Pass(String),
    /// Nothing, because the filter could not be evaluated.
    Error(String),
}

impl Catalog {
    /// A catalog of the given active definitions, and of those that only finish what they started.
    #[must_use]
    pub fn new(revision: i64, active: Vec<Arc<Deployed>>, retired: &[Arc<Deployed>]) -> Self {
        let mut catalog = Self { revision, ..Self::default() };
        for deployed in active.iter().chain(retired) {
            catalog.note_waits(&deployed.definition);
        }
        for deployed in active {
            for kind in &deployed.definition.trigger {
                catalog.by_trigger.entry(kind.clone()).or_default().push(Arc::clone(&deployed));
            }
            catalog.by_id.insert(deployed.definition.id.clone(), deployed);
        }
        catalog
    }

    fn note_waits(&mut self, definition: &Definition) {
        for (event, matching) in definition.awaited() {
            let paths = self.awaited.entry(event.to_owned()).or_default();
            if let Some(path) = matching.map(|matching| &matching.path).filter(|path| !paths.contains(path)) {
                paths.push(path.clone());
            }
        }
    }

    /// The active definition with this full id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Arc<Deployed>> {
        self.by_id.get(id)
    }

    /// Event types that some saga may wait for.
    pub fn awaited(&self) -> impl Iterator<Item = &str> {
        self.awaited.keys().map(String::as_str)
    }

    /// What an event is found by, where its type is one that sagas wait for.
    #[must_use]
    pub fn keys_of(&self, event: &Event) -> Option<Vec<String>> {
        let paths = self.awaited.get(&event.kind)?;
        Some(paths.iter().filter_map(|path| Some(key(path, &at(event, path)?))).collect())
    }

    /// Event types that may start something.
    pub fn triggers(&self) -> impl Iterator<Item = &str> {
        self.by_trigger.keys().map(String::as_str)
    }

    /// Asks every definition that the event's type triggers.
    pub fn ask<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = (&'a Arc<Deployed>, Verdict)> {
        let candidates = self.by_trigger.get(&event.kind).map_or(&[][..], Vec::as_slice);
        candidates.iter().map(move |deployed| (deployed, judge(&deployed.definition, event)))
    }
}

fn judge(definition: &Definition, event: &Event) -> Verdict {
    if !definition.topics.is_empty() && !definition.topics.contains(&event.topic) {
        return Verdict::Pass(format!("{} does not listen to topic {}", definition.id, event.topic));
    }
    let scope = Scope::of_event(event);
    if let Some(filter) = &definition.filter {
        match filter.test(&scope) {
            Ok(true) => {}
            Ok(false) => return Verdict::Pass(format!("the filter of {} is false: {}", definition.id, filter.source())),
            Err(error) => return Verdict::Error(format!("the filter of {} cannot be evaluated: {error}", definition.id)),
        }
    }
    let key = match definition.dedupe.key.as_ref().map(|key| key.text(&scope)).transpose() {
        Ok(key) => key,
        Err(error) => return Verdict::Reject(format!("the dedupe key of {} cannot be evaluated: {error}", definition.id)),
    };
    match lock_keys(definition, event) {
        Ok(locks) => Verdict::Start(key, locks),
        Err(error) => Verdict::Reject(error),
    }
}

/// The keys that a saga of this definition needs for this event, sorted; `None` where it needs none.
///
/// # Errors
/// In words, when an expression fails or gives something that is no key.
pub fn lock_keys(definition: &Definition, event: &Event) -> Result<Option<Vec<String>>, String> {
    let Some(lock) = &definition.lock else { return Ok(None) };
    let scope = Scope::of_event(event);
    let mut keys = Vec::new();
    for expression in &lock.keys {
        let value = expression.evaluate(&scope).map_err(|error| format!("the lock key of {} cannot be evaluated: {error}", definition.id))?;
        match value {
            Value::Array(items) => keys.extend(items.iter().map(text_of)),
            other => keys.push(text_of(&other)),
        }
    }
    let mut keys =
        keys.into_iter().collect::<Option<Vec<String>>>().ok_or_else(|| format!("a lock key of {} is no text and no number", definition.id))?;
    keys.sort();
    keys.dedup();
    if keys.is_empty() || keys.len() > LOCK_KEYS_MAX || keys.iter().any(|key| key.is_empty() || key.len() > LOCK_KEY_BYTES_MAX) {
        return Err(format!("the lock of {} must give 1 to {LOCK_KEYS_MAX} keys of 1 to {LOCK_KEY_BYTES_MAX} bytes", definition.id));
    }
    Ok(Some(keys))
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What an event must be found by to end a wait: its key, for the index. Empty for any event of the type.
///
/// # Errors
/// When the other side of the equality fails.
pub fn wait_key(matching: Option<&Match>, scope: &Scope<'_>) -> Result<String, EvaluationError> {
    matching.map_or(Ok(String::new()), |matching| Ok(key(&matching.path, &matching.value.evaluate(scope)?)))
}

/// `path=value`. Numbers that CEL takes for equal are written alike.
fn key(path: &[String], value: &Value) -> String {
    let text = match value {
        Value::Number(number) => number.as_f64().filter(|float| float.fract() == 0.0).map_or_else(|| number.to_string(), |float| format!("{float}")),
        other => other.to_string(),
    };
    let mut path = path.join(".");
    path.truncate(path.floor_char_boundary(VALUE_BYTES_MAX));
    if text.len() > VALUE_BYTES_MAX {
        let digest = Sha256::digest(text.as_bytes());
        return format!("{path}=sha256:{}", BASE64.encode(digest));
    }
    format!("{path}={text}")
}

/// The value at a path below `async`.
fn at(event: &Event, path: &[String]) -> Option<Value> {
    let (first, rest) = path.split_first()?;
    let text = |text: &str| Some(Value::String(text.to_owned()));
    match first.as_str() {
        "data" => rest.iter().try_fold(event.data.value(), |value, part| value.get(part)).cloned(),
        _ if !rest.is_empty() => None,
        "id" => text(&event.id.to_string()),
        "type" => text(&event.kind),
        "topic" => text(&event.topic),
        "source" => text(&event.source),
        "subject" => text(event.subject.as_deref()?),
        "correlationId" => text(&event.correlation_id),
        "causationId" => text(&event.causation_id?.to_string()),
        "depth" => Some(Value::from(event.depth)),
        _ => None,
    }
}
