//! `sql` steps: what a function did and the outcome of its step become durable together, or not at all.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::db::{self, TestDatabase};
use crate::support::process::Process;
use crate::support::role::role;
use crate::support::saga::{count, ended, publish};
use crate::support::stub::Stub;
use crate::support::until;
use crate::support::worker::{Worker, deploy, options};

const LIMIT: Duration = Duration::from_secs(60);

/// An agency's functions. Each leaves a row behind, so that what was done, and how often, can be counted.
const FUNCTIONS: &str = "
create schema benefits;
create table benefits.booking (saga uuid not null, what text not null, at timestamptz not null default clock_timestamp());
create table benefits.account (id int primary key);
create table benefits.booked (account int not null references benefits.account deferrable initially deferred);
create function benefits.note(call jsonb, what text) returns void language sql as $$
  insert into benefits.booking (saga, what) values ((call ->> 'sagaId')::uuid, what) $$;
create function benefits.book(call jsonb) returns jsonb language plpgsql as $$
begin
  perform benefits.note(call, 'book');
  return jsonb_build_object('total', 5, 'message', 'booked', 'n', call -> 'data' -> 'n');
end $$;
create function benefits.unbook(call jsonb) returns jsonb language plpgsql as $$
begin
  perform benefits.note(call, 'unbook ' || (call -> 'step' -> 'context' ->> 'total'));
  return null;
end $$;
create function benefits.nothing(call jsonb) returns void language plpgsql as $$ begin perform benefits.note(call, 'nothing'); end $$;
create function benefits.raise(call jsonb) returns jsonb language plpgsql as $$
begin
  perform benefits.note(call, 'raise');
  raise exception E'the account is closed\\nof Jane Doe' using errcode = 'BE001', detail = 'secret row', hint = 'secret hint';
end $$;
create function benefits.sleep(call jsonb) returns jsonb language plpgsql as $$
begin
  perform benefits.note(call, 'sleep');
  perform pg_sleep((call -> 'data' ->> 'seconds')::float);
  return '{}';
end $$;
create function benefits.dangle(call jsonb) returns jsonb language plpgsql as $$
begin
  perform benefits.note(call, 'dangle');
  insert into benefits.booked values (7);
  return '{}';
end $$;
create function benefits.large(call jsonb) returns jsonb language plpgsql as $$
begin
  perform benefits.note(call, 'large');
  return jsonb_build_object('x', repeat('y', 20000));
end $$;
create function benefits.who(call jsonb) returns jsonb language sql as $$ select jsonb_build_object('user', current_user) $$;
";

const NAMES: &str =
    "[benefits.book, benefits.unbook, benefits.nothing, benefits.raise, benefits.sleep, benefits.dangle, benefits.large, benefits.who]";

async fn stage(steps: &str) -> (TestDatabase, Client, Stub) {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    client.batch_execute(FUNCTIONS).await.unwrap();
    deploy_steps(&db, &stub, steps).await;
    (db, client, stub)
}

async fn deploy_steps(db: &TestDatabase, stub: &Stub, steps: &str) {
    let text = format!(
        "id: test.sql.v1\ntrigger: test.go\nretry: {{attempts: 3, backoffMs: 20}}\nsteps:\n{steps}\n---\nid: test-services\nservices:\n  \
         svc: {{url: \"http://{}\", allow: [127.0.0.0/8]}}\nfunctions: {NAMES}\n",
        stub.address
    );
    deploy(&db.url, &text).await;
}

/// What functions left behind for a saga, in order.
async fn effects(client: &Client, saga: Uuid) -> Vec<String> {
    client.query("select what from benefits.booking where saga = $1 order by at", &[&saga]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// `action outcome` of the attempts of a step.
async fn attempts(client: &Client, saga: Uuid, step: &str) -> Vec<String> {
    let sql = "select action || ' ' || outcome from syncor.attempts where saga_id = $1 and step = $2 order by action, attempt";
    client.query(sql, &[&saga, &step]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn error_of(client: &Client, saga: Uuid, step: &str) -> String {
    let sql = "select error from syncor.attempts where saga_id = $1 and step = $2 order by attempt desc limit 1";
    client.query_one(sql, &[&saga, &step]).await.unwrap().get(0)
}

#[tokio::test]
async fn functions_are_done_and_undone_once_with_what_they_return() {
    let steps = "  - {name: book, sql: benefits.book, compensate: {sql: benefits.unbook}}\n  - {name: quiet, sql: benefits.nothing}\n  \
                 - {name: tell, call: \"svc:/tell\"}";
    let (db, client, stub) = stage(steps).await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({"n": 3})).await;
    let saga = ended(&client, event).await;
    assert_eq!(saga.state, "completed", "{saga:?}");
    assert_eq!(effects(&client, saga.id).await, ["book", "nothing"]);
    let told = &stub.journal()[0].body["steps"];
    assert_eq!(told["book"]["context"], json!({"total": 5, "message": "booked", "n": 3}));
    assert_eq!(told["quiet"]["context"], Value::Null, "nothing is no output");
    let row = client.query_one("select message, output from syncor.steps where saga_id = $1 and name = 'book'", &[&saga.id]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), &row.get::<_, Value>(1)["total"]), ("booked", &json!(5)));

    stub.always("/tell", crate::support::stub::Answer::Json(400, json!({})));
    let event = publish(&client, "test.go", json!({"n": 4})).await;
    let saga = ended(&client, event).await;
    assert_eq!((saga.state.as_str(), saga.clean), ("failed", true), "{saga:?}");
    assert_eq!(effects(&client, saga.id).await, ["book", "nothing", "unbook 5"]);
    assert_eq!(attempts(&client, saga.id, "book").await, ["do succeeded", "undo succeeded"]);
}

#[tokio::test]
async fn what_a_function_did_before_it_raised_is_undone_and_its_rows_are_not_told() {
    let (db, client, _stub) =
        stage("  - {name: book, sql: benefits.book, compensate: {sql: benefits.unbook}}\n  - {name: raise, sql: benefits.raise}").await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = ended(&client, event).await;
    assert_eq!((saga.state.as_str(), saga.clean), ("failed", true), "{saga:?}");
    assert_eq!(effects(&client, saga.id).await, ["book", "unbook 5"]);
    assert_eq!(attempts(&client, saga.id, "raise").await, ["do failed"; 3]);
    assert_eq!(error_of(&client, saga.id, "raise").await, "the account is closed (BE001)");
}

#[tokio::test]
async fn what_shows_only_at_the_commit_is_the_failure_of_the_function() {
    let (db, client, _stub) = stage("  - {name: dangle, sql: benefits.dangle}").await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = ended(&client, event).await;
    assert_eq!(saga.state, "failed", "{saga:?}");
    assert_eq!(effects(&client, saga.id).await, [""; 0]);
    assert!(error_of(&client, saga.id, "dangle").await.ends_with("(23503)"));
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_done() {
    // The undo could not be given so large a context.
    let (db, client, _stub) = stage("  - {name: large, sql: benefits.large, compensate: {sql: benefits.unbook}}").await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = ended(&client, event).await;
    assert_eq!((saga.state.as_str(), saga.clean), ("failed", true), "{saga:?}");
    assert_eq!(effects(&client, saga.id).await, [""; 0]);
    assert!(error_of(&client, saga.id, "large").await.contains("too large for the undo"));
}

#[tokio::test]
async fn a_function_has_a_time_limit() {
    let (db, client, _stub) = stage("  - {name: sleep, sql: benefits.sleep, timeoutMs: 100, retry: {attempts: 1}}").await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({"seconds": 60})).await;
    let began = Instant::now();
    let saga = ended(&client, event).await;
    assert_eq!(saga.state, "failed", "{saga:?}");
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(effects(&client, saga.id).await, [""; 0]);
    assert!(error_of(&client, saga.id, "sleep").await.starts_with("timed out: "));
}

#[tokio::test]
async fn only_registered_functions_are_called_and_a_new_one_at_once() {
    let (db, client, stub) = stage("  - {name: other, sql: benefits.other, retry: {attempts: 100, backoffMs: 100, multiplier: 1}}").await;
    client.batch_execute("create function benefits.other(call jsonb) returns jsonb language sql as $$ select call $$").await.unwrap();
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let refused = "select t.error from syncor.steps t join syncor.sagas s on s.id = t.saga_id where s.event_id = $1 and t.error is not null";
    let error = until("it is refused", LIMIT, async || client.query_opt(refused, &[&event]).await.unwrap()).await;
    assert_eq!(error.get::<_, &str>(0), "the function benefits.other is not registered: add it to `functions` of a services file and deploy that");
    let registry = format!("id: test-services\nservices:\n  svc: {{url: \"http://{}\"}}\nfunctions: [benefits.other]\n", stub.address);
    deploy(&db.url, &registry).await;
    assert_eq!(ended(&client, event).await.state, "completed");
}

#[tokio::test]
async fn functions_run_with_the_rights_of_their_role_and_outcomes_with_ours() {
    let (db, client, _stub) = stage("  - {name: who, sql: benefits.who}\n  - {name: book, sql: benefits.book, retry: {attempts: 1}}").await;
    let role = role(&db).await;
    client.batch_execute(&format!("grant usage on schema benefits to \"{0}\"; grant \"{0}\" to current_user", role.name)).await.unwrap();
    let _worker = Worker::start_with(&db.url, syncor::engine::Options { function_role: Some(role.name.clone()), ..options(&db.url) });
    let event = publish(&client, "test.go", json!({})).await;
    let saga = ended(&client, event).await;
    let output: Value = client.query_one("select output from syncor.steps where saga_id = $1 and name = 'who'", &[&saga.id]).await.unwrap().get(0);
    assert_eq!(output["user"], json!(role.name));
    // It may call the function, and not write where the function writes.
    assert_eq!(saga.state, "failed");
    assert!(error_of(&client, saga.id, "book").await.ends_with("(42501)"));
}

/// Backends that are inside a function.
const SLEEPERS: &str =
    "select pid from pg_stat_activity where datname = current_database() and application_name = 'hms-sql' and wait_event = 'PgSleep'";

async fn asleep(client: &Client, at_least: usize) -> Vec<i32> {
    until("functions are under way", LIMIT, async || {
        let rows = client.query(SLEEPERS, &[]).await.unwrap();
        (rows.len() >= at_least).then(|| rows.iter().map(|row| row.get(0)).collect())
    })
    .await
}

#[tokio::test]
async fn a_function_whose_connection_is_ended_is_done_once_all_the_same() {
    let (db, client, _stub) = stage("  - {name: sleep, sql: benefits.sleep, timeoutMs: 30000}").await;
    let _worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({"seconds": 1})).await;
    let pid = asleep(&client, 1).await[0];
    client.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
    let saga = ended(&client, event).await;
    assert_eq!(saga.state, "completed", "{saga:?}");
    assert_eq!(effects(&client, saga.id).await, ["sleep"]);
    assert_eq!(attempts(&client, saga.id, "sleep").await, ["do failed", "do succeeded"]);
}

#[tokio::test]
async fn an_outcome_that_cannot_be_written_undoes_its_function() {
    let (db, mut client, _stub) = stage("  - {name: sleep, sql: benefits.sleep, timeoutMs: 30000}").await;
    let _worker = Worker::start(&db.url);
    let watch = db::connect(&db.url).await;
    let event = publish(&client, "test.go", json!({"seconds": 1})).await;
    asleep(&watch, 1).await;
    // The function returns, but its outcome has to wait for the row of its saga, and is ended there.
    let holding = client.transaction().await.unwrap();
    holding.execute("select from syncor.saga where event_id = $1 for update", &[&event]).await.unwrap();
    let waiting = "select pid from pg_stat_activity where datname = current_database() and application_name = 'hms-sql' and wait_event_type = 'Lock'";
    let pid: i32 = until("the outcome waits", LIMIT, async || watch.query_opt(waiting, &[]).await.unwrap()).await.get(0);
    watch.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
    until("the backend is gone", LIMIT, async || watch.query_opt(waiting, &[]).await.unwrap().is_none().then_some(())).await;
    assert_eq!(count(&watch, "select count(*) from benefits.booking").await, 0);
    holding.rollback().await.unwrap();
    let saga = ended(&client, event).await;
    assert_eq!(saga.state, "completed", "{saga:?}");
    assert_eq!(effects(&client, saga.id).await, ["sleep"]);
    assert_eq!(attempts(&client, saga.id, "sleep").await, ["do failed", "do succeeded"]);
    assert_eq!(count(&client, "select count(*) from syncor.step where ambiguous").await, 0, "there was never a doubt");
}

#[tokio::test]
async fn a_function_whose_worker_is_killed_is_done_once_all_the_same() {
    let (db, client, _stub) = stage("  - {name: sleep, sql: benefits.sleep, timeoutMs: 30000}").await;
    let settings = [("HMS_LEASE_MS", "400")];
    let mut first = Process::worker_with(&db.url, &settings);
    let event = publish(&client, "test.go", json!({"seconds": 1})).await;
    asleep(&client, 1).await;
    let _second = Process::worker_with(&db.url, &settings);
    first.kill();
    let saga = ended(&client, event).await;
    assert_eq!(saga.state, "completed", "{saga:?}");
    assert_eq!(effects(&client, saga.id).await, ["sleep"]);
    assert_eq!(attempts(&client, saga.id, "sleep").await, ["do lost", "do succeeded"]);
    assert_eq!(count(&client, "select count(*) from syncor.step where ambiguous").await, 0, "there was never a doubt");
}

#[tokio::test]
async fn what_a_worker_that_was_given_up_has_begun_is_undone() {
    let (db, client, _stub) = stage("  - {name: sleep, sql: benefits.sleep, timeoutMs: 30000}").await;
    let settings = [("HMS_LEASE_MS", "400")];
    let first = Process::worker_with(&db.url, &settings);
    let event = publish(&client, "test.go", json!({"seconds": 1})).await;
    asleep(&client, 1).await;
    first.signal("STOP");
    let _second = Process::worker_with(&db.url, &settings);
    // Its function returns into a transaction that nobody commits; when it wakes it is too late.
    let saga = ended(&client, event).await;
    first.signal("CONT");
    until("it notices", LIMIT, async || first.log().iter().any(|line| line.contains("declared dead")).then_some(())).await;
    until("its transaction is gone", LIMIT, async || {
        let open =
            "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'hms-sql' and xact_start is not null";
        (count(&client, open).await == 0).then_some(())
    })
    .await;
    assert_eq!(saga.state, "completed", "{saga:?}");
    assert_eq!(effects(&client, saga.id).await, ["sleep"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_sleep_hold_up_nobody() {
    let (db, client, stub) = stage("  - {name: sleep, sql: benefits.sleep, timeoutMs: 30000}").await;
    let other = format!(
        "id: test.other.v1\ntrigger: test.other\nsteps:\n  - {{name: a, call: \"svc:/a\"}}\n  - {{name: book, sql: benefits.book}}\n---\nid: test-services\nservices:\n  \
         svc: {{url: \"http://{}\", allow: [127.0.0.0/8]}}\nfunctions: {NAMES}\n",
        stub.address
    );
    deploy(&db.url, &other).await;
    let _worker = Worker::start(&db.url);
    // One connection is left to the others' functions.
    for _ in 0..3 {
        publish(&client, "test.go", json!({"seconds": 20})).await;
    }
    asleep(&client, 3).await;
    let began = Instant::now();
    let many = "insert into syncor.events (type, data) select 'test.other', jsonb_build_object('n', n) from generate_series(1, 200) n";
    client.execute(many, &[]).await.unwrap();
    until("the others complete", LIMIT, async || {
        (count(&client, "select count(*) from syncor.sagas where definition = 'test.other.v1' and state = 'completed'").await == 200).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(18), "{:?}", began.elapsed());
    assert_eq!(client.query(SLEEPERS, &[]).await.unwrap().len(), 3, "while those still sleep");
    assert_eq!(count(&client, "select count(*) from benefits.booking where what = 'book'").await, 200);
}
