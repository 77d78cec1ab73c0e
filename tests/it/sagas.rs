//! The main job from outside: events start sagas, steps are called in order, failures are undone in reverse.

use std::time::Duration;

use serde_json::json;

use crate::support::saga::{count, ended, publish, saga_of};
use crate::support::stub::{Answer, Stub};
use crate::support::worker::{Worker, deploy};
use crate::support::{db, invariants, until};

#[tokio::test]
async fn a_saga_runs_its_steps_in_order_and_completes() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    deploy(&db.url, &saga_of(3, stub.address, "")).await;
    let _worker = Worker::start(&db.url);

    let event = publish(&client, "test.go", json!({"n": 1})).await;
    let saga = ended(&client, event).await;

    assert_eq!((saga.state.as_str(), saga.clean), ("completed", true), "{saga:?}");
    assert_eq!(stub.paths(), ["/s1", "/s2", "/s3"]);
    let journal = stub.journal();
    assert!(journal.windows(2).all(|pair| pair[0].fence() < pair[1].fence()), "fences rise");
    assert_eq!(journal[1].header("idempotency-key"), format!("{}/s2/do", saga.id));
    assert_eq!(journal[1].body["data"], json!({"n": 1}));
    assert_eq!(journal[1].body["steps"], json!({"s1": {"context": {}}}));
    assert_eq!(count(&client, "select count(*) from syncor.events where type = 'saga.completed'").await, 1);
    invariants::hold(&client, &stub.journal()).await;
}

/// One way to fail, and what it means.
struct Failure {
    name: &'static str,
    answer: fn() -> Answer,
    /// Calls to the failing step in all.
    calls: usize,
    /// Whether the failing step itself is undone.
    unknown: bool,
}

const FAILURES: [Failure; 8] = [
    Failure { name: "refused", answer: Answer::ok, calls: 0, unknown: false },
    Failure { name: "500", answer: || Answer::Json(500, json!({})), calls: 2, unknown: false },
    Failure { name: "400", answer: || Answer::Json(400, json!({})), calls: 1, unknown: false },
    Failure { name: "302", answer: || Answer::Raw(302, "Location: http://127.0.0.1:1/\r\n".into(), vec![]), calls: 1, unknown: false },
    Failure { name: "timeout", answer: || Answer::Hang, calls: 2, unknown: true },
    Failure { name: "reset", answer: || Answer::Reset, calls: 2, unknown: true },
    Failure { name: "garbage", answer: || Answer::Garbage(b"\x00\x01garbage\r\n\r\n".to_vec()), calls: 2, unknown: true },
    Failure { name: "2 MiB", answer: || Answer::Json(200, json!({"x": "y".repeat(2 << 20)})), calls: 2, unknown: true },
];

#[tokio::test]
async fn a_failure_at_any_step_undoes_the_steps_before_it_in_reverse() {
    const STEPS: usize = 3;
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let mut journal = Vec::new();
    for failure in &FAILURES {
        for k in 1..=STEPS {
            let stub = Stub::start().await;
            stub.always(&format!("/s{k}"), (failure.answer)());
            let mut text = saga_of(STEPS, stub.address, "timeoutMs: 150\nretry: {attempts: 2, backoffMs: 10}\n");
            if failure.name == "refused" {
                // Nobody listens there: the call never leaves.
                let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
                text = text
                    .replace(&format!("call: \"svc:/s{k}\""), &format!("call: \"closed:/s{k}\""))
                    .replace("services:\n", &format!("services:\n  closed: {{url: \"http://{closed}\", allow: [127.0.0.0/8]}}\n"));
            }
            deploy(&db.url, &text).await;
            let worker = Worker::start(&db.url);
            let event = publish(&client, "test.go", json!({})).await;
            let saga = ended(&client, event).await;

            let mut expected: Vec<String> = (1..k).map(|i| format!("/s{i}")).collect();
            expected.extend(std::iter::repeat_n(format!("/s{k}"), failure.calls));
            let last_undone = if failure.unknown { k } else { k - 1 };
            expected.extend((1..=last_undone).rev().map(|i| format!("/u{i}")));
            assert_eq!(stub.paths(), expected, "{} at step {k}", failure.name);
            assert_eq!((saga.state.as_str(), saga.clean), ("failed", true), "{} at step {k}: {saga:?}", failure.name);
            let failed = "select count(*) from syncor.events where type = 'saga.failed' and saga_id = $1";
            let told: i64 = client.query_one(failed, &[&saga.id]).await.unwrap().get(0);
            assert_eq!(told, 1);
            worker.stop().await;
            journal.extend(stub.journal());
        }
    }
    invariants::hold(&client, &journal).await;
}

#[tokio::test]
async fn an_undo_that_fails_for_good_waits_for_a_human() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.always("/s3", Answer::Json(400, json!({"message": "no"})));
    stub.always("/u2", Answer::Json(409, json!({})));
    deploy(&db.url, &saga_of(3, stub.address, "")).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = ended(&client, event).await;
    assert_eq!((saga.state.as_str(), saga.clean), ("comp_failed", false));
    assert_eq!(stub.paths(), ["/s1", "/s2", "/s3", "/u2"], "earlier steps wait for the human");
    let why: String = client.query_one("select syncor.why($1)", &[&saga.id]).await.unwrap().get(0);
    assert!(why.contains("waits for a human"), "{why}");
    invariants::hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn the_same_request_starts_one_saga() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    deploy(&db.url, &saga_of(1, stub.address, "dedupeKey: data.request\n")).await;
    let _worker = Worker::start(&db.url);
    let first = publish(&client, "test.go", json!({"request": "r1"})).await;
    let second = publish(&client, "test.go", json!({"request": "r1"})).await;
    let third = publish(&client, "test.go", json!({"request": "r2"})).await;
    ended(&client, first).await;
    ended(&client, third).await;
    let why = until("the second event is explained", Duration::from_secs(5), async || {
        let why: String = client.query_one("select syncor.why($1)", &[&second]).await.unwrap().get(0);
        why.contains("started nothing").then_some(why)
    })
    .await;
    assert!(why.contains("r1"), "{why}");
    assert_eq!(stub.calls(), 2);
    invariants::hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn events_that_were_there_before_any_worker_are_not_lost() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let sql = "insert into syncor.events (type, data) select 'test.go', jsonb_build_object('n', n) from generate_series(1, 1200) n";
    client.execute(sql, &[]).await.unwrap();
    deploy(&db.url, &saga_of(2, stub.address, "")).await;
    let _worker = Worker::start(&db.url);
    until("all sagas completed", Duration::from_secs(30), async || {
        (count(&client, "select count(*) from syncor.sagas where state = 'completed'").await == 1200).then_some(())
    })
    .await;
    assert_eq!(stub.calls(), 2400);
    invariants::hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn a_reply_that_postgres_cannot_store_is_of_unknown_effect() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    // Valid JSON, but beyond what `jsonb` can hold.
    let monster = || Answer::Raw(200, "Content-Type: application/json\r\n".into(), br#"{"n": 1e999999}"#.to_vec());
    stub.script("/s1", [monster()]);
    stub.script("/s2", [Answer::Json(200, json!({"nul": "a\u{0}b"}))]);
    deploy(&db.url, &saga_of(2, stub.address, "retry: {attempts: 2, backoffMs: 10}\n")).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = ended(&client, event).await;
    assert_eq!(saga.state, "completed");
    assert_eq!(stub.paths(), ["/s1", "/s1", "/s2"], "the unstorable reply is asked for again");
    let first = client.query_one("select outcome, error from syncor.attempts where step = 's1' and attempt = 1", &[]).await.unwrap();
    assert_eq!(first.get::<_, String>(0), "unknown");
    assert!(first.get::<_, String>(1).contains("cannot be stored"));
    let output: serde_json::Value = client.query_one("select output from syncor.steps where name = 's2'", &[]).await.unwrap().get(0);
    assert_eq!(output, json!({"nul": "a\u{fffd}b"}), "a NUL is replaced");
    invariants::hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn the_deadline_turns_a_saga_round_after_the_call_in_flight() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    // The first step has to be done before the deadline on a busy machine as well.
    stub.always("/s2", Answer::Slow(Duration::from_millis(3500), Box::new(Answer::ok())));
    deploy(&db.url, &saga_of(3, stub.address, "deadlineMs: 2000\n")).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = ended(&client, event).await;
    assert_eq!((saga.state.as_str(), saga.clean), ("failed", true));
    assert_eq!(saga.reason.as_deref(), Some("the deadline passed"));
    assert_eq!(stub.paths(), ["/s1", "/s2", "/u2", "/u1"], "what succeeded meanwhile is undone too");
    invariants::hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn a_writer_that_stays_open_delays_nobody_and_is_not_forgotten() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    deploy(&db.url, &saga_of(1, stub.address, "")).await;
    let _worker = Worker::start(&db.url);
    let mut slow = db::connect(&db.url).await;
    let open = slow.transaction().await.unwrap();
    let early = open.query_one("insert into syncor.events (type) values ('test.go') returning id", &[]).await.unwrap().get(0);
    for n in 0..20 {
        let event = publish(&client, "test.go", json!({"n": n})).await;
        assert_eq!(ended(&client, event).await.state, "completed");
    }
    open.commit().await.unwrap();
    assert_eq!(ended(&client, early).await.state, "completed");
    assert_eq!(stub.calls(), 21);
    invariants::hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn a_saga_that_its_worker_does_not_know_of_is_found() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.script("/s1", [Answer::Json(503, json!({}))]);
    deploy(&db.url, &saga_of(1, stub.address, "retry: {attempts: 2, backoffMs: 6000, jitter: 0}\n")).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    until("it is parked until the retry", Duration::from_secs(5), async || {
        (count(&client, "select count(*) from syncor.saga where owner is null and next_due is not null").await == 1).then_some(())
    })
    .await;
    // What a claim leaves behind whose answer was lost with its connection.
    client
        .batch_execute("update syncor.saga set owner = (select max(no) from syncor.worker), epoch = epoch + 1, rev = rev + 1, next_due = null")
        .await
        .unwrap();
    assert_eq!(ended(&client, event).await.state, "completed");
    assert_eq!(stub.calls(), 2);
    invariants::hold(&client, &stub.journal()).await;
}
