//! A dump that is restored into another cluster: what was handled stays handled, what was not is handled there.

use std::process::{Command, Stdio};

use serde_json::json;
use syncor::store::dsn::Dsn;
use syncor::store::migrate::migrate;

use crate::support::saga::{count, ended, publish, saga_of};
use crate::support::stub::Stub;
use crate::support::worker::{Worker, deploy};
use crate::support::{db, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_ledger_goes_on_where_it_stopped() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let stub = Stub::start().await;
    deploy(&db.url, &saga_of(1, stub.address, "")).await;
    let worker = Worker::start(&db.url);
    let handled = publish(&client, "test.go", json!({"n": 1})).await;
    ended(&client, handled).await;
    worker.stop().await;
    let unhandled = publish(&client, "test.go", json!({"n": 2})).await;
    // The other cluster is younger: the transaction numbers of the dump lie in its future.
    client.batch_execute("select pg_current_xact_id(); select pg_current_xact_id()").await.unwrap();

    let other = db::own_cluster().await;
    other.ensure_database("hms").await.unwrap();
    let url = other.url("hms");
    let mut dump = Command::new("pg_dump").arg("--no-owner").arg(&db.url).stdout(Stdio::piped()).spawn().unwrap();
    let restored =
        Command::new("psql").args(["-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", &url]).stdin(dump.stdout.take().unwrap()).status().unwrap();
    assert!(restored.success() && dump.wait().unwrap().success());

    let dsn = Dsn::parse(&url).unwrap();
    assert!(migrate(&dsn).await.unwrap().adopted);
    assert!(!migrate(&dsn).await.unwrap().adopted, "once is enough");
    let there = db::connect(&url).await;
    let _worker = Worker::start(&url);
    assert_eq!(ended(&there, unhandled).await.state, "completed");
    let fresh = publish(&there, "test.go", json!({"n": 3})).await;
    assert_eq!(ended(&there, fresh).await.state, "completed");
    until("the backlog is empty", std::time::Duration::from_secs(5), async || {
        (count(&there, "select count(*) from syncor.backlog").await == 0).then_some(())
    })
    .await;
    assert_eq!(stub.calls(), 3, "what was handled is not handled again");
}
