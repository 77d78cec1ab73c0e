//! The JSON Schema of scenario files, for editors. A test holds it together with the reader.

use serde_json::{Map, Value, json};

use super::super::super::human::{Decision, TaskKind};
use super::super::super::saga::{Compensation, SagaState, StepStatus};
use super::super::reader::Keys;
use super::answers::{ACKNOWLEDGEMENT, CALLBACK, CHILD, FUNCTION, HEARTBEATS, REPLY};
use super::expect::{ELAPSED, EMITTED, EXPECT, REQUEST, STEP, TASK, WAITS};
use super::{DEED, EVENT, FILE, SCENARIO};

/// The JSON Schema (draft 7) of a scenario file.
pub(in super::super) fn schema() -> Value {
    let mut file = map(FILE, &["saga", "scenarios"]);
    file["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    file["title"] = json!("Scenarios");
    file["description"] = json!("Scenario tests of a saga, for `hms-orch test`");
    let parts = [
        ("scenario", SCENARIO, &["name", "expect"][..]),
        ("event", EVENT, &[]),
        ("deed", DEED, &["afterMs"]),
        ("reply", REPLY, &[]),
        ("function", FUNCTION, &[]),
        ("child", CHILD, &["ends"]),
        ("acknowledgement", ACKNOWLEDGEMENT, &[]),
        ("callback", CALLBACK, &["afterMs"]),
        ("heartbeats", HEARTBEATS, &["everyMs"]),
        ("expect", EXPECT, &[]),
        ("emitted", EMITTED, &["type"]),
        ("task", TASK, &["kind"]),
        ("step", STEP, &[]),
        ("request", REQUEST, &[]),
        ("elapsed", ELAPSED, &[]),
    ];
    let mut definitions: Map<_, _> = parts.into_iter().map(|(name, keys, required)| (name.to_owned(), map(keys, required))).collect();
    let answers = ["reply", "function", "child", "acknowledgement"].map(reference);
    let plain = [json!({"type": "integer", "minimum": 100, "maximum": 599}), json!({"enum": ["timeout", "reset", "unreachable"]})];
    definitions.insert("answer".to_owned(), json!({"anyOf": plain.into_iter().chain(answers).collect::<Vec<_>>()}));
    file["definitions"] = Value::Object(definitions);
    file
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/definitions/{name}")})
}

fn map(keys: Keys, required: &[&str]) -> Value {
    let properties: Map<_, _> = keys.known.iter().map(|key| ((*key).to_owned(), property(keys, key))).collect();
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if keys.extensible {
        schema["patternProperties"] = json!({"^x-": true});
    }
    schema
}

fn list(of: &Value) -> Value {
    json!({"type": "array", "items": of})
}

fn any(of: &[Value]) -> Value {
    json!({"anyOf": of})
}

/// The value of a key; keys with one name mean the same in most maps.
fn property(keys: Keys, key: &str) -> Value {
    let text = || json!({"type": "string", "minLength": 1});
    let words = |words: &[&str]| json!({"enum": words});
    match (keys.of, key) {
        ("a scenario file", "scenarios") => json!({"type": "array", "minItems": 1, "items": reference("scenario")}),
        ("an entry of `at`", "event") | ("a scenario" | "a scenario file", "event") => reference("event"),
        ("a scenario" | "a scenario file", "calls") => {
            let answer = reference("answer");
            json!({"type": "object", "additionalProperties": any(&[answer.clone(), json!({"type": "array", "minItems": 1, "items": answer})])})
        }
        ("a scenario", "lock") => words(&["busy", "free"]),
        ("a scenario", "at") => list(&reference("deed")),
        ("a scenario", "expect") => reference("expect"),
        ("an entry of `at`", "decide") => words(&Decision::ALL.map(Decision::as_str)),
        ("an entry of `at`", "order") => words(&["cancel", "pause", "resume", "abort", "retry", "skip"]),
        ("an entry of `at`", "lock") => words(&["granted"]),
        ("an entry of `at`", "worker") => words(&["dies"]),
        ("an answer", "callback" | "heartbeats") => reference(key),
        ("an answer", "fails") => words(&["timeout", "reset", "unreachable"]),
        ("the answer of a function", "fails") => words(&["timeout"]),
        ("an answer", "status") => json!({"type": "integer", "minimum": 100, "maximum": 599}),
        ("a callback", "status") => words(&["ok", "error"]),
        ("the end of a child saga", "ends") => {
            words(&SagaState::ALL.into_iter().filter(|state| state.is_terminal()).map(SagaState::as_str).collect::<Vec<_>>())
        }
        ("`expect`", "state") => words(&SagaState::ALL.map(SagaState::as_str)),
        ("`expect`", "waitingFor") => words(&WAITS),
        ("`expect`", "calls" | "undone") => list(&text()),
        ("`expect`", "requests") => {
            json!({"type": "object", "additionalProperties": any(&[reference("request"), list(&reference("request"))])})
        }
        ("`expect`", "emitted") => list(&any(&[text(), reference("emitted")])),
        ("`expect`", "tasks") => list(&reference("task")),
        ("`expect`", "steps") => {
            json!({"type": "object", "additionalProperties": any(&[words(&StepStatus::ALL.map(StepStatus::as_str)), reference("step")])})
        }
        ("`expect`", "elapsedMs") => any(&[json!({"type": "integer", "minimum": 0}), reference("elapsed")]),
        ("a step", "status") => words(&StepStatus::ALL.map(StepStatus::as_str)),
        ("a step", "compensation") => words(&Compensation::ALL.map(Compensation::as_str)),
        ("a step", "attempts") => json!({"type": "integer", "minimum": 0}),
        ("a human task", "status") => words(&["open", "decided", "withdrawn"]),
        (_, "kind") => words(&TaskKind::ALL.map(TaskKind::as_str)),
        (_, "started" | "clean" | "ok") => json!({"type": "boolean"}),
        (_, "headers") => json!({"type": "object"}),
        // Any document, or a part of one.
        (_, "data" | "body" | "output" | "context" | "returns") => json!(true),
        ("a human task" | "a step", _) => json!(true),
        (_, key) if key.ends_with("Ms") => json!({"type": "integer", "minimum": 0}),
        _ => text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Editors and the reader agree about files that are right and files that are wrong.
    #[test]
    fn schema_and_reader_agree_about_files() {
        let validator = jsonschema::draft7::new(&schema()).expect("a schema");
        let tree = |text: &str| -> Value {
            let page = super::super::Page::new("x", text);
            super::super::value_of(&super::super::tree::of_yaml(&page).expect("YAML")[0])
        };
        for text in [include_str!("../../scenario/tests/contract.scenario.yaml"), include_str!("../../../../sagas/benefit-increase.scenario.yaml")] {
            let findings: Vec<_> = validator.iter_errors(&tree(text)).map(|error| format!("{}: {error}", error.instance_path())).collect();
            assert_eq!(findings, Vec::<String>::new());
        }
        for text in [
            "{saga: a, scenarios: []}",
            "{scenarios: [{name: a, expect: {}}]}",
            "{saga: a, scenarios: [{name: a, expect: {stat: failed}}]}",
            "{saga: a, scenarios: [{name: a, expect: {state: fail}}]}",
            "{saga: a, scenarios: [{name: a, at: [{order: cancel}], expect: {state: failed}}]}",
            "{saga: a, scenarios: [{name: a, calls: {x: [tiemout]}, expect: {state: failed}}]}",
        ] {
            assert!(!validator.is_valid(&tree(text)), "{text}");
        }
    }
}
