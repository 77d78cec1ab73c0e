//! Publishing events and looking at sagas, by SQL, as a user would.

use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use super::until;

/// A saga as `syncor.sagas` shows it.
#[derive(Debug)]
pub(crate) struct SagaView {
    pub(crate) id: Uuid,
    pub(crate) state: String,
    pub(crate) clean: bool,
    pub(crate) reason: Option<String>,
}

pub(crate) async fn publish(client: &Client, kind: &str, data: Value) -> Uuid {
    client.query_one("insert into syncor.events (type, data) values ($1, $2) returning id", &[&kind, &data]).await.unwrap().get(0)
}

/// The saga that an event started, once it is in one of these states.
pub(crate) async fn saga_in(client: &Client, event: Uuid, states: &[&str], limit: Duration) -> SagaView {
    let states: Vec<String> = states.iter().map(|state| (*state).to_owned()).collect();
    let deadline = std::time::Instant::now() + limit;
    until(&format!("saga of event {event} in {states:?}"), limit + Duration::from_secs(1), async || {
        if std::time::Instant::now() > deadline {
            panic!("saga of event {event} not in {states:?} within {limit:?}: {}", story(client, event).await);
        }
        let row = client
            .query_opt("select id, state, clean, reason from syncor.sagas where event_id = $1 and state = any($2)", &[&event, &states])
            .await
            .unwrap()?;
        Some(SagaView { id: row.get(0), state: row.get(1), clean: row.get(2), reason: row.get(3) })
    })
    .await
}

/// All that the tables know about the sagas of an event, for a test that fails.
async fn story(client: &Client, event: Uuid) -> String {
    let sql = "select coalesce(string_agg(format('%s %s owner=%s due=%s: %s%s', s.id, s.state, r.owner, r.next_due, syncor.why(s.id),
                 (select string_agg(format(E'\n  %s %s/%s attempts=%s due=%s wait=%s %s', t.name, t.status, t.compensation, t.attempts, t.due_at, t.wait, t.error), '' order by t.seq)
                    from syncor.step t where t.saga_id = s.id)), E'\n'), syncor.why($1))
                 from syncor.sagas s join syncor.saga r on r.id = s.id where s.event_id = $1";
    client.query_one(sql, &[&event]).await.map_or_else(|error| error.to_string(), |row| row.get(0))
}

pub(crate) async fn ended(client: &Client, event: Uuid) -> SagaView {
    saga_in(client, event, &["completed", "failed", "cancelled", "aborted", "rejected", "comp_failed"], Duration::from_secs(20)).await
}

pub(crate) async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A saga of the given steps, with the stub as `svc`.
pub(crate) fn saga_with(address: std::net::SocketAddr, id: &str, body: &str) -> String {
    format!("id: {id}\ntrigger: test.go\n{body}\n---\nid: test-services\nservices:\n  svc: {{url: \"http://{address}\", allow: [127.0.0.0/8]}}\n")
}

/// The row of a saga once `state` and `waiting_for` are as given.
pub(crate) async fn waits_for(client: &Client, event: Uuid, what: &str) -> Uuid {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    until(&format!("saga of event {event} waits for {what}"), Duration::from_secs(21), async || {
        if std::time::Instant::now() > deadline {
            panic!("saga of event {event} does not wait for {what}: {}", story(client, event).await);
        }
        let sql = "select id from syncor.sagas where event_id = $1 and parent_id is null and waiting_for = $2 limit 1";
        client.query_opt(sql, &[&event, &what]).await.unwrap().map(|row| row.get(0))
    })
    .await
}

/// Statuses of the steps of a saga, as `name status/compensation`.
pub(crate) async fn steps(client: &Client, saga: Uuid) -> Vec<String> {
    let sql = "select format('%s %s/%s', name, status, compensation) from syncor.steps where saga_id = $1 order by seq";
    client.query(sql, &[&saga]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Gives an order by SQL and returns what became of it.
pub(crate) async fn order(client: &Client, sql: &str, saga: Uuid) -> (String, String) {
    let id: Uuid = client.query_one(sql, &[&saga]).await.unwrap().get(0);
    until("the order is answered", Duration::from_secs(10), async || {
        let row = client.query_one("select status, coalesce(result, '') from syncor.commands where id = $1", &[&id]).await.unwrap();
        (row.get::<_, &str>(0) != "pending").then(|| (row.get(0), row.get(1)))
    })
    .await
}

/// The open human task of a saga.
pub(crate) async fn open_task(client: &Client, saga: Uuid, kind: &str) -> Uuid {
    until(&format!("a task of kind {kind} is open"), Duration::from_secs(20), async || {
        let sql = "select id from syncor.human_tasks where saga_id = $1 and kind = $2 and status = 'open'";
        client.query_opt(sql, &[&saga, &kind]).await.unwrap().map(|row| row.get(0))
    })
    .await
}

/// Decides a task by SQL and returns what became of it.
pub(crate) async fn decide(client: &Client, task: Uuid, decision: &str) -> (String, String) {
    let sql = format!("select syncor.decide($1, '{decision}', 'because the test says so')");
    order(client, &sql, task).await
}

/// A saga of `n` steps s1..sn, each with an undo, all at the stub.
pub(crate) fn saga_of(n: usize, address: std::net::SocketAddr, further: &str) -> String {
    use std::fmt::Write;
    let mut text = String::from("id: test.saga.v1\ntrigger: test.go\n");
    text.push_str(further);
    text.push_str("steps:\n");
    for i in 1..=n {
        writeln!(text, "  - {{name: s{i}, call: \"svc:/s{i}\", compensate: \"svc:/u{i}\"}}").unwrap();
    }
    writeln!(text, "---\nid: test-services\nservices:\n  svc: {{url: \"http://{address}\", allow: [127.0.0.0/8]}}").unwrap();
    text
}
