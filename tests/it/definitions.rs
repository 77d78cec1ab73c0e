//! Deploying: all or nothing, one revision active, every change recorded.

use serde_json::{Value, json};
use syncor::store::definitions::{Deployed, NewDefinition, Order, Outcome, activate, active, active_services, by_no, deploy, retire};
use syncor::store::dsn::Dsn;
use syncor::store::{Error, Options, Store};

use crate::support::db::{self, connect};

fn store(url: &str) -> Store {
    Store::new(Options { dsn: Dsn::parse(url).unwrap(), pool_size: 8, application_name: "test".to_owned() })
}

const ORDER: Order<'static> = Order { by: "me", reason: Some("because"), replace: false };

fn saga<'a>(id: &'a str, version: i32, revision: &'a str, source: &'a Value) -> NewDefinition<'a> {
    NewDefinition { kind: "saga", id, family: id.rsplit_once('.').unwrap().0, version, revision, source }
}

fn services<'a>(id: &'a str, revision: &'a str, source: &'a Value) -> NewDefinition<'a> {
    NewDefinition { kind: "services", id, family: id, version: 1, revision, source }
}

fn outcomes(deployed: &[Deployed]) -> Vec<(Outcome, Option<&str>)> {
    deployed.iter().map(|done| (done.outcome, done.replaced.as_deref())).collect()
}

#[tokio::test]
async fn a_file_is_new_then_unchanged_then_another_revision_then_the_first_again() {
    let db = db::database().await;
    let store = store(&db.url);
    let client = connect(&db.url).await;
    let (one, two) = (json!({"steps": [1]}), json!({"steps": [2]}));
    let start = active(&client).await.unwrap();
    assert_eq!(start.1, []);
    for (revision, source, outcome, replaced) in [
        ("r1", &one, Outcome::New, None),
        ("r1", &one, Outcome::Unchanged, None),
        ("r2", &two, Outcome::NewRevision, Some("r1")),
        ("r1", &one, Outcome::Reactivated, Some("r2")),
    ] {
        let before = active(&client).await.unwrap().0;
        let deployed = deploy(&store, &[saga("a.b.v1", 1, revision, source)], ORDER).await.unwrap();
        assert_eq!(outcomes(&deployed), [(outcome, replaced)]);
        let (after, found) = active(&client).await.unwrap();
        assert_eq!(found.iter().map(|definition| &definition.source).collect::<Vec<_>>(), [source]);
        assert_eq!(after > before, outcome != Outcome::Unchanged, "workers notice changes by the catalogue's revision");
    }
    let both = by_no(&client, &[1, 2, 99]).await.unwrap();
    assert_eq!(both.iter().map(|definition| definition.no).collect::<Vec<_>>(), [1, 2]);
    let commands =
        "select kind || ' ' || target || ' ' || requested_by || ' ' || reason || ' ' || status || ': ' || result from syncor.commands order by id";
    let commands: Vec<String> = client.query(commands, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(
        commands,
        [
            "deploy a.b.v1 me because applied: new r1",
            "deploy a.b.v1 me because applied: new revision r2 in place of r1",
            "deploy a.b.v1 me because applied: reactivated r1 in place of r2",
        ]
    );
}

#[tokio::test]
async fn replacing_retires_the_other_versions_of_the_family() {
    let db = db::database().await;
    let store = store(&db.url);
    let source = json!({});
    let old = [saga("a.b.v1", 1, "r", &source), saga("a.b.v2", 2, "r", &source), saga("a.c.v1", 1, "r", &source)];
    deploy(&store, &old, ORDER).await.unwrap();
    let order = Order { replace: true, ..ORDER };
    let deployed = deploy(&store, &[saga("a.b.v3", 3, "r", &source)], order).await.unwrap();
    assert_eq!(deployed[0].retired, ["a.b.v1", "a.b.v2"]);
    let client = connect(&db.url).await;
    let ids: Vec<_> = active(&client).await.unwrap().1.into_iter().map(|definition| definition.id).collect();
    assert_eq!(ids, ["a.c.v1", "a.b.v3"]);
    assert!(retire(&store, "saga", "a.c.v1", ORDER).await.unwrap());
    assert!(!retire(&store, "saga", "a.c.v1", ORDER).await.unwrap(), "there is nothing left to retire");
}

#[tokio::test]
async fn a_service_in_two_files_undoes_the_whole_deployment() {
    let db = db::database().await;
    let store = store(&db.url);
    let client = connect(&db.url).await;
    let (first, second) = (json!({"services": {"pay": {"url": "http://a"}}}), json!({"services": {"mail": {}, "pay": {}}}));
    deploy(&store, &[services("one", "r", &first)], ORDER).await.unwrap();
    let saga_source = json!({});
    let both = [saga("a.b.v1", 1, "r", &saga_source), services("two", "r", &second)];
    match deploy(&store, &both, ORDER).await {
        Err(Error::Refused(text)) => assert_eq!(text, "the service pay is defined by one and two: keep it in one of them"),
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(active(&client).await.unwrap().1.len(), 1);
    assert_eq!(active_services(&client).await.unwrap(), ["pay"]);

    // Moved from one file to the other at once.
    let empty = json!({"services": {}});
    deploy(&store, &[services("two", "r", &second), services("one", "r2", &empty)], ORDER).await.unwrap();
    assert_eq!(active_services(&client).await.unwrap(), ["mail", "pay"]);
}

#[tokio::test]
async fn the_names_of_the_steps_are_kept_in_flat_order() {
    let db = db::database().await;
    let source = json!({"steps": [{"name": "a"}, [{"parallel": true}, {"name": "b"}], {"parallel": true, "steps": [{"name": "c", "saga": "x.v1"}]}]});
    deploy(&store(&db.url), &[saga("a.b.v1", 1, "r", &source)], ORDER).await.unwrap();
    let client = connect(&db.url).await;
    let steps: Vec<String> = client.query_one("select steps from syncor.definition", &[]).await.unwrap().get(0);
    assert_eq!(steps, ["a", "b", "c"]);
    let by_sql: Vec<String> = client.query_one("select syncor.step_names(source) from syncor.definition", &[]).await.unwrap().get(0);
    assert_eq!(by_sql, steps, "the migration of older rows finds the same");
}

#[tokio::test]
async fn sagas_that_run_each_other_in_a_circle_or_too_deep_are_refused() {
    let db = db::database().await;
    let store = store(&db.url);
    let runs = |child: &str| json!({"steps": [{"name": "a", "saga": child}]});
    let refused = |result: Result<Vec<Deployed>, Error>| match result {
        Err(Error::Refused(text)) => text,
        other => panic!("not refused: {other:?}"),
    };
    let (one, two, none) = (runs("b.v1"), runs("a.v1"), json!({"steps": []}));
    deploy(&store, &[saga("a.v1", 1, "r", &one)], ORDER).await.unwrap();
    let text = refused(deploy(&store, &[saga("b.v1", 1, "r", &two)], ORDER).await);
    assert_eq!(text, "sagas run each other in a circle: a.v1 > b.v1 > a.v1; no saga would ever end");
    // With the other side mended in the same deployment it is none.
    deploy(&store, &[saga("b.v1", 1, "r", &two), saga("a.v1", 1, "r2", &none)], ORDER).await.unwrap();
    match activate(&store, "saga", "a.v1", Some("r"), ORDER).await {
        Err(Error::Refused(text)) => assert!(text.contains("revisions of a.v1 begin so"), "{text}"),
        other => panic!("not refused: {other:?}"),
    }
    let back = deploy(&store, &[saga("a.v1", 1, "r", &one)], ORDER).await;
    assert!(refused(back).contains("circle"), "an old revision closes it as well");

    let sources: Vec<Value> = (0..9).map(|n| runs(&format!("s{}.v1", n + 1))).collect();
    let ids: Vec<String> = (0..9).map(|n| format!("s{n}.v1")).collect();
    for n in (1..9).rev() {
        deploy(&store, &[saga(&ids[n], 1, "r", &sources[n])], ORDER).await.unwrap();
    }
    let text = refused(deploy(&store, &[saga(&ids[0], 1, "r", &sources[0])], ORDER).await);
    assert!(text.starts_with("sagas run sagas 9 deep, at most 8 are allowed: s0.v1 > s1.v1 >"), "{text}");
}

#[tokio::test]
async fn an_older_revision_is_put_in_force_again() {
    let db = db::database().await;
    let store = store(&db.url);
    let (one, two) = (json!({"steps": [1]}), json!({"steps": [2]}));
    for (revision, source) in [("0aa", &one), ("0bb", &two)] {
        deploy(&store, &[saga("a.b.v1", 1, revision, source)], ORDER).await.unwrap();
    }
    let done = activate(&store, "saga", "a.b.v1", Some("0a"), ORDER).await.unwrap().unwrap();
    assert_eq!((done.revision.as_str(), done.unchanged, done.replaced.as_deref()), ("0aa", false, Some("0bb")));
    assert!(activate(&store, "saga", "a.b.v1", Some("0a"), ORDER).await.unwrap().unwrap().unchanged);
    assert_eq!(activate(&store, "saga", "a.b.v1", Some("ff"), ORDER).await.unwrap(), None);
    retire(&store, "saga", "a.b.v1", ORDER).await.unwrap();
    let newest = activate(&store, "saga", "a.b.v1", None, ORDER).await.unwrap().unwrap();
    assert_eq!((newest.revision.as_str(), newest.replaced), ("0bb", None));
    let client = connect(&db.url).await;
    assert_eq!(active(&client).await.unwrap().1[0].source, two);
    let results = client.query("select result from syncor.command where result like 'activated%' order by id", &[]).await.unwrap();
    let results: Vec<String> = results.iter().map(|row| row.get(0)).collect();
    assert_eq!(results, ["activated 0aa in place of 0bb", "activated 0bb"]);
}

#[tokio::test]
async fn deployments_at_once_leave_one_revision_active() {
    let db = db::database().await;
    let store = store(&db.url);
    let deployments: Vec<_> = (0..8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let (source, revision) = (json!({ "n": n }), format!("r{n}"));
                deploy(&store, &[saga("a.b.v1", 1, &revision, &source), saga("a.c.v1", 1, &revision, &source)], ORDER).await
            })
        })
        .collect();
    for deployment in deployments {
        deployment.await.unwrap().unwrap();
    }
    let found = active(&connect(&db.url).await).await.unwrap().1;
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].source, found[1].source, "the last one won as a whole");
}
