//! Real sagas become scenarios, which pass on the same definition.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::cli::{command, file, orch};
use crate::support::saga::{decide, ended, open_task, order, publish, saga_in, saga_with, waits_for};
use crate::support::stub::{Answer, Stub};
use crate::support::worker::{Worker, deploy};
use crate::support::{db, until};

/// Captures a saga and plays it, without any database; returns the text.
async fn captured(url: &str, saga: Uuid, definition: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    // Only the saga: the services are nobody's business here.
    file(folder.path(), "saga.yaml", definition.split("---\n").next().unwrap());
    let out = folder.path().join("real.scenario.yaml");
    let out = out.to_str().unwrap();
    let run = orch(url, &["capture", &saga.to_string(), "--out", out]).await.expect(0);
    assert_eq!(run.stderr, "", "everything was captured");
    let text = std::fs::read_to_string(out).unwrap();
    let played = command(env!("CARGO_BIN_EXE_hms-orch")).args(["test", out, "--story"]).output().await.unwrap();
    let said = String::from_utf8(played.stdout).unwrap();
    assert!(played.status.success() && said.contains("1 passed; 0 failed"), "{said}\n{text}");
    // What is there already is not overwritten.
    orch(url, &["capture", &saga.to_string(), "--out", out]).await.expect(1);
    text
}

#[tokio::test]
async fn retries_timeouts_and_undos_are_captured() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.always("/one", Answer::Json(200, json!({"context": {"backup": "b: 1"}, "message": "done"})));
    stub.script("/two", [Answer::Json(503, json!({"message": "later"})), Answer::Reset, Answer::Hang]);
    stub.script("/undo1", [Answer::Json(500, json!({})), Answer::Json(410, json!({}))]);
    stub.script("/is2", [Answer::Json(200, json!({"outcome": "pending"})), Answer::Json(200, json!({"outcome": "not_done"}))]);
    let definition = saga_with(
        stub.address,
        "test.steps.v1",
        "retry: {attempts: 3, backoffMs: 20}\ntimeoutMs: 300\ncompensation: {retry: {backoffMs: 10}}\nsteps:
  - {name: one, call: 'svc:/one', compensate: {url: 'svc:/undo1', body: {backup: '${ step.context.backup }'}}}
  - {name: two, call: 'svc:/two', compensate: 'svc:/undo2', verify: 'svc:/is2'}",
    );
    deploy(&db.url, &definition).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({"n": 1.5, "text": "a # b: 'c'\n"})).await;
    let saga = ended(&client, event).await;
    assert_eq!((saga.state.as_str(), saga.clean), ("failed", true), "{saga:?}");
    let text = captured(&db.url, saga.id, &definition).await;
    for part in ["        - timeout\n", "fails: reset", "{outcome: not_done}", "{status: 410", "backup: \"b: 1\"", "undone: [one]"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

/// A token of the test's own for the callback that is awaited: what services are told is looked at elsewhere.
async fn token(client: &Client, saga: Uuid) -> &'static str {
    until("a callback is awaited", Duration::from_secs(10), async || {
        let sql = "update syncor.callback set digest = sha256('mine') where saga_id = $1 and settled_at is null";
        (client.execute(sql, &[&saga]).await.unwrap() == 1).then_some("mine")
    })
    .await
}

const LONG: &str = "lock: data.key
onExhausted: hitl
steps:
  - {name: sign, human: {prompt: 'Sign?', form: {type: object, required: [sum]}}}
  - parallel: true
    steps:
      - {name: send, call: 'svc:/send', compensate: 'svc:/unsend', async: true, timeoutMs: 60000, heartbeatTimeoutMs: 20000}
      - {name: audit, saga: test.audit.v1}
  - {name: settle, wait: {event: bank.settled, match: async.data.batch == steps.send.context.batch}}
  - {name: rest, delayMs: 150}
  - {name: tell, emit: {type: all.told}}
  - {name: last, call: 'svc:/last'}";

/// Takes a saga of `LONG` up to its last step, which is refused.
async fn up_to_the_end(client: &Client) -> Uuid {
    let event = publish(client, "test.go", json!({"key": "k1"})).await;
    let saga = waits_for(client, event, "human").await;
    let task = open_task(client, saga, "approval").await;
    let sql = "select syncor.decide($1, 'approve', 'looks right', '{\"sum\": 3}')";
    assert_eq!(order(client, sql, task).await.0, "applied");
    let token = token(client, saga).await;
    let sql = "select syncor.complete($1, 'ok', context => '{\"batch\": \"b7\"}', output => '{\"sent\": 5}', message => 'sent')";
    assert_eq!(client.query_one(sql, &[&token]).await.unwrap().get::<_, &str>(0), "accepted");
    waits_for(client, event, "event").await;
    publish(client, "bank.settled", json!({"batch": "b7"})).await;
    saga_in(client, event, &["hitl"], Duration::from_secs(20)).await.id
}

#[tokio::test]
async fn people_callbacks_children_events_and_orders_are_captured() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.always("/send", Answer::Json(202, json!({})));
    stub.script("/last", [Answer::Json(422, json!({"detail": "no such account"}))]);
    let audit = saga_with(stub.address, "test.audit.v1", "steps: [{name: a1, call: 'svc:/a1', compensate: 'svc:/undo-a1'}]");
    deploy(&db.url, &audit.replace("trigger: test.go", "trigger: only.audit")).await;
    let definition = saga_with(stub.address, "test.long.v1", LONG);
    deploy(&db.url, &definition).await;
    let _worker = Worker::start(&db.url);

    let saga = up_to_the_end(&client).await;
    // One that waits for a decision can be captured as well.
    let text = captured(&db.url, saga, &definition).await;
    assert!(text.contains("state: hitl") && text.contains("decide: approve"), "{text}");

    let task = open_task(&client, saga, "step_failed").await;
    assert_eq!(decide(&client, task, "retry").await.0, "applied");
    let saga = until("it has completed", Duration::from_secs(20), async || {
        let sql = "select id from syncor.sagas where definition = 'test.long.v1' and state = 'completed'";
        client.query_opt(sql, &[]).await.unwrap().map(|row| row.get(0))
    })
    .await;
    let text = captured(&db.url, saga, &definition).await;
    for part in ["callback: {", "batch: b7", "ends: completed", "decide: retry", "type: bank.settled", "no such account", "state: completed"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[tokio::test]
async fn a_cancelled_saga_is_captured_and_one_under_way_is_not() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let definition = saga_with(
        stub.address,
        "test.cancelled.v1",
        "cancelOn: [{event: test.stop, match: async.data.n == data.n}]\nsteps:
  - {name: one, call: 'svc:/one', compensate: 'svc:/undo1'}
  - {name: nap, delayMs: 600000}",
    );
    deploy(&db.url, &definition).await;
    let _worker = Worker::start(&db.url);
    let by_event = publish(&client, "test.go", json!({"n": 1})).await;
    let by_order = publish(&client, "test.go", json!({"n": 2})).await;
    let (first, second) = (waits_for(&client, by_event, "timer").await, waits_for(&client, by_order, "timer").await);
    let run = orch(&db.url, &["capture", &first.to_string()]).await.expect(5);
    assert!(run.stderr.contains("the saga is running"), "{}", run.stderr);
    publish(&client, "test.stop", json!({"n": 1})).await;
    order(&client, "select syncor.cancel($1, 'not wanted')", second).await;
    for event in [by_event, by_order] {
        let saga = ended(&client, event).await;
        assert_eq!(saga.state, "cancelled", "{saga:?}");
        let text = captured(&db.url, saga.id, &definition).await;
        let wanted = if event == by_event { "type: test.stop" } else { "order: cancel" };
        assert!(text.contains(wanted) && text.contains("undone: [one]"), "{text}");
    }
    orch(&db.url, &["capture", &Uuid::nil().to_string()]).await.expect(4);
}
