//! What the views and `syncor.why` say of every state that a saga can be in, and which rows the schema lets be.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::saga::count;
use crate::support::{db, plant};

/// The sentence, with what differs from run to run made the same: ids, times of today, seconds ago. Limits lie in 2030.
async fn why(client: &Client, id: Uuid) -> String {
    let sql = r"select regexp_replace(regexp_replace(regexp_replace(syncor.why($1),
                  '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', 'ID', 'g'),
                  '202[0-9]-[0-9]{2}-[0-9]{2} [0-9:]{8}Z', 'T', 'g'), '[0-9]+ s ago', 'N s ago', 'g')";
    plant::text(client, sql, id).await
}

async fn waiting_for(client: &Client, id: Uuid) -> String {
    plant::text(client, "select coalesce(waiting_for, '-') from syncor.sagas where id = $1", id).await
}

/// A living worker that owns what is planted with `owner = 1`.
async fn worker(client: &Client) {
    let sql = "insert into syncor.worker (id, host, pid, version, slots, lease_ms) values (gen_random_uuid(), 'h', 1, '0', 1, 600000)";
    client.batch_execute(sql).await.unwrap();
}

async fn task(client: &Client, saga: Uuid, seq: i16, kind: &str, further: &str) {
    let sql = format!(
        "insert into syncor.task (saga_id, seq, step, kind, queue, reason, prompt, assignee)
         values ('{saga}', {seq}, 's' || {seq} + 1, '{kind}', 'office', 'because it failed', {further})"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// One way for a saga of the steps s1, s2, s3 to wait.
struct Case {
    saga: &'static str,
    /// The row of s2.
    step: &'static str,
    waiting_for: &'static str,
    says: &'static str,
}

const WAITS: [Case; 16] = [
    Case {
        saga: "state = 'running', owner = 1",
        step: "",
        waiting_for: "-",
        says: "test.saga.v1 waits for the reply to attempt 1 to do s2, called N s ago",
    },
    Case {
        saga: "state = 'running', owner = 1",
        step: "detail = '{\"verifying\": true, \"verifies\": 2}'",
        waiting_for: "-",
        says: "test.saga.v1 waits for the answer to question 2 of verify of s2, asked N s ago",
    },
    Case {
        saga: "state = 'running', waiting_for = 'retry', next_due = '2030-01-02 03:04:05Z'",
        step: "status = 'backoff', attempts = 2, due_at = '2030-01-02 03:04:05Z', error = 'HTTP 500'",
        waiting_for: "retry",
        says: "test.saga.v1 waits until 2030-01-02 03:04:05Z for attempt 3 to do s2: the last one failed (HTTP 500)",
    },
    Case {
        saga: "state = 'running', waiting_for = 'callback', next_due = '2030-01-02 03:04:05Z'",
        step: "status = 'waiting', wait = 'callback', wait_until = '2030-01-02 03:04:05Z'",
        waiting_for: "callback",
        says: "test.saga.v1 waits for the callback of attempt 1 to do s2 since T, until 2030-01-02 03:04:05Z; last heard of at T (5 of 100, five)",
    },
    Case {
        saga: "state = 'running', waiting_for = 'event', deadline_at = '2031-01-02 03:04:05Z'",
        step: "status = 'waiting', wait = 'event', wait_until = '2030-01-02 03:04:05Z'",
        waiting_for: "event",
        says: "test.saga.v1 waits for an event bank.settled with data.batch=\"b1\" in s2 since T, until 2030-01-02 03:04:05Z; \
               its deadline is 2031-01-02 03:04:05Z",
    },
    Case {
        saga: "state = 'running', waiting_for = 'timer', next_due = '2030-01-02 03:04:05Z'",
        step: "status = 'waiting', wait = 'timer', due_at = '2030-01-02 03:04:05Z'",
        waiting_for: "timer",
        says: "test.saga.v1 waits until 2030-01-02 03:04:05Z in s2",
    },
    Case {
        saga: "state = 'running', waiting_for = 'human'",
        step: "status = 'waiting', wait = 'human', wait_until = '2030-01-02 03:04:05Z'",
        waiting_for: "human",
        says: "test.saga.v1 waits for a person's decision in s2: Approve it? (human task ID in the queue office for ann: approve, reject; \
               until 2030-01-02 03:04:05Z)",
    },
    Case {
        saga: "state = 'running', waiting_for = 'child'",
        step: "status = 'waiting', wait = 'child'",
        waiting_for: "child",
        says: "test.saga.v1 waits for the saga test.child.v1 ID (hitl), which does s2",
    },
    Case {
        saga: "state = 'running', waiting_for = 'service', next_due = '2030-01-02 03:04:05Z'",
        step: "status = 'waiting', wait = 'service', attempts = 0, due_at = '2030-01-02 03:04:05Z'",
        waiting_for: "service",
        says: "test.saga.v1 waits for the service svc, paused by ann since T (it is down), to do s2; tried again at 2030-01-02 03:04:05Z",
    },
    Case {
        saga: "state = 'running', owner = 1, target = 'cancelled', reason = 'withdrawn'",
        step: "",
        waiting_for: "-",
        says: "test.saga.v1 waits for the reply to attempt 1 to do s2, called N s ago; it is to be undone (withdrawn) unless it turns out \
               that s3, its point of no return, was done",
    },
    Case {
        saga: "state = 'draining', owner = 1, target = 'failed', reason = 's1: HTTP 400'",
        step: "",
        waiting_for: "-",
        says: "test.saga.v1 is to be undone (s1: HTTP 400) and first waits for the reply to attempt 1 to do s2, called N s ago",
    },
    Case {
        saga: "state = 'aborting', owner = 1, reason = 'enough'",
        step: "",
        waiting_for: "-",
        says: "test.saga.v1 is being ended without undo (enough) and first waits for the reply to attempt 1 to do s2, called N s ago",
    },
    Case {
        saga: "state = 'compensating', target = 'failed', reason = 's3: HTTP 400', waiting_for = 'retry', next_due = '2030-01-02 03:04:05Z'",
        step: "status = 'succeeded', finished_at = now(), compensation = 'backoff', undo_attempts = 4, due_at = '2030-01-02 03:04:05Z', error = 'HTTP 503'",
        waiting_for: "retry",
        says: "test.saga.v1 is being undone (s3: HTTP 400) and waits until 2030-01-02 03:04:05Z for attempt 5 to undo s2: \
               the last one failed (HTTP 503)",
    },
    Case {
        saga: "state = 'compensating', target = 'cancelled', reason = 'withdrawn', waiting_for = 'event'",
        step: "status = 'succeeded', finished_at = now(), compensation = 'waiting', wait = 'event', undo_attempts = 1",
        waiting_for: "event",
        says: "test.saga.v1 is being undone (withdrawn) and waits for somebody to undo s2 and say so (saga.compensate was published at T)",
    },
    Case {
        saga: "state = 'comp_failed', target = 'failed', reason = 's3: HTTP 400', waiting_for = 'human'",
        step: "status = 'succeeded', finished_at = now(), compensation = 'failed', error = 'HTTP 409'",
        waiting_for: "human",
        says: "test.saga.v1 waits for a human to decide about because it failed (human task ID in the queue office: retry, undone, skip, abort)",
    },
    Case {
        saga: "state = 'hitl', waiting_for = 'human'",
        step: "status = 'failed', finished_at = now(), error = 'HTTP 400'",
        waiting_for: "human",
        says: "test.saga.v1 waits for a human to decide about because it failed (human task ID in the queue office: \
               retry, skip, done, compensate, abort)",
    },
];

#[tokio::test]
async fn why_tells_what_each_waiting_step_waits_for() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    worker(&client).await;
    let child = plant::definition(&client, "test.child.v1", &["c1"]).await;
    let source = json!({"trigger": "test.go", "steps": [
        {"name": "s1", "call": "svc:/s1"},
        {"parallel": true, "steps": [{"name": "s2", "call": {"url": "PUT svc:/s2"}}, [{"name": "s3", "call": "svc:/s3", "kind": "pivot"}]]}]});
    let definition = plant::definition_of(&client, "test.saga.v1", &source).await;
    // Where the schema has none yet: only what is read here.
    client
        .batch_execute(
            "create table if not exists syncor.breaker (service text, state text, failures int default 0, opened_at timestamptz default now(),
                                                        probe_at timestamptz, reason text, by text);
             insert into syncor.breaker (service, state, reason, by) values ('svc', 'paused', 'it is down', 'ann')",
        )
        .await
        .unwrap();
    for case in &WAITS {
        let saga = plant::saga(&client, definition, case.saga).await;
        plant::step(&client, saga, 1, case.step).await;
        if case.says.contains("callback") {
            let sql = "insert into syncor.callback (digest, saga_id, seq, action, beat_at, progress)
                       values (sha256('t'), $1, 1, 'do', now(), '{\"done\": 5, \"total\": 100, \"message\": \"five\"}')";
            client.execute(sql, &[&saga]).await.unwrap();
        } else if case.says.contains("bank.settled") {
            let sql = "insert into syncor.wait (saga_id, seq, event_type, key, since) values ($1, 1, 'bank.settled', 'data.batch=\"b1\"', 0)";
            client.execute(sql, &[&saga]).await.unwrap();
        } else if case.says.contains("test.child.v1") {
            plant::saga(&client, child, &format!("state = 'hitl', parent_id = '{saga}', parent_seq = 1, parent_action = 'do'")).await;
        } else if case.says.contains("Approve it?") {
            task(&client, saga, 1, "approval", "'Approve it?', 'ann'").await;
        } else if case.saga.contains("comp_failed") {
            task(&client, saga, 1, "comp_failed", "null, null").await;
        } else if case.saga.contains("hitl") {
            task(&client, saga, 1, "step_failed", "null, null").await;
        }
        assert_eq!(why(&client, saga).await, case.says);
        assert_eq!(waiting_for(&client, saga).await, case.waiting_for, "{}", case.says);
    }
}

#[tokio::test]
async fn why_names_all_that_is_under_way_side_by_side() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    worker(&client).await;
    let definition = plant::definition(&client, "test.saga.v1", &["s1", "s2"]).await;
    let saga = plant::saga(&client, definition, "state = 'running', owner = 1").await;
    plant::step(&client, saga, 0, "status = 'waiting', wait = 'timer', due_at = '2030-01-02 03:04:05Z'").await;
    plant::step(&client, saga, 1, "").await;
    assert_eq!(
        why(&client, saga).await,
        "test.saga.v1 waits until 2030-01-02 03:04:05Z in s1, and for the reply to attempt 1 to do s2, called N s ago"
    );
    let attempts = client.query("select step || ' ' || action || ' ' || attempt from syncor.attempts where outcome is null order by 1", &[]).await;
    let attempts: Vec<String> = attempts.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(attempts, ["s1 do 1", "s2 do 1"]);
}

#[tokio::test]
async fn why_tells_of_workers_orders_pauses_and_ends() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let definition = plant::definition(&client, "test.saga.v1", &["s1", "s2"]).await;
    let saga = plant::saga(&client, definition, "next_due = now()").await;
    let none = "test.saga.v1 waits for a worker: none is running; start one with `hms-orch up`";
    assert_eq!((why(&client, saga).await.as_str(), waiting_for(&client, saga).await.as_str()), (none, "worker"));
    worker(&client).await;
    assert_eq!(why(&client, saga).await, "test.saga.v1 waits for a worker: all 1 are busy");

    let silent = "insert into syncor.worker (id, host, pid, version, slots, lease_ms, beat_at) values (gen_random_uuid(), 'h', 1, '0', 1, 600, now() - interval '1 minute')";
    client.batch_execute(silent).await.unwrap();
    let stuck = plant::saga(&client, definition, "state = 'running', owner = 2").await;
    assert_eq!(why(&client, stuck).await, "test.saga.v1 waits for another worker to take over: its own was last heard of at T");

    let running = plant::saga(&client, definition, "state = 'running', owner = 1").await;
    plant::step(&client, running, 0, "").await;
    client.batch_execute(&format!("set session authorization default; select syncor.pause('{running}', 'audit')")).await.unwrap();
    let me: String = client.query_one("select session_user::text", &[]).await.unwrap().get(0);
    assert_eq!(
        why(&client, running).await,
        format!("test.saga.v1 waits for the reply to attempt 1 to do s1, called N s ago; the order pause of {me} (audit) is not carried out yet")
    );
    client.batch_execute("update syncor.command set status = 'applied', result = 'paused', settled_at = now()").await.unwrap();
    plant::put(&client, &format!("update syncor.saga set state = 'paused', resume_to = 'running', paused_at = now(), owner = null, waiting_for = 'resume' where id = '{running}'")).await;
    assert_eq!(
        why(&client, running).await,
        format!(
            "test.saga.v1 is paused since T by {me} (audit) until somebody resumes it; \
             it had been waiting for the reply to attempt 1 to do s1, called N s ago"
        )
    );
    assert_eq!(waiting_for(&client, running).await, "resume");

    plant::put(
        &client,
        &format!("update syncor.saga set state = 'aborted', waiting_for = null, finished_at = now(), reason = 'enough' where id = '{running}'"),
    )
    .await;
    assert_eq!(
        (why(&client, running).await.as_str(), waiting_for(&client, running).await.as_str()),
        ("test.saga.v1 is aborted since T: enough", "-")
    );
    assert_eq!(why(&client, Uuid::nil()).await, "no saga and no event has the id ID");
}

#[tokio::test]
async fn why_names_the_holder_of_a_lock_and_the_place_in_the_queue() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let definition = plant::definition(&client, "test.saga.v1", &["s1"]).await;
    let other = plant::definition(&client, "test.other.v1", &["s1"]).await;
    let mut queue = Vec::new();
    for (definition, set) in [
        (other, "state = 'comp_failed', target = 'failed'"),
        (definition, "state = 'lock_wait', waiting_for = 'lock'"),
        (definition, "state = 'lock_wait', waiting_for = 'lock', lock_until = '2030-01-02 03:04:05Z', next_due = '2030-01-02 03:04:05Z'"),
    ] {
        let saga = plant::saga(&client, definition, set).await;
        client.execute("select syncor.take_locks($1, null, array['policy:7', 'z' || $2::text])", &[&saga, &saga.to_string()]).await.unwrap();
        queue.push(saga);
    }
    assert_eq!(
        why(&client, queue[2]).await,
        "test.saga.v1 waits for the object lock policy:7, held by test.other.v1 ID (comp_failed) since T; place 2 of 2 in the queue; \
         gives up at 2030-01-02 03:04:05Z"
    );
    let holder: String = plant::text(&client, "select syncor.why($1)", queue[2]).await;
    assert!(holder.contains(&queue[0].to_string()), "{holder}");
    assert_eq!(
        why(&client, queue[1]).await,
        "test.saga.v1 waits for the object lock policy:7, held by test.other.v1 ID (comp_failed) since T; place 1 of 2 in the queue"
    );
    assert_eq!(waiting_for(&client, queue[1]).await, "lock");
}

#[tokio::test]
async fn steps_are_numbered_through_all_groups() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let source = json!({"steps": [
        {"name": "a", "call": "s:/"},
        {"parallel": true, "steps": [{"name": "b"}, [{"name": "c"}, {"parallel": true, "steps": [{"name": "d"}, {"name": "e"}]}], {"name": "f"}]},
        [{"parallel": true}, {"name": "g", "human": {"form": {"steps": [1], "name": "no"}}}],
        {"name": "h"}]});
    let no = plant::definition_of(&client, "test.groups.v1", &source).await;
    let names: Vec<String> = client.query_one("select steps from syncor.definition where no = $1", &[&no]).await.unwrap().get(0);
    assert_eq!(names, ["a", "b", "c", "d", "e", "f", "g", "h"]);
    let saga = plant::saga(&client, no, "state = 'running'").await;
    plant::step(&client, saga, 3, "").await;
    let steps = client.query("select seq, name, status from syncor.steps where saga_id = $1 order by seq", &[&saga]).await.unwrap();
    let steps: Vec<(i16, String, String)> = steps.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(steps.len(), 8);
    assert_eq!(steps[3], (3, "d".to_owned(), "running".to_owned()));
    let refused = client.batch_execute("update syncor.definition set steps = '{}'").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42501", "names are as immutable as the file");
}

#[tokio::test]
async fn what_was_done_by_another_saga_or_told_by_verify_is_shown() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let definition = plant::definition(&client, "test.saga.v1", &["s1", "s2", "s3"]).await;
    let [old, saga] = [plant::saga(&client, definition, "").await, plant::saga(&client, definition, "state = 'running'").await];
    let attempt = "insert into syncor.attempt (saga_id, seq, action, attempt, worker, fence, started_at, outcome, error, output) values
                   ($1, 0, 'do', 1, 1, 1, now(), 'succeeded', null, '{\"n\": 1}'), ($2, 1, 'do', 1, 1, 2, now(), 'unknown', 'reset', null),
                   ($2, 1, 'verify', 1, 1, 3, now(), 'succeeded', null, '{\"n\": 2}')";
    client.execute(attempt, &[&old, &saga]).await.unwrap();
    plant::step(&client, saga, 0, &format!("status = 'succeeded', finished_at = now(), detail = '{{\"doneBy\": \"{old}\"}}'")).await;
    plant::step(&client, saga, 1, "status = 'succeeded', finished_at = now()").await;
    plant::step(&client, saga, 2, "status = 'unknown', finished_at = now(), detail = '{\"context\": {\"late\": true}}'").await;
    let steps = client.query("select output, context from syncor.steps where saga_id = $1 order by seq", &[&saga]).await.unwrap();
    let steps: Vec<(Option<Value>, Option<Value>)> = steps.iter().map(|row| (row.get(0), row.get(1))).collect();
    let shown = |value: Value| (Some(value.clone()), Some(value));
    assert_eq!(steps, [shown(json!({"n": 1})), shown(json!({"n": 2})), (None, Some(json!({"late": true})))]);
}

#[tokio::test]
async fn rows_that_make_no_sense_and_moves_that_are_none_are_refused() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let definition = plant::definition(&client, "test.saga.v1", &["s1"]).await;
    let saga = plant::saga(&client, definition, "state = 'running'").await;
    plant::step(&client, saga, 0, "status = 'succeeded', finished_at = now()").await;
    for refused in [
        "update syncor.saga set state = 'paused'",
        "update syncor.saga set state = 'lock_wait'",
        "update syncor.saga set parent_action = 'do'",
        "update syncor.saga set nesting = 9",
        "update syncor.saga set state = 'draining'",
        "update syncor.step set status = 'waiting', finished_at = null",
        "update syncor.step set status = 'failed'",
        "update syncor.step set compensation = 'compensated'",
        "update syncor.step set wait = 'godot'",
        "insert into syncor.input (saga_id, kind, key) select id, 'other', 'x' from syncor.saga",
        "insert into syncor.task (saga_id, kind, reason, status) select id, 'approval', 'x', 'decided' from syncor.saga",
    ] {
        let error = client.batch_execute(refused).await.expect_err(refused);
        assert_eq!(error.code().unwrap().code(), "23514", "{refused}");
    }
    for allowed in [
        "update syncor.step set compensation = 'pending'",
        "update syncor.step set compensation = 'waiting', wait = 'callback'",
        "update syncor.saga set state = 'paused', resume_to = 'running', paused_at = now()",
        "insert into syncor.step (saga_id, seq, name, status, fence, started_at, wait) select id, 1, 's2', 'waiting', 0, now(), 'service' from syncor.saga",
        "update syncor.step set status = 'failed', wait = null, finished_at = now() where seq = 1",
    ] {
        client.batch_execute(allowed).await.unwrap_or_else(|error| panic!("{allowed}: {error:?}"));
    }
}

#[tokio::test]
async fn an_input_wakes_the_pool_and_reaches_only_the_living() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let definition = plant::definition(&client, "test.saga.v1", &["s1"]).await;
    let saga = plant::saga(&client, definition, "state = 'running'").await;
    let (listener, mut connection) = tokio_postgres::connect(&db.url, tokio_postgres::NoTls).await.unwrap();
    let (heard, mut bell) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(_) = message {
                heard.send(()).ok();
            }
        }
    });
    listener.batch_execute("listen syncor_wake").await.unwrap();
    let insert = |key: &str| format!("insert into syncor.input (saga_id, kind, key) values ('{saga}', 'locked', '{key}')");
    client.batch_execute(&format!("begin; set local syncor.engine = 'on'; {}; commit", insert("a"))).await.unwrap();
    listener.batch_execute("select").await.unwrap();
    assert!(bell.try_recv().is_err(), "a worker wakes the others by other means");
    client.batch_execute(&insert("b")).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(5), bell.recv()).await.expect("nobody was woken").unwrap();
    assert!(client.batch_execute(&insert("b")).await.is_err(), "a key is there once");
    plant::put(&client, "update syncor.saga set state = 'completed', finished_at = now()").await;
    client.batch_execute(&insert("c")).await.unwrap();
    assert_eq!(count(&client, "select count(*) from syncor.input").await, 2);
}
