//! Steps that wait: for events, also earlier ones, for time, for people, for callbacks.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::support::invariants::hold;
use crate::support::saga::{count, decide, ended, open_task, order, publish, saga_in, saga_with, steps, waits_for};
use crate::support::stub::{Answer, Gate, Stub};
use crate::support::worker::{Worker, deploy};
use crate::support::{db, until};

const SETTLE: &str = "steps:
  - {name: pay, call: \"svc:/pay\", compensate: \"svc:/unpay\"}
  - name: settle
    wait: {event: bank.settled, match: \"async.data.batch == steps.pay.context.batch && async.data.amount >= 5\", timeoutMs: 20000}
  - {name: tell, emit: {type: all.settled, topic: \"to.${ data.region }\", data: {amount: \"${ steps.settle.output.amount }\"}}}";

#[tokio::test]
async fn an_event_ends_a_wait_whether_it_comes_before_or_after_it() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let gate = Gate::new();
    stub.always("/pay", Answer::Held(gate.clone(), Box::new(Answer::Json(200, json!({"context": {"batch": "b1"}})))));
    deploy(&db.url, &saga_with(stub.address, "test.settle.v1", SETTLE)).await;
    let _worker = Worker::start(&db.url);
    let early = publish(&client, "test.go", json!({"region": "north"})).await;
    until("the payment is called", Duration::from_secs(10), async || (stub.calls() == 1).then_some(())).await;
    // Before anybody waits: one of another batch, one too small, the right one.
    for (batch, amount) in [("b2", 9), ("b1", 1), ("b1", 7)] {
        publish(&client, "bank.settled", json!({"batch": batch, "amount": amount})).await;
    }
    gate.open();
    let saga = ended(&client, early).await;
    assert_eq!(saga.state, "completed", "{saga:?}");
    let told = client.query_one("select topic, data from syncor.events where type = 'all.settled'", &[]).await.unwrap();
    assert_eq!((told.get::<_, &str>(0), told.get::<_, serde_json::Value>(1)), ("to.north", json!({"amount": 7})));

    stub.always("/pay", Answer::Json(200, json!({"context": {"batch": "b3"}})));
    let late = publish(&client, "test.go", json!({"region": "south"})).await;
    waits_for(&client, late, "event").await;
    publish(&client, "bank.settled", json!({"batch": "b3", "amount": 1})).await;
    publish(&client, "bank.settled", json!({"batch": "b4", "amount": 8})).await;
    publish(&client, "bank.settled", json!({"batch": "b3", "amount": 8.0})).await;
    assert_eq!(ended(&client, late).await.state, "completed");
    for table in ["syncor.wait", "syncor.input"] {
        assert_eq!(count(&client, &format!("select count(*) from {table}")).await, 0, "{table}");
    }
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn a_wait_that_is_in_vain_is_undone_or_goes_to_a_human_or_is_left_out() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    for (otherwise, trigger) in [("fail", "test.fail"), ("hitl", "test.hitl"), ("continue", "test.continue")] {
        let body = format!(
            "steps:\n  - {{name: pay, call: \"svc:/pay\", compensate: \"svc:/unpay\"}}\n  - {{name: settle, wait: {{event: never, timeoutMs: 100, onTimeout: {otherwise}}}}}"
        );
        deploy(&db.url, &saga_with(stub.address, &format!("{trigger}.v1"), &body).replace("test.go", trigger)).await;
    }
    let _worker = Worker::start(&db.url);
    let fail = publish(&client, "test.fail", json!({})).await;
    let hitl = publish(&client, "test.hitl", json!({})).await;
    let go_on = publish(&client, "test.continue", json!({})).await;
    let failed = ended(&client, fail).await;
    assert_eq!((failed.state.as_str(), failed.clean), ("failed", true), "{failed:?}");
    assert!(failed.reason.as_deref().is_some_and(|reason| reason.contains("timed out")), "{failed:?}");
    let completed = ended(&client, go_on).await;
    assert_eq!(completed.state, "completed");
    assert_eq!(steps(&client, completed.id).await[1], "settle skipped/none");
    let asking = saga_in(&client, hitl, &["hitl"], Duration::from_secs(20)).await;
    let task = open_task(&client, asking.id, "step_failed").await;
    assert_eq!(decide(&client, task, "skip").await.0, "applied");
    assert_eq!(ended(&client, hitl).await.state, "completed");
    hold(&client, &stub.journal()).await;
}

const APPROVAL: &str = "steps:
  - {name: pay, call: \"svc:/pay\", compensate: \"svc:/unpay\"}
  - {name: approve, when: data.percent > 5, human: {prompt: \"Raise by ${ data.percent } %?\", queue: oversight, fourEyes: true}}
  - {name: done, call: \"svc:/done\"}";

#[tokio::test]
async fn people_approve_and_reject_and_only_one_of_them_decides() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    deploy(&db.url, &saga_with(stub.address, "test.approval.v1", APPROVAL)).await;
    let _worker = Worker::start(&db.url);
    let emit = async |percent: i32| -> Uuid {
        let sql = "select syncor.emit('test.go', jsonb_build_object('percent', $1::int), source => 'the agency')";
        client.query_one(sql, &[&percent]).await.unwrap().get(0)
    };
    let small = emit(5).await;
    assert_eq!(ended(&client, small).await.state, "completed");
    let yes = emit(10).await;
    let saga = waits_for(&client, yes, "human").await;
    let task = open_task(&client, saga, "approval").await;
    let row = client.query_one("select prompt, queue, reason from syncor.human_tasks where id = $1", &[&task]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("Raise by 10 %?", "oversight"));
    assert_eq!(decide(&client, task, "retry").await.0, "refused", "an approval is approved or rejected");
    let second = db::connect(&db.url).await;
    let (first, other) = tokio::join!(decide(&client, task, "approve"), decide(&second, task, "approve"));
    let answers = [first.0.as_str(), other.0.as_str()];
    assert!(answers.contains(&"applied") && answers.contains(&"refused"), "one decides, the other is told: {answers:?}");
    assert_eq!(ended(&client, yes).await.state, "completed");

    let no = emit(20).await;
    let saga = waits_for(&client, no, "human").await;
    let task = open_task(&client, saga, "approval").await;
    assert_eq!(decide(&client, task, "reject").await.0, "applied");
    let rejected = ended(&client, no).await;
    assert_eq!((rejected.state.as_str(), rejected.clean), ("failed", true), "{rejected:?}");
    assert!(rejected.reason.as_deref().is_some_and(|reason| reason.contains("rejected by")), "{rejected:?}");
    assert_eq!(count(&client, "select count(*) from syncor.events where type = 'human.task.decided'").await, 2);

    // Whoever asked for it may not say yes: here the publisher is the role of this test.
    let own = publish(&client, "test.go", json!({"percent": 30})).await;
    let saga = waits_for(&client, own, "human").await;
    let task = open_task(&client, saga, "approval").await;
    let refused = decide(&client, task, "approve").await;
    assert_eq!(refused.0, "refused", "four eyes: {refused:?}");
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn timers_ring_and_a_pause_stops_them() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let body = "deadlineMs: 60000\nsteps:\n  - {name: cool, delayMs: 1000}\n  - {name: until, until: event.time + duration(\"1s\")}\n  - {name: done, call: \"svc:/done\"}";
    deploy(&db.url, &saga_with(stub.address, "test.timer.v1", body)).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = waits_for(&client, event, "timer").await;
    assert_eq!(order(&client, "select syncor.pause($1, 'lunch')", saga).await.0, "applied");
    let paused = saga_in(&client, event, &["paused"], Duration::from_secs(5)).await;
    let due = "select extract(epoch from due_at - now())::float8 from syncor.step where saga_id = $1 and name = 'cool'";
    until("the timer would have rung", Duration::from_secs(5), async || {
        (client.query_one(due, &[&paused.id]).await.unwrap().get::<_, f64>(0) < -0.5).then_some(())
    })
    .await;
    assert_eq!(stub.calls(), 0);
    assert_eq!(order(&client, "select syncor.resume($1, 'back')", saga).await.0, "applied");
    let left: f64 = client.query_one(due, &[&paused.id]).await.unwrap().get(0);
    assert!(left > 0.0 || stub.calls() > 0, "the time of the pause was given back: {left}");
    assert_eq!(ended(&client, event).await.state, "completed");
    assert_eq!(stub.calls(), 1);
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn an_event_cancels_a_saga() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let body = "cancelOn: [{event: withdrawn, match: \"async.data.id == data.id\"}]\nsteps:\n  - {name: pay, call: \"svc:/pay\", compensate: \"svc:/unpay\"}\n  - {name: long, delayMs: 3600000}";
    deploy(&db.url, &saga_with(stub.address, "test.cancel.v1", body)).await;
    let _worker = Worker::start(&db.url);
    let one = publish(&client, "test.go", json!({"id": 1})).await;
    let two = publish(&client, "test.go", json!({"id": 2})).await;
    waits_for(&client, one, "timer").await;
    waits_for(&client, two, "timer").await;
    publish(&client, "withdrawn", json!({"id": 2})).await;
    let cancelled = ended(&client, two).await;
    assert_eq!((cancelled.state.as_str(), cancelled.clean), ("cancelled", true), "{cancelled:?}");
    assert_eq!(stub.paths().last().map(String::as_str), Some("/unpay"));
    waits_for(&client, one, "timer").await;
    hold(&client, &stub.journal()).await;
}
