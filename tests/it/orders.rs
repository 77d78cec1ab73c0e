//! What operators order of one saga, over SQL, HTTP and on the command line.

use std::time::Duration;

use serde_json::{Value, json};
use syncor::http::auth::Auth;
use syncor::store::keys::{self, Role};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::api::Api;
use crate::support::cli::{orch, orch_at};
use crate::support::saga::{decide, ended, open_task, order, publish, saga_in, saga_of, saga_with, steps, waits_for};
use crate::support::stub::{Answer, Gate, Stub};
use crate::support::until;
use crate::support::worker::{Worker, deploy};

const SOON: Duration = Duration::from_secs(20);

/// Every command about a saga, as `kind by status reason`.
async fn commands(client: &Client, saga: Uuid) -> Vec<String> {
    let sql = "select format('%s %s %s %s', kind, requested_by, status, reason) from syncor.commands where saga_id = $1 order by id";
    client.query(sql, &[&saga]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// A running saga whose second step is in the service's hands until the gate opens.
async fn held(api: &Api, stub: &Stub, client: &Client) -> (Uuid, Uuid, Gate) {
    let gate = Gate::new();
    stub.always("/s2", Answer::Held(gate.clone(), Box::new(Answer::ok())));
    deploy(&api.db.url, &saga_of(3, stub.address, "")).await;
    let event = publish(client, "test.go", json!({})).await;
    let before = stub.paths().iter().filter(|path| *path == "/s2").count();
    until("the second step is called", SOON, async || (stub.paths().iter().filter(|path| *path == "/s2").count() > before).then_some(())).await;
    (event, saga_in(client, event, &["running"], SOON).await.id, gate)
}

#[tokio::test]
async fn a_cancelled_saga_lets_its_call_end_and_is_undone_under_the_keys_name() {
    let api = Api::start(Auth::keys()).await;
    let client = api.client().await;
    let key = keys::create(&api.store, Role::Operator, "desk 7", "test", None).await.unwrap();
    let stub = Stub::start().await;
    let _worker = Worker::start(&api.db.url);
    let (event, saga, gate) = held(&api, &stub, &client).await;
    let path = format!("/v1/sagas/{saga}/cancel");
    for (body, code) in [(json!({}), "malformed"), (json!({"reason": " "}), "malformed"), (json!({"why": "x"}), "malformed")] {
        let refused = api.post_as(key.expose(), &path, &body).await;
        assert_eq!((refused.status, refused.problem().as_str()), (400, code), "{refused:?}");
    }
    let step = api.post_as(key.expose(), &path, &json!({"reason": "x", "step": "s1"})).await;
    assert_eq!(step.status, 400, "{step:?}");
    let unknown = api.post_as(key.expose(), &format!("/v1/sagas/{}/cancel", Uuid::now_v7()), &json!({"reason": "x"})).await;
    assert_eq!((unknown.status, unknown.problem().as_str()), (404, "not_found"));

    let answer = api.post_as(key.expose(), &path, &json!({"reason": "withdrawn by the court"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let receipt = answer.json();
    assert_eq!((&receipt["status"], &receipt["order"], &receipt["sagaId"]), (&json!("applied"), &json!("cancel"), &json!(saga)));
    assert_eq!(saga_in(&client, event, &["draining"], SOON).await.id, saga, "the call is still under way");
    gate.open();
    let cancelled = ended(&client, event).await;
    assert_eq!((cancelled.state.as_str(), cancelled.clean), ("cancelled", true), "{cancelled:?}");
    assert!(cancelled.reason.unwrap().contains("by desk 7: withdrawn by the court"));
    assert_eq!(stub.paths(), ["/s1", "/s2", "/u2", "/u1"]);
    assert_eq!(commands(&client, saga).await, ["cancel desk 7 applied withdrawn by the court"]);

    let again = api.post_as(key.expose(), &path, &json!({"reason": "again"})).await;
    assert_eq!((again.status, again.problem().as_str()), (409, "conflict"));
    assert!(again.json()["detail"].as_str().unwrap().contains("cancelled already"), "{again:?}");
    assert_eq!(commands(&client, saga).await.last().unwrap(), "cancel desk 7 refused again", "a refused order is on record");
}

#[tokio::test]
async fn a_paused_saga_starts_nothing_until_it_is_resumed() {
    let api = Api::open().await;
    let (client, stub) = (api.client().await, Stub::start().await);
    let _worker = Worker::start(&api.db.url);
    let (event, saga, gate) = held(&api, &stub, &client).await;
    let id = saga.to_string();
    let run = orch(&api.db.url, &["pause", &id[..13], "--reason", "lunch"]).await.expect(0);
    assert!(run.stdout.starts_with(&format!("{id} pause applied: ")), "{run:?}");
    gate.open();
    until("what was under way is recorded", SOON, async || (steps(&client, saga).await[1] == "s2 succeeded/none").then_some(())).await;
    let why = orch(&api.db.url, &["why", &id]).await.expect(0);
    assert!(why.stdout.contains("paused") && why.stdout.contains("lunch"), "{why:?}");
    assert_eq!(order(&client, "select syncor.pause($1, 'twice')", saga).await.0, "refused");
    assert_eq!(stub.paths(), ["/s1", "/s2"]);
    assert_eq!(saga_in(&client, event, &["paused"], SOON).await.id, saga);

    let resumed = api.post(&format!("/v1/sagas/{saga}/resume"), &json!({"reason": "back"})).await;
    assert_eq!(resumed.status, 200, "{resumed:?}");
    assert_eq!(ended(&client, event).await.state, "completed");
    let role: String = client.query_one("select session_user::text", &[]).await.unwrap().get(0);
    let expected = [format!("pause {role} applied lunch"), format!("pause {role} refused twice"), "resume http applied back".to_owned()];
    assert_eq!(commands(&client, saga).await, expected);
    let shown = api.get(&format!("/v1/sagas/{saga}")).await.json();
    assert_eq!((&shown["commands"][1]["status"], &shown["commands"][2]["requestedBy"]), (&json!("refused"), &json!("http")));
}

#[tokio::test]
async fn an_aborted_saga_ends_as_it_is() {
    let api = Api::open().await;
    let (client, stub) = (api.client().await, Stub::start().await);
    let _worker = Worker::start(&api.db.url);
    let (event, saga, gate) = held(&api, &stub, &client).await;
    let run = orch(&api.db.url, &["abort", &saga.to_string(), "--reason", "nothing to save", "--json"]).await.expect(0);
    assert_eq!(run.json()["status"], "applied");
    gate.open();
    let aborted = ended(&client, event).await;
    assert_eq!((aborted.state.as_str(), aborted.clean), ("aborted", false), "{aborted:?}");
    assert_eq!(stub.paths(), ["/s1", "/s2"]);
}

#[tokio::test]
async fn what_waits_for_its_next_attempt_is_retried_now_or_skipped() {
    let api = Api::open().await;
    let (client, stub) = (api.client().await, Stub::start().await);
    stub.script("/s1", [Answer::Json(500, json!({}))]);
    stub.always("/s2", Answer::Json(500, json!({})));
    deploy(&api.db.url, &saga_of(3, stub.address, "retry: {attempts: 5, backoffMs: 3600000, maxBackoffMs: 3600000}\n")).await;
    let _worker = Worker::start(&api.db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = waits_for(&client, event, "retry").await;
    let shown = orch(&api.db.url, &["show", &saga.to_string()]).await.expect(0);
    assert!(shown.stdout.contains("retry until 2"), "{shown:?}");
    assert_eq!(api.post(&format!("/v1/sagas/{saga}/retry"), &json!({"reason": "repaired", "step": "s9"})).await.status, 409);
    let retried = api.post(&format!("/v1/sagas/{saga}/retry"), &json!({"reason": "repaired"})).await;
    assert_eq!(retried.status, 200, "{retried:?}");
    until("the second step has failed", SOON, async || (steps(&client, saga).await[1] == "s2 backoff/none").then_some(())).await;
    orch(&api.db.url, &["skip", &saga.to_string(), "--reason", "x"]).await.expect(0);
    assert_eq!(ended(&client, event).await.state, "completed");
    assert_eq!(steps(&client, saga).await, ["s1 succeeded/none", "s2 skipped/none", "s3 succeeded/none"]);
    assert_eq!(stub.paths(), ["/s1", "/s1", "/s2", "/s3"]);
}

#[tokio::test]
async fn a_fork_keeps_what_was_done_and_runs_the_rest_anew() {
    let api = Api::open().await;
    let (client, stub) = (api.client().await, Stub::start().await);
    stub.always("/pay", Answer::Json(200, json!({"context": {"n": 7}})));
    stub.always("/tell", Answer::Json(400, json!({})));
    stub.always("/unpay", Answer::Json(409, json!({})));
    let body = "steps:\n  - {name: pay, call: \"svc:/pay\", compensate: \"svc:/unpay\"}\n  - {name: tell, call: \"svc:/tell\"}";
    deploy(&api.db.url, &saga_with(stub.address, "test.fork.v1", body)).await;
    let _worker = Worker::start(&api.db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let stuck = saga_in(&client, event, &["comp_failed"], SOON).await;
    let early = api.post(&format!("/v1/sagas/{}/fork", stuck.id), &json!({"reason": "x", "step": "tell"})).await;
    assert_eq!(early.status, 409, "only what has ended is forked: {early:?}");
    assert_eq!(decide(&client, open_task(&client, stuck.id, "comp_failed").await, "skip").await.0, "applied");
    let failed = saga_in(&client, event, &["failed"], SOON).await;
    assert!(!failed.clean, "its payment stands: {failed:?}");
    stub.always("/tell", Answer::ok());
    let path = format!("/v1/sagas/{}/fork", failed.id);
    assert_eq!(api.post(&path, &json!({"reason": "told by hand"})).await.status, 400, "from which step?");
    assert_eq!(api.post(&path, &json!({"reason": "x", "step": "nowhere"})).await.status, 409);
    let answer = api.post(&path, &json!({"reason": "repaired", "step": "tell"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let fork: Uuid = serde_json::from_value(answer.json()["newSagaId"].clone()).unwrap();
    let done = api.get(&format!("/v1/sagas/{fork}?waitMs=20000")).await.json();
    assert_eq!((&done["state"], &done["forkOf"]), (&json!("completed"), &json!(failed.id)), "{done}");
    assert_eq!(done["steps"][0]["context"], json!({"n": 7}), "the fork goes on with what the old one had");
    assert_eq!(stub.paths(), ["/pay", "/tell", "/unpay", "/tell"]);
    assert_eq!(api.get(&format!("/v1/sagas/{}", failed.id)).await.json()["forks"], json!([fork]));
    let refused = orch(&api.db.url, &["fork", &failed.id.to_string(), "--from", "tell", "--reason", "again"]).await.expect(5);
    assert!(refused.stdout.contains(&fork.to_string()), "{refused:?}");
}

#[tokio::test]
async fn without_a_worker_an_order_is_kept() {
    let api = Api::open().await;
    let (client, stub) = (api.client().await, Stub::start().await);
    let worker = Worker::start(&api.db.url);
    let (event, saga, gate) = held(&api, &stub, &client).await;
    gate.open();
    stub.always("/s2", Answer::ok());
    stub.always("/s3", Answer::Json(500, json!({})));
    worker.stop().await;
    let pending = api.post(&format!("/v1/sagas/{saga}/cancel"), &json!({"reason": "too late"})).await;
    assert_eq!((pending.status, &pending.json()["status"]), (202, &json!("pending")), "{pending:?}");
    assert_eq!(api.get(&format!("/v1/sagas/{saga}")).await.json()["pendingCommand"], "cancel");
    let run = orch(&api.db.url, &["pause", &saga.to_string(), "--reason", "x"]).await.expect(7);
    assert!(run.stderr.contains("no worker has come to it"), "{run:?}");
    let _next = Worker::start(&api.db.url);
    assert_eq!(ended(&client, event).await.state, "cancelled");
}

#[tokio::test]
async fn the_command_line_says_by_its_code_what_became_of_an_order() {
    let api = Api::start(Auth::keys()).await;
    let (client, stub) = (api.client().await, Stub::start().await);
    let operator = keys::create(&api.store, Role::Operator, "night shift", "test", None).await.unwrap();
    let viewer = keys::create(&api.store, Role::Viewer, "looker", "test", None).await.unwrap();
    deploy(&api.db.url, &saga_with(stub.address, "test.sleep.v1", "steps:\n  - {name: sleep, delayMs: 3600000}")).await;
    let _worker = Worker::start(&api.db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = waits_for(&client, event, "timer").await.to_string();
    let nobody = Uuid::now_v7().to_string();
    for (arguments, code) in [
        (vec!["cancel", &saga], 2),
        (vec!["cancel", "--reason", "x"], 2),
        (vec!["cancel", "01", "--reason", "x"], 2),
        (vec!["cancel", &nobody, "--reason", "x"], 4),
        (vec!["resume", &saga, "--reason", "x"], 5),
        (vec!["fork", &saga, "--from", "sleep", "--reason", "x"], 5),
        (vec!["why", &saga], 0),
        (vec!["show", &saga], 0),
        (vec!["sagas"], 0),
        (vec!["tasks"], 0),
        (vec!["locks"], 0),
    ] {
        orch(&api.db.url, &arguments).await.expect(code);
        orch_at(api.address, operator.expose(), &arguments).await.expect(code);
    }
    let refused = orch_at(api.address, viewer.expose(), &["cancel", &saga, "--reason", "x"]).await.expect(1);
    assert!(refused.stderr.contains("operator or admin is needed"), "{refused:?}");
    let shown: Value = orch_at(api.address, operator.expose(), &["show", &saga, "--json"]).await.expect(0).json();
    assert_eq!(shown["steps"][0]["wait"], "timer", "{shown}");
    assert!(shown["steps"][0]["waitUntil"].is_string(), "{shown}");
    let list = orch_at(api.address, operator.expose(), &["sagas", "--waiting-for", "timer", "--json"]).await.expect(0).json();
    assert_eq!(list[0]["id"], saga.as_str());
    let run = orch_at(api.address, operator.expose(), &["cancel", &saga, "--reason", "over HTTP", "--json"]).await.expect(0).json();
    assert_eq!(run["status"], "applied");
    assert_eq!(ended(&client, event).await.state, "cancelled");
    let given = commands(&client, saga.parse().unwrap()).await;
    assert_eq!(given.last().unwrap(), "cancel night shift applied over HTTP");
}
