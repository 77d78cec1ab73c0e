//! Real workers, really killed: nothing is lost, nothing is recorded twice, and a zombie changes nothing.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::process::Process;
use crate::support::saga::{count, ended, publish, saga_of};
use crate::support::stub::{Answer, Stub};
use crate::support::worker::deploy;
use crate::support::{db, invariants, until};

const ALIVE: &str = "select count(*) from syncor.workers where state = 'alive'";

async fn publish_many(client: &Client, count: i64) {
    let sql = "insert into syncor.events (type, data) select 'test.go', jsonb_build_object('n', n) from generate_series(1, $1::bigint) n";
    client.execute(sql, &[&count]).await.unwrap();
}

async fn workers_alive(client: &Client, number: i64) {
    until("the workers are up", Duration::from_secs(20), async || (count(client, ALIVE).await == number).then_some(())).await;
}

async fn all_ended(client: &Client, number: i64, limit: Duration) {
    until("every saga has ended", limit, async || {
        (count(client, "select count(*) from syncor.saga where finished_at is not null").await == number).then_some(())
    })
    .await;
}

/// What must hold whatever was killed.
async fn nothing_lost_nothing_twice(client: &Client, stub: &Stub) {
    let twice = "select count(*) from (select 1 from syncor.attempt where action = 'do' and outcome = 'succeeded' group by saga_id, seq having count(*) > 1) x";
    assert_eq!(count(client, twice).await, 0, "a step is recorded twice");
    let terminal = "select count(*) from syncor.saga s where (select count(*) from syncor.events e where e.saga_id = s.id
                      and e.type in ('saga.completed', 'saga.failed')) <> 1";
    assert_eq!(count(client, terminal).await, 0, "one terminal event each");
    let intents: HashMap<(Uuid, String, i32), i64> = client
        .query("select saga_id, step, attempt, fence from syncor.attempts where action = 'do'", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| ((row.get(0), row.get(1), row.get(2)), row.get(3)))
        .collect();
    let mut seen = HashSet::new();
    for call in stub.journal() {
        let key = (call.header("hms-saga-id").parse().unwrap(), call.header("hms-step").to_owned(), call.header("hms-attempt").parse().unwrap());
        assert_eq!(intents.get(&key), Some(&call.fence()), "a call without a committed intent: {key:?}");
        assert!(seen.insert(key.clone()), "an attempt was called twice: {key:?}");
    }
    invariants::hold(client, &stub.journal()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sagas_survive_the_death_of_a_worker_and_of_postgres() {
    let cluster = db::own_cluster().await;
    cluster.ensure_database("hms").await.unwrap();
    let url = cluster.url("hms");
    syncor::store::migrate::migrate(&syncor::store::dsn::Dsn::parse(&url).unwrap()).await.unwrap();
    let client = db::connect(&url).await;
    let stub = Stub::start().await;
    for step in 1..=3 {
        stub.always(&format!("/s{step}"), Answer::Slow(Duration::from_millis(400), Box::new(Answer::ok())));
    }
    deploy(&url, &saga_of(3, stub.address, "retry: {attempts: 10, backoffMs: 20}\n")).await;
    let settings = [("HMS_LEASE_MS", "3000")];
    let mut first = Process::worker_with(&url, &settings);
    let _second = Process::worker_with(&url, &settings);
    workers_alive(&client, 2).await;
    publish_many(&client, 1000).await;
    until("both workers own sagas", Duration::from_secs(20), async || {
        (count(&client, "select count(distinct owner) from syncor.saga where finished_at is null").await == 2 && stub.calls() > 300).then_some(())
    })
    .await;

    first.kill();
    let killed = Instant::now();
    until("the dead worker's sagas are taken over", Duration::from_secs(5), async || {
        let orphaned = "select count(*) from syncor.saga s join syncor.worker w on w.no = s.owner and w.pid = $1 where s.finished_at is null";
        let left: i64 = client.query_one(orphaned, &[&i32::try_from(first.pid()).unwrap()]).await.unwrap().get(0);
        (left == 0).then_some(())
    })
    .await;
    println!("taken over {:?} after kill -9", killed.elapsed());

    cluster.stop(syncor::dev_postgres::StopMode::Immediate).await.unwrap();
    let before = stub.calls();
    cluster.start().await.unwrap();
    let back = Instant::now();
    until("calls go on", Duration::from_secs(5), async || (stub.calls() > before + 64).then_some(())).await;
    println!("calls went on {:?} after Postgres was back", back.elapsed());

    let client = db::connect(&cluster.url("hms")).await;
    all_ended(&client, 1000, Duration::from_secs(60)).await;
    nothing_lost_nothing_twice(&client, &stub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_past_its_lease_changes_nothing() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    // The first call's reply comes while its worker is stopped; the second one's at once.
    stub.script(
        "/s1",
        [Answer::Slow(Duration::from_secs(2), Box::new(Answer::Json(200, json!({"by": "zombie"})))), Answer::Json(200, json!({"by": "heir"}))],
    );
    deploy(&db.url, &saga_of(2, stub.address, "")).await;
    let settings = [("HMS_LEASE_MS", "1000")];
    let zombie = Process::worker_with(&db.url, &settings);
    workers_alive(&client, 1).await;
    let event = publish(&client, "test.go", json!({})).await;
    until("the call is made", Duration::from_secs(10), async || (stub.calls() == 1).then_some(())).await;
    zombie.signal("STOP");
    let _heir = Process::worker_with(&db.url, &settings);
    let saga = ended(&client, event).await;
    assert_eq!(saga.state, "completed");

    zombie.signal("CONT");
    until("the zombie starts anew", Duration::from_secs(10), async || (count(&client, ALIVE).await == 2).then_some(())).await;
    let journal = stub.journal();
    let paths: Vec<_> = journal.iter().map(|call| call.path.as_str()).collect();
    assert_eq!(paths, ["/s1", "/s1", "/s2"], "it made no further call");
    assert!(journal[0].fence() < journal[1].fence(), "its call carried a lower fence");
    let output: serde_json::Value =
        client.query_one("select output from syncor.steps where saga_id = $1 and name = 's1'", &[&saga.id]).await.unwrap().get(0);
    assert_eq!(output, json!({"by": "heir"}));
    let outcomes: Vec<String> = client
        .query("select outcome from syncor.attempts where saga_id = $1 and step = 's1' order by attempt", &[&saga.id])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(outcomes, ["lost", "succeeded"]);
    nothing_lost_nothing_twice(&client, &stub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_heirs_one_takes_each_saga() {
    const SAGAS: i64 = 100;
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    let hang = usize::try_from(SAGAS).unwrap();
    stub.script("/s1", std::iter::repeat_n(Answer::Hang, hang));
    deploy(&db.url, &saga_of(1, stub.address, "")).await;
    let settings = [("HMS_LEASE_MS", "1000")];
    let mut first = Process::worker_with(&db.url, &settings);
    workers_alive(&client, 1).await;
    publish_many(&client, SAGAS).await;
    until("all are called", Duration::from_secs(10), async || (stub.calls() == hang).then_some(())).await;
    let _heirs = [Process::worker_with(&db.url, &settings), Process::worker_with(&db.url, &settings)];
    workers_alive(&client, 3).await;
    first.kill();
    all_ended(&client, SAGAS, Duration::from_secs(20)).await;
    assert_eq!(stub.calls(), 2 * hang, "each saga was called once more");
    nothing_lost_nothing_twice(&client, &stub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_worker_finishes_its_calls_and_hands_over() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.script("/s1", [Answer::Slow(Duration::from_millis(700), Box::new(Answer::ok()))]);
    deploy(&db.url, &saga_of(2, stub.address, "")).await;
    let mut first = Process::worker(&db.url);
    workers_alive(&client, 1).await;
    let event = publish(&client, "test.go", json!({})).await;
    until("the call is made", Duration::from_secs(10), async || (stub.calls() == 1).then_some(())).await;
    first.signal("TERM");
    assert_eq!(first.wait(), Some(0));
    assert_eq!(stub.paths(), ["/s1"], "nothing new is begun");
    let status: String =
        client.query_one("select status from syncor.steps where name = 's1' and saga_id = (select id from syncor.saga)", &[]).await.unwrap().get(0);
    assert_eq!(status, "succeeded", "the call in flight was waited for");

    let _second = Process::worker(&db.url);
    let saga = ended(&client, event).await;
    assert_eq!(saga.state, "completed");
    assert_eq!(stub.paths(), ["/s1", "/s2"]);
}
