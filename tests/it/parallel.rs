//! Groups of steps side by side: how they begin, how a failure among them drains, in which order they are undone.

use std::time::Duration;

use serde_json::json;

use crate::support::invariants::hold;
use crate::support::saga::{ended, publish, saga_with, steps};
use crate::support::stub::{Answer, Gate, Stub};
use crate::support::worker::{Worker, deploy};
use crate::support::{db, until};

fn group(count: usize, head: &str) -> String {
    let mut text = format!(
        "retry: {{attempts: 1}}\nsteps:\n  - {{name: first, call: \"svc:/first\", compensate: \"svc:/undo-first\"}}\n  - parallel: true\n{head}    steps:\n"
    );
    for i in 1..=count {
        text.push_str(&format!("      - {{name: b{i}, call: \"svc:/b{i}\", compensate: \"svc:/undo-b{i}\"}}\n"));
    }
    text.push_str("  - {name: last, call: \"svc:/last\"}\n");
    text
}

#[tokio::test]
async fn a_failure_in_a_group_waits_for_what_is_in_flight_and_undoes_in_reverse() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let gate = Gate::new();
    // b1 and b2 are done, b3 fails, b4 and b5 are in flight: b4 will succeed, b5 will not.
    let failing = Gate::new();
    stub.always("/b3", Answer::Held(failing.clone(), Box::new(Answer::Json(400, json!({})))));
    stub.always("/b4", Answer::Held(gate.clone(), Box::new(Answer::ok())));
    stub.always("/b5", Answer::Held(gate.clone(), Box::new(Answer::Json(500, json!({})))));
    deploy(&db.url, &saga_with(stub.address, "test.group.v1", &group(5, ""))).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    until("all five are called and two are done", Duration::from_secs(10), async || {
        let done = client.query_one("select count(*) from syncor.step where status = 'succeeded' and name in ('b1', 'b2')", &[]).await.unwrap();
        (stub.calls() == 6 && done.get::<_, i64>(0) == 2).then_some(())
    })
    .await;

    failing.open();
    until("the saga drains", Duration::from_secs(10), async || {
        let row = client.query_one("select state from syncor.sagas where event_id = $1", &[&event]).await.unwrap();
        (row.get::<_, &str>(0) == "draining").then_some(())
    })
    .await;
    assert!(!stub.paths().iter().any(|path| path.starts_with("/undo")), "nothing is undone while calls are in flight");
    gate.open();
    let saga = ended(&client, event).await;

    assert_eq!((saga.state.as_str(), saga.clean), ("failed", true), "{saga:?}");
    let journal = stub.journal();
    let undone: Vec<_> = journal.iter().filter(|seen| seen.path.starts_with("/undo")).collect();
    assert_eq!(undone.iter().map(|seen| seen.path.as_str()).collect::<Vec<_>>(), ["/undo-b4", "/undo-b2", "/undo-b1", "/undo-first"]);
    assert!(undone.windows(2).all(|pair| pair[0].ended.unwrap() <= pair[1].began), "one at a time");
    assert_eq!(stub.called("/last"), 0);
    assert_eq!(
        steps(&client, saga.id).await,
        [
            "first succeeded/compensated",
            "b1 succeeded/compensated",
            "b2 succeeded/compensated",
            "b3 failed/none",
            "b4 succeeded/compensated",
            "b5 failed/none",
            "last cancelled/none"
        ]
    );
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn a_group_runs_at_most_so_many_branches_and_can_let_them_finish() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let gate = Gate::new();
    for i in 1..=4 {
        stub.always(&format!("/b{i}"), Answer::Held(gate.clone(), Box::new(Answer::ok())));
    }
    deploy(&db.url, &saga_with(stub.address, "test.group.v1", &group(4, "    maxParallel: 2\n    onBranchFailure: wait\n"))).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    until("two branches are called", Duration::from_secs(10), async || (stub.calls() == 3).then_some(())).await;
    // Whatever else the engine does meanwhile, a third call does not come.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stub.paths(), ["/first", "/b1", "/b2"]);
    gate.open();
    assert_eq!(ended(&client, event).await.state, "completed");
    assert_eq!(stub.calls(), 6);
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn two_hundred_steps_work_in_a_row_and_side_by_side() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let mut row = String::from("steps:\n");
    let mut side = String::from("parallel: true\nsteps:\n");
    for i in 1..=200 {
        row.push_str(&format!("  - {{name: s{i}, call: \"svc:/row\"}}\n"));
        side.push_str(&format!("  - {{name: s{i}, call: \"svc:/side\", compensate: \"svc:/undo\"}}\n"));
    }
    deploy(&db.url, &saga_with(stub.address, "test.row.v1", &row)).await;
    deploy(&db.url, &saga_with(stub.address, "test.side.v1", &side)).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    until("both have ended", Duration::from_secs(60), async || {
        let row = client.query_one("select count(*) from syncor.sagas where event_id = $1 and state = 'completed'", &[&event]).await.unwrap();
        (row.get::<_, i64>(0) == 2).then_some(())
    })
    .await;
    assert_eq!((stub.called("/row"), stub.called("/side"), stub.called("/undo")), (200, 200, 0));
    hold(&client, &stub.journal()).await;
}
