//! Migrating: repeatable, safe with several starts at once, in a schema of the DBA's, and with texts that say what to do.

use std::time::{Duration, Instant};

use syncor::store::Error;
use syncor::store::dsn::Dsn;
use syncor::store::migrate::{Report, check, latest, migrate};
use tokio_postgres::Client;

use crate::support::db::{self, connect};
use crate::support::role::role;

async fn report(url: &str) -> Result<Report, Error> {
    migrate(&Dsn::parse(url).unwrap()).await
}

async fn refusal(url: &str) -> String {
    match report(url).await {
        Err(Error::Schema(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

async fn wait_until(client: &Client, question: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while !client.query_one(question, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < end, "never true: {question}");
        tokio::task::yield_now().await;
    }
}

/// A database as an earlier version of this program left it.
async fn database_at(version: i32) -> db::TestDatabase {
    let whole = db::database().await;
    let history = connect(&whole.url).await;
    let applied = history.query("select version, name, applied_on, checksum from syncor.schema_history order by version", &[]).await.unwrap();
    let db = db::empty_database().await;
    let client = connect(&db.url).await;
    client
        .batch_execute(
            "create schema syncor;
             create table syncor.schema_history (version int4 primary key, name varchar(255), applied_on varchar(255), checksum varchar(255))",
        )
        .await
        .unwrap();
    for row in applied.iter().filter(|row| row.get::<_, i32>(0) <= version) {
        let (number, name, on, checksum): (i32, &str, &str, &str) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let file = format!("{}/migrations/V{number:03}__{name}.sql", env!("CARGO_MANIFEST_DIR"));
        client.batch_execute(&std::fs::read_to_string(file).unwrap()).await.unwrap();
        client.execute("insert into syncor.schema_history values ($1, $2, $3, $4)", &[&number, &name, &on, &checksum]).await.unwrap();
    }
    db
}

#[tokio::test]
async fn an_empty_database_is_migrated_once() {
    let db = db::empty_database().await;
    let client = connect(&db.url).await;
    let text = check(&client).await.unwrap_err().to_string();
    assert!(text.starts_with("the database has no schema syncor yet"), "{text}");

    let first = report(&db.url).await.unwrap();
    assert_eq!(first.applied.first().map(String::as_str), Some("V001__ledger"));
    assert_eq!((i32::try_from(first.applied.len()).unwrap(), first.version), (latest(), latest()));
    check(&client).await.unwrap();
    assert_eq!(report(&db.url).await.unwrap(), Report { applied: vec![], version: latest(), adopted: false });
}

#[tokio::test]
async fn six_starts_at_once_all_succeed_and_one_of_them_migrates() {
    let db = db::empty_database().await;
    let starts: Vec<_> = (0..6)
        .map(|_| {
            let url = db.url.clone();
            tokio::spawn(async move { report(&url).await })
        })
        .collect();
    let mut applied = Vec::new();
    for start in starts {
        let report = start.await.unwrap().unwrap();
        assert_eq!(report.version, latest());
        applied.extend(report.applied);
    }
    assert_eq!(i32::try_from(applied.len()).unwrap(), latest(), "{applied:?}");
}

#[tokio::test]
async fn a_schema_made_by_the_dba_is_enough() {
    let db = db::empty_database().await;
    let role = role(&db).await;
    let text = refusal(&role.url).await;
    assert!(text.contains(&format!("let a DBA run `create schema syncor authorization \"{}\"`", role.name)), "{text}");

    let admin = connect(&db.url).await;
    admin.batch_execute("create schema syncor").await.unwrap();
    let text = refusal(&role.url).await;
    let grant = format!("grant usage, create on schema syncor to \"{}\"", role.name);
    assert!(text.contains(&grant), "{text}");

    admin.batch_execute(&grant).await.unwrap();
    assert_eq!(report(&role.url).await.unwrap().version, latest());
    let outside = "select count(*) from pg_class c where relowner = (select oid from pg_roles where rolname = current_user)
                      and relnamespace <> 'syncor'::regnamespace and relkind in ('r', 'p', 'v', 'S') ";
    assert_eq!(connect(&role.url).await.query_one(outside, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn older_code_and_changed_migrations_are_refused() {
    let db = db::database().await;
    let client = connect(&db.url).await;
    let newer = "insert into syncor.schema_history (version, name, applied_on, checksum) values (900, 'later', '2026-01-01T00:00:00Z', '1')";
    client.batch_execute(newer).await.unwrap();
    let text = refusal(&db.url).await;
    assert_eq!(text, format!("the schema is at version 900, this program knows versions up to {}: use a newer hms-orch", latest()));
    assert_eq!(check(&client).await.unwrap_err().to_string(), text);

    client.batch_execute("delete from syncor.schema_history where version = 900").await.unwrap();
    client.batch_execute("update syncor.schema_history set checksum = '1' where version = 2").await.unwrap();
    let text = refusal(&db.url).await;
    assert!(text.starts_with("migration V002__definitions was applied with another content"), "{text}");
}

#[tokio::test]
async fn a_role_that_may_not_read_the_history_is_told_so() {
    let db = db::database().await;
    let role = role(&db).await;
    let text = check(&connect(&role.url).await).await.unwrap_err().to_string();
    assert!(text.starts_with("this role may not read syncor.schema_history"), "{text}");
}

#[tokio::test]
async fn with_nothing_to_do_no_lock_is_waited_for() {
    let db = db::database().await;
    let mut blocker = connect(&db.url).await;
    let transaction = blocker.transaction().await.unwrap();
    let tables = "select string_agg(format('syncor.%I', relname), ', ') from pg_class
                   where relnamespace = 'syncor'::regnamespace and relkind in ('r', 'p') and relname not in ('schema_history', 'origin')";
    let tables: String = transaction.query_one(tables, &[]).await.unwrap().get(0);
    transaction.batch_execute(&format!("lock table {tables} in access exclusive mode; select pg_advisory_xact_lock(1399152195, 2)")).await.unwrap();
    let done = tokio::time::timeout(Duration::from_secs(10), report(&db.url)).await;
    assert_eq!(done.expect("it waited").unwrap().applied, Vec::<String>::new());
}

#[tokio::test]
async fn a_migration_that_waits_lets_go_and_tries_again() {
    let db = database_at(5).await;
    let mut blocker = connect(&db.url).await;
    let watcher = connect(&db.url).await;
    let transaction = blocker.transaction().await.unwrap();
    transaction.batch_execute("lock table syncor.saga in access exclusive mode").await.unwrap();
    let url = db.url.clone();
    let migration = tokio::spawn(async move { report(&url).await });
    let waits = "exists (select from pg_locks where relation = 'syncor.saga'::regclass and not granted)";
    for _ in 0..2 {
        wait_until(&watcher, &format!("select {waits}")).await;
        wait_until(&watcher, &format!("select not {waits}")).await;
    }
    transaction.rollback().await.unwrap();
    assert_eq!(migration.await.unwrap().unwrap().applied.first().map(String::as_str), Some("V006__reading"));
}

#[tokio::test]
async fn what_an_earlier_version_left_goes_on() {
    let db = database_at(6).await;
    let client = connect(&db.url).await;
    client
        .batch_execute(
            "insert into syncor.definition (kind, id, family, version, revision, source)
             values ('saga', 'a.v1', 'a', 1, 'r', '{\"steps\": [{\"name\": \"s1\"}, {\"name\": \"s2\"}]}'), ('services', 's', 's', 1, 'r', '{}');
             insert into syncor.saga (id, definition_no, state, event_id, event_at, correlation_id)
             select gen_random_uuid(), 1, 'running', gen_random_uuid(), now(), 'c' from generate_series(1, 3);
             insert into syncor.step (saga_id, seq, name, status, attempts, fence, started_at) select id, 0, 's1', 'running', 1, 1, now() from syncor.saga;
             insert into syncor.attempt (saga_id, seq, action, attempt, worker, fence, started_at, outcome)
             select id, 0, 'do', 1, 1, 1, now(), 'succeeded' from syncor.saga",
        )
        .await
        .unwrap();
    assert_eq!(report(&db.url).await.unwrap().applied.first().map(String::as_str), Some("V007__language"));
    let steps = "select string_agg(d.kind || ' ' || array_to_string(d.steps, ','), '; ' order by d.no) from syncor.definition d";
    assert_eq!(client.query_one(steps, &[]).await.unwrap().get::<_, String>(0), "saga s1,s2; services ");
    let seen =
        "select count(*) from syncor.steps t join syncor.sagas s on s.id = t.saga_id where s.lock_keys is null and syncor.why(s.id) is not null";
    assert_eq!(client.query_one(seen, &[]).await.unwrap().get::<_, i64>(0), 6);
    // As a worker of that version writes on.
    client
        .batch_execute(
            "update syncor.step set status = 'succeeded', finished_at = now();
             insert into syncor.step (saga_id, seq, name, status, attempts, fence, started_at) select id, 1, 's2', 'running', 1, 2, now() from syncor.saga;
             insert into syncor.definition (kind, id, family, version, revision, source)
             values ('saga', 'b.v1', 'b', 1, 'r', '{\"steps\": [{\"name\": \"t1\"}]}')",
        )
        .await
        .unwrap();
    assert_eq!(client.query_one(steps, &[]).await.unwrap().get::<_, String>(0), "saga s1,s2; services ; saga t1");
}

#[tokio::test]
async fn every_relation_and_column_says_what_it_is() {
    let db = db::database().await;
    let silent = "select c.relname || coalesce('.' || a.attname, '') from pg_class c
                    left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                   where c.relnamespace = 'syncor'::regnamespace and c.relkind in ('r', 'p', 'v')
                     and (obj_description(c.oid, 'pg_class') is null or col_description(c.oid, a.attnum) is null)";
    let silent: Vec<String> = connect(&db.url).await.query(silent, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(silent, Vec::<String>::new());
}
