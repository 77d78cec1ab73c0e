//! The same order to all sagas that match.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::api::Api;
use crate::support::cli::{orch, orch_at};
use crate::support::saga::{count, publish, saga_with, waits_for};
use crate::support::stub::Stub;
use crate::support::until;
use crate::support::worker::{Worker, deploy};

const SLEEPING: &str = "select count(*) from syncor.sagas where waiting_for = 'timer'";

/// Three sleeping sagas on locks of their own, and one of another family.
async fn furnished() -> (Api, Client, Vec<Uuid>, Worker) {
    let (api, stub) = (Api::open().await, Stub::start().await);
    let client = api.client().await;
    let body = "lock: \"'case:' + string(data.n)\"\nsteps:\n  - {name: sleep, delayMs: 3600000}";
    deploy(&api.db.url, &saga_with(stub.address, "test.many.v1", body)).await;
    let other = saga_with(stub.address, "test.other.v1", "steps:\n  - {name: sleep, delayMs: 3600000}").replace("test.go", "test.else");
    deploy(&api.db.url, &other).await;
    let worker = Worker::start(&api.db.url);
    let mut ids = Vec::new();
    for n in 1..=3 {
        let event = publish(&client, "test.go", json!({"n": n})).await;
        ids.push(waits_for(&client, event, "timer").await);
    }
    let event = publish(&client, "test.else", json!({})).await;
    waits_for(&client, event, "timer").await;
    (api, client, ids, worker)
}

#[tokio::test]
async fn an_order_reaches_all_that_match_and_no_other() {
    let (api, client, ids, _worker) = furnished().await;
    for (body, pointer) in [
        (json!({"reason": "x"}), "/filter"),
        (json!({"reason": "x", "filter": {"state": "failed"}}), "/filter/state"),
        (json!({"reason": "x", "filter": {"state": "lost"}}), "/filter/state"),
        (json!({"filter": {"definition": "test.many"}}), "/reason"),
        (json!({"reason": "x", "filter": {"definition": "test.many"}, "limit": 0}), "/limit"),
        (json!({"reason": "x", "filter": {"definition": "test.many"}, "step": "sleep"}), "/step"),
    ] {
        let refused = api.post("/v1/sagas/cancel", &body).await;
        assert_eq!((refused.status, refused.problem().as_str()), (400, "malformed"), "{body}: {refused:?}");
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{body}");
    }
    let looked = api.post("/v1/sagas/cancel", &json!({"filter": {"definition": "test.many"}, "dryRun": true})).await.json();
    assert_eq!((&looked["count"], &looked["ids"], &looked["items"], &looked["dryRun"]), (&json!(3), &json!(ids), &json!([]), &json!(true)));
    assert_eq!(count(&client, "select count(*) from syncor.commands where kind = 'cancel'").await, 0, "a dry run leaves no trace");

    for (filter, expected) in [
        (json!({"lockKey": "case:2"}), 1),
        (json!({"state": "running,paused", "waitingFor": "timer"}), 4),
        (json!({"waitingFor": "human"}), 0),
        (json!({"definition": "test.many.v1", "startedBefore": "2020-01-01T00:00:00Z"}), 0),
        (json!({"definition": "test.many.v1", "startedAfter": "2020-01-01T00:00:00Z"}), 3),
    ] {
        let looked = api.post("/v1/sagas/pause", &json!({"filter": filter, "dryRun": true})).await.json();
        assert_eq!(looked["count"], expected, "{filter}");
    }

    let one = api.post("/v1/sagas/pause", &json!({"reason": "x", "filter": {"definition": "test.many"}, "limit": 1})).await.json();
    assert_eq!((&one["applied"], &one["more"], &one["ids"]), (&json!(1), &json!(true), &json!([ids[0]])), "oldest first: {one}");
    let all = api.post("/v1/sagas/pause", &json!({"reason": "x", "filter": {"definition": "test.many"}})).await.json();
    assert_eq!((&all["count"], &all["applied"], &all["refused"], &all["more"]), (&json!(3), &json!(2), &json!(1), &json!(false)), "{all}");
    assert_eq!((&all["items"][0]["status"], &all["items"][0]["sagaId"]), (&json!("refused"), &json!(ids[0])));
    assert_eq!(count(&client, SLEEPING).await, 1, "the other family sleeps on");
}

#[tokio::test]
async fn the_command_line_orders_many_only_when_that_is_confirmed() {
    let (api, client, ids, _worker) = furnished().await;
    let url = &api.db.url;
    let unconfirmed = orch(url, &["cancel", "--definition", "test.many", "--reason", "x"]).await.expect(2);
    assert!(unconfirmed.stderr.contains("this would cancel 3 sagas: add --yes"), "{unconfirmed:?}");
    orch(url, &["cancel", "--all-matching", "--reason", "x"]).await.expect(2);
    orch(url, &["cancel", "--state", "failed", "--reason", "x", "--yes"]).await.expect(2);
    let looked = orch(url, &["cancel", "--definition", "test.many", "--dry-run"]).await.expect(0);
    let lines: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    assert_eq!(looked.stdout.lines().collect::<Vec<_>>(), lines);
    assert_eq!(count(&client, SLEEPING).await, 4);

    let one = orch(url, &["cancel", "--lock-key", "case:1", "--reason", "x", "--yes", "--json"]).await.expect(0).json();
    assert_eq!((&one["applied"], &one["ids"]), (&json!(1), &json!([ids[0]])));
    let rest = orch_at(api.address, "", &["cancel", "--definition", "test.many", "--all-matching", "--reason", "x"]).await.expect(0);
    assert!(rest.stderr.contains("2 applied, 0 refused, 0 pending"), "{rest:?}");
    orch_at(api.address, "", &["abort", "--all-matching", "--yes", "--reason", "x"]).await.expect(0);
    until("all have ended", Duration::from_secs(20), async || {
        (count(&client, "select count(*) from syncor.sagas where finished_at is null").await == 0).then_some(())
    })
    .await;
    assert_eq!(count(&client, "select count(*) from syncor.object_locks").await, 0);
}

#[tokio::test]
async fn locks_show_who_holds_them_and_who_waits() {
    let (api, client, ids, _worker) = furnished().await;
    let event = publish(&client, "test.go", json!({"n": 2, "again": true})).await;
    let second = waits_for(&client, event, "lock").await;
    let locks = api.get("/v1/locks?key=case:2").await.json();
    let row =
        |place: usize| (locks["items"][place]["sagaId"].clone(), locks["items"][place]["state"].clone(), locks["items"][place]["place"].clone());
    assert_eq!(row(0), (json!(ids[1]), json!("held"), json!(0)));
    assert_eq!(row(1), (json!(second), json!("waiting"), json!(1)));
    // Page by page it is the same list.
    let (mut seen, mut path) = (Vec::new(), "/v1/locks?limit=1".to_owned());
    loop {
        let page = api.get(&path).await;
        seen.extend(page.json()["items"].as_array().unwrap().iter().map(|lock| lock["sagaId"].as_str().unwrap().to_owned()));
        match page.header("link").strip_prefix('<').and_then(|link| link.split_once('>')) {
            Some((next, _)) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, [ids[0], ids[1], second, ids[2]].map(|id| id.to_string()));
    assert_eq!(api.get("/v1/locks?state=waiting").await.json()["items"].as_array().unwrap().len(), 1);
    for wrong in ["state=free", "after=x", "limit=0", "nothing=1"] {
        assert_eq!(api.get(&format!("/v1/locks?{wrong}")).await.problem(), "malformed", "{wrong}");
    }
    let listed = orch(&api.db.url, &["locks", "--saga", &second.to_string(), "--json"]).await.expect(0).json();
    assert_eq!(listed[0]["key"], "case:2");
    assert_eq!(api.get("/v1/sagas?waitingFor=lock&lockKey=case:2").await.json()["items"][0]["id"], json!(second));
    assert_eq!(api.get("/v1/sagas?lockKey=case:2").await.json()["items"].as_array().unwrap().len(), 2);
    let why = orch(&api.db.url, &["why", &second.to_string()]).await.expect(0);
    assert!(why.stdout.contains("case:2") && why.stdout.contains(&ids[1].to_string()), "{why:?}");
}
