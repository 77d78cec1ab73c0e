//! Rows put in place by hand, for what no worker writes at the moment.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

/// A deployed definition with these steps, each a call with an undo; its number.
pub(crate) async fn definition(client: &Client, id: &str, steps: &[&str]) -> i32 {
    let steps: Vec<Value> = steps.iter().map(|name| json!({"name": name, "call": "svc:/do", "compensate": "svc:/undo"})).collect();
    definition_of(client, id, &json!({"id": id, "trigger": "test.go", "steps": steps})).await
}

/// A deployed definition; its number.
pub(crate) async fn definition_of(client: &Client, id: &str, source: &Value) -> i32 {
    let family = id.trim_end_matches(".v1");
    client
        .query_one(
            "insert into syncor.definition (kind, id, family, version, revision, source) values ('saga', $1, $2, 1, md5($1), $3) returning no",
            &[&id, &family, source],
        )
        .await
        .unwrap()
        .get(0)
}

/// A saga of a definition, with an event of its own and the columns that `set` names: `state = 'hitl', waiting_for = 'human'`.
pub(crate) async fn saga(client: &Client, definition: i32, set: &str) -> Uuid {
    let row = client
        .query_one(
            "with e as (insert into syncor.events (type, data, subject, saga_id, correlation_id) values ('test.go', '{}', 'case-1', null, 'case-1')
                        returning id, created_at)
             insert into syncor.saga (id, definition_no, state, event_id, event_at, correlation_id)
             select syncor.uuid7(), $1, 'pending', e.id, e.created_at, 'case-1' from e returning id",
            &[&definition],
        )
        .await
        .unwrap();
    let id: Uuid = row.get(0);
    if !set.is_empty() {
        put(client, &format!("update syncor.saga set {set} where id = '{id}'")).await;
    }
    id
}

/// A begun step: `status = 'waiting', wait = 'timer'`.
pub(crate) async fn step(client: &Client, saga: Uuid, seq: i16, set: &str) {
    let sql = "insert into syncor.step (saga_id, seq, ordinal, name, status, attempts, fence, called_at, started_at)
               select s.id, $2::smallint, $2::smallint + 1, d.steps[$2::smallint + 1], 'running', 1, nextval('syncor.fence'), now(), now()
                 from syncor.saga s join syncor.definition d on d.no = s.definition_no where s.id = $1";
    client.execute(sql, &[&saga, &seq]).await.unwrap();
    if !set.is_empty() {
        put(client, &format!("update syncor.step set {set} where saga_id = '{saga}' and seq = {seq}")).await;
    }
}

/// Executes a statement past the triggers that only let the machine's moves pass.
pub(crate) async fn put(client: &Client, sql: &str) {
    client
        .batch_execute(&format!("begin; set local session_replication_role = replica; {sql}; commit"))
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// One value.
pub(crate) async fn text(client: &Client, sql: &str, saga: Uuid) -> String {
    client.query_one(sql, &[&saga]).await.unwrap().get(0)
}
