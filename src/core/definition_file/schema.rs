//! JSON Schemas of the files, for editors. The types mirror what the readers accept; a test holds them together.
#![expect(dead_code, reason = "the types are never filled: only their schema is asked for")]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The JSON Schema (draft 7, which editors know best) of a kind of file: `saga` or `services`.
#[must_use]
pub fn schema(kind: &str) -> Option<Value> {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = match kind {
        "saga" => generator.into_root_schema_for::<SagaFile>(),
        "services" => generator.into_root_schema_for::<ServicesFile>(),
        _ => return None,
    }
    .to_value();
    forbid_null(&mut schema);
    Some(schema)
}

/// An optional key may be left out; with null for its value the reader refuses it.
fn forbid_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(forbid_null),
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
                if let [only] = choices.as_slice() {
                    // Draft 7 ignores what stands beside a `$ref`: inside `allOf` both hold.
                    let only = only.clone();
                    fields.remove("anyOf");
                    fields.insert("allOf".to_owned(), Value::Array(vec![only]));
                }
            }
            fields.values_mut().for_each(forbid_null);
        }
        _ => {}
    }
}

/// What an event starts: steps that call services, each with its undo.
#[derive(JsonSchema)]
#[schemars(title = "Saga", rename_all = "camelCase", deny_unknown_fields, extend("patternProperties" = {"^x-": true}))]
pub(super) struct SagaFile {
    /// Dotted id; `.vN` at its end is the version: `dol.benefit.increase.v1`.
    #[schemars(length(max = 255), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    id: String,
    /// The version, where the id does not end with it. Both must agree.
    #[schemars(range(min = 1), extend("default" = 1))]
    version: Option<u32>,
    /// Type of the events that start it, or a list of types.
    trigger: Names,
    /// Topics it listens to. All, unless said.
    topics: Option<Names>,
    /// CEL over `data` and `event`: whether an event starts it. A missing field means no. Quote the whole expression if it holds ` #`, `: ` or starts with a quote.
    #[schemars(length(max = 4096))]
    filter: Option<String>,
    /// Which events count as the same request: one saga for each key.
    dedupe: Option<DedupeMap>,
    /// Short form of `dedupe: {key: …}`: CEL over `data` and `event`.
    #[schemars(length(max = 4096), extend("default" = "event.id"))]
    dedupe_key: Option<String>,
    /// The steps in their order.
    #[schemars(length(min = 1, max = 200))]
    steps: Vec<StepMap>,
    /// Retries of every step that has none of its own.
    retry: Option<RetryMap>,
    /// Limit of one attempt, milliseconds.
    #[schemars(range(min = 1, max = 315_360_000_000_u64), extend("default" = 30000))]
    timeout_ms: Option<u64>,
    /// Limit of the whole forward run, milliseconds. None unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    deadline_ms: Option<u64>,
    /// How the steps are undone.
    compensation: Option<CompensationMap>,
}

/// One name, or a list of them.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Names {
    /// One.
    One(#[schemars(length(min = 1, max = 255))] String),
    /// Several.
    Many(#[schemars(length(min = 1), inner(length(min = 1, max = 255)), extend("uniqueItems" = true))] Vec<String>),
}

/// Which events count as the same request.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DedupeMap {
    /// CEL over `data` and `event`.
    #[schemars(length(max = 4096), extend("default" = "event.id"))]
    key: Option<String>,
    /// When the same key may start again: `never`, after the earlier saga `failed`, or whenever it is `terminal`.
    #[schemars(extend("default" = "never"))]
    after: Option<After>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum After {
    Never,
    Failed,
    Terminal,
}

/// A unit of work.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StepMap {
    /// Unique in the saga; expressions say `steps.NAME`.
    #[schemars(length(max = 255), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    name: String,
    /// The call that does it: `[METHOD ]service:/path`, or a map.
    call: CallForm,
    /// The call that undoes it.
    compensate: Option<CompensateForm>,
    /// What the compensation is given: names with CEL over `data`, `event`, `saga`, `steps`, `response`. The reply's `context` object or its whole body, unless said.
    context: Option<BTreeMap<String, String>>,
    /// Its own retries; what is not said here is as in the saga's.
    retry: Option<RetryMap>,
    /// Limit of one attempt, milliseconds. The saga's, unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    timeout_ms: Option<u64>,
}

/// An address, or a map.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum CallForm {
    /// `[METHOD ]service:/path`; `${ CEL }` in the path and query.
    Address(#[schemars(regex(pattern = r"^((GET|POST|PUT|PATCH|DELETE) +)?[A-Za-z0-9][A-Za-z0-9._-]*:/"))] String),
    /// The parts.
    Map(CallMap),
}

/// A call in its parts.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CallMap {
    /// `service:/path`; `${ CEL }` in the path and query.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*:/"))]
    url: String,
    /// The HTTP method.
    #[schemars(extend("default" = "POST"))]
    method: Option<Method>,
    /// Further headers; `${ CEL }` in the values.
    headers: Option<BTreeMap<String, String>>,
    /// Replaces the standard body; `${ CEL }` in its strings.
    body: Option<Value>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// An address, or a map.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum CompensateForm {
    /// `[METHOD ]service:/path`; `${ CEL }` in the path and query.
    Address(#[schemars(regex(pattern = r"^((GET|POST|PUT|PATCH|DELETE) +)?[A-Za-z0-9][A-Za-z0-9._-]*:/"))] String),
    /// The parts.
    Map(CompensateMap),
}

/// An undo in its parts.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CompensateMap {
    /// `service:/path`; `${ CEL }` in the path and query, which sees `step` besides.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*:/"))]
    url: String,
    /// The HTTP method.
    #[schemars(extend("default" = "POST"))]
    method: Option<Method>,
    /// Further headers; `${ CEL }` in the values.
    headers: Option<BTreeMap<String, String>>,
    /// Replaces the standard body; `${ CEL }` in its strings.
    body: Option<Value>,
    /// Its own retries; what is not said here is as in `compensation`.
    retry: Option<RetryMap>,
    /// Limit of one attempt, milliseconds. The step's, unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    timeout_ms: Option<u64>,
}

/// How often and how fast to try again.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RetryMap {
    /// Calls in total, the first included. 3 for a step, 10 for an undo, unless said.
    #[schemars(range(min = 1, max = 10_000))]
    attempts: Option<u32>,
    /// Delay before the second call, milliseconds.
    #[schemars(range(min = 1, max = 315_360_000_000_u64), extend("default" = 1000))]
    backoff_ms: Option<u64>,
    /// Growth of the delay from call to call.
    #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
    multiplier: Option<f64>,
    /// Upper limit of the delay, milliseconds.
    #[schemars(range(min = 1, max = 315_360_000_000_u64), extend("default" = 60000))]
    max_backoff_ms: Option<u64>,
    /// Share of the delay that is spread at random.
    #[schemars(range(min = 0, max = 1), extend("default" = 0.1))]
    jitter: Option<f64>,
}

/// How the steps are undone.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CompensationMap {
    /// Retries of every undo that has none of its own: 10 attempts, unless said.
    retry: Option<RetryMap>,
    /// When an undo fails for good: `stop` and wait for a human, or `continue` with the earlier steps first.
    #[schemars(extend("default" = "stop"))]
    on_failure: Option<OnFailure>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum OnFailure {
    Stop,
    Continue,
}

/// The only places that calls can go to. The registries of several files merge.
#[derive(JsonSchema)]
#[schemars(title = "Services", rename_all = "camelCase", deny_unknown_fields, extend("patternProperties" = {"^x-": true}))]
pub(super) struct ServicesFile {
    /// Id of the registry. The stem of the file's name, unless said.
    #[schemars(length(max = 255), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    id: Option<String>,
    /// The services by the name that sagas use.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"}))]
    services: BTreeMap<String, ServiceMap>,
}

/// A place that calls can go to.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ServiceMap {
    /// `http` or `https` with a host, perhaps a port and a path; no user, query or fragment.
    #[schemars(regex(pattern = r"^https?://[^/?#@]+(/[^?#]*)?$"))]
    url: String,
    /// Who the step tokens are for. The service's name, unless said.
    #[schemars(length(min = 1, max = 255))]
    audience: Option<String>,
    /// Calls at a time in the whole pool. Not enforced yet.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_concurrent: Option<u32>,
    /// Calls per second in the whole pool. Not enforced yet.
    #[schemars(range(min = 1, max = 1_000_000))]
    rate_per_second: Option<u32>,
    /// Networks (CIDR) that may be reached although they are loopback, private or link-local.
    allow: Option<Names>,
    /// Headers of every call: values, or for secrets `secret://env/NAME` and `secret://file/PATH`.
    headers: Option<BTreeMap<String, String>>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::reader::Keys;
    use super::super::{call, retry, saga, services, step};
    use super::*;

    fn properties(schema: &Value) -> BTreeSet<&str> {
        schema["properties"].as_object().expect("properties").keys().map(String::as_str).collect()
    }

    #[test]
    fn schema_and_reader_know_the_same_keys() {
        let (saga_schema, services_schema) = (schema("saga").expect("a schema"), schema("services").expect("a schema"));
        let part = |name: &str| &saga_schema["definitions"][name];
        let pairs: [(&Value, Keys); 9] = [
            (&saga_schema, saga::SAGA),
            (part("DedupeMap"), saga::DEDUPE),
            (part("CompensationMap"), saga::COMPENSATION),
            (part("RetryMap"), retry::RETRY),
            (part("StepMap"), step::STEP),
            (part("CallMap"), call::CALL),
            (part("CompensateMap"), call::COMPENSATE),
            (&services_schema, services::SERVICES),
            (&services_schema["definitions"]["ServiceMap"], services::SERVICE),
        ];
        for (schema, keys) in pairs {
            assert_eq!(properties(schema), keys.known.iter().copied().collect(), "{}", keys.of);
            assert_eq!(schema["additionalProperties"], Value::Bool(false), "{}", keys.of);
            assert_eq!(schema["patternProperties"].is_object(), keys.extensible, "{}", keys.of);
            assert!(schema["properties"].as_object().expect("properties").values().all(|key| key["description"].is_string()), "{}", keys.of);
        }
        assert!(!saga_schema.to_string().contains("\"null\""));
        assert!(schema("rules").is_none());
    }
}
