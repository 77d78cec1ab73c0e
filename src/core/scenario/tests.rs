//! Whole scenarios, against the saga file of the contract and small ones.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::core::definition_file::{self, File};
use crate::core::matching::Deployed;

const CONTRACT: &str = include_str!("../definition_file/tests/contract.yaml");

fn saga(text: &str) -> Arc<Deployed> {
    match definition_file::read("saga.yaml", text) {
        Ok(File::Saga(definition, ..)) => Arc::new(Deployed { no: 1, definition }),
        other => panic!("{other:?}"),
    }
}

/// Plays all scenarios of a file; what differs, with the story of the scenario.
fn differences(saga_text: &str, scenarios: &str) -> Vec<String> {
    let deployed = saga(saga_text);
    let suite = match definition_file::scenarios("x.scenario.yaml", scenarios, &deployed.definition) {
        Ok(suite) => suite,
        Err(problems) => panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    let mut all = Vec::new();
    for scenario in &suite.scenarios {
        let record = run(&deployed, scenario);
        let found = judge(&deployed.definition, scenario, &record);
        if !found.is_empty() {
            let story: Vec<_> = record.story.iter().map(ToString::to_string).collect();
            all.push(format!("{}:\n{}\n{}", scenario.name, found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"), story.join("\n")));
        }
    }
    all
}

#[track_caller]
fn passes(saga: &str, scenarios: &str) {
    let differences = differences(saga, scenarios);
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn the_saga_of_the_contract_is_played_in_no_time() {
    let began = Instant::now();
    passes(CONTRACT, include_str!("tests/contract.scenario.yaml"));
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

const PIVOT: &str = "
id: pay.v1
trigger: t
steps:
  - {name: book, call: 'a:/book', compensate: 'a:/unbook'}
  - {name: pay, call: 'b:/pay', kind: pivot, verify: 'b:/paid'}
  - {name: mail, call: 'c:/mail', kind: retriable}
";

#[test]
fn a_cancel_waits_for_the_pivot_and_comes_too_late_when_it_succeeds() {
    passes(
        PIVOT,
        "
saga: pay.v1
scenarios:
  - name: too late
    calls: {pay: {delayMs: 5000}}
    at: [{afterMs: 1000, order: cancel, by: bob, reason: stop, refused: point of no return}]
    expect: {state: completed, calls: [book, pay, mail], undone: []}
  - name: in time
    calls: {pay: {status: 500, delayMs: 5000}}
    at: [{afterMs: 1000, order: cancel, by: bob, reason: stop}]
    expect: {state: cancelled, reason: 'cancelled by bob: stop', calls: [book, pay, book.undo], undone: [book], elapsedMs: 5000}
  - name: asked what became of it
    calls: {pay: timeout, pay.verify: [{body: {outcome: pending}}, {body: {outcome: not_done}}]}
    expect: {state: failed, calls: [book, pay, pay, pay, pay.verify, pay.verify, book.undo], steps: {pay: failed}}
  - name: nobody knows
    calls: {pay: timeout, pay.verify: unreachable}
    expect: {state: hitl, waitingFor: human, undone: [], tasks: [{kind: pivot_unknown, step: pay}]}
",
    );
}

#[test]
fn people_and_operators_decide_when_a_step_is_used_up() {
    let saga = "
id: s.v1
trigger: t
onExhausted: hitl
steps:
  - {name: one, call: 'a:/one', compensate: 'a:/undo'}
  - {name: two, call: 'a:/two'}
";
    passes(
        saga,
        "
saga: s.v1
calls: {two: [500, 500, 500, 200]}
scenarios:
  - name: it waits for ever
    expect: {state: hitl, waitingFor: human, tasks: [{kind: step_failed, step: two, status: open}], elapsedMs: 3000}
  - name: tried again
    at: [{afterMs: 60000, decide: retry, step: two}]
    expect: {state: completed, calls: [one, two, two, two, two], steps: {two: {attempts: 4}}, elapsedMs: 60000}
  - name: left out
    at: [{afterMs: 60000, order: skip, step: two}]
    expect: {state: completed, steps: {two: skipped}, tasks: [{kind: step_failed, status: withdrawn}]}
  - name: undone
    at: [{afterMs: 60000, decide: compensate, step: two, note: give it up}]
    expect: {state: failed, reason: give it up, undone: [one]}
  - name: ended as it is
    at: [{afterMs: 60000, order: abort, reason: enough}]
    expect: {state: aborted, clean: false, undone: []}
  - name: paused for an hour, and no time passes
    at:
      - {afterMs: 500, order: pause}
      - {afterMs: 3600500, order: resume}
    calls: {two: [500, 200]}
    expect: {state: completed, elapsedMs: 3601000}
  - name: an order that makes no sense
    at: [{afterMs: 100, order: resume, refused: not paused}]
    expect: {state: hitl}
",
    );
}

#[test]
fn branches_children_and_functions_are_drained_and_undone() {
    let saga = "
id: s.v1
trigger: t
retry: {attempts: 1}
steps:
  - parallel: true
    steps:
      - {name: a, call: 'x:/a', compensate: 'x:/ua'}
      - {name: b, sql: f.b, compensate: {sql: f.ub}}
      - {name: c, saga: child.v1}
      - {name: d, call: 'y:/d', compensate: event, timeoutMs: 9000}
  - {name: last, call: 'x:/last'}
";
    passes(
        saga,
        "
saga: s.v1
scenarios:
  - name: all is well
    calls: {a: {delayMs: 40}, c: {ends: completed, delayMs: 70}, b: {returns: {n: 1}, delayMs: 20}}
    expect: {state: completed, calls: [a, b, c, d, last], elapsedMs: 70, steps: {b: {output: {n: 1}}, c: {output: {state: completed}}}}
  - name: one fails while another succeeds, and the child is called back
    calls: {a: {status: 500, delayMs: 10}, b: {delayMs: 50}, c: {ends: completed, delayMs: 60000}, d: {delayMs: 20}}
    expect:
      state: failed
      undone: [d, b]
      steps: {c: {status: failed, error: 'child.v1 is cancelled: step a failed: HTTP 500 (attempt 1 of 1)'}, last: pending}
      emitted: [{type: saga.compensate, step: d}, {type: saga.compensate, step: b}]
  - name: the function raises, and the finished child is undone as one
    calls: {b: {raises: 'no such benefit', delayMs: 90}}
    expect: {state: failed, reason: no such benefit, undone: [d, c, a], calls: [a, b, c, d, d.undo, c.undo, a.undo]}
  - name: nobody acknowledges an undo
    calls: {last: 400, d.undo: [timeout, {ok: false, error: not mine}, {ok: true, delayMs: 5}]}
    expect: {state: failed, clean: true, calls: [a, b, c, d, last, d.undo, d.undo, d.undo, c.undo, b.undo, a.undo], elapsedMs: 12005}
  - name: a child that cannot be undone
    calls: {last: 400, c.undo: {ends: cancelled, clean: false, reason: stuck}}
    expect: {state: comp_failed, clean: false, waitingFor: human, undone: [d], tasks: [{kind: step_failed}, {kind: comp_failed, step: c}]}
",
    );
}

#[test]
fn locks_services_workers_and_events_play_along() {
    let saga = "
id: s.v1
trigger: t
lock: {key: data.k, mode: wait, timeoutMs: 60000}
cancelOn: [{event: stop, match: async.data.k == data.k}]
steps:
  - {name: one, call: 'a:/one/${ data.k }', compensate: 'a:/undo'}
  - {name: two, wait: {event: done, match: async.data.n == steps.one.output.n}}
";
    passes(
        saga,
        "
saga: s.v1
event: {data: {k: k1}}
calls: {one: {body: {n: 5}}}
scenarios:
  - name: it waits for an event for ever
    at: [{afterMs: 5, event: {type: done, data: {n: 6}}}]
    expect: {state: running, waitingFor: event, requests: {one: {path: /one/k1}}}
  - name: the number may have a point
    at: [{afterMs: 5, event: {type: done, data: {n: 5.0}}}]
    expect: {state: completed, elapsedMs: 5}
  - name: its turn comes
    lock: busy
    at:
      - {afterMs: 50000, lock: granted}
      - {afterMs: 50000, event: {type: done, data: {n: 5}}}
    expect: {state: completed, elapsedMs: 50000}
  - name: its turn does not come
    lock: busy
    expect: {state: rejected, calls: [], reason: lock, elapsedMs: 60000, emitted: [saga.rejected]}
  - name: no key, no saga
    event: {data: {}}
    expect: {state: rejected, reason: the lock key of s.v1 cannot be evaluated}
  - name: an event cancels it
    at: [{afterMs: 7, event: {type: stop, data: {k: k2}}}, {afterMs: 9, event: {type: stop, data: {k: k1}}}]
    expect: {state: cancelled, undone: [one], reason: cancelled by the event stop, elapsedMs: 9}
  - name: the service is down for an hour, and no attempt is spent
    at: [{afterMs: 0, park: a}, {afterMs: 3600000, unpark: a}, {afterMs: 3600000, event: {type: done, data: {n: 5}}}]
    lock: busy
    calls: {one: [500, {body: {n: 5}}]}
    expect: {state: rejected}
  - name: the worker dies while it calls
    calls: {one: [{delayMs: 9000}, {body: {n: 5}}]}
    at: [{afterMs: 3000, worker: dies}, {afterMs: 4000, event: {type: done, data: {n: 5}}}]
    expect: {state: completed, calls: [one, one], steps: {one: {attempts: 2}}, elapsedMs: 4000}
",
    );
}

#[test]
fn an_hour_without_the_service_spends_no_attempt() {
    let saga = "{id: s.v1, trigger: t, steps: [{name: slow, delayMs: 10}, {name: one, call: 'a:/one'}]}";
    passes(
        saga,
        "
saga: s.v1
scenarios:
  - name: parked
    at: [{afterMs: 0, park: a}, {afterMs: 3600000, unpark: a}]
    expect: {state: completed, calls: [one], steps: {one: {attempts: 1}}, elapsedMs: 3600000}
  - name: parked for ever
    at: [{afterMs: 0, park: a}]
    expect: {state: running, waitingFor: service, calls: []}
",
    );
}

#[test]
fn callbacks_come_early_late_and_twice() {
    let saga =
        "{id: s.v1, trigger: t, retry: {attempts: 2}, steps: [{name: one, call: 'a:/one', compensate: 'a:/undo', async: true, timeoutMs: 60000}]}";
    passes(
        saga,
        "
saga: s.v1
scenarios:
  - name: an error is tried again
    calls: {one: [{callback: {afterMs: 1000, status: error, error: no paper}}, {callback: {afterMs: 2000, context: {id: 7}}}]}
    expect: {state: completed, steps: {one: {attempts: 2, context: {id: 7}}}, elapsedMs: 4000}
  - name: a success that comes after everything
    calls: {one: [202, {callback: {afterMs: 500000}}]}
    at: [{afterMs: 800000, decide: acknowledge, step: one, by: ann}]
    expect:
      {state: failed, undone: [one], elapsedMs: 121000, reason: no callback, tasks: [{kind: step_failed}, {kind: late_effect, decision: acknowledge}]}
",
    );
}

#[test]
fn what_differs_is_shown_with_its_line() {
    let found = differences(
        PIVOT,
        "
saga: pay.v1
scenarios:
  - name: wrong in every way
    at: [{afterMs: 0, decide: retry, step: pay}]
    expect:
      state: failed
      clean: false
      reason: something
      waitingFor: human
      calls: [book, mail, pay]
      requests: {book: {path: /x, body: {data: {a: 1}}}, book.undo: {path: /}}
      undone: [book]
      emitted: [saga.failed, saga.completed]
      tasks: [{kind: approval}]
      steps: {pay: failed, mail: {attempts: 2}}
      elapsedMs: {atLeastMs: 1}
",
    );
    let [text] = found.as_slice() else { panic!("{found:?}") };
    let (said, _story) = text.split_once("\n           0 ms").expect("a story");
    let expected = r#"wrong in every way:
at:
    expected to be applied
    found    refused: pay has asked nobody
state:
    expected failed
    found    completed
clean:
    expected false
    found    true
reason:
    expected … something …
    found    none
waitingFor:
    expected human
    found    nothing: it is completed
calls:
        book
      - mail
        pay
      + mail
requests.book:
    attempt 1.body.data.a: expected 1, found nothing
    attempt 1.path: expected "/x", found "/book"
requests.book.undo:
    was never called
undone:
      - book
emitted:
      - {"type":"saga.failed"}
        {"type":"saga.completed"}
tasks:
      - {"kind":"approval"}
steps.pay:
    status: expected "failed", found "succeeded"
steps.mail:
    attempts: expected 2, found 1
elapsedMs:
    expected at least 1 ms
    found    0 ms"#;
    assert_eq!(said, expected);
}
