//! Object locks: one saga at a time on one object, first come first served, whatever dies.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::support::invariants::hold;
use crate::support::process::Process;
use crate::support::saga::{count, decide, ended, open_task, order, publish, saga_in, saga_with, waits_for};
use crate::support::stub::{Answer, Gate, Stub};
use crate::support::worker::{Worker, deploy};
use crate::support::{db, until};

const LOCKED: &str = "lock: {key: \"'object:' + data.object\"}\nretry: {attempts: 10, backoffMs: 20}\nsteps:
  - {name: s1, call: \"svc:/s1\", compensate: \"svc:/u1\"}
  - {name: s2, call: \"svc:/s2\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_sagas_on_one_object_take_turns_in_order_though_a_worker_dies() {
    const SAGAS: i64 = 100;
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    for path in ["/s1", "/s2"] {
        stub.always(path, Answer::Slow(Duration::from_millis(10), Box::new(Answer::ok())));
    }
    deploy(&db.url, &saga_with(stub.address, "test.lock.v1", LOCKED)).await;
    let mut first = Process::worker(&db.url);
    let _second = Process::worker(&db.url);
    until("two workers are alive", Duration::from_secs(20), async || {
        (count(&client, "select count(*) from syncor.workers where state = 'alive'").await == 2).then_some(())
    })
    .await;
    let sql = "insert into syncor.events (type, data) select 'test.go', '{\"object\": \"a\"}' from generate_series(1, $1::bigint) n";
    client.execute(sql, &[&SAGAS]).await.unwrap();
    until("a third is done", Duration::from_secs(60), async || {
        (count(&client, "select count(*) from syncor.saga where finished_at is not null").await >= SAGAS / 3).then_some(())
    })
    .await;
    first.kill();
    until("all have ended", Duration::from_secs(90), async || {
        (count(&client, "select count(*) from syncor.saga where state = 'completed'").await == SAGAS).then_some(())
    })
    .await;

    // Between its first call and the end of its last one a saga had the object to itself.
    let mut spans: HashMap<Uuid, (std::time::Instant, std::time::Instant)> = HashMap::new();
    for seen in stub.journal() {
        // A call that the dead worker made may never have been read to its end.
        let end = seen.ended.unwrap_or(seen.began);
        let span = spans.entry(seen.header("hms-saga-id").parse().unwrap()).or_insert((seen.began, end));
        *span = (span.0.min(seen.began), span.1.max(end));
    }
    let mut ordered: Vec<_> = spans.iter().collect();
    ordered.sort_by_key(|(_, span)| span.0);
    let overlapping = ordered.windows(2).filter(|pair| pair[0].1.1 > pair[1].1.0).count();
    assert_eq!(overlapping, 0, "two sagas worked on the object at once");
    let granted: Vec<Uuid> = ordered.iter().map(|(id, _)| **id).collect();
    let asked: Vec<Uuid> = client
        .query("select saga_id from (select s.id as saga_id, e.pos from syncor.saga s join syncor.events e on e.id = s.event_id) x order by pos", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(granted, asked, "first come, first served");
    assert_eq!(count(&client, "select count(*) from syncor.lock_ticket").await, 0, "no lock is left behind");
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn a_lock_is_kept_while_a_human_decides_and_waiters_can_give_up() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.always("/s2", Answer::Json(400, json!({})));
    stub.always("/u1", Answer::Json(409, json!({})));
    deploy(&db.url, &saga_with(stub.address, "test.lock.v1", LOCKED)).await;
    let _worker = Worker::start(&db.url);
    let holder = publish(&client, "test.go", json!({"object": "a"})).await;
    let stuck = saga_in(&client, holder, &["comp_failed"], Duration::from_secs(20)).await;
    let waiter = publish(&client, "test.go", json!({"object": "a"})).await;
    let waiting = waits_for(&client, waiter, "lock").await;
    let other = publish(&client, "test.go", json!({"object": "b"})).await;
    saga_in(&client, other, &["comp_failed"], Duration::from_secs(20)).await;
    let why: String = client.query_one("select syncor.why($1)", &[&waiting]).await.unwrap().get(0);
    assert!(why.contains(&stuck.id.to_string()), "it says who holds the lock: {why}");

    let cancelled = order(&client, "select syncor.cancel($1, 'not needed')", waiting).await;
    assert_eq!(cancelled.0, "applied", "{cancelled:?}");
    assert_eq!(ended(&client, waiter).await.state, "cancelled");
    let waiter = publish(&client, "test.go", json!({"object": "a"})).await;
    waits_for(&client, waiter, "lock").await;
    let task = open_task(&client, stuck.id, "comp_failed").await;
    assert_eq!(decide(&client, task, "undone").await.0, "applied");
    let freed = ended(&client, holder).await;
    assert_eq!((freed.state.as_str(), freed.clean), ("failed", true), "{freed:?}");
    saga_in(&client, waiter, &["comp_failed"], Duration::from_secs(20)).await;
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn a_busy_lock_rejects_or_times_out_where_that_is_asked_for() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let gate = Gate::new();
    stub.always("/s1", Answer::Held(gate.clone(), Box::new(Answer::ok())));
    let head = |mode: &str| format!("lock: {{key: [\"'object:' + data.object\", \"'all'\"], {mode}}}\nsteps:\n  - {{name: s1, call: \"svc:/s1\"}}");
    deploy(&db.url, &saga_with(stub.address, "test.abort.v1", &head("mode: abort"))).await;
    deploy(&db.url, &saga_with(stub.address, "test.limit.v1", &head("mode: wait, timeoutMs: 300")).replace("test.go", "test.limited")).await;
    let _worker = Worker::start(&db.url);
    let first = publish(&client, "test.go", json!({"object": "a"})).await;
    until("the first one is called", Duration::from_secs(10), async || (stub.calls() == 1).then_some(())).await;
    let second = publish(&client, "test.go", json!({"object": "b"})).await;
    let third = publish(&client, "test.limited", json!({"object": "a"})).await;
    let second = ended(&client, second).await;
    assert_eq!((second.state.as_str(), second.reason.as_deref()), ("rejected", Some("another saga holds its lock")));
    let third = ended(&client, third).await;
    assert_eq!((third.state.as_str(), third.reason.as_deref()), ("rejected", Some("timed out waiting for its lock")));
    gate.open();
    assert_eq!(ended(&client, first).await.state, "completed");
    assert_eq!(count(&client, "select count(*) from syncor.events where type = 'saga.rejected'").await, 2);
    assert_eq!(count(&client, "select count(*) from syncor.lock_ticket").await, 0);
    hold(&client, &stub.journal()).await;
}
