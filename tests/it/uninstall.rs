//! Uninstalling: nothing of ours stays, nothing of others goes.

use std::process::Command;

use syncor::store::Error;
use syncor::store::dsn::Dsn;
use syncor::store::migrate::migrate;
use syncor::store::uninstall::{plan, uninstall};

use crate::support::db::{self, connect};
use crate::support::role::role;

const OTHERS: &str = "create table public.agency (id int primary key); create view public.agencies as select * from public.agency;
                      create schema theirs; create function theirs.one() returns int language sql as 'select 1'";

fn dump(url: &str) -> String {
    let output = Command::new("pg_dump").args(["-s", url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Newer versions print a random word that differs from run to run.
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.contains("restrict")).collect::<Vec<_>>().join("\n")
}

fn refusal(result: Result<impl std::fmt::Debug, Error>) -> String {
    match result {
        Err(Error::Refused(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn the_rest_of_the_database_is_as_it_was() {
    let db = db::empty_database().await;
    let client = connect(&db.url).await;
    client.batch_execute(OTHERS).await.unwrap();
    let before = dump(&db.url);
    let dsn = Dsn::parse(&db.url).unwrap();
    migrate(&dsn).await.unwrap();
    client.batch_execute("select syncor.emit('a'), syncor.emit('b')").await.unwrap();

    let plan = plan(&client).await.unwrap();
    assert_eq!(plan.statements, ["drop schema syncor cascade"]);
    assert_eq!(plan.tables.iter().filter(|table| table.name.starts_with("events")).map(|table| table.rows).sum::<i64>(), 2);
    assert_eq!((plan.workers, plan.dependents.as_slice()), (0, [].as_slice()));
    assert!(plan.to_string().ends_with("drop schema syncor cascade;\n"), "{plan}");

    uninstall(&dsn, false).await.unwrap();
    assert_eq!(dump(&db.url), before);
    assert_eq!(uninstall(&dsn, false).await.unwrap().statements, Vec::<String>::new(), "a second time there is nothing to do");
}

#[tokio::test]
async fn a_schema_of_the_dba_is_handed_back_empty() {
    let db = db::empty_database().await;
    let role = role(&db).await;
    let admin = connect(&db.url).await;
    admin.batch_execute(&format!("create schema syncor; grant usage, create on schema syncor to \"{}\"", role.name)).await.unwrap();
    let before = dump(&db.url);
    let dsn = Dsn::parse(&role.url).unwrap();
    migrate(&dsn).await.unwrap();
    assert_ne!(dump(&db.url), before);
    uninstall(&dsn, false).await.unwrap();
    assert_eq!(dump(&db.url), before);
}

#[tokio::test]
async fn living_workers_are_in_the_way() {
    let db = db::database().await;
    let client = connect(&db.url).await;
    let dsn = Dsn::parse(&db.url).unwrap();
    let worker = "insert into syncor.worker (id, host, pid, version, slots, lease_ms) values (gen_random_uuid(), 'h', 1, '0', 1, 600000)";
    client.batch_execute(worker).await.unwrap();
    let text = refusal(uninstall(&dsn, false).await);
    assert_eq!(text, "1 workers are alive: stop them first, or use --force");
    assert_eq!(uninstall(&dsn, true).await.unwrap().workers, 1);
}

#[tokio::test]
async fn what_others_built_on_ours_is_named_and_kept() {
    let db = db::database().await;
    let client = connect(&db.url).await;
    let dsn = Dsn::parse(&db.url).unwrap();
    client
        .batch_execute(
            "create view public.ours as select id from syncor.events;
             create table public.t (id uuid default syncor.uuid7());
             create publication p for table syncor.events;
             create trigger t before insert on public.t for each row execute function syncor.refuse_change()",
        )
        .await
        .unwrap();
    let text = refusal(uninstall(&dsn, false).await);
    for part in ["view ours", "default value for column id of table t", "publication of table syncor.events in publication p", "trigger t on table t"]
    {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    client.batch_execute("select from public.ours").await.unwrap();
    uninstall(&dsn, true).await.unwrap();
    assert!(client.batch_execute("select from public.ours").await.is_err());
}
