//! The JSON Schemas take what the readers take, and refuse what can be told without an expression.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use super::broken::{seed_with, step_with};
use super::language::{CONTRACT, with_steps};
use super::{SEED, SERVICES, WHOLE};
use crate::core::definition_file::page::Page;
use crate::core::definition_file::{canonical, schema, tree};

static SAGA: LazyLock<Validator> = LazyLock::new(|| compiled("saga"));
static SERVICES_FILE: LazyLock<Validator> = LazyLock::new(|| compiled("services"));

fn compiled(kind: &str) -> Validator {
    jsonschema::draft7::new(&schema(kind).expect("a schema")).expect("a valid schema")
}

/// What the schema of its kind says against a document; empty if nothing.
pub(super) fn complaints(document: &Value) -> Vec<String> {
    let validator = if document.get("services").is_some() { &SERVICES_FILE } else { &SAGA };
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn document(text: &str) -> Value {
    let documents = tree::of_yaml(&Page::new("f.yaml", text)).unwrap_or_else(|found| panic!("{found:?}"));
    canonical::value_of(&documents[0])
}

#[test]
fn what_is_valid_is_taken() {
    let all_steps = "
  - {name: a, emit: x.done, when: true}
  - {name: b, until: data.day, deadlineMs: 5, onExhausted: continue}
  - {name: c, wait: {event: y}, compensate: event}
  - {name: d, call: s:/d, compensate: {sql: x.y, timeoutMs: 5}, verify: {url: s:/v, outcome: response.body.state}}
  - {name: e, human: {prompt: p, form: {type: object}}}
  - [{parallel: true, maxParallel: 3}, {name: f, saga: c.v2, compensateOn: [succeeded]}, [{name: g, delayMs: 5}]]
";
    let others =
        [with_steps(all_steps), format!("lock: data.id\ncancelOn: [{{event: e}}]\n{SEED}"), format!("parallel: true\nmaxParallel: 2\n{SEED}")];
    for text in [SEED, WHOLE, CONTRACT, SERVICES].into_iter().map(str::to_owned).chain(others) {
        assert!(crate::core::definition_file::read("f.yaml", &text).is_ok(), "{text}");
        assert_eq!(complaints(&document(&text)), [""; 0], "{text}");
    }
}

#[test]
fn what_is_broken_is_refused() {
    let steps = |text: &str| with_steps(&format!("  - {text}\n"));
    let broken = [
        seed_with(1, ""),
        seed_with(2, "trigger: []"),
        seed_with(2, "trigger: [a, a]"),
        seed_with(3, "onExhausted: continue"),
        seed_with(3, "lock: {mode: wait}"),
        seed_with(3, "lock: {key: []}"),
        seed_with(3, "lock: [data.a]"),
        seed_with(3, "cancelOn: gone"),
        seed_with(3, "cancelOn: [{match: a}]"),
        seed_with(3, "maxParallel: 2"),
        seed_with(3, "schedule: x"),
        seed_with(3, "hitl: {after: 0}"),
        seed_with(3, "dedupeKey: event.id\ndedupe: {after: failed}"),
        seed_with(3, "timeoutms: 5"),
        seed_with(7, "    cal: payment-svc:/recalc"),
        seed_with(7, "    call: payment-svc"),
        seed_with(7, "    call: http://payment-svc/recalc/"),
        seed_with(7, "    retry: {}"),
        seed_with(8, "    compensate: evnt"),
        seed_with(8, "    compensate: {sql: a.b, url: p:/x}"),
        seed_with(8, "    compensate: {sql: a.b, timeoutMs: 90000}"),
        step_with("    sql: benefits.book"),
        step_with("    heartbeatTimeoutMs: 5"),
        step_with("    kind: pivt"),
        step_with("    kind: pivot\n    onExhausted: continue"),
        step_with("    forEach: x"),
        step_with("    compensateOn: []"),
        step_with("    verify: {outcome: a}"),
        steps("[]"),
        steps("{parallel: true, steps: []}"),
        steps("{steps: [{name: a, delayMs: 1}]}"),
        steps("{name: a, call: s:/a, parallel: true}"),
        steps("{name: a-b, delayMs: 1}"),
        steps("{name: a, sql: book}"),
        steps("{name: a, sql: b.c, timeoutMs: 60001}"),
        steps("{name: a, emit: {topic: t}}"),
        steps("{name: a, wait: bank.settled}"),
        steps("{name: a, wait: {event: x}, timeoutMs: 5}"),
        steps("{name: a, human: {queue: q}}"),
        steps("{name: a, human: {prompt: p, fourEyes: 1}}"),
        steps("{name: a, saga: c.v1, compensate: s:/x}"),
        steps("{name: a, delayMs: 5, async: true}"),
        steps("{name: a, delayMs: 5, retry: {attempts: 2}}"),
        steps("{name: a, call: s:/a, compensateOn: [failed]}"),
        steps("x"),
        "services: {a: {}}".to_owned(),
        "services: {a: {url: ftp://x}}".to_owned(),
    ];
    for text in broken {
        assert!(crate::core::definition_file::read("f.yaml", &text).is_err(), "the reader takes this:\n{text}");
        assert!(!complaints(&document(&text)).is_empty(), "the schema takes this:\n{text}");
    }
}
