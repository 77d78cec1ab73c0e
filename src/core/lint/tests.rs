use super::*;
use crate::core::definition_file::tests::language::CONTRACT;
use crate::core::definition_file::{File, read};

fn saga(text: &str) -> Definition {
    match read("f.yaml", text) {
        Ok(File::Saga(definition, ..)) => definition,
        other => panic!("{text}\n{other:?}"),
    }
}

fn steps(text: &str) -> Definition {
    saga(&format!("id: a.b.v1\ntrigger: x\nsteps:\n{text}"))
}

/// The step and the message of each finding.
fn said(found: &[Finding]) -> Vec<String> {
    found.iter().map(|finding| format!("{}: {}", finding.step.as_deref().unwrap_or("-"), finding.message)).collect()
}

#[test]
fn the_example_of_the_contract_is_fine() {
    assert_eq!(said(&alone(&saga(CONTRACT))), [""; 0]);
}

#[test]
fn a_step_without_undo_before_one_that_may_fail() {
    let check = |text: &str, expected: &[&str]| assert_eq!(said(&alone(&steps(text))), expected, "{text}");
    let stays = "a: `a` has no `compensate`: if `b` fails it stays done";
    check("  - {name: a, call: s:/a}\n  - {name: b, call: s:/b}\n", &[stays]);
    check("  - {name: a, sql: s.a}\n  - {name: b, saga: c.v1}\n", &[stays]);
    check("  - {name: a, call: s:/a}\n  - {name: b, human: {prompt: p}}\n", &[stays]);
    check("  - {name: a, call: s:/a}\n  - {name: b, wait: {event: e, timeoutMs: 5}}\n", &[stays]);
    check("  - {name: b, call: s:/b, compensate: s:/c}\n  - {name: a, call: s:/a}\n", &[]);
    check("  - {name: a, call: s:/a}\n  - {name: b, wait: {event: e}}\n  - {name: c, delayMs: 5}\n  - {name: d, emit: e}\n", &[]);
    check("  - {name: a, call: s:/a}\n  - {name: b, call: s:/b, onExhausted: continue}\n", &[]);
    check("  - {name: a, call: GET s:/a}\n  - {name: b, call: s:/b}\n", &[]);
    check("  - {parallel: true, steps: [{name: b, call: s:/b, compensate: s:/c}, {name: a, call: s:/a}]}\n", &[stays]);
    check("  - {name: a, call: s:/a}\n  - {name: b, call: s:/b, kind: pivot}\n", &[stays]);
    check("  - {name: a, call: s:/a, kind: pivot}\n  - {name: b, call: s:/b, kind: retriable}\n", &[]);
}

#[test]
fn limits_that_end_too_late() {
    let check = |top: &str, text: &str, expected: &[&str]| {
        let found = alone(&saga(&format!("id: a\ntrigger: x\n{top}steps:\n{text}")));
        assert_eq!(said(&found), expected, "{top}{text}");
    };
    check(
        "",
        "  - {name: a, call: s:/a, timeoutMs: 9, deadlineMs: 5}\n",
        &["a: `a`: `timeoutMs` of 9 ms is more than its own `deadlineMs` of 5 ms, which ends it first"],
    );
    check(
        "deadlineMs: 5\n",
        "  - {name: a, wait: {event: x, timeoutMs: 9}}\n  - {name: b, delayMs: 6}\n",
        &[
            "a: `a`: `timeoutMs` of 9 ms is more than the saga's `deadlineMs` of 5 ms, which ends it first",
            "b: `b`: `delayMs` of 6 ms is more than the saga's `deadlineMs` of 5 ms, which ends it first",
        ],
    );
    check("deadlineMs: 5\n", "  - {name: a, wait: {event: x}}\n  - {name: b, call: s:/b, timeoutMs: 5}\n", &[]);
    check(
        "",
        "  - {name: a, call: s:/a, async: true, timeoutMs: 9, heartbeatTimeoutMs: 10}\n",
        &["a: `a`: `heartbeatTimeoutMs` of 10 ms is more than its `timeoutMs`"],
    );
}

#[test]
fn kinds_on_the_wrong_side() {
    let found = alone(&steps(
        "  - {name: a, call: s:/a, compensate: s:/b, kind: retriable}
  - {name: b, call: s:/a, compensate: s:/b, kind: pivot}
  - {name: c, call: s:/a, compensate: s:/b, kind: retriable}
",
    ));
    let keys: Vec<_> = found.iter().map(|finding| (finding.step.as_deref(), finding.keys)).collect();
    assert_eq!(keys, [(Some("a"), &["kind"][..]), (Some("b"), &["compensate"]), (Some("c"), &["compensate"])]);
}

#[test]
fn sagas_that_start_themselves() {
    let check = |top: &str, emit: &str, is_loop: bool| {
        let text = format!("id: a\n{top}\nsteps: [{{name: s, emit: {emit}}}]\n");
        let found = alone(&saga(&text));
        assert_eq!(!found.is_empty(), is_loop, "{text}{found:?}");
    };
    check("trigger: x", "x", true);
    check("trigger: x", "y", false);
    check("trigger: x\ntopics: [t]", "x", false);
    check("trigger: x\ntopics: [t]", "{type: x, topic: t}", true);
    check("trigger: x\nfilter: data.a == 1", "x", true);
    check("trigger: x\nfilter: data.a == 1", "{type: x, data: {a: 2}}", false);
    check("trigger: [x, saga.completed]", "y", true);
    check("trigger: saga.completed\nfilter: data.definition == 'b'", "y", false);
}

#[test]
fn sagas_that_start_each_other() {
    let saga = |id: &str, trigger: &str, emit: &str| saga(&format!("id: {id}\ntrigger: {trigger}\nsteps: [{{name: s, emit: {emit}}}]\n"));
    let (a, b, c, d) = (saga("a", "x", "y"), saga("b", "y", "z"), saga("c", "z", "x"), saga("d", "x", "nothing"));
    let found = together(&[&d, &a, &b, &c]);
    assert_eq!(said(&found), ["s: these sagas start each other again, and again: a > b > c > a"]);
    assert_eq!(found[0].saga, "a");
    assert_eq!(together(&[&a, &b, &d]), []);
    let own = saga("e", "w", "w");
    assert_eq!(together(&[&own]), [], "that one is told of alone");
}

#[test]
fn sagas_that_share_a_service_without_a_lock() {
    let saga = |id: &str, top: &str, step: &str| saga(&format!("id: {id}\ntrigger: x\n{top}steps: [{{name: s, {step}}}]\n"));
    let call = "call: pay:/do, compensate: pay:/undo";
    let a = saga("a.v1", "", call);
    let found = together(&[&a, &saga("b.v1", "", call)]);
    assert_eq!(said(&found), ["s: `a.v1` and `b.v1` both change pay, and neither has a `lock`: one may undo what the other relies on"]);
    assert_eq!(found[0].saga, "b.v1");
    for other in [
        saga("b.v1", "lock: data.id\n", call),
        saga("a.v2", "", call),
        saga("b.v1", "", "call: pay:/do"),
        saga("b.v1", "", "call: mail:/do, compensate: mail:/undo"),
    ] {
        assert_eq!(together(&[&a, &other]), []);
    }
    let sql = "sql: s.f, compensate: {sql: s.g}";
    assert_eq!(together(&[&saga("a.v1", "", sql), &saga("b.v1", "", sql)]).len(), 1);
}
