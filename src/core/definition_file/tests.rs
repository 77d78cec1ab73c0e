use std::time::Duration;

use super::*;
use crate::core::definition::{DedupeAfter, OnCompensationFailure, Retry, Step};
use crate::core::expression::Scope;
use crate::core::expression::tests::event;
use crate::core::service::HeaderSource;
use serde_json::json;

pub(super) const SEED: &str = r#"id: dol.benefit.increase.v1
trigger: policy.changed
filter: data.policyId == "dol.unemployment.v3"

steps:
  - name: recalc_payments
    call: payment-svc:/recalc
    compensate: payment-svc:/revert

  - name: send_notices
    call: notice-svc:/broadcast
    compensate: notice-svc:/cancel

  - name: archive_rule
    call: archive-svc:/snapshot

retry:
  attempts: 3
  backoffMs: 2000
timeoutMs: 300000
"#;

/// A saga file with every key.
const WHOLE: &str = r#"
id: a.b.v2
version: 2
trigger: [x.happened, y.happened]
topics: [one, two]
filter: 'data.kind == "a: b"'   # quoted
dedupe: {key: event.subject, after: failed}
retry: {attempts: 5, multiplier: 3, jitter: 0}
timeoutMs: 1000
deadlineMs: 86400000
compensation: {retry: {attempts: 20, maxBackoffMs: 5000}, onFailure: continue}
x-owner: {team: benefits, since: 2020}
steps:
  - name: first
    call: PUT pay:/cases/${ data.id }/${event.type}?n=${ data.n }
    context: {backupId: response.body.backupId, "both": "string(response.status) + ', ' + data.id"}
    retry: {backoffMs: 90000}
    compensate:
      url: pay:/undo/${ step.context.backupId }
      method: DELETE
      body: {key: "${ step.doKey }", list: ["${ data.n }", 1, yes], nothing: null}
      retry: {attempts: 2}
      timeoutMs: 7
  - name: second
    timeoutMs: 2000
    call: {url: "mail:/send", headers: {X-Case: "${ steps.first.context.backupId }"}}
    compensate: mail:/unsend
"#;

const SERVICES: &str = r#"
id: agency-services
services:
  payment-svc: {url: "http://127.0.0.1:9001/", audience: payments, allow: [127.0.0.0/8, "::1"], headers: {X-Api-Key: secret://env/PAYMENT_KEY, Accept-Language: en}}
  files: {url: "https://files.example/base", headers: {X-Api-Key: secret://file/run/secrets/files}}
functions: [benefits.book, benefits.unbook]
"#;

fn saga(text: &str) -> Definition {
    match read("test.yaml", text).unwrap_or_else(|problems| panic!("{text}\n{}", shown(&problems))) {
        File::Saga(definition, warnings, _) if warnings.is_empty() => definition,
        other => panic!("{other:?}"),
    }
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn the_seed_reads_as_it_is() {
    let seed = saga(SEED);
    assert_eq!((seed.id.as_str(), seed.family.as_str(), seed.version), ("dol.benefit.increase.v1", "dol.benefit.increase", 1));
    assert_eq!(seed.trigger, ["policy.changed"]);
    let filter = seed.filter.as_ref().expect("a filter");
    assert_eq!(filter.source(), r#"data.policyId == "dol.unemployment.v3""#);
    let event = event(json!({"policyId": "dol.unemployment.v3"}));
    assert_eq!(filter.test(&Scope::of_event(&event)), Ok(true));
    let names: Vec<_> = seed.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["recalc_payments", "send_notices", "archive_rule"]);
    let first = &seed.steps[0];
    assert_eq!((call_of(first).method.as_str(), call_of(first).service.as_str(), call_of(first).path.source()), ("POST", "payment-svc", "/recalc"));
    let retry = Retry { attempts: 3, backoff: Duration::from_secs(2), multiplier: 2.0, backoff_max: Duration::from_secs(60), jitter: 0.1 };
    assert_eq!(first.retry, retry);
    let undo = first.compensate.as_ref().expect("a compensation");
    assert_eq!(undo.retry, Retry { attempts: 10, backoff: Duration::from_secs(1), ..retry });
    assert_eq!((first.timeout, undo.timeout), (Duration::from_secs(300), Duration::from_secs(300)));
    assert!(seed.steps[2].compensate.is_none() && seed.topics.is_empty() && seed.deadline.is_none());
    assert_eq!(seed.on_compensation_failure, OnCompensationFailure::Stop);
}

fn call_of(step: &Step) -> &crate::core::definition::Call {
    step.call().expect("a call")
}

#[test]
fn every_key_is_read() {
    let whole = saga(WHOLE);
    assert_eq!((whole.family.as_str(), whole.version, whole.trigger.len(), whole.topics.len()), ("a.b", 2, 2, 2));
    assert_eq!(whole.filter.as_ref().map(super::super::expression::Expression::source), Some("data.kind == \"a: b\""));
    assert_eq!(whole.dedupe.after, DedupeAfter::Failed);
    assert_eq!(whole.deadline, Some(Duration::from_secs(86400)));
    assert_eq!(whole.on_compensation_failure, OnCompensationFailure::Continue);
    let [first, second] = whole.steps.as_slice() else { panic!("two steps") };
    let millis = Duration::from_millis;
    let policy = |attempts, backoff, multiplier, backoff_max, jitter| Retry {
        attempts,
        backoff: millis(backoff),
        multiplier,
        backoff_max: millis(backoff_max),
        jitter,
    };
    assert_eq!(first.retry, policy(5, 90_000, 3.0, 90_000, 0.0), "a first delay above the usual cap raises it");
    assert_eq!(second.retry, policy(5, 1000, 3.0, 60_000, 0.0));
    let undo = first.compensate.as_ref().expect("a compensation");
    assert_eq!((undo.retry, undo.timeout), (policy(2, 1000, 2.0, 5000, 0.1), millis(7)));
    let undo = second.compensate.as_ref().expect("a compensation");
    assert_eq!((undo.retry, undo.timeout), (policy(20, 1000, 2.0, 5000, 0.1), millis(2000)), "an undo has its step's timeout");
    assert_eq!((first.timeout, second.timeout), (millis(1000), millis(2000)));
    let event = event(json!({"id": "a/b", "n": 5}));
    let scope = Scope::of_event(&event);
    assert_eq!((call_of(first).method.as_str(), call_of(first).path.render_path(&scope).as_deref()), ("PUT", Ok("/cases/a%2Fb/policy.changed?n=5")));
    let undo = first.calls().nth(1).expect("a compensation");
    assert_eq!((undo.method.as_str(), undo.service.as_str()), ("DELETE", "pay"));
    let scope = Scope { step: Some(crate::core::expression::UndoScope { name: "first", context: None, do_key: "k" }), ..scope };
    assert_eq!(undo.body.as_ref().expect("a body").render(&scope), Ok(json!({"key": "k", "list": [5, 1, "yes"], "nothing": null})));
    assert_eq!(first.context.as_ref().map(Vec::len), Some(2));
    assert_eq!(call_of(second).headers[0].0, "X-Case");
}

#[test]
fn a_registry_is_read() {
    let Ok(File::Services(registry, warnings, source)) = read("x/services.yaml", SERVICES) else { panic!("no registry") };
    assert!(warnings.is_empty());
    assert_eq!((registry.id.as_str(), registry.services.len(), source["id"].as_str()), ("agency-services", 2, Some("agency-services")));
    let payment = &registry.services[0];
    assert_eq!((payment.url.as_str(), payment.audience.as_str(), payment.allow.len()), ("http://127.0.0.1:9001", "payments", 2));
    assert_eq!(payment.headers[0], ("X-Api-Key".to_owned(), HeaderSource::Env("PAYMENT_KEY".to_owned())));
    assert_eq!(payment.headers[1].1, HeaderSource::Plain("en".to_owned()));
    assert_eq!((registry.services[1].url.as_str(), registry.services[1].audience.as_str()), ("https://files.example/base", "files"));
    assert_eq!(registry.services[1].headers[0].1, HeaderSource::File("/run/secrets/files".to_owned()));
    assert_eq!(registry.functions, ["benefits.book", "benefits.unbook"]);

    let text = "services: {a: {url: http://h, maxConcurrent: 64, ratePerSecond: 5}}";
    let Ok(File::Services(registry, warnings, source)) = read("dir/agency.services.yaml", text) else { panic!("no registry") };
    assert_eq!((registry.id.as_str(), source["id"].as_str()), ("agency", Some("agency")));
    assert_eq!(warnings.iter().map(|warning| (warning.line, warning.column)).collect::<Vec<_>>(), [(1, 46), (1, 65)]);
    assert!(
        shown(&warnings).starts_with("warning: `maxConcurrent` is not enforced yet\n --> dir/agency.services.yaml:1:46\n"),
        "{}",
        shown(&warnings)
    );
}

#[test]
fn what_is_stored_reads_back_with_the_same_revision() {
    for text in [SEED, WHOLE, language::CONTRACT, SERVICES, "services: {a: {url: http://h}}"] {
        let (revision, source) = match read("stem.yaml", text).expect("valid") {
            File::Saga(definition, _, source) => (definition.revision, source),
            File::Services(registry, _, source) => (registry.revision, source),
        };
        assert_eq!(revision.len(), 64);
        // The database keeps numbers and keys in its own way.
        let stored: Value = serde_json::from_str(&source.to_string()).expect("JSON");
        match from_stored(&stored).unwrap_or_else(|problems| panic!("{}", shown(&problems))) {
            File::Saga(definition, warnings, again) => assert_eq!((definition.revision, warnings.len(), again), (revision, 0, source)),
            File::Services(registry, _, again) => assert_eq!((registry.revision, again), (revision, source)),
        }
    }
}

#[test]
fn a_revision_is_the_meaning_not_the_text() {
    let revision = saga(SEED).revision;
    assert_eq!(saga(&format!("# a comment\n\u{feff}{SEED}").replace('\u{feff}', "")).revision, revision);
    assert_eq!(saga(&SEED.replace('\n', "\r\n")).revision, revision);
    assert_eq!(saga(&format!("\u{feff}{SEED}")).revision, revision);
    assert_eq!(saga(&SEED.replace("trigger: policy.changed\n", "").replace("retry:", "trigger: \"policy.changed\"\nretry:")).revision, revision);
    assert_eq!(saga(&SEED.replace("300000", "3e5")).revision, revision);
    assert_ne!(saga(&SEED.replace("300000", "300001")).revision, revision);
    let Ok(File::Saga(_, _, source)) = read("a", SEED) else { panic!("a saga") };
    assert_eq!(saga(&source.to_string()).revision, revision, "JSON is YAML");
    assert_eq!(saga(&serde_json::to_string_pretty(&source).expect("JSON").replace("  ", "\t")).revision, revision, "tabs may indent JSON");
}

#[test]
fn several_documents_are_read() {
    let text = format!("---\n{SEED}---\n{SERVICES}---\n");
    assert_eq!(read_all("a.yaml", &text).expect("valid").len(), 2);
    assert!(read("a.yaml", &text).is_err());
    let problems = read_all("a.yaml", &format!("{SEED}---\n{}", SEED.replace("call: notice", "cal: notice"))).expect_err("a typo");
    assert_eq!(problems[0].line, 32, "{}", shown(&problems));
}

mod broken;
mod broken_language;
pub(in crate::core) mod language;
mod schemas;

#[test]
fn the_example_files_are_valid_without_warnings() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sagas");
    let mut sagas = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".yaml") || name.ends_with(".scenario.yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a text");
        match read(&name, &text).unwrap_or_else(|problems| panic!("{}", shown(&problems))) {
            File::Saga(definition, warnings, source) => {
                assert!(warnings.is_empty(), "{}", shown(&warnings));
                assert_eq!(schemas::complaints(&source), [""; 0], "{name}");
                sagas.push(definition);
            }
            File::Services(_, warnings, _) => assert!(warnings.is_empty(), "{}", shown(&warnings)),
        }
    }
    assert!(sagas.len() > 4);
    assert_eq!(crate::core::lint::together(&sagas.iter().collect::<Vec<_>>()), []);
}
