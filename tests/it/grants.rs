//! The printed GRANTs: a publisher can do what is granted and nothing else; a reader sees all and changes nothing.

use syncor::store::grants::{Kind, ORDERS, RELATIONS, grants};
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
async fn an_operator_gives_orders_and_a_reader_gives_none() {
    let db = db::database().await;
    let admin = connect(&db.url).await;
    let (operator, watcher) = (role(&db).await, role(&db).await);
    admin.batch_execute(&grants(&operator.name, Kind::Operator)).await.unwrap();
    admin.batch_execute(&grants(&watcher.name, Kind::Reader)).await.unwrap();
    let (operator, watcher) = (connect(&operator.url).await, connect(&watcher.url).await);
    let orders = [
        "select syncor.cancel(gen_random_uuid(), 'why')",
        "select syncor.pause(gen_random_uuid(), 'why')",
        "select syncor.resume(gen_random_uuid(), 'why')",
        "select syncor.abort(gen_random_uuid(), 'why')",
        "select syncor.retry(gen_random_uuid(), 's1', 'why')",
        "select syncor.skip(gen_random_uuid(), 's1', 'why')",
        "select syncor.decide(gen_random_uuid(), 'approve', 'why')",
        "select syncor.fork(gen_random_uuid(), 's1', 'why')",
        "select syncor.complete('token', 'ok')",
        "select syncor.beat('token')",
    ];
    assert_eq!(orders.len(), ORDERS.len());
    for order in orders {
        // Allowed, but there is no such thing.
        assert_eq!(code(&operator, order).await, "P0002", "{order}");
        assert_eq!(code(&watcher, order).await, DENIED, "{order}");
    }
    for denied in [
        "select syncor.order_as('somebody else', 'cancel', gen_random_uuid(), null, 'why')",
        "select syncor.decide_as('somebody else', gen_random_uuid(), 'approve', 'why', null)",
        "select syncor.fork_as('somebody else', gen_random_uuid(), 's1', 'why')",
        "select syncor.undone(gen_random_uuid(), 's1', true)",
        "select syncor.take_locks(gen_random_uuid(), null, '{a}')",
        "select syncor.release_locks('{}')",
        "select syncor.sweep_inputs()",
        "insert into syncor.input (saga_id, kind, key) values (gen_random_uuid(), 'locked', 'locked')",
        "insert into syncor.command (kind) values ('cancel')",
        "update syncor.task set status = 'decided'",
        "select * from syncor.callback",
        "select * from syncor.lock_ticket",
        "insert into syncor.events (type) values ('a')",
    ] {
        assert_eq!(code(&operator, denied).await, DENIED, "{denied}");
    }
}

#[tokio::test]
async fn what_runs_with_our_rights_looks_nowhere_else_and_is_nobodys_by_default() {
    let db = db::database().await;
    let client = connect(&db.url).await;
    let loose = "select p.oid::regprocedure::text from pg_proc p
                  where p.pronamespace = 'syncor'::regnamespace and p.prosecdef
                    and (not exists (select from unnest(coalesce(p.proconfig, '{}')) c where c = 'search_path=pg_catalog, pg_temp')
                         or has_function_privilege('public', p.oid, 'execute'))
                 union all
                 select p.oid::regprocedure::text from pg_proc p
                  where p.pronamespace = 'syncor'::regnamespace and has_function_privilege('public', p.oid, 'execute') and p.proname <> 'uuid7'
                 union all
                 select c.oid::regclass::text from pg_class c
                  where c.relnamespace = 'syncor'::regnamespace and c.relkind in ('r', 'p', 'v', 'S')
                    and has_table_privilege('public', c.oid, 'select, insert, update, delete, truncate')";
    let found = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get(0)).collect::<Vec<String>>();
    assert_eq!(found(client.query(loose, &[]).await.unwrap()), Vec::<String>::new());
    client.batch_execute("create function syncor.loose() returns int language sql security definer as 'select 1'").await.unwrap();
    assert_eq!(found(client.query(loose, &[]).await.unwrap()), ["syncor.loose()", "syncor.loose()"], "one that is is found");
}

#[tokio::test]
async fn nothing_of_a_callers_own_runs_with_our_rights() {
    let db = db::database().await;
    let admin = connect(&db.url).await;
    let role = role(&db).await;
    admin.batch_execute(&grants(&role.name, Kind::Operator)).await.unwrap();
    admin.batch_execute(&format!("create schema own authorization \"{}\"", role.name)).await.unwrap();
    let definition = crate::support::plant::definition(&admin, "test.saga.v1", &["s1"]).await;
    let saga = crate::support::plant::saga(&admin, definition, "state = 'running'").await;
    let operator = connect(&role.url).await;
    operator
        .batch_execute(
            "create table own.trace (who text);
             create function own.spy(anyelement) returns text language plpgsql as $$ begin insert into own.trace values (current_user); return 'x'; end $$;
             create function own.now() returns timestamptz language plpgsql as $$ begin insert into own.trace values (current_user); return null; end $$;
             create function own.format(text, text) returns text language sql as $$ select own.spy($1) $$;
             create function own.equal(text, text) returns boolean language plpgsql as $$ begin insert into own.trace values (current_user); return true; end $$;
             create operator own.= (leftarg = text, rightarg = text, function = own.equal);
             create temp table saga (id uuid); create temp table command (id uuid);
             set search_path = own, pg_temp, pg_catalog",
        )
        .await
        .unwrap();
    operator.batch_execute(&format!("select syncor.cancel('{saga}', 'why'), syncor.why('{saga}')")).await.unwrap();
    let traced: i64 = operator.query_one("select count(*) from own.trace where who operator(pg_catalog.<>) current_user", &[]).await.unwrap().get(0);
    assert_eq!(traced, 0);
    let by: String = admin.query_one("select requested_by from syncor.commands", &[]).await.unwrap().get(0);
    assert_eq!(by, role.name);
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
