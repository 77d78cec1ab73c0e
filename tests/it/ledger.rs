//! The ledger: an insert always succeeds and never waits, and what is in it never changes.

use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use crate::support::saga::{count, ended, publish, saga_of};
use crate::support::stub::Stub;
use crate::support::worker::{Worker, deploy, options};
use crate::support::{db, until};

#[tokio::test]
async fn nothing_in_the_ledger_can_be_changed_even_by_its_owner() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    deploy(&db.url, &saga_of(1, stub.address, "")).await;
    let worker = Worker::start(&db.url);
    let event = publish(&client, "test.go", json!({})).await;
    ended(&client, event).await;
    worker.stop().await;
    let month: String = client.query_one("select tableoid::regclass::text from syncor.events where id = $1", &[&event]).await.unwrap().get(0);
    let tries = [
        "update syncor.events set type = 'other'".to_owned(),
        "delete from syncor.events".to_owned(),
        "truncate syncor.events".to_owned(),
        format!("update {month} set type = 'other'"),
        format!("delete from {month}"),
        format!("truncate {month}"),
        "truncate syncor.events_default".to_owned(),
        "update syncor.attempt set outcome = 'failed', error = 'x'".to_owned(),
        "delete from syncor.attempt".to_owned(),
        "truncate syncor.attempt".to_owned(),
        "update syncor.saga set state = 'running', finished_at = null".to_owned(),
        "delete from syncor.saga".to_owned(),
        "truncate syncor.saga".to_owned(),
        "update syncor.step set status = 'pending', finished_at = null, started_at = null".to_owned(),
        "update syncor.definition set source = '{}'".to_owned(),
        "delete from syncor.definition".to_owned(),
    ];
    for statement in tries {
        let refused = client.batch_execute(&statement).await.expect_err(&statement);
        let code = refused.code().map(tokio_postgres::error::SqlState::code).unwrap_or_default().to_owned();
        assert!(["42501", "23514"].contains(&code.as_str()), "{statement}: {refused:?}");
    }
    assert_eq!(count(&client, "select count(*) from syncor.events where type = 'test.go'").await, 1);
}

#[tokio::test]
async fn an_event_from_far_ahead_falls_into_the_default_partition() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let sql = "insert into syncor.events (type, created_at) values ('test.go', now() + interval '400 days') returning id, tableoid::regclass::text";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(1), "syncor.events_default");
    // And a month that has rows there is left alone.
    let added: bool = client.query_one("select syncor.add_event_partition((now() + interval '400 days')::date)", &[]).await.unwrap().get(0);
    assert!(!added);
    let stub = Stub::start().await;
    deploy(&db.url, &saga_of(1, stub.address, "")).await;
    let _worker = Worker::start(&db.url);
    assert_eq!(ended(&client, row.get(0)).await.state, "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_may_publish_while_the_pool_sleeps() {
    let cluster = db::own_cluster().await;
    cluster.ensure_database("hms").await.unwrap();
    db::connect(&cluster.url("postgres")).await.batch_execute("alter system set max_prepared_transactions = 5").await.unwrap();
    cluster.stop(syncor::dev_postgres::StopMode::Fast).await.unwrap();
    cluster.start().await.unwrap();
    let url = cluster.url("hms");
    syncor::store::migrate::migrate(&syncor::store::dsn::Dsn::parse(&url).unwrap()).await.unwrap();
    let client = db::connect(&url).await;
    let stub = Stub::start().await;
    deploy(&url, &saga_of(1, stub.address, "")).await;
    let worker = Worker::start(&url);
    let first = publish(&client, "test.go", json!({"n": 1})).await;
    assert_eq!(ended(&client, first).await.state, "completed");
    client.batch_execute("begin; insert into syncor.events (type, subject) values ('test.go', 'prepared'); prepare transaction 'p1'").await.unwrap();
    let second = publish(&client, "test.go", json!({"n": 2})).await;
    assert_eq!(ended(&client, second).await.state, "completed", "others are not delayed");
    client.batch_execute("commit prepared 'p1'").await.unwrap();
    let third: Uuid = client.query_one("select id from syncor.events where subject = 'prepared' and type = 'test.go'", &[]).await.unwrap().get(0);
    assert_eq!(ended(&client, third).await.state, "completed");
    worker.stop().await;
}

#[tokio::test]
async fn a_migration_that_waits_for_a_lock_holds_up_no_insert() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let mut reader = db::connect(&db.url).await;
    let open = reader.transaction().await.unwrap();
    open.query("select * from syncor.events", &[]).await.unwrap();
    let dsn = syncor::store::dsn::Dsn::parse(&db.url).unwrap();
    let migrating = tokio::spawn(async move { syncor::store::migrate::migrate(&dsn).await });
    for n in 0..50 {
        let began = Instant::now();
        publish(&client, "test.go", json!({"n": n})).await;
        assert!(began.elapsed() < Duration::from_secs(1), "insert {n} waited {:?}", began.elapsed());
    }
    open.commit().await.unwrap();
    migrating.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_sleeping_pool_is_woken_by_an_insert() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    deploy(&db.url, &saga_of(1, stub.address, "")).await;
    // Polling alone would take a minute.
    let _worker = Worker::start_with(&db.url, syncor::engine::Options { poll: Duration::from_secs(60), ..options(&db.url) });
    let first = publish(&client, "test.go", json!({})).await;
    ended(&client, first).await;
    let asleep = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1399152195 and objid = 1 and mode = 'ExclusiveLock'
                     and database = (select oid from pg_database where datname = current_database())";
    for n in 0..20 {
        until("the pool sleeps", Duration::from_secs(5), async || (count(&client, asleep).await == 1).then_some(())).await;
        let event = publish(&client, "test.go", json!({"n": n})).await;
        assert_eq!(ended(&client, event).await.state, "completed");
    }
}

#[tokio::test]
async fn a_listener_that_was_ended_comes_back() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    deploy(&db.url, &saga_of(1, stub.address, "")).await;
    let _worker = Worker::start_with(&db.url, syncor::engine::Options { poll: Duration::from_secs(60), ..options(&db.url) });
    let first = publish(&client, "test.go", json!({})).await;
    ended(&client, first).await;
    for n in 0..3 {
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                    where application_name = 'hms-listen' and datname = current_database()";
        until("a listener is there, and ended", Duration::from_secs(5), async || (count(&client, end).await == 1).then_some(())).await;
        let event = publish(&client, "test.go", json!({"n": n})).await;
        assert_eq!(ended(&client, event).await.state, "completed");
    }
}

#[tokio::test]
async fn without_notifications_polling_serves() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    deploy(&db.url, &saga_of(2, stub.address, "")).await;
    let polling = syncor::engine::Options { wake: syncor::engine::Wake::Poll, poll: Duration::from_millis(100), ..options(&db.url) };
    let _worker = Worker::start_with(&db.url, polling);
    for n in 0..3 {
        let event = publish(&client, "test.go", json!({"n": n})).await;
        assert_eq!(ended(&client, event).await.state, "completed");
    }
}

#[tokio::test]
async fn every_table_and_column_is_explained() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let bare = client
        .query(
            "select c.relname || coalesce('.' || a.attname, '')
               from pg_class c
               join pg_attribute a on a.attrelid = c.oid and a.attnum >= 0 and not a.attisdropped
              where c.relnamespace = 'syncor'::regnamespace and c.relkind in ('r', 'p', 'v') and c.relname <> 'schema_history'
                and col_description(c.oid, a.attnum) is null
              union all
             select c.relname from pg_class c
              where c.relnamespace = 'syncor'::regnamespace and c.relkind in ('r', 'p', 'v') and c.relname <> 'schema_history'
                and obj_description(c.oid, 'pg_class') is null",
            &[],
        )
        .await
        .unwrap();
    let names: Vec<String> = bare.iter().map(|row| row.get(0)).collect();
    assert!(names.is_empty(), "without a comment: {names:?}");
}

#[tokio::test]
async fn partitions_are_made_ahead_and_never_waited_for() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let coming: String = client.query_one("select 'syncor.events_' || to_char(now() + interval '2 months', 'YYYY_MM')", &[]).await.unwrap().get(0);
    client.batch_execute(&format!("drop table {coming}")).await.unwrap();
    let store = crate::support::worker::store(&db.url);
    let mut ours = store.client().await.unwrap();

    let mut other = db::connect(&db.url).await;
    let open = other.transaction().await.unwrap();
    open.batch_execute("lock table syncor.events in access exclusive mode").await.unwrap();
    let began = Instant::now();
    assert!(syncor::store::partitions::ensure(&mut ours).await.is_err(), "the table is busy");
    assert!(began.elapsed() < Duration::from_secs(2));
    open.rollback().await.unwrap();

    assert_eq!(syncor::store::partitions::ensure(&mut ours).await.unwrap(), 1);
    assert_eq!(syncor::store::partitions::ensure(&mut ours).await.unwrap(), 0);
    let guarded = client.batch_execute(&format!("truncate {coming}")).await;
    assert!(guarded.is_err(), "a new partition is as append-only as the others");
}

#[tokio::test]
async fn the_size_limit_measures_the_document_not_how_it_is_stored() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stored = "create temp table big as select jsonb_build_object('x', repeat('a', 2000000)) as data";
    client.batch_execute(stored).await.unwrap();
    let kept: i32 = client.query_one("select pg_column_size(data) from big", &[]).await.unwrap().get(0);
    assert!(kept < 65536, "it is stored compressed: {kept}");
    let refused = client.execute("insert into syncor.events (type, data) select 'test.go', data from big", &[]).await.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().constraint(), Some("events_data_size"));
}

#[tokio::test]
async fn an_event_that_names_its_cause_is_one_deeper() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let first = publish(&client, "test.go", json!({})).await;
    let caused = "insert into syncor.events (type, causation_id) values ('test.go', $1) returning id, depth";
    let second = client.query_one(caused, &[&first]).await.unwrap();
    let third = client.query_one(caused, &[&second.get::<_, Uuid>(0)]).await.unwrap();
    let stranger = client.query_one(caused, &[&Uuid::now_v7()]).await.unwrap();
    let depths: Vec<i16> = [second, third, stranger].iter().map(|row| row.get(1)).collect();
    assert_eq!(depths, [1, 2, 0]);
}

#[tokio::test]
async fn services_are_shown_however_their_networks_are_written() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let text = "id: s\nservices:\n  one: {url: \"http://127.0.0.1:1\", allow: 127.0.0.0/8}\n  none: {url: \"http://example.org\"}\n";
    deploy(&db.url, text).await;
    let rows = client.query("select name, allow from syncor.services order by name", &[]).await.unwrap();
    let shown: Vec<(String, Vec<String>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(shown, [("none".to_owned(), vec![]), ("one".to_owned(), vec!["127.0.0.0/8".to_owned()])]);
}
