//! Human tasks: found, looked at, decided once, by people who say why.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use syncor::http::auth::Auth;
use syncor::store::keys::{self, Role};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::api::{Answer as Reply, Api};
use crate::support::cli::{orch, orch_at};
use crate::support::saga::{ended, open_task, order, publish, saga_in, saga_of, saga_with, steps, waits_for};
use crate::support::stub::{Answer, Stub};
use crate::support::until;
use crate::support::worker::{Worker, deploy};

const SOON: Duration = Duration::from_secs(20);

const APPROVAL: &str = "steps:
  - {name: pay, call: \"svc:/pay\", compensate: \"svc:/unpay\"}
  - name: approve
    human: {prompt: \"Raise by ${ data.percent } %?\", queue: oversight, assignee: ann, fourEyes: true,
            form: {type: object, required: [limit], properties: {limit: {type: integer, maximum: 10}}}}
  - {name: done, call: \"svc:/done\"}";

/// An API with an approval that is asked for.
async fn asked(auth: Auth) -> (Api, Stub, Client, Worker, Uuid, Uuid) {
    let (api, stub) = (Api::start(auth).await, Stub::start().await);
    let client = api.client().await;
    deploy(&api.db.url, &saga_with(stub.address, "test.approval.v1", APPROVAL)).await;
    let worker = Worker::start(&api.db.url);
    let sql = "select syncor.emit('test.go', '{\"percent\": 7}', source => 'the agency')";
    let event: Uuid = client.query_one(sql, &[]).await.unwrap().get(0);
    let saga = waits_for(&client, event, "human").await;
    let task = open_task(&client, saga, "approval").await;
    (api, stub, client, worker, event, task)
}

async fn decide(api: &Api, task: Uuid, tag: Option<&str>, body: &Value) -> Reply {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(tag.map(|tag| ("if-match", tag)));
    api.call(Method::POST, &format!("/v1/human-tasks/{task}/decide"), &headers, body.to_string()).await
}

#[tokio::test]
async fn an_approval_is_found_filled_in_and_decided_once() {
    let (api, stub, client, _worker, event, task) = asked(Auth::Open).await;
    let saga: Uuid = client.query_one("select saga_id from syncor.human_tasks where id = $1", &[&task]).await.unwrap().get(0);
    for (query, expected) in [
        ("", 1),
        ("status=open&queue=oversight&kind=approval&assignee=ann", 1),
        (&format!("saga={saga}"), 1),
        ("queue=other", 0),
        ("kind=comp_failed", 0),
        ("status=decided", 0),
        ("assignee=bob", 0),
    ] {
        let list = api.get(&format!("/v1/human-tasks?{query}")).await.json();
        assert_eq!(list["items"].as_array().unwrap().len(), expected, "{query}");
    }
    for wrong in ["status=lost", "kind=lost", "saga=7"] {
        assert_eq!(api.get(&format!("/v1/human-tasks?{wrong}")).await.problem(), "malformed", "{wrong}");
    }
    let shown = api.get(&format!("/v1/human-tasks/{task}")).await;
    let tag = shown.header("etag").to_owned();
    let document = shown.json();
    assert_eq!((&document["prompt"], &document["decisions"]), (&json!("Raise by 7 %?"), &json!(["approve", "reject"])), "{document}");
    assert_eq!((&document["definition"], &document["step"]), (&json!("test.approval.v1"), &json!("approve")));
    let of_saga = api.get(&format!("/v1/sagas/{saga}")).await.json();
    assert_eq!((&of_saga["steps"][1]["wait"], &of_saga["steps"][1]["waitsFor"]), (&json!("human"), &json!(task)), "{of_saga}");
    assert_eq!(of_saga["tasks"][0]["id"], json!(task));

    assert_eq!(api.get(&format!("/v1/human-tasks/{saga}")).await.status, 404);
    assert_eq!(decide(&api, saga, None, &json!({"decision": "approve", "note": "x"})).await.status, 404);
    let fine = json!({"limit": 3});
    for (body, status, pointer) in [
        (json!({"decision": "approve", "output": fine}), 400, "/note"),
        (json!({"note": "x"}), 400, "/decision"),
        (json!({"decision": "retry", "note": "x"}), 422, "/decision"),
        (json!({"decision": "approve", "note": "x"}), 422, "/output"),
        (json!({"decision": "approve", "note": "x", "output": {"limit": 99}}), 422, "/output/limit"),
        (json!({"decision": "approve", "note": "x", "output": {"limit": "a\u{0}"}}), 422, "/output"),
    ] {
        let refused = decide(&api, task, Some(&tag), &body).await;
        assert_eq!(refused.status, status, "{body}: {refused:?}");
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{body}");
    }
    let stale = decide(&api, task, Some("\"other\""), &json!({"decision": "approve", "note": "x", "output": fine})).await;
    assert_eq!((stale.status, stale.problem().as_str()), (412, "stale"));

    let done = decide(&api, task, Some(&tag), &json!({"decision": "approve", "note": "it is due", "output": fine})).await;
    assert_eq!((done.status, &done.json()["status"]), (200, &json!("applied")), "{done:?}");
    assert_eq!(ended(&client, event).await.state, "completed");
    let output: Value = client.query_one("select output from syncor.steps where saga_id = $1 and name = 'approve'", &[&saga]).await.unwrap().get(0);
    assert_eq!(output, fine, "later steps see what was filled in");
    assert_eq!(decide(&api, task, Some(&tag), &json!({"decision": "reject", "note": "x"})).await.status, 412);
    let late = decide(&api, task, None, &json!({"decision": "reject", "note": "x"})).await;
    assert_eq!(late.status, 409);
    assert!(late.json()["detail"].as_str().unwrap().contains("decided already by http: approve"), "{late:?}");
    assert_eq!(stub.paths(), ["/pay", "/done"]);
}

#[tokio::test]
async fn a_form_holds_for_decisions_by_sql_as_well() {
    let (_api, _stub, client, _worker, event, task) = asked(Auth::Open).await;
    let (status, why) = order(&client, "select syncor.decide($1, 'approve', 'x', '{\"limit\": 99}')", task).await;
    assert!(status == "refused" && why.contains("/limit"), "{status}: {why}");
    let again =
        open_task(&client, client.query_one("select saga_id from syncor.human_tasks where id = $1", &[&task]).await.unwrap().get(0), "approval")
            .await;
    assert_eq!(again, task, "it is asked again");
    assert_eq!(order(&client, "select syncor.decide($1, 'approve', 'x', '{\"limit\": 9}')", task).await.0, "applied");
    assert_eq!(ended(&client, event).await.state, "completed");
}

#[tokio::test]
async fn of_two_officers_one_decides_and_the_publisher_never() {
    let (api, _stub, client, _worker, event, task) = asked(Auth::keys()).await;
    let mut officers = Vec::new();
    for name in ["ann", "bob", "the agency"] {
        officers.push(keys::create(&api.store, Role::Operator, name, "test", None).await.unwrap());
    }
    let path = format!("/v1/human-tasks/{task}/decide");
    let body = json!({"decision": "approve", "note": "yes", "output": {"limit": 1}});
    let own = api.post_as(officers[2].expose(), &path, &body).await;
    assert_eq!(own.status, 409, "{own:?}");
    assert!(own.json()["detail"].as_str().unwrap().contains("four eyes"), "{own:?}");
    let (ann, bob) = tokio::join!(api.post_as(officers[0].expose(), &path, &body), api.post_as(officers[1].expose(), &path, &body));
    let mut answers = [ann.status, bob.status];
    answers.sort_unstable();
    assert_eq!(answers, [200, 409], "{ann:?} {bob:?}");
    assert_eq!(ended(&client, event).await.state, "completed");
    let sql = "select count(*) filter (where status = 'applied'), count(*) filter (where status = 'refused') from syncor.commands where task_id = $1";
    let row = client.query_one(sql, &[&task]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 2), "every decision is on record");
}

#[tokio::test]
async fn tasks_are_decided_on_the_command_line() {
    let (api, _stub, client, _worker, event, task) = asked(Auth::Open).await;
    let id = task.to_string();
    let listed = orch(&api.db.url, &["tasks", "--queue", "oversight"]).await.expect(0);
    assert!(listed.stdout.contains("Raise by 7 %?") && listed.stdout.contains("approve, reject"), "{listed:?}");
    for arguments in [
        vec!["decide", &id, "approve", "--note", "x", "--output", "{\"limit\": 99}"],
        vec!["decide", &id, "retry", "--note", "x"],
        vec!["decide", &id, "approve", "--note", "x", "--output", "{"],
    ] {
        orch(&api.db.url, &arguments).await.expect(3);
        orch_at(api.address, "", &arguments).await.expect(3);
    }
    orch(&api.db.url, &["decide", &id, "approve", "--note", " "]).await.expect(2);
    orch(&api.db.url, &["decide", &Uuid::now_v7().to_string(), "approve", "--note", "x"]).await.expect(4);
    let done = orch(&api.db.url, &["decide", &id[..18], "reject", "--note", "too much", "--json"]).await.expect(0).json();
    assert_eq!(done["status"], "applied");
    let failed = ended(&client, event).await;
    assert!(failed.reason.as_deref().is_some_and(|reason| reason.contains("too much")), "{failed:?}");
    orch_at(api.address, "", &["decide", &id, "reject", "--note", "again"]).await.expect(5);
    assert_eq!(orch(&api.db.url, &["tasks", "--json"]).await.expect(0).json(), json!([]));
    let all = orch_at(api.address, "", &["tasks", "--all", "--json"]).await.expect(0).json();
    let role: String = client.query_one("select session_user::text", &[]).await.unwrap().get(0);
    assert_eq!((&all[0]["decidedBy"], &all[0]["note"]), (&json!(role), &json!("too much")));
}

#[tokio::test]
async fn an_undo_that_failed_is_settled_by_a_human() {
    let (api, stub) = (Api::open().await, Stub::start().await);
    let client = api.client().await;
    stub.always("/s3", Answer::Json(400, json!({})));
    deploy(&api.db.url, &saga_of(3, stub.address, "")).await;
    let _worker = Worker::start(&api.db.url);
    for (decision, state, clean, second, undos) in [
        ("retry", "failed", true, "s2 succeeded/compensated", 3),
        ("undone", "failed", true, "s2 succeeded/compensated", 2),
        ("skip", "failed", false, "s2 succeeded/skipped", 2),
        ("abort", "aborted", false, "s2 succeeded/failed", 1),
    ] {
        stub.script("/u2", [Answer::Json(409, json!({}))]);
        let before = stub.calls();
        let event = publish(&client, "test.go", json!({})).await;
        let saga = saga_in(&client, event, &["comp_failed"], SOON).await.id;
        let task = open_task(&client, saga, "comp_failed").await;
        let pending = orch(&api.db.url, &["tasks", "--kind", "comp_failed", "--json"]).await.expect(0).json();
        assert_eq!(pending[0]["id"], json!(task));
        let answer = decide(&api, task, None, &json!({"decision": decision, "note": "looked at it"})).await;
        assert_eq!(answer.status, 200, "{decision}: {answer:?}");
        let end = saga_in(&client, event, &["failed", "aborted"], SOON).await;
        assert_eq!((end.state.as_str(), end.clean), (state, clean), "{decision}: {end:?}");
        assert_eq!(steps(&client, saga).await[1], second, "{decision}");
        assert_eq!(stub.calls() - before, 3 + undos, "{decision}: {:?}", stub.paths());
        let told = client.query_one("select data from syncor.events where type = 'human.task.decided' and saga_id = $1", &[&saga]).await.unwrap();
        assert_eq!(told.get::<_, Value>(0)["task"]["decision"], decision);
    }
}

#[tokio::test]
async fn a_step_that_keeps_failing_can_be_decided_about() {
    let (api, stub) = (Api::open().await, Stub::start().await);
    let client = api.client().await;
    deploy(&api.db.url, &saga_of(2, stub.address, "retry: {attempts: 5, backoffMs: 3600000, maxBackoffMs: 3600000}\nhitl: {after: 1, queue: q}\n"))
        .await;
    let _worker = Worker::start(&api.db.url);
    for (decision, output, state, second) in [
        ("retry", json!(null), "completed", "s2 succeeded/none"),
        ("skip", json!(null), "completed", "s2 skipped/none"),
        ("done", json!({"by": "hand"}), "completed", "s2 succeeded/none"),
        ("compensate", json!(null), "failed", "s2 failed/none"),
        ("abort", json!(null), "aborted", ""),
    ] {
        stub.script("/s2", [Answer::Json(500, json!({}))]);
        let event = publish(&client, "test.go", json!({})).await;
        let saga = waits_for(&client, event, "retry").await;
        let task = open_task(&client, saga, "step_failed").await;
        let answer = decide(&api, task, None, &json!({"decision": decision, "note": "so be it", "output": output})).await;
        assert_eq!(answer.status, 200, "{decision}: {answer:?}");
        let end = ended(&client, event).await;
        assert_eq!(end.state, state, "{decision}: {end:?}");
        let after = steps(&client, saga).await;
        assert!(second.is_empty() || after[1] == second, "{decision}: {after:?}");
        let open = "select count(*) from syncor.human_tasks where saga_id = $1 and status = 'open'";
        until("nobody is asked any more", SOON, async || (client.query_one(open, &[&saga]).await.unwrap().get::<_, i64>(0) == 0).then_some(())).await;
    }
}

#[tokio::test]
async fn an_order_that_waits_for_a_human_says_so() {
    let (api, stub) = (Api::open().await, Stub::start().await);
    let client = api.client().await;
    stub.always("/pay", Answer::Reset);
    let body = "retry: {attempts: 1}\nsteps:\n  - {name: one, call: \"svc:/one\", compensate: \"svc:/unone\"}\n  - {name: pay, call: \"svc:/pay\", kind: pivot}";
    deploy(&api.db.url, &saga_with(stub.address, "test.pivot.v1", body)).await;
    let _worker = Worker::start(&api.db.url);
    let event = publish(&client, "test.go", json!({})).await;
    let saga = saga_in(&client, event, &["hitl"], SOON).await.id;
    let refused = orch(&api.db.url, &["cancel", &saga.to_string(), "--reason", "x"]).await.expect(5);
    assert!(refused.stdout.contains("decide its human task first"), "{refused:?}");
    let watched = orch(&api.db.url, &["show", &saga.to_string(), "--watch"]).await.expect(8);
    assert!(watched.stderr.contains("human"), "{watched:?}");
    let task = open_task(&client, saga, "pivot_unknown").await;
    assert_eq!(decide(&api, task, None, &json!({"decision": "not_done", "note": "asked the bank"})).await.status, 200);
    let failed = ended(&client, event).await;
    assert_eq!((failed.state.as_str(), failed.clean), ("failed", true), "{failed:?}");
}
