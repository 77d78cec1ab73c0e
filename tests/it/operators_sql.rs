//! Orders, decisions and forks in SQL: each a command that says who, when and why, and what came of it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::db::TestDatabase;
use crate::support::role::{Role, role};
use crate::support::saga::count;
use crate::support::{db, plant, until};
use syncor::store::grants::{Kind, grants};

/// A command as people see it.
#[derive(Debug)]
struct Command {
    kind: String,
    step: Option<String>,
    by: String,
    status: String,
    result: Option<String>,
    new_saga: Option<Uuid>,
}

async fn command(client: &Client, id: Uuid) -> Command {
    let sql = "select kind, step, requested_by, status, result, new_saga_id from syncor.commands where id = $1";
    let row = client.query_one(sql, &[&id]).await.unwrap();
    Command { kind: row.get(0), step: row.get(1), by: row.get(2), status: row.get(3), result: row.get(4), new_saga: row.get(5) }
}

/// Gives an order and returns what became of it.
async fn order(client: &Client, sql: &str) -> Command {
    let id = client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0);
    command(client, id).await
}

async fn refusal(client: &Client, sql: &str) -> String {
    let command = order(client, sql).await;
    assert_eq!(command.status, "refused", "{sql}: {command:?}");
    command.result.unwrap()
}

async fn officer(db: &TestDatabase) -> (Role, Client) {
    let role = role(db).await;
    db::connect(&db.url).await.batch_execute(&grants(&role.name, Kind::Operator)).await.unwrap();
    let client = db::connect(&role.url).await;
    (role, client)
}

async fn task(client: &Client, saga: Uuid, kind: &str, four_eyes: bool) -> Uuid {
    let sql = "insert into syncor.task (saga_id, seq, step, kind, reason, four_eyes) values ($1, 0, 's1', $2, 'because', $3) returning id";
    client.query_one(sql, &[&saga, &kind, &four_eyes]).await.unwrap().get(0)
}

async fn end(client: &Client, saga: Uuid, state: &str) {
    let target = if state == "completed" || state == "aborted" { "null" } else { "'failed'" };
    plant::put(client, &format!("update syncor.saga set state = '{state}', target = {target}, finished_at = now() where id = '{saga}'")).await;
}

#[tokio::test]
async fn an_operator_orders_under_their_own_name() {
    let db = db::database().await;
    let admin = db::connect(&db.url).await;
    let (role, client) = officer(&db).await;
    let definition = plant::definition(&admin, "test.saga.v1", &["s1", "s2"]).await;
    let saga = plant::saga(&admin, definition, "state = 'running'").await;
    for (sql, kind, step) in [
        (format!("select syncor.cancel('{saga}', 'no more')"), "cancel", None),
        (format!("select syncor.pause('{saga}', 'no more')"), "pause", None),
        (format!("select syncor.resume('{saga}', 'no more')"), "resume", None),
        (format!("select syncor.abort('{saga}', 'no more')"), "abort", None),
        (format!("select syncor.retry('{saga}', 's2', 'no more')"), "retry", Some("s2")),
        (format!("select syncor.retry('{saga}', reason => 'no more')"), "retry", None),
        (format!("select syncor.skip('{saga}', 's2', 'no more')"), "skip", Some("s2")),
    ] {
        let command = order(&client, &sql).await;
        assert_eq!((command.kind.as_str(), command.status.as_str()), (kind, "pending"), "{sql}");
        assert_eq!((command.by.as_str(), command.step.as_deref()), (role.name.as_str(), step), "{sql}");
    }
    let rows = admin.query("select i.payload, i.seq, i.key = 'order:' || i.command_id from syncor.input i order by i.id", &[]).await.unwrap();
    assert_eq!(rows.len(), 7);
    let payload: Value = rows[4].get(0);
    assert_eq!(payload, json!({"order": "retry", "step": 1, "reason": "no more", "by": role.name}));
    assert_eq!((rows[4].get::<_, Option<i16>>(1), rows[4].get::<_, bool>(2)), (Some(1), true));
    let pending: String = plant::text(&client, "select pending_command from syncor.sagas where id = $1", saga).await;
    assert_eq!(pending, "cancel", "the oldest that is not applied");
}

#[tokio::test]
async fn orders_that_cannot_be_are_refused_and_kept() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let definition = plant::definition(&client, "test.saga.v1", &["s1"]).await;
    let saga = plant::saga(&client, definition, "state = 'running'").await;
    assert_eq!(refusal(&client, &format!("select syncor.cancel('{saga}', ' ')")).await, "say why: a reason is required");
    assert_eq!(refusal(&client, &format!("select syncor.cancel('{saga}', null)")).await, "say why: a reason is required");
    assert_eq!(refusal(&client, &format!("select syncor.cancel('{saga}', repeat('x', 1001))")).await, "the reason is longer than 1000 characters");
    assert_eq!(refusal(&client, &format!("select syncor.skip('{saga}', 's7', 'why')")).await, "test.saga.v1 has no step s7");
    end(&client, saga, "failed").await;
    assert_eq!(refusal(&client, &format!("select syncor.cancel('{saga}', 'why')")).await, "the saga is failed already");
    assert_eq!(
        refusal(&client, &format!("select syncor.retry('{saga}', 's1', 'why')")).await,
        "the saga is failed already: fork it to run steps again in a new one"
    );
    for unknown in ["select syncor.cancel(gen_random_uuid(), 'why')", "select syncor.fork(gen_random_uuid(), 's1', 'why')"] {
        let error = client.query_one(unknown, &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "P0002", "{unknown}");
    }
    assert_eq!(count(&client, "select count(*) from syncor.input").await, 0);
    assert_eq!(count(&client, "select count(*) from syncor.commands where status = 'refused' and settled_at is not null").await, 6);
}

#[tokio::test]
async fn of_two_officers_one_decides_and_the_other_is_told_who() {
    let db = db::database().await;
    let admin = db::connect(&db.url).await;
    let definition = plant::definition(&admin, "test.saga.v1", &["s1"]).await;
    let saga = plant::saga(&admin, definition, "state = 'running'").await;
    let task = task(&admin, saga, "approval", false).await;
    let (first, mut one) = officer(&db).await;
    let (_second, other) = officer(&db).await;

    let open = one.transaction().await.unwrap();
    let sql = format!("select syncor.decide('{task}', 'approve', 'it is in order', '{{\"amount\": 5}}')");
    let won: Uuid = open.query_one(&sql, &[]).await.unwrap().get(0);
    let sql = format!("select syncor.decide('{task}', 'reject', 'it is not')");
    let late = tokio::spawn(async move { refusal(&other, &sql).await });
    until("the second officer waits", Duration::from_secs(5), async || {
        (count(&admin, "select count(*) from pg_locks where not granted").await > 0).then_some(())
    })
    .await;
    open.commit().await.unwrap();
    assert_eq!(late.await.unwrap(), format!("decided already by {}: approve", first.name));

    assert_eq!(command(&one, won).await.status, "pending", "the saga's worker has the last word");
    let input: Value = admin.query_one("select payload from syncor.input", &[]).await.unwrap().get(0);
    let expected = json!({"taskId": task, "kind": "approval", "decision": "approve", "by": first.name, "note": "it is in order",
                          "output": {"amount": 5}});
    assert_eq!(input, expected);
    let seen = one.query_one("select status, decision, decided_by, note, output from syncor.human_tasks", &[]).await.unwrap();
    assert_eq!(seen.get::<_, String>(0), "decided");
    assert_eq!((seen.get::<_, String>(1), seen.get::<_, String>(2)), ("approve".to_owned(), first.name.clone()));
}

#[tokio::test]
async fn decisions_that_cannot_be_are_refused() {
    let db = db::database().await;
    let admin = db::connect(&db.url).await;
    let (role, client) = officer(&db).await;
    let definition = plant::definition(&admin, "test.saga.v1", &["s1"]).await;
    let saga = plant::saga(&admin, definition, "state = 'hitl'").await;
    let failed = task(&admin, saga, "step_failed", false).await;
    let approval = task(&admin, saga, "approval", true).await;
    let decide = |task: Uuid, decision: &str, note: &str| format!("select syncor.decide('{task}', '{decision}', '{note}')");
    assert_eq!(refusal(&client, &decide(failed, "approve", "why")).await, "a task of kind step_failed takes retry, skip, done, compensate, abort");
    assert_eq!(refusal(&client, &decide(failed, "retry", "")).await, "say why: a reason is required");
    // The publisher of the event.
    plant::put(&admin, &format!("update syncor.events set source = '{}'", role.name)).await;
    assert_eq!(
        refusal(&client, &decide(approval, "approve", "why")).await,
        format!("four eyes: {} published the event and may not decide about it", role.name)
    );
    assert_eq!(order(&admin, &decide(approval, "approve", "why")).await.status, "pending", "somebody else may");
    admin.execute("update syncor.task set status = 'withdrawn' where id = $1", &[&failed]).await.unwrap();
    assert_eq!(refusal(&client, &decide(failed, "retry", "why")).await, "the task is withdrawn: nobody waits for the answer any more");
    let error = client.query_one("select syncor.decide(gen_random_uuid(), 'approve', 'why')", &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "P0002");
}

#[tokio::test]
async fn what_no_worker_waits_for_is_decided_at_once_and_published() {
    let db = db::database().await;
    let admin = db::connect(&db.url).await;
    let (_role, client) = officer(&db).await;
    let definition = plant::definition(&admin, "test.saga.v1", &["s1"]).await;
    let running = plant::saga(&admin, definition, "state = 'running'").await;
    let late = task(&admin, running, "late_effect", false).await;
    assert_eq!(order(&client, &format!("select syncor.decide('{late}', 'acknowledge', 'seen')")).await.status, "applied");

    let ended = plant::saga(&admin, definition, "").await;
    end(&admin, ended, "failed").await;
    let failed = task(&admin, ended, "step_failed", false).await;
    assert_eq!(
        refusal(&client, &format!("select syncor.decide('{failed}', 'retry', 'why')")).await,
        "the saga is failed already: fork it to run steps again in a new one; `compensate` takes the task off the queue"
    );
    assert_eq!(order(&client, &format!("select syncor.decide('{failed}', 'compensate', 'seen')")).await.status, "applied");
    assert_eq!(count(&admin, "select count(*) from syncor.input").await, 0);
    let events =
        admin.query("select data, correlation_id, source from syncor.events where type = 'human.task.decided' order by pos", &[]).await.unwrap();
    assert_eq!(events.len(), 2);
    let data: Value = events[1].get(0);
    assert_eq!((data["task"]["decision"].as_str(), data["sagaId"].as_str()), (Some("compensate"), Some(ended.to_string().as_str())));
    assert_eq!((events[1].get::<_, String>(1), events[1].get::<_, String>(2)), ("case-1".to_owned(), format!("/hms/sagas/{ended}")));
}

#[tokio::test]
async fn a_fork_runs_again_what_is_not_done_any_more() {
    let db = db::database().await;
    let admin = db::connect(&db.url).await;
    let (_role, client) = officer(&db).await;
    let definition = plant::definition(&admin, "test.saga.v1", &["s1", "s2", "s3", "s4", "s5"]).await;
    let old = plant::saga(&admin, definition, "state = 'compensating', target = 'failed', lock_keys = '{a}', arrived = 9").await;
    admin
        .batch_execute(&format!("insert into syncor.saga_key select 'test.saga', event_id::text, id from syncor.saga where id = '{old}'"))
        .await
        .unwrap();
    let (done, undone) = ("status = 'succeeded', finished_at = now()", "status = 'succeeded', finished_at = now(), compensation = 'compensated'");
    plant::step(&admin, old, 0, &format!("{done}, compensation = 'not_needed', message = 'well', attempts = 2")).await;
    plant::step(&admin, old, 1, undone).await;
    plant::step(&admin, old, 2, "status = 'skipped', finished_at = now()").await;
    plant::step(&admin, old, 3, done).await;
    plant::step(&admin, old, 4, "status = 'failed', finished_at = now()").await;
    let output = "insert into syncor.attempt (saga_id, seq, action, attempt, worker, fence, started_at, outcome, output)
                  values ($1, 0, 'do', 2, 1, 1, now(), 'succeeded', '{\"context\": {\"backupId\": 7}}')";
    admin.execute(output, &[&old]).await.unwrap();

    let fork = format!("select syncor.fork('{old}', 's4', 'again')");
    assert_eq!(refusal(&client, &fork).await, "the saga is compensating: only one that has ended can be forked");
    end(&admin, old, "failed").await;
    assert_eq!(refusal(&client, &format!("select syncor.fork('{old}', 's9', 'again')")).await, "test.saga.v1 has no step s9");
    let command = order(&client, &fork).await;
    let new = command.new_saga.unwrap();
    assert_eq!((command.status.as_str(), command.result), ("applied", Some(format!("forked as {new}"))));

    let saga =
        admin.query_one("select state, owner, next_due <= now(), fork_of, lock_keys, arrived from syncor.saga where id = $1", &[&new]).await.unwrap();
    assert_eq!(saga.get::<_, String>(0), "pending");
    assert_eq!((saga.get::<_, Option<i32>>(1), saga.get::<_, bool>(2), saga.get::<_, Uuid>(3)), (None, true, old));
    assert_eq!((saga.get::<_, Vec<String>>(4), saga.get::<_, i64>(5)), (vec!["a".to_owned()], 9));
    let steps = admin
        .query("select seq, status, compensation, attempts, message, detail from syncor.step where saga_id = $1 order by seq", &[&new])
        .await
        .unwrap();
    let steps: Vec<(i16, String)> = steps.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(steps, [(0, "succeeded".to_owned()), (2, "skipped".to_owned())], "what was undone is done again; s4 and s5 are what was asked for");
    let seen = client.query_one("select output, context, attempts, message from syncor.steps where saga_id = $1 and seq = 0", &[&new]).await.unwrap();
    assert_eq!((seen.get::<_, Value>(0), seen.get::<_, Value>(1)), (json!({"context": {"backupId": 7}}), json!({"backupId": 7})));
    assert_eq!(count(&admin, "select count(*) from syncor.object_locks where state = 'held'").await, 1);

    assert_eq!(refusal(&client, &fork).await, format!("saga {new} has the same dedupe key and is pending"));
    end(&admin, new, "completed").await;
    assert_eq!(refusal(&client, &fork).await, format!("saga {new} has the same dedupe key and is completed: fork that one"));
    admin.execute("select syncor.release_locks(array[$1::uuid])", &[&new]).await.unwrap();
    let newest = order(&client, &format!("select syncor.fork('{new}', 's2', 'once more')")).await.new_saga.unwrap();
    let by = "select detail ->> 'doneBy' from syncor.step where saga_id = $1 and seq = 0";
    assert_eq!(plant::text(&admin, by, newest).await, old.to_string(), "the one that did it, not the one in between");
}

#[tokio::test]
async fn a_fork_of_a_child_leaves_the_key_of_its_event_alone() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let definition = plant::definition(&client, "test.saga.v1", &["s1"]).await;
    let top = plant::saga(&client, definition, "state = 'running'").await;
    let child = plant::saga(&client, definition, "").await;
    let same_event = "event_id = (select event_id from syncor.saga where id = '$top'), parent_id = '$top', parent_seq = 0, parent_action = 'do'";
    plant::put(&client, &format!("update syncor.saga set {} where id = '{child}'", same_event.replace("$top", &top.to_string()))).await;
    client
        .batch_execute(&format!("insert into syncor.saga_key select 'test.saga', event_id::text, id from syncor.saga where id = '{top}'"))
        .await
        .unwrap();
    end(&client, child, "failed").await;
    assert_eq!(order(&client, &format!("select syncor.fork('{child}', null, 'again')")).await.status, "applied");
    let kept: Uuid = client.query_one("select saga_id from syncor.saga_key", &[]).await.unwrap().get(0);
    assert_eq!(kept, top);
}

#[tokio::test]
async fn of_two_forks_at_once_one_starts() {
    let db = db::database().await;
    let admin = db::connect(&db.url).await;
    let definition = plant::definition(&admin, "test.saga.v1", &["s1"]).await;
    let old = plant::saga(&admin, definition, "").await;
    admin
        .batch_execute(&format!("insert into syncor.saga_key select 'test.saga', event_id::text, id from syncor.saga where id = '{old}'"))
        .await
        .unwrap();
    end(&admin, old, "failed").await;
    let forks: Vec<_> = (0..6)
        .map(|_| {
            let (url, sql) = (db.url.clone(), format!("select syncor.fork('{old}', 's1', 'again')"));
            tokio::spawn(async move { order(&db::connect(&url).await, &sql).await.status })
        })
        .collect();
    let mut applied = 0;
    for fork in forks {
        applied += usize::from(fork.await.unwrap() == "applied");
    }
    assert_eq!((applied, count(&admin, "select count(*) from syncor.saga").await), (1, 2));
}

#[tokio::test]
async fn what_reaches_a_saga_too_late_is_settled_by_the_sweep() {
    let db = db::database().await;
    let admin = db::connect(&db.url).await;
    let definition = plant::definition(&admin, "test.saga.v1", &["s1"]).await;
    let saga = plant::saga(&admin, definition, "state = 'running'").await;
    plant::step(&admin, saga, 0, "").await;
    let approval = task(&admin, saga, "approval", false).await;
    let failed = task(&admin, saga, "step_failed", false).await;
    admin
        .batch_execute(&format!(
            "select syncor.cancel('{saga}', 'why'), syncor.decide('{approval}', 'approve', 'why'), syncor.decide('{failed}', 'compensate', 'why');
             insert into syncor.callback (digest, saga_id, seq, action) values (sha256('t1'), '{saga}', 0, 'do');
             select syncor.complete('t1', 'ok')"
        ))
        .await
        .unwrap();
    assert_eq!(count(&admin, "select syncor.sweep_inputs()::bigint").await, 0, "the saga goes on");
    plant::put(&admin, "update syncor.step set status = 'unknown', finished_at = now()").await;
    end(&admin, saga, "aborted").await;
    assert_eq!(count(&admin, "select syncor.sweep_inputs()::bigint").await, 4);
    assert_eq!(count(&admin, "select count(*) from syncor.input").await, 0);
    let settled =
        admin.query("select kind || ' ' || coalesce(decision, '-') || ' ' || status || ': ' || result from syncor.commands order by id", &[]).await;
    let settled: Vec<String> = settled.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(
        settled,
        [
            "cancel - refused: the saga is aborted already",
            "decide approve refused: the saga is aborted already",
            "decide compensate applied: seen: the saga is aborted"
        ]
    );
    let tasks = admin.query("select kind || ' ' || status from syncor.human_tasks order by kind", &[]).await.unwrap();
    let tasks: Vec<String> = tasks.iter().map(|row| row.get(0)).collect();
    assert_eq!(tasks, ["approval withdrawn", "late_effect open", "step_failed decided"]);
}
