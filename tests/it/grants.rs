//! The printed GRANTs: a publisher can do what is granted and nothing else; a reader sees all and changes nothing.

use syncor::store::grants::{Kind, RELATIONS, grants};
use tokio_postgres::Client;

use crate::support::db::{self, connect};
use crate::support::role::role;

const DENIED: &str = "42501";

async fn code(client: &Client, sql: &str) -> String {
    match client.batch_execute(sql).await {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    }
}

#[tokio::test]
async fn a_publisher_publishes_and_can_do_nothing_else() {
    let db = db::database().await;
    let role = role(&db).await;
    let publisher = connect(&role.url).await;
    assert_eq!(code(&publisher, "insert into syncor.events (type) values ('a')").await, DENIED);
    connect(&db.url).await.batch_execute(&grants(&role.name, Kind::Publisher)).await.unwrap();

    for allowed in [
        "insert into syncor.events (type, data) values ('a', '{}') returning id",
        "insert into syncor.events (type, data, topic, subject, source, correlation_id, causation_id, dedupe_key)
         values ('a', '{}', 't', 's', 'me', 'c', gen_random_uuid(), 'k1') returning id",
        // Repeated: skipped.
        "insert into syncor.events (type, data, source, dedupe_key) values ('a', '{}', 'me', 'k1')",
        "select syncor.emit('a')",
        "select syncor.emit('a', '{}', dedupe_key => 'k2'), syncor.emit('a', '{}', dedupe_key => 'k2')",
        "select id from syncor.events",
        "begin; insert into syncor.events (type) values ('a'); insert into syncor.events (type) select 'b' from generate_series(1, 100); commit",
    ] {
        assert_eq!(code(&publisher, allowed).await, "ok", "{allowed}");
    }
    for denied in [
        "insert into syncor.events (type, id) values ('a', gen_random_uuid())",
        "insert into syncor.events (type, depth) values ('a', 3)",
        "insert into syncor.events (type, saga_id) values ('a', gen_random_uuid())",
        "insert into syncor.events (type, created_at) values ('a', now())",
        "insert into syncor.events (type, tx) values ('a', '3')",
        "insert into syncor.events (type) values ('a') returning data",
        "insert into syncor.events_default (type) values ('a')",
        "select data from syncor.events",
        "update syncor.events set type = 'b'",
        "delete from syncor.events",
        "truncate syncor.events",
        "select * from syncor.event_key",
        "select * from syncor.sagas",
        "insert into syncor.command (kind) values ('cancel')",
        "select syncor.why(gen_random_uuid())",
        "select syncor.add_event_partition('2030-01-01')",
        "create table syncor.mine (a int)",
    ] {
        assert_eq!(code(&publisher, denied).await, DENIED, "{denied}");
    }
    assert_eq!(code(&publisher, "insert into syncor.events (type, data, source, dedupe_key) values ('a', '{\"b\": 1}', 'me', 'k1')").await, "23505");
    let row =
        connect(&db.url).await.query_one("select count(*) filter (where source = $1), count(*) from syncor.events", &[&role.name]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (104, 105), "the source is the role unless it says otherwise");
}

#[tokio::test]
async fn a_reader_sees_every_relation_and_changes_none() {
    let db = db::database().await;
    let role = role(&db).await;
    let admin = connect(&db.url).await;
    let event = admin.query_one("select syncor.emit('a')::text", &[]).await.unwrap().get::<_, String>(0);
    for kind in [Kind::Reader, Kind::Operator] {
        admin.batch_execute(&grants(&role.name, kind)).await.unwrap();
    }
    let reader = connect(&role.url).await;
    for relation in RELATIONS {
        assert_eq!(code(&reader, &format!("select * from syncor.{relation}")).await, "ok", "{relation}");
        assert_ne!(code(&reader, &format!("delete from syncor.{relation}")).await, "ok", "{relation}");
    }
    let why: String = reader.query_one(&format!("select syncor.why('{event}')"), &[]).await.unwrap().get(0);
    assert_eq!(why, "event a started nothing: no active definition has the trigger a");
    for denied in
        ["select syncor.emit('a')", "insert into syncor.events (type) values ('a')", "select * from syncor.api_key", "select * from syncor.saga"]
    {
        assert_eq!(code(&reader, denied).await, DENIED, "{denied}");
    }
}

#[tokio::test]
async fn the_readable_relations_are_the_ledger_and_all_views() {
    let db = db::database().await;
    let views = "select relname::text from pg_class where relnamespace = 'syncor'::regnamespace and relkind = 'v'";
    let mut found: Vec<String> = connect(&db.url).await.query(views, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    found.push("events".to_owned());
    found.sort();
    let mut known = RELATIONS.map(str::to_owned);
    known.sort();
    assert_eq!(found, known);
}
