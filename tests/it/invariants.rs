//! The invariants that other tests end with: they hold for sagas that ran, and each finds the row that breaks it.

use std::collections::BTreeMap;

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::invariants::{check, hold};
use crate::support::saga::{ended, publish, saga_of};
use crate::support::stub::{Answer, Seen, Stub};
use crate::support::worker::{Worker, deploy};
use crate::support::{db, plant};

/// A saga that completed, one that was rolled back, and what the service saw of them.
async fn two_sagas(url: &str, client: &Client) -> (Uuid, Uuid, Vec<Seen>) {
    let stub = Stub::start().await;
    deploy(url, &saga_of(3, stub.address, "retry: {attempts: 2, backoffMs: 10}\n")).await;
    let worker = Worker::start(url);
    stub.script("/s1", [Answer::Json(503, json!({}))]);
    let first = publish(client, "test.go", json!({})).await;
    let done = ended(client, first).await;
    stub.always("/s3", Answer::Json(400, json!({})));
    let second = publish(client, "test.go", json!({})).await;
    let failed = ended(client, second).await;
    assert_eq!((done.state.as_str(), failed.state.as_str()), ("completed", "failed"));
    worker.stop().await;
    plant::put(client, "update syncor.step set ordinal = seq + 1 where ordinal = 0").await;
    (done.id, failed.id, stub.journal())
}

/// What breaks each invariant: `$done` and `$failed` stand for the two sagas. Where it is the journal, `falsify` does it.
const ROWS: [(&str, &str); 22] = [
    (
        "I5",
        "insert into syncor.saga (id, definition_no, state, next_due, event_id, event_at, correlation_id)
         select gen_random_uuid(), definition_no, 'pending', now(), event_id, event_at, correlation_id from syncor.saga where id = '$done'",
    ),
    ("I5", "update syncor.events set type = 'other' where id = (select event_id from syncor.saga where id = '$done')"),
    ("I6", "update syncor.saga set state = 'hitl', finished_at = null where id = '$done'"),
    ("I6", "update syncor.saga set state = 'running', finished_at = null where id = '$done'"),
    (
        "I6",
        "update syncor.step set status = 'waiting', wait = 'human', finished_at = null where saga_id = '$done' and seq = 1; update syncor.saga set state = 'running', finished_at = null, next_due = now() where id = '$done'",
    ),
    ("I7", "update syncor.step set compensation = 'not_needed' where saga_id = '$done' and seq = 1"),
    ("I7", "delete from syncor.step where saga_id = '$done' and seq = 1"),
    ("I8", "update syncor.step set compensation = 'not_needed' where saga_id = '$failed' and seq = 0"),
    ("I8", "update syncor.saga set clean = false where id = '$failed'"),
    ("I9", "update syncor.attempt set fence = 0 where saga_id = '$failed' and seq = 0 and action = 'undo'"),
    ("I10", "update syncor.attempt set fence = 0 where saga_id = '$done' and seq = 1"),
    ("I10", "update syncor.step set status = 'failed' where saga_id = '$done' and seq = 1"),
    (
        "I11",
        "insert into syncor.attempt (saga_id, seq, action, attempt, worker, fence, started_at, outcome)
         values ('$done', 1, 'do', 2, 1, 1000, now(), 'succeeded')",
    ),
    ("I12", "update syncor.attempt set fence = 1000 where saga_id = '$done' and seq = 0 and attempt = 1"),
    ("I13", "update syncor.step set status = 'running', finished_at = null where saga_id = '$done' and seq = 2"),
    ("I14", "update syncor.step set attempts = 7 where saga_id = '$done' and seq = 0"),
    ("I14", "delete from syncor.attempt where saga_id = '$done' and seq = 0"),
    (
        "I15",
        "insert into syncor.lock_ticket (key, no, saga_id, granted_at) values ('k', 1, gen_random_uuid(), now()), ('k', 2, gen_random_uuid(), now())",
    ),
    ("I15", "update syncor.saga set lock_keys = '{k}'; update syncor.attempt set fence = 1000 where saga_id = '$done' and seq = 2"),
    ("I21", "update syncor.step set spent = 3 where saga_id = '$done' and seq = 0"),
    (
        "I22",
        "insert into syncor.task (saga_id, seq, step, kind, reason, status, decision, decided_by, decided_at)
         values ('$done', 0, 's1', 'approval', 'x', 'decided', 'approve', 'nobody', now())",
    ),
    ("I23", "insert into syncor.events (type, saga_id, correlation_id) values ('saga.completed', '$done', 'c')"),
];

/// Changes the journal so that one invariant breaks.
fn falsify(journal: &mut [Seen], invariant: &str) {
    let put = |seen: &mut Seen, name: &str, value: &str| {
        seen.headers.insert(name.to_owned(), value.to_owned());
    };
    match invariant {
        "I16" => put(&mut journal[0], "hms-fence", "4711"),
        // The call that succeeded did not get there.
        "I17" => journal[1].status = None,
        "I18" => {
            for seen in journal.iter_mut().filter(|seen| seen.path == "/u1") {
                seen.status = Some(500);
            }
        }
        "I19" => put(&mut journal[1], "idempotency-key", "another"),
        "I20" => {
            let token = journal[0].header("authorization").to_owned();
            put(&mut journal[1], "authorization", &token);
        }
        other => panic!("{other} is not about the journal"),
    }
}

#[tokio::test]
async fn they_hold_for_sagas_that_ran_and_each_finds_what_breaks_it() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let (done, failed, journal) = two_sagas(&db.url, &client).await;
    hold(&client, &journal).await;
    hold(&client, &[]).await;

    let mut fired: BTreeMap<String, usize> = BTreeMap::new();
    for (invariant, row) in ROWS {
        let row = row.replace("$done", &done.to_string()).replace("$failed", &failed.to_string());
        client.batch_execute(&format!("begin; set local session_replication_role = replica; {row}")).await.unwrap();
        let found = check(&client, &journal).await;
        client.batch_execute("rollback").await.unwrap();
        assert!(found.iter().any(|found| found.starts_with(&format!("{invariant} "))), "{row} is not found by {invariant}: {found:?}");
        *fired.entry(invariant.to_owned()).or_default() += 1;
    }
    for invariant in ["I16", "I17", "I18", "I19", "I20"] {
        let mut journal = journal.clone();
        falsify(&mut journal, invariant);
        let found = check(&client, &journal).await;
        assert!(found.iter().any(|found| found.starts_with(&format!("{invariant} "))), "{invariant} does not fire: {found:?}");
        *fired.entry(invariant.to_owned()).or_default() += 1;
    }
    let all: Vec<String> = (5..=23).map(|n| format!("I{n}")).collect();
    let missing: Vec<&String> = all.iter().filter(|name| !fired.contains_key(*name)).collect();
    assert!(missing.is_empty(), "never seen to fire: {missing:?}");
    hold(&client, &journal).await;
}

#[tokio::test]
async fn the_order_of_steps_is_asked_of_sequences_only() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let call = |name: &str| json!({"name": name, "call": "svc:/do"});
    let source = json!({"trigger": "test.go", "steps": [
        call("a"), {"parallel": true, "steps": [call("b"), [call("c"), call("d")]]}, [{"parallel": true}, call("e"), call("f")], call("g")]});
    plant::definition_of(&client, "test.groups.v1", &source).await;
    check(&client, &[]).await;
    let pairs = "select string_agg(a.name || '>' || b.name, ' ' order by p.first, p.second) from inv_pair p
                   join inv_node a on a.no = p.no and a.seq = p.first join inv_node b on b.no = p.no and b.seq = p.second";
    let pairs: String = client.query_one(pairs, &[]).await.unwrap().get(0);
    assert_eq!(pairs, "a>b a>c a>d a>e a>f a>g b>e b>f b>g c>d c>e c>f c>g d>e d>f d>g e>g f>g");
}
