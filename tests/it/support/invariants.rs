//! What must be true after every test that runs sagas: the tables, and the service's journal, agree with each other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use super::stub::Seen;

/// The queries, as `--# I7 words` and what follows.
const QUERIES: &str = include_str!("invariants.sql");

/// Findings for each invariant, at most.
const SHOWN: usize = 3;

/// Everything that breaks an invariant: `I12 ...: what`. The journal is that of all services that were called.
pub(crate) async fn check(client: &Client, journal: &[Seen]) -> Vec<String> {
    let (prepare, queries) = QUERIES.split_once("\n--#").unwrap();
    client.batch_execute(prepare).await.unwrap();
    write_journal(client, journal).await;
    let mut found = Vec::new();
    for query in queries.split("\n--#") {
        let (title, sql) = query.split_once('\n').unwrap();
        let rows = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{title}: {error:?}"));
        found.extend(rows.iter().take(SHOWN).map(|row| format!("{}: {}", title.trim(), row.get::<_, String>(0))));
    }
    found
}

/// Fails the test if anything does.
pub(crate) async fn hold(client: &Client, journal: &[Seen]) {
    let found = check(client, journal).await;
    assert!(found.is_empty(), "{}", found.join("\n"));
}

async fn write_journal(client: &Client, journal: &[Seen]) {
    client
        .batch_execute(
            "create temp table if not exists inv_journal (saga uuid, step text, action text, attempt int, fence bigint, key text, jti text,
                                                          sound boolean, status int);
             delete from inv_journal",
        )
        .await
        .unwrap();
    let calls: Value = journal.iter().filter_map(read).collect();
    client.execute("insert into inv_journal select * from jsonb_populate_recordset(null::inv_journal, $1)", &[&calls]).await.unwrap();
    client.batch_execute("analyze inv_journal").await.unwrap();
}

/// A call of a step as a row of `inv_journal`; other calls, such as webhooks, are none of ours.
fn read(seen: &Seen) -> Option<Value> {
    let saga: Uuid = seen.header("hms-saga-id").parse().ok()?;
    let claims = claims(seen.header("authorization")).unwrap_or_default();
    let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
    let (step, key) = (seen.header("hms-step"), seen.header("idempotency-key"));
    let attempt: i32 = seen.header("hms-attempt").parse().unwrap_or(-1);
    // Whether the token is for this very call.
    let sound = text("sub") == saga.to_string()
        && text("step") == step
        && claims["attempt"] == attempt
        && claims["fence"] == seen.fence()
        && key == format!("{saga}/{step}/{}", text("action"));
    Some(json!({
        "saga": saga, "step": step, "action": text("action"), "attempt": attempt, "fence": seen.fence(), "key": key,
        "jti": text("jti"), "sound": sound, "status": seen.status
    }))
}

/// The claims of a bearer token; its signature is checked elsewhere.
fn claims(authorization: &str) -> Option<Value> {
    let payload = authorization.strip_prefix("Bearer ")?.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}
