//! The doctor: a healthy database has no failures; each ailment is found by its name.

use std::collections::BTreeMap;

use syncor::store::doctor::{Finding, Level, examine};
use syncor::store::dsn::Dsn;

use crate::support::db::{self, connect};
use crate::support::role::role;

async fn findings(url: &str) -> BTreeMap<&'static str, Finding> {
    examine(&Dsn::parse(url).unwrap(), None).await.into_iter().map(|finding| (finding.name, finding)).collect()
}

#[tokio::test]
async fn a_migrated_database_is_found_healthy() {
    let db = db::database().await;
    let found = findings(&db.url).await;
    for name in ["connection", "version", "flavour", "primary", "schema", "privileges", "pooler", "listen", "notification queue", "clock"] {
        assert_eq!(found.get(name).map(|finding| finding.level), Some(Level::Ok), "{name}: {:?}", found.get(name));
    }
    for name in ["durability", "prepared transactions", "connections", "oldest transaction"] {
        assert!(!found[name].detail.contains("could not be looked at"), "{:?}", found[name]);
    }
    assert_eq!(found["listen"].detail, "notifications arrive");
    assert!(found.values().all(|finding| finding.level == Level::Ok || finding.remedy.is_some()));
}

#[tokio::test]
async fn an_empty_database_lacks_the_schema_only() {
    let db = db::empty_database().await;
    let found = findings(&db.url).await;
    assert_eq!((found["schema"].level, found["schema"].remedy.as_deref()), (Level::Warn, Some("hms-orch migrate")));
    assert_eq!(found["privileges"].level, Level::Ok);
}

#[tokio::test]
async fn missing_rights_and_read_only_sessions_are_failures() {
    let db = db::empty_database().await;
    let role = role(&db).await;
    let found = findings(&role.url).await;
    assert_eq!(found["privileges"].level, Level::Fail);
    assert_eq!(found["privileges"].remedy.as_deref(), Some(format!("create schema syncor authorization \"{}\"", role.name).as_str()));

    let admin = connect(&db.url).await;
    admin.batch_execute(&format!("alter role \"{}\" set default_transaction_read_only = on", role.name)).await.unwrap();
    assert_eq!(findings(&role.url).await["primary"].detail, "transactions are read-only here");
}

#[tokio::test]
async fn settings_that_lose_commits_are_told() {
    let db = db::database().await;
    let role = role(&db).await;
    let admin = connect(&db.url).await;
    admin.batch_execute(&format!("alter role \"{}\" set synchronous_commit = off", role.name)).await.unwrap();
    assert_ne!(findings(&role.url).await["durability"].level, Level::Ok);
    assert_eq!(findings(&role.url).await["privileges"].level, Level::Fail, "it does not own the tables");
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_one_failure() {
    let found = findings("postgres://nobody@127.0.0.1:1/none").await;
    assert_eq!(found.len(), 1);
    assert_eq!(found["connection"].level, Level::Fail);
}
