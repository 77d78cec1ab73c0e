//! Steps that answer 202 and report their end later: once, in time, or too late.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;

use crate::support::invariants::hold;
use crate::support::saga::{count, ended, publish, saga_in, saga_with, steps, waits_for};
use crate::support::stub::{Answer, Stub};
use crate::support::worker::{Worker, deploy};
use crate::support::{db, until};

const SEND: &str = "retry: {attempts: 1}
steps:
  - {name: send, call: \"svc:/send\", compensate: \"svc:/cancel\", async: true, timeoutMs: LIMIT, heartbeatTimeoutMs: SILENCE}
  - {name: last, call: \"svc:/last\"}";

fn saga(address: std::net::SocketAddr, limit: u32, silence: u32) -> String {
    saga_with(address, "test.send.v1", &SEND.replace("LIMIT", &limit.to_string()).replace("SILENCE", &silence.to_string()))
}

/// The token that the service was given.
async fn token(stub: &Stub) -> String {
    until("the service is called", Duration::from_secs(10), async || {
        let url = stub.journal().iter().find(|seen| seen.path == "/send").map(|seen| seen.header("hms-callback-url").to_owned())?;
        Some(url.rsplit('/').next().unwrap().to_owned())
    })
    .await
}

async fn complete(client: &Client, token: &str, status: &str) -> String {
    let sql = "select syncor.complete($1, $2, context => '{\"sent\": 5}', message => 'told')";
    client.query_one(sql, &[&token, &status]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_callback_ends_the_step_once() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.always("/send", Answer::Json(202, json!({})));
    deploy(&db.url, &saga(stub.address, 60_000, 60_000)).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = waits_for(&client, event, "callback").await;
    let token = token(&stub).await;
    assert!(token.len() >= 22, "128 random bits: {token}");
    let stored = count(&client, &format!("select count(*) from syncor.callback where encode(digest, 'escape') like '%{token}%'")).await;
    assert_eq!(stored, 0, "the token itself is nowhere");
    client.query_one("select syncor.beat($1, 3, 10, 'three of ten')", &[&token]).await.unwrap();
    let progress: serde_json::Value =
        client.query_one("select progress from syncor.steps where saga_id = $1 and name = 'send'", &[&saga]).await.unwrap().get(0);
    assert_eq!((&progress["done"], &progress["total"]), (&json!(3), &json!(10)), "{progress}");
    assert_eq!(complete(&client, &token, "ok").await, "accepted");
    assert_eq!(ended(&client, event).await.state, "completed");
    assert_eq!(complete(&client, &token, "ok").await, "repeated");
    assert_ne!(complete(&client, &token, "error").await, "accepted");
    let context: serde_json::Value =
        client.query_one("select context from syncor.steps where saga_id = $1 and name = 'send'", &[&saga]).await.unwrap().get(0);
    assert_eq!(context, json!({"sent": 5}));
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn silence_is_of_unknown_effect_and_a_late_success_is_told_to_a_human() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.always("/send", Answer::Json(202, json!({})));
    deploy(&db.url, &saga(stub.address, 60_000, 300)).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let failed = saga_in(&client, event, &["failed"], Duration::from_secs(20)).await;
    assert!(failed.reason.as_deref().is_some_and(|reason| reason.contains("heartbeat")), "{failed:?}");
    assert_eq!(steps(&client, failed.id).await[0], "send unknown/compensated");
    assert_eq!(complete(&client, &token(&stub).await, "ok").await, "late");
    until("a human is told", Duration::from_secs(5), async || {
        (count(&client, "select count(*) from syncor.human_tasks where kind = 'late_effect' and status = 'open'").await == 1).then_some(())
    })
    .await;
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn heartbeats_prolong_a_step() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.always("/send", Answer::Json(202, json!({})));
    deploy(&db.url, &saga(stub.address, 60_000, 1000)).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = waits_for(&client, event, "callback").await;
    let token = token(&stub).await;
    let began = std::time::Instant::now();
    until("three seconds of heartbeats", Duration::from_secs(10), async || {
        client.query_one("select syncor.beat($1, 1, 2, null)", &[&token]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        (began.elapsed() > Duration::from_secs(3)).then_some(())
    })
    .await;
    assert_eq!(steps(&client, saga).await[0], "send waiting/none");
    assert_eq!(complete(&client, &token, "ok").await, "accepted");
    assert_eq!(ended(&client, event).await.state, "completed");
    hold(&client, &stub.journal()).await;
}

#[tokio::test]
async fn an_error_fails_the_step_and_its_saga() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    stub.always("/send", Answer::Json(202, json!({})));
    deploy(&db.url, &saga(stub.address, 60_000, 60_000)).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    waits_for(&client, event, "callback").await;
    assert_eq!(complete(&client, &token(&stub).await, "error").await, "accepted");
    let failed = ended(&client, event).await;
    assert_eq!((failed.state.as_str(), failed.clean), ("failed", true), "{failed:?}");
    assert_eq!(stub.called("/cancel"), 0, "a step that says it failed is not undone");
    hold(&client, &stub.journal()).await;
}
