//! Sagas within sagas: ended together, undone as one, so many deep and no deeper.

use std::time::Duration;

use serde_json::json;

use crate::support::invariants::hold;
use crate::support::saga::{count, order, publish, saga_with, steps, waits_for};
use crate::support::stub::{Answer, Gate, Stub};
use crate::support::worker::{Worker, deploy};
use crate::support::{db, until};

fn child(address: std::net::SocketAddr, id: &str, body: &str) -> String {
    saga_with(address, id, body).replace("trigger: test.go", &format!("trigger: only.{id}"))
}

const AUDIT: &str = "steps:
  - {name: a1, call: \"svc:/a1\", compensate: {url: \"svc:/undo-a1\", body: {key: \"${ step.doKey }\"}}}
  - {name: a2, call: \"svc:/a2\", compensate: \"svc:/undo-a2\"}";

#[tokio::test]
async fn a_child_that_completed_is_undone_as_one_when_its_parent_fails() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.always("/a1", Answer::Json(200, json!({"context": {"snapshot": 7}})));
    stub.always("/last", Answer::Json(400, json!({})));
    deploy(&db.url, &child(stub.address, "test.audit.v1", AUDIT)).await;
    let parent = "steps:\n  - {name: first, call: \"svc:/first\", compensate: \"svc:/undo-first\"}\n  - {name: audit, saga: test.audit.v1}\n  - {name: last, call: \"svc:/last\"}";
    deploy(&db.url, &saga_with(stub.address, "test.parent.v1", parent)).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({"n": 1})).await;
    until("the parent has ended", Duration::from_secs(20), async || {
        let sql = "select count(*) from syncor.sagas where event_id = $1 and definition = 'test.parent.v1' and state = 'failed' and clean";
        (client.query_one(sql, &[&event]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    assert_eq!(stub.paths(), ["/first", "/a1", "/a2", "/last", "/undo-a2", "/undo-a1", "/undo-first"]);
    let child: uuid::Uuid =
        client.query_one("select id from syncor.sagas where definition = 'test.audit.v1' and state = 'completed'", &[]).await.unwrap().get(0);
    let undo: uuid::Uuid = client
        .query_one("select id from syncor.sagas where definition = 'test.audit.v1' and state = 'cancelled' and clean", &[])
        .await
        .unwrap()
        .get(0);
    let journal = stub.journal();
    assert_eq!(journal[1].body["data"], json!({"n": 1}), "a child has its parent's event");
    assert_eq!(journal[5].body["key"], json!(format!("{child}/a1/do")), "the undo names what it undoes");
    assert_eq!(journal[5].header("hms-saga-id"), undo.to_string());
    assert_eq!(steps(&client, undo).await, ["a1 succeeded/compensated", "a2 succeeded/compensated"]);
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn a_child_under_way_is_cancelled_with_its_parent_and_aborted_with_it() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    for (verb, end) in [("cancel", "cancelled"), ("abort", "aborted")] {
        let stub = Stub::start().await;
        deploy(
            &db.url,
            &child(
                stub.address,
                "test.slow.v1",
                "steps:\n  - {name: a1, call: \"svc:/a1\", compensate: \"svc:/undo-a1\"}\n  - {name: a2, delayMs: 3600000}",
            ),
        )
        .await;
        deploy(&db.url, &saga_with(stub.address, "test.parent.v1", "steps:\n  - {name: audit, saga: test.slow.v1}")).await;
        let worker = Worker::start(&db.url);
        let event = publish(&client, "test.go", json!({})).await;
        let parent = waits_for(&client, event, "child").await;
        until("the child sleeps", Duration::from_secs(10), async || {
            let sql = "select count(*) from syncor.sagas where parent_id = $1 and waiting_for = 'timer'";
            (client.query_one(sql, &[&parent]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
        })
        .await;
        let applied = order(&client, &format!("select syncor.{verb}($1, 'enough')"), parent).await;
        assert_eq!(applied.0, "applied", "{applied:?}");
        until("both have ended", Duration::from_secs(20), async || {
            let sql = "select count(*) from syncor.sagas where (id = $1 or parent_id = $1) and state = $2";
            (client.query_one(sql, &[&parent, &end]).await.unwrap().get::<_, i64>(0) == 2).then_some(())
        })
        .await;
        assert_eq!(stub.called("/undo-a1"), usize::from(verb == "cancel"));
        worker.stop().await;
    }
}

/// A chain of sagas within sagas: `n` below the first one.
async fn chain(url: &str, address: std::net::SocketAddr, n: usize) {
    deploy(url, &child(address, &format!("chain.c{n}.v1"), "steps:\n  - {name: leaf, call: \"svc:/leaf\"}")).await;
    for i in (1..n).rev() {
        deploy(url, &child(address, &format!("chain.c{i}.v1"), &format!("steps:\n  - {{name: next, saga: chain.c{}.v1}}", i + 1))).await;
    }
    deploy(url, &saga_with(address, "chain.top.v1", "steps:\n  - {name: next, saga: chain.c1.v1}")).await;
}

#[tokio::test]
async fn children_go_eight_deep_and_one_more_is_refused_at_run_time() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    chain(&db.url, stub.address, 8).await;
    let worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    until("all nine have completed", Duration::from_secs(30), async || {
        let row = client.query_one("select count(*) from syncor.sagas where event_id = $1 and state = 'completed'", &[&event]).await.unwrap();
        (row.get::<_, i64>(0) == 9).then_some(())
    })
    .await;
    assert_eq!(stub.called("/leaf"), 1);
    // A deploy looks at the whole chain and refuses a ninth. Who deploys by SQL is not asked: then the chain is cut when it runs.
    let deeper = "with r as (select 'saga'::text as kind)
        insert into syncor.definition (kind, id, family, version, revision, source)
        select kind, 'chain.c9.v1', 'chain.c9', 1, 'r9', '{\"id\": \"chain.c9.v1\", \"trigger\": \"only.c9\", \"steps\": [{\"name\": \"leaf\", \"call\": \"svc:/leaf\"}]}'::jsonb from r
        union all
        select kind, 'chain.c8.v1', 'chain.c8', 1, 'r8', '{\"id\": \"chain.c8.v1\", \"trigger\": \"only.c8\", \"steps\": [{\"name\": \"next\", \"saga\": \"chain.c9.v1\"}]}'::jsonb from r";
    client.batch_execute("update syncor.definition set state = 'retired', retired_at = now() where id = 'chain.c8.v1'").await.unwrap();
    client.batch_execute(deeper).await.unwrap();
    let event = publish(&client, "test.go", json!({})).await;
    until("all have failed", Duration::from_secs(30), async || {
        let row = client.query_one("select count(*) from syncor.sagas where event_id = $1 and state = 'failed' and clean", &[&event]).await.unwrap();
        (row.get::<_, i64>(0) == 9).then_some(())
    })
    .await;
    let deepest = count(&client, "select count(*) from syncor.saga where reason like '%8 deep at most%'").await;
    assert!(deepest >= 1);
    assert_eq!(stub.called("/leaf"), 1);
    worker.stop().await;
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn a_child_shares_the_locks_of_its_root_and_asks_for_no_others() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let gate = Gate::new();
    stub.always("/a", Answer::Held(gate.clone(), Box::new(Answer::ok())));
    deploy(&db.url, &child(stub.address, "test.same.v1", "lock: \"'object:' + data.object\"\nsteps:\n  - {name: a, call: \"svc:/a\"}")).await;
    deploy(&db.url, &child(stub.address, "test.more.v1", "lock: \"'other:' + data.object\"\nsteps:\n  - {name: b, call: \"svc:/b\"}")).await;
    let parent = "lock: \"'object:' + data.object\"\nsteps:\n  - {name: same, saga: test.same.v1}\n  - {name: more, saga: test.more.v1}";
    deploy(&db.url, &saga_with(stub.address, "test.root.v1", parent)).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({"object": "x"})).await;
    until("the child works under its root's lock", Duration::from_secs(10), async || (stub.called("/a") == 1).then_some(())).await;
    gate.open();
    until("the root has failed", Duration::from_secs(20), async || {
        let sql = "select count(*) from syncor.sagas where event_id = $1 and definition = 'test.root.v1' and state = 'failed'";
        (client.query_one(sql, &[&event]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    assert_eq!(stub.called("/b"), 0);
    assert_eq!(count(&client, "select count(*) from syncor.lock_ticket").await, 0);
    hold(&client, &stub.journal()).await;
}
