//! JSON Schemas of the files, for editors. The types mirror what the readers accept; a test holds them together.
#![expect(dead_code, reason = "the types are never filled: only their schema is asked for")]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use saga::SagaFile;

mod expression;
mod saga;
mod step;

/// The JSON Schema (draft 7, which editors know best) of a kind of file: `saga`, `services` or `scenario`.
#[must_use]
pub fn schema(kind: &str) -> Option<Value> {
    if kind == "scenario" {
        return Some(super::scenario::schema::schema());
    }
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

/// One name, or a list of them.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Names {
    /// One.
    One(#[schemars(length(min = 1, max = 255))] String),
    /// Several.
    Many(#[schemars(length(min = 1), inner(length(min = 1, max = 255)), extend("uniqueItems" = true))] Vec<String>),
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
    /// The only functions of the database that `sql` steps may name: `schema.name`.
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = r"^[a-z_][a-z0-9_]{0,62}\.[a-z_][a-z0-9_]{0,62}$")))]
    functions: Option<Vec<String>>,
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
    use super::super::{call, flow, retry, saga, services, step, work};
    use super::{Value, schema};

    fn properties(schema: &Value) -> BTreeSet<&str> {
        schema["properties"].as_object().expect("properties").keys().map(String::as_str).collect()
    }

    #[test]
    fn schema_and_reader_know_the_same_keys() {
        let (saga_schema, services_schema) = (schema("saga").expect("a schema"), schema("services").expect("a schema"));
        let part = |name: &str| &saga_schema["definitions"][name];
        let pairs: [(&Value, Keys); 18] = [
            (&saga_schema, saga::SAGA),
            (part("DedupeMap"), saga::DEDUPE),
            (part("LockMap"), saga::LOCK),
            (part("CancelOnMap"), saga::CANCEL_ON),
            (part("HitlMap"), saga::HITL),
            (part("CompensationMap"), saga::COMPENSATION),
            (part("RetryMap"), retry::RETRY),
            (part("GroupMap"), flow::GROUP),
            (part("MarkerMap"), flow::MARKER),
            (part("StepMap"), step::STEP),
            (part("CallMap"), call::CALL),
            (part("CompensateMap"), call::COMPENSATE),
            (part("VerifyMap"), call::VERIFY),
            (part("EmitMap"), work::EMIT),
            (part("WaitMap"), work::WAIT),
            (part("HumanMap"), work::HUMAN),
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
