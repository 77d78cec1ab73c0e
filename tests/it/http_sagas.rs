//! Looking at sagas, and waiting for their end.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::api::Api;

const SAGA: &str = "018f0000-0000-7000-8000-0000000000a1";
const EVENT: &str = "018f0000-0000-7000-8000-0000000000e1";

/// One running saga with a finished and an open attempt, and 4 completed ones of another family.
async fn furnished() -> Api {
    let api = Api::open().await;
    api.sql(&format!(
        r#"insert into syncor.definition (kind, id, family, version, revision, source) values
             ('saga', 'a.b.v2', 'a.b', 2, 'r1', '{{"steps": [{{"name": "one"}}, {{"name": "two"}}]}}'),
             ('saga', 'other.v1', 'other', 1, 'r2', '{{"steps": []}}');
           insert into syncor.events (id, type, data, correlation_id, created_at) values ('{EVENT}', 'go', '{{"n": 1.50}}', 'c-1', now());
           insert into syncor.worker (id, host, pid, version, slots, lease_ms) values (gen_random_uuid(), '<b>host</b>', 7, '0', 1, 60000);
           insert into syncor.saga (id, definition_no, state, owner, event_id, event_at, correlation_id)
             select '{SAGA}', 1, 'running', w.no, e.id, e.created_at, 'c-1' from syncor.events e, syncor.worker w;
           insert into syncor.step (saga_id, seq, name, status, attempts, fence, called_at, started_at, finished_at)
             values ('{SAGA}', 0, 'one', 'succeeded', 1, 1, now(), now(), now());
           insert into syncor.step (saga_id, seq, name, status, attempts, fence, called_at, started_at)
             values ('{SAGA}', 1, 'two', 'running', 1, 2, now(), now());
           insert into syncor.attempt (saga_id, seq, attempt, worker, fence, started_at, action, outcome, output, http_status)
             values ('{SAGA}', 0, 1, 1, 1, now(), 'do', 'succeeded', '{{"id": 7}}', 200);
           insert into syncor.saga (id, definition_no, state, event_id, event_at, correlation_id, started_at, finished_at)
             select ('018f0000-0000-7000-8000-0000000000b' || n)::uuid, 2, 'completed', gen_random_uuid(), now(), 'c-2', now(), now()
               from generate_series(1, 4) n;"#
    ))
    .await;
    api
}

#[tokio::test]
async fn a_saga_shows_its_steps_attempts_and_timeline() {
    let api = furnished().await;
    let answer = api.get(&format!("/v1/sagas/{SAGA}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let saga = answer.json();
    assert_eq!(
        (&saga["definition"], &saga["family"], &saga["state"], &saga["correlationId"]),
        (&json!("a.b.v2"), &json!("a.b"), &json!("running"), &json!("c-1"))
    );
    assert!(answer.text.contains(r#""data":{"n": 1.50}"#), "data keeps its text: {}", answer.text);
    assert_eq!(
        (&saga["steps"][0]["status"], &saga["steps"][0]["context"], &saga["steps"][1]["status"]),
        (&json!("succeeded"), &json!({"id": 7}), &json!("running"))
    );
    assert_eq!((&saga["attempts"][0]["outcome"], &saga["attempts"][1]["outcome"]), (&json!("succeeded"), &json!(null)));
    let story: Vec<&str> = saga["timeline"].as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(story, ["event", "started", "outcome", "call", "call"]);
    assert!(saga["why"].as_str().unwrap().contains("waits for the reply"));
    assert_eq!(api.get(&format!("/v1/sagas/{EVENT}")).await.problem(), "not_found");
}

#[tokio::test]
async fn lists_are_filtered() {
    let api = furnished().await;
    for (query, expected) in [
        ("", 5),
        ("state=running", 1),
        ("state=running,completed", 5),
        ("state=failed", 0),
        ("definition=a.b.v2", 1),
        ("definition=a.b", 1),
        ("definition=other", 4),
        ("correlationId=c-1", 1),
        (&format!("eventId={EVENT}"), 1),
        ("since=2020-01-01T00:00:00Z&until=2100-01-01T00:00:00Z", 5),
        ("until=2020-01-01T00:00:00Z", 0),
        ("waitingFor=worker", 0),
        ("waiting_for=human", 0),
        ("limit=3", 3),
    ] {
        let answer = api.get(&format!("/v1/sagas?{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["items"].as_array().unwrap().len(), expected, "{query}");
    }
    let page = api.get("/v1/sagas?limit=3").await.json();
    let rest = api.get(&format!("/v1/sagas?limit=3&after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((rest.json()["items"].as_array().unwrap().len(), rest.header("link")), (2, ""));
    assert_eq!(page["items"][0]["id"], "018f0000-0000-7000-8000-0000000000b4");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_saga_or_with_the_time() {
    let api = furnished().await;
    let path = |millis: u32| format!("/v1/sagas/{SAGA}?waitMs={millis}");
    let since = Instant::now();
    assert_eq!(api.get(&path(200)).await.json()["state"], "running");
    assert!(since.elapsed() >= Duration::from_millis(200));

    let since = Instant::now();
    let long = path(30_000);
    let end = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        api.sql(&format!("update syncor.saga set state = 'completed', owner = null, finished_at = now() where id = '{SAGA}'")).await;
    };
    let (one, two, ()) = tokio::join!(api.get(&long), api.get(&long), end);
    assert_eq!((&one.json()["state"], &two.json()["state"]), (&json!("completed"), &json!("completed")));
    assert!(since.elapsed() < Duration::from_secs(10));
    // What has ended, or never was, is answered at once.
    assert_eq!(api.get(&path(30_000)).await.json()["state"], "completed");
    assert_eq!(api.get(&format!("/v1/sagas/{EVENT}?waitMs=30000")).await.status, 404);
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_answers_those_who_wait() {
    let api = furnished().await;
    let since = Instant::now();
    let drain = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        api.readiness.drain();
    };
    let path = format!("/v1/sagas/{SAGA}?waitMs=30000");
    let (answer, ()) = tokio::join!(api.get(&path), drain);
    assert_eq!(answer.json()["state"], "running");
    assert!(since.elapsed() < Duration::from_secs(10));
    assert_eq!(api.get("/readyz").await.problem(), "not_ready");
}

#[tokio::test]
async fn the_page_escapes_what_others_wrote() {
    let api = furnished().await;
    api.sql("update syncor.saga set waiting_for = '<script>alert(1)</script>\"''' where finished_at is null").await;
    let page = api.get("/").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.text.contains("&lt;script&gt;") && !page.text.contains("<script") && !page.text.contains("<b>host"), "{}", page.text);
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
    assert!(page.text.contains("a.b.v2") && page.text.contains("1 worker is running"));
}
