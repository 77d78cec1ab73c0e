//! What must be true after every test that runs sagas: the tables, and the service's journal, agree with each other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use super::stub::Seen;

/// The queries, as `--# I7 words` and what follows.
const QUERIES: &str = include_str!("invariants.sql");

/// Findings for each invariant, at most.
const SHOWN: usize = 3;

/// A call as the service saw it, reduced to what is compared.
struct Call {
    saga: Uuid,
    step: String,
    action: String,
    attempt: i32,
    fence: i64,
    key: String,
    jti: String,
    /// Whether the token is for this very call.
    sound: bool,
    status: Option<i32>,
}

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
    let insert = client.prepare("insert into inv_journal values ($1, $2, $3, $4, $5, $6, $7, $8, $9)").await.unwrap();
    for call in journal.iter().filter_map(read) {
        let Call { saga, step, action, attempt, fence, key, jti, sound, status } = call;
        client.execute(&insert, &[&saga, &step, &action, &attempt, &fence, &key, &jti, &sound, &status]).await.unwrap();
    }
}

/// A call of a step; others, such as webhooks, are none of ours.
fn read(seen: &Seen) -> Option<Call> {
    let saga: Uuid = seen.header("hms-saga-id").parse().ok()?;
    let claims = claims(seen.header("authorization")).unwrap_or_default();
    let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
    let (step, attempt) = (seen.header("hms-step").to_owned(), seen.header("hms-attempt").parse().unwrap_or(-1));
    let sound = text("sub") == saga.to_string()
        && text("step") == step
        && claims["attempt"] == attempt
        && claims["fence"] == seen.fence()
        && seen.header("idempotency-key") == format!("{saga}/{step}/{}", text("action"));
    Some(Call {
        saga,
        step,
        action: text("action"),
        attempt,
        fence: seen.fence(),
        key: seen.header("idempotency-key").to_owned(),
        jti: text("jti"),
        sound,
        status: seen.status.map(i32::from),
    })
}

/// The claims of a bearer token; its signature is checked elsewhere.
fn claims(authorization: &str) -> Option<Value> {
    let payload = authorization.strip_prefix("Bearer ")?.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}
