//! Callbacks over HTTP: no key, the token is the authority.

use std::time::Duration;

use serde_json::json;
use syncor::http::auth::Auth;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::api::Api;
use crate::support::saga::{ended, publish, saga_with, waits_for};
use crate::support::stub::{Answer, Stub};
use crate::support::until;
use crate::support::worker::{Worker, deploy};

/// A saga that waits for a callback, and the path that its service was told, without the server.
async fn waiting() -> (Api, Stub, Client, Worker, Uuid, String) {
    // Keys are asked for everywhere else.
    let (api, stub) = (Api::start(Auth::keys()).await, Stub::start().await);
    let client = api.client().await;
    stub.always("/send", Answer::Json(202, json!({})));
    let body = "steps:\n  - {name: send, call: \"svc:/send\", compensate: \"svc:/cancel\", async: true}\n  - {name: last, call: \"svc:/last\"}";
    deploy(&api.db.url, &saga_with(stub.address, "test.send.v1", body)).await;
    let worker = Worker::start(&api.db.url);
    let event = publish(&client, "test.go", json!({})).await;
    waits_for(&client, event, "callback").await;
    let url = until("the service is called", Duration::from_secs(10), async || {
        stub.journal().iter().find(|seen| seen.path == "/send").map(|seen| seen.header("hms-callback-url").to_owned())
    })
    .await;
    let path = url[url.find("/v1/callbacks/").unwrap_or_else(|| panic!("{url}"))..].to_owned();
    (api, stub, client, worker, event, path)
}

#[tokio::test]
async fn an_end_counts_once_and_is_answered_the_same_again() {
    let (api, _stub, client, _worker, event, path) = waiting().await;
    for (body, pointer) in [
        (json!({}), Some("/status")),
        (json!({"status": "done"}), Some("/status")),
        (json!({"status": "ok", "contxt": 1}), None),
        (json!({"status": "ok", "output": "\u{0}"}), Some("/output")),
        (json!({"status": "ok", "context": "x".repeat(17 << 10)}), None),
    ] {
        let refused = api.post(&path, &body).await;
        assert_eq!((refused.status, refused.problem().as_str()), (400, "malformed"), "{refused:?}");
        assert_eq!(refused.json()["errors"][0]["pointer"].as_str(), pointer, "{body}");
    }
    assert_eq!(api.post(&path, &json!({"status": "ok", "output": "x".repeat(1 << 20)})).await.status, 413);
    let unknown = api.post("/v1/callbacks/AAAAAAAAAAAAAAAAAAAAAA", &json!({"status": "ok"})).await;
    assert_eq!((unknown.status, unknown.problem().as_str()), (404, "not_found"));

    let end = json!({"status": "ok", "context": {"sent": 5}, "message": "told\u{0}"});
    let first = api.post(&path, &end).await;
    assert_eq!((first.status, first.json()), (200, json!({"accepted": true, "duplicate": false})), "{first:?}");
    let saga = ended(&client, event).await;
    assert_eq!(saga.state, "completed", "{saga:?}");
    let again = api.post(&path, &end).await;
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &json!(true)));
    let other = api.post(&path, &json!({"status": "error"})).await;
    assert_eq!((other.status, other.problem().as_str(), &other.json()["stale"]), (409, "conflict", &json!(true)));
    assert!(!other.text.contains(path.rsplit('/').next().unwrap()), "the token is not repeated: {other:?}");
    let steps = "select context, message from syncor.steps where saga_id = $1 and name = 'send'";
    let row = client.query_one(steps, &[&saga.id]).await.unwrap();
    assert_eq!(row.get::<_, serde_json::Value>(0), json!({"sent": 5}));
}

#[tokio::test]
async fn a_late_end_is_kept_and_told_to_people() {
    let (api, _stub, client, _worker, event, path) = waiting().await;
    let saga = waits_for(&client, event, "callback").await;
    client.query_one("select syncor.abort($1, 'enough')", &[&saga]).await.unwrap();
    assert_eq!(ended(&client, event).await.state, "aborted");
    let beat = api.post(&format!("{path}/heartbeat"), &json!({"done": 1})).await;
    assert_eq!((beat.status, &beat.json()["stale"]), (409, &json!(true)), "{beat:?}");
    let late = api.post(&path, &json!({"status": "ok"})).await;
    assert_eq!((late.status, &late.json()["stale"]), (409, &json!(true)), "{late:?}");
    let tasks = "select count(*) from syncor.human_tasks where kind = 'late_effect' and status = 'open' and saga_id = $1";
    assert_eq!(client.query_one(tasks, &[&saga]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_heartbeat_shows_how_far_the_step_has_come() {
    let (api, _stub, client, _worker, event, path) = waiting().await;
    let saga = waits_for(&client, event, "callback").await;
    let beat = async |body: serde_json::Value| api.post(&format!("{path}/heartbeat"), &body).await;
    for body in [json!({"done": -1}), json!({"done": "many"}), json!({"percent": 5})] {
        assert_eq!(beat(body.clone()).await.status, 400, "{body}");
    }
    assert_eq!(api.post("/v1/callbacks/AAAAAAAAAAAAAAAAAAAAAA/heartbeat", &json!({})).await.status, 404);
    let told = beat(json!({"done": 40, "total": 100, "message": "letters"})).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(beat(json!({})).await.status, 200, "alive is enough");
    let mut lines = Vec::new();
    while let Ok(line) = api.story.lock().unwrap().try_recv() {
        lines.push(line.to_string());
    }
    assert_eq!(lines, ["… send                     40 of 100: letters"]);
    let sql = "select progress from syncor.steps where saga_id = $1 and name = 'send'";
    let progress: serde_json::Value = client.query_one(sql, &[&saga]).await.unwrap().get(0);
    assert_eq!(progress, json!({"done": 40, "total": 100, "message": "letters"}));
}
