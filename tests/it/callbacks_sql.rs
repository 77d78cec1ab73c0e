//! Callback tokens in the database: one end, told once, and nothing that comes too late is lost.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::saga::count;
use crate::support::{db, plant};

/// A saga whose step `s2` waits for a callback, and the token.
async fn waiting(client: &Client) -> (Uuid, &'static str) {
    let definition = plant::definition(client, "test.async.v1", &["s1", "s2"]).await;
    let saga = plant::saga(client, definition, "state = 'running', waiting_for = 'callback'").await;
    plant::step(client, saga, 1, "status = 'waiting', wait = 'callback'").await;
    token(client, saga, "t1").await;
    (saga, "t1")
}

async fn token(client: &Client, saga: Uuid, token: &str) {
    let sql = "insert into syncor.callback (digest, saga_id, seq, action) values (sha256(convert_to($2, 'UTF8')), $1, 1, 'do')";
    client.execute(sql, &[&saga, &token]).await.unwrap();
}

async fn ask(client: &Client, sql: &str) -> Result<String, String> {
    match client.query_one(sql, &[]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error) => Err(error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())),
    }
}

async fn inputs(client: &Client) -> Vec<(String, Option<i16>, Option<String>, Value)> {
    let rows = client.query("select key, seq, action, payload from syncor.input order by id", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

#[tokio::test]
async fn the_first_end_is_taken_and_repeated_ones_are_answered_the_same() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let (saga, _) = waiting(&client).await;
    let end = "select syncor.complete('t1', 'ok', output => '{\"n\": 1}', message => E'done\\nwell')";
    assert_eq!(ask(&client, end).await.unwrap(), "accepted");
    assert_eq!(ask(&client, end).await.unwrap(), "repeated");
    assert_eq!(ask(&client, "select syncor.complete('t1', 'ok', output => '{\"n\": 2}')").await.unwrap(), "conflict");
    assert_eq!(ask(&client, "select syncor.complete('t1', 'error', error => 'no')").await.unwrap(), "conflict");
    assert_eq!(
        inputs(&client).await,
        [("callback:1:do".to_owned(), Some(1), Some("do".to_owned()), json!({"status": "ok", "output": {"n": 1}, "message": "done well"}))]
    );
    let kept: Value = client.query_one("select ended from syncor.callback where saga_id = $1", &[&saga]).await.unwrap().get(0);
    assert_eq!(kept["output"], json!({"n": 1}));
    client.batch_execute("update syncor.callback set settled_at = now()").await.unwrap();
    assert_eq!(ask(&client, end).await.unwrap(), "repeated", "also after the step has settled");
}

#[tokio::test]
async fn what_cannot_be_an_end_is_refused() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    waiting(&client).await;
    let cases = [
        ("select syncor.complete('t2', 'ok')", "P0002"),
        ("select syncor.beat('t2')", "P0002"),
        ("select syncor.complete(null, 'ok')", "P0002"),
        ("select syncor.complete('t1', 'fine')", "22023"),
        ("select syncor.complete('t1', null)", "22023"),
        ("select syncor.complete('t1', 'ok', context => to_jsonb(repeat('x', 16384)))", "22023"),
        ("select syncor.complete('t1', 'ok', output => to_jsonb(repeat('x', 262144)))", "22023"),
    ];
    for (sql, code) in cases {
        assert_eq!(ask(&client, sql).await.unwrap_err(), code, "{sql}");
    }
    assert_eq!(ask(&client, "select syncor.complete('t1', 'error', error => repeat('x', 600))").await.unwrap(), "accepted");
    assert_eq!(inputs(&client).await[0].3["error"].as_str().unwrap().len(), 500, "lines for people are cut");
}

#[tokio::test]
async fn of_two_ends_at_once_one_is_taken() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    waiting(&client).await;
    let mut first = db::connect(&db.url).await;
    let open = first.transaction().await.unwrap();
    let answer: String = open.query_one("select syncor.complete('t1', 'ok')", &[]).await.unwrap().get(0);
    assert_eq!(answer, "accepted");
    let url = db.url.clone();
    let second = tokio::spawn(async move { ask(&db::connect(&url).await, "select syncor.complete('t1', 'error', error => 'no')").await });
    crate::support::until("the second waits", std::time::Duration::from_secs(5), async || {
        (count(&client, "select count(*) from pg_locks where not granted").await > 0).then_some(())
    })
    .await;
    open.commit().await.unwrap();
    assert_eq!(second.await.unwrap().unwrap(), "conflict");
    assert_eq!(inputs(&client).await.len(), 1);
}

#[tokio::test]
async fn a_late_end_is_kept_and_reaches_the_saga_beside_the_one_in_time() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let (saga, _) = waiting(&client).await;
    client.batch_execute("update syncor.callback set settled_at = now()").await.unwrap();
    token(&client, saga, "t2").await;
    let late = "select syncor.complete('t1', 'ok', '{\"backupId\": 7}')";
    assert_eq!(ask(&client, late).await.unwrap(), "late");
    assert_eq!(ask(&client, late).await.unwrap(), "late", "a repetition is answered the same");
    assert_eq!(ask(&client, "select syncor.complete('t2', 'error', error => 'busy')").await.unwrap(), "accepted");
    let inputs = inputs(&client).await;
    assert_eq!(inputs.len(), 2, "{inputs:?}");
    assert!(inputs[0].0.starts_with("callback:1:do:"), "{inputs:?}");
    assert_eq!(inputs[0].3["context"], json!({"backupId": 7}));
    assert_eq!(inputs[1].0, "callback:1:do");
    assert_eq!(count(&client, "select count(*) from syncor.task").await, 0, "the worker decides what it means");
}

#[tokio::test]
async fn a_success_after_the_end_of_the_saga_opens_a_task() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let (saga, _) = waiting(&client).await;
    token(&client, saga, "t2").await;
    token(&client, saga, "t3").await;
    plant::put(&client, "update syncor.step set status = 'unknown', wait = null, finished_at = now()").await;
    plant::put(&client, "update syncor.saga set state = 'failed', target = 'failed', waiting_for = null, finished_at = now()").await;
    assert_eq!(ask(&client, "select syncor.complete('t1', 'error', error => 'no')").await.unwrap(), "late");
    assert_eq!(count(&client, "select count(*) from syncor.task").await, 0, "what was not done needs nobody");
    assert_eq!(ask(&client, "select syncor.complete('t2', 'ok')").await.unwrap(), "late");
    assert_eq!(ask(&client, "select syncor.complete('t3', 'ok')").await.unwrap(), "late");
    assert_eq!(count(&client, "select count(*) from syncor.input").await, 0);
    let task = client.query("select saga_id, step, kind, queue, status, reason from syncor.human_tasks", &[]).await.unwrap();
    assert_eq!(task.len(), 1, "one question is enough");
    assert_eq!(task[0].get::<_, Uuid>(0), saga);
    assert_eq!(task[0].get::<_, String>(1), "s2");
    assert_eq!(task[0].get::<_, String>(2), "late_effect");
    assert_eq!(task[0].get::<_, String>(5), "s2 reported success after it had been given up, and the saga is failed");
    let event = client.query("select data, correlation_id, depth, saga_id from syncor.events where type = 'human.task.opened'", &[]).await.unwrap();
    assert_eq!(event.len(), 1);
    let data: Value = event[0].get(0);
    assert_eq!((data["task"]["kind"].as_str(), data["step"]["name"].as_str()), (Some("late_effect"), Some("s2")), "{data}");
    assert_eq!((event[0].get::<_, String>(1), event[0].get::<_, i16>(2)), ("case-1".to_owned(), 1));
}

#[tokio::test]
async fn heartbeats_are_kept_until_the_end() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let (saga, _) = waiting(&client).await;
    assert_eq!(ask(&client, "select syncor.beat('t1', 5, 100, 'five')").await.unwrap(), "accepted");
    assert_eq!(ask(&client, "select syncor.beat('t1')").await.unwrap(), "accepted");
    let progress: Value = client.query_one("select progress from syncor.callback where saga_id = $1", &[&saga]).await.unwrap().get(0);
    assert_eq!(progress, json!({"done": 5, "total": 100, "message": "five"}), "a silent heartbeat leaves what was said");
    assert_eq!(ask(&client, "select syncor.complete('t1', 'ok')").await.unwrap(), "accepted");
    assert_eq!(ask(&client, "select syncor.beat('t1', 6, 100, 'six')").await.unwrap(), "late");
}

#[tokio::test]
async fn an_undo_by_event_is_acknowledged_by_step() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let (saga, _) = waiting(&client).await;
    client.batch_execute(&format!("select syncor.undone('{saga}', 's2', true); select syncor.undone('{saga}', 's2', false, 'no')")).await.unwrap();
    assert_eq!(inputs(&client).await, [("undone:1".to_owned(), Some(1), Some("undo".to_owned()), json!({"ok": true}))]);
    for wrong in [format!("select syncor.undone('{saga}', 's9', true)::text"), "select syncor.undone(gen_random_uuid(), 's2', true)::text".to_owned()]
    {
        assert_eq!(ask(&client, &wrong).await.unwrap_err(), "P0002", "{wrong}");
    }
}
