//! The point of no return: what a cancel means before, at and after it.

use std::time::Duration;

use serde_json::json;

use crate::support::invariants::hold;
use crate::support::saga::{count, decide, ended, open_task, order, publish, saga_in, saga_with, waits_for};
use crate::support::stub::{Answer, Gate, Stub};
use crate::support::worker::{Worker, deploy};
use crate::support::{db, until};

const PIVOT: &str = "retry: {attempts: 1}
steps:
  - {name: hold, call: \"svc:/hold\", compensate: \"svc:/free\"}
  - {name: pay, call: \"svc:/pay\", kind: pivot}
  - {name: mail, call: \"svc:/mail\", kind: retriable}";

#[tokio::test]
async fn a_cancel_while_the_pivot_is_in_flight_waits_for_its_outcome() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    for (answer, end) in [(Answer::ok(), "completed"), (Answer::Json(400, json!({})), "cancelled"), (Answer::Reset, "hitl")] {
        let stub = Stub::start().await;
        let gate = Gate::new();
        stub.always("/pay", Answer::Held(gate.clone(), Box::new(answer)));
        deploy(&db.url, &saga_with(stub.address, "test.pivot.v1", PIVOT)).await;
        let worker = Worker::start(&db.url);
        let event = publish(&client, "test.go", json!({})).await;
        until("the pivot is called", Duration::from_secs(10), async || (stub.called("/pay") == 1).then_some(())).await;
        let saga = client.query_one("select id from syncor.sagas where event_id = $1", &[&event]).await.unwrap().get(0);
        let command: uuid::Uuid = client.query_one("select syncor.cancel($1, 'no')", &[&saga]).await.unwrap().get(0);
        until("the cancel is put off", Duration::from_secs(5), async || {
            let row = client.query_one("select target from syncor.saga where id = $1", &[&saga]).await.unwrap();
            row.get::<_, Option<&str>>(0).is_some().then_some(())
        })
        .await;
        let pending = client.query_one("select pending_command from syncor.sagas where id = $1", &[&saga]).await.unwrap();
        assert_eq!(pending.get::<_, Option<&str>>(0), Some("cancel"));
        gate.open();
        let ended = saga_in(&client, event, &[end], Duration::from_secs(20)).await;
        let answered =
            async || client.query_one("select status, coalesce(result, '') from syncor.commands where id = $1", &[&command]).await.unwrap();
        match end {
            "completed" => {
                until("the cancel is refused", Duration::from_secs(5), async || (answered().await.get::<_, &str>(0) == "refused").then_some(()))
                    .await;
                assert_eq!((stub.called("/free"), stub.called("/mail")), (0, 1));
            }
            "cancelled" => {
                assert!(ended.clean);
                assert_eq!((stub.called("/free"), stub.called("/mail")), (1, 0));
                assert_eq!(answered().await.get::<_, &str>(0), "applied");
            }
            _ => {
                // Nobody knows: a human says that it was not done, and then it is undone.
                let task = open_task(&client, saga, "pivot_unknown").await;
                assert_eq!(decide(&client, task, "not_done").await.0, "applied");
                let undone = saga_in(&client, event, &["cancelled", "failed"], Duration::from_secs(20)).await;
                assert!(undone.clean, "{undone:?}");
                assert_eq!(stub.called("/free"), 1);
            }
        }
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_is_refused_with_the_end_of_the_saga() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let gate = Gate::new();
    stub.always("/pay", Answer::Held(gate.clone(), Box::new(Answer::ok())));
    let last = PIVOT.lines().filter(|line| !line.contains("mail")).collect::<Vec<_>>().join("\n");
    deploy(&db.url, &saga_with(stub.address, "test.pivot.v1", &last)).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    until("the pivot is called", Duration::from_secs(10), async || (stub.called("/pay") == 1).then_some(())).await;
    let saga: uuid::Uuid = client.query_one("select id from syncor.sagas where event_id = $1", &[&event]).await.unwrap().get(0);
    let command: uuid::Uuid = client.query_one("select syncor.cancel($1, 'no')", &[&saga]).await.unwrap().get(0);
    until("the cancel is put off", Duration::from_secs(5), async || {
        let row = client.query_one("select target from syncor.saga where id = $1", &[&saga]).await.unwrap();
        row.get::<_, Option<&str>>(0).is_some().then_some(())
    })
    .await;
    gate.open();
    let ended = ended(&client, event).await;
    assert_eq!(ended.state, "completed", "{ended:?}");
    until("the cancel is refused", Duration::from_secs(10), async || {
        let row = client.query_one("select status from syncor.commands where id = $1", &[&command]).await.unwrap();
        (row.get::<_, &str>(0) == "refused").then_some(())
    })
    .await;
    let doubted = count(&client, "select count(*) from syncor.attempts where outcome <> 'succeeded'").await;
    assert_eq!(doubted, 0, "the end could be stored as it was decided");
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn past_the_pivot_a_failure_waits_for_a_human_and_nothing_is_undone() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.script("/mail", [Answer::Json(500, json!({}))]);
    deploy(&db.url, &saga_with(stub.address, "test.pivot.v1", PIVOT)).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = saga_in(&client, event, &["hitl"], Duration::from_secs(20)).await;
    waits_for(&client, event, "human").await;
    let refused = order(&client, "select syncor.cancel($1, 'no')", saga.id).await;
    assert_eq!(refused.0, "refused", "{refused:?}");
    let task = open_task(&client, saga.id, "step_failed").await;
    let refused = decide(&client, task, "compensate").await;
    assert_eq!(refused.0, "refused", "{refused:?}");
    let again = open_task(&client, saga.id, "step_failed").await;
    assert_eq!(again, task, "a decision that was refused leaves the task open");
    assert_eq!(decide(&client, task, "retry").await.0, "applied");
    assert_eq!(ended(&client, event).await.state, "completed");
    assert_eq!(stub.called("/free"), 0);
    assert_eq!(count(&client, "select count(*) from syncor.human_tasks where status = 'open'").await, 0);
    hold(&client, &stub.journal()).await;
}
