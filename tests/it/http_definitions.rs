//! Deploying over HTTP.

use hyper::Method;
use serde_json::json;

use crate::support::api::{Answer, Api};

const FILE: &str = "id: a.b.v1\ntrigger: go\nsteps:\n  - {name: one, call: \"svc:/do\", compensate: \"svc:/undo\"}\n";

async fn put(api: &Api, id: &str, content_type: &str, body: &str) -> Answer {
    api.call(Method::PUT, &format!("/v1/definitions/{id}?reason=test"), &[("content-type", content_type)], body.to_owned()).await
}

#[tokio::test]
async fn a_file_becomes_a_revision_once() {
    let api = Api::open().await;
    let first = put(&api, "a.b.v1", "application/yaml", FILE).await;
    assert_eq!((first.status, &first.json()["outcome"], &first.json()["kind"]), (201, &json!("new"), &json!("saga")), "{first:?}");
    let again = put(&api, "a.b.v1", "text/yaml; charset=utf-8", FILE).await;
    assert_eq!((again.status, &again.json()["outcome"]), (200, &json!("unchanged")));
    let changed = json!({"id": "a.b.v1", "trigger": "go", "steps": [{"name": "two", "call": "svc:/do"}]}).to_string();
    let changed = put(&api, "a.b.v1", "application/json", &changed).await;
    assert_eq!((changed.status, &changed.json()["replaced"]), (201, &first.json()["revision"]), "{changed:?}");

    let shown = api.get("/v1/definitions/a.b.v1").await.json();
    let states: Vec<&str> = shown["revisions"].as_array().unwrap().iter().map(|revision| revision["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["active", "retired"]);
    assert_eq!(shown["revisions"][0]["source"]["steps"][0]["name"], "two");
    let list = api.get("/v1/definitions?kind=saga&state=active").await.json();
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["id"]), (1, &json!("a.b.v1")));
    assert_eq!(api.get("/v1/definitions/nothing").await.problem(), "not_found");
    assert_eq!(api.count("select count(*) from syncor.command where kind = 'deploy' and requested_by = 'http' and reason = 'test'").await, 2);
}

#[tokio::test]
async fn a_wrong_file_is_refused_with_the_place() {
    let api = Api::open().await;
    let wrong = put(&api, "a.b.v1", "application/yaml", &FILE.replace("compensate:", "compensat:")).await;
    assert_eq!((wrong.status, wrong.problem().as_str()), (422, "invalid"));
    assert_eq!(wrong.json()["errors"][0]["line"], 4, "{wrong:?}");
    let other = put(&api, "a.c.v1", "application/yaml", FILE).await;
    assert_eq!((other.status, &other.json()["errors"][0]["pointer"]), (422, &json!("/id")));
    assert_eq!(put(&api, "a.b.v1", "application/yaml", &"#".repeat((256 << 10) + 1)).await.problem(), "too_large");
    assert_eq!(api.count("select count(*) from syncor.definition").await, 0);
}

#[tokio::test]
async fn revisions_are_compared_activated_and_retired() {
    let api = Api::open().await;
    let first = put(&api, "a.b.v1", "application/yaml", FILE).await.json();
    put(&api, "a.b.v1", "application/yaml", &FILE.replace("svc:/do", "svc:/make")).await;
    let old = first["revision"].as_str().unwrap();
    let shown = api.get(&format!("/v1/definitions/a.b.v1?diff={}", &old[..12])).await.json();
    assert_eq!(shown["diff"]["changes"], json!([{"path": "steps.one.call", "before": "svc:/do", "after": "svc:/make"}]));
    assert_eq!((&shown["diff"]["from"]["revision"], &shown["diff"]["to"]["id"]), (&first["revision"], &json!("a.b.v1")));
    assert_eq!(api.get("/v1/definitions/a.b.v1?diff=nothing").await.problem(), "not_found");
    assert!(api.get("/v1/definitions/a.b.v1").await.json().get("diff").is_none());

    let post = async |path: &str, body: &str| {
        let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
        api.call(Method::POST, &format!("/v1/definitions/{path}"), headers, body.to_owned()).await
    };
    let back = post("a.b.v1/activate", &json!({"revision": &old[..12], "reason": "it worked"}).to_string()).await;
    assert_eq!((back.status, &back.json()["revision"]), (200, &first["revision"]), "{back:?}");
    let gone = post("a.b.v1/retire", "").await;
    assert_eq!((gone.status, &gone.json()["state"]), (200, &json!("retired")), "{gone:?}");
    assert_eq!(api.count("select count(*) from syncor.definition where state = 'active'").await, 0);
    assert_eq!(post("nothing/retire", "").await.problem(), "not_found");
    assert_eq!(post("a.b.v1/activate", "{\"revision\": \"zz\"}").await.problem(), "not_found");
    assert!(post("a.b.v1/activate", "{\"revisoin\": \"zz\"}").await.status >= 400);
    assert_eq!(api.count("select count(*) from syncor.command where reason = 'it worked'").await, 1);
}

#[tokio::test]
async fn a_new_version_retires_the_older_ones_where_asked_and_tells_of_children_that_are_missing() {
    let api = Api::open().await;
    put(&api, "a.b.v1", "application/yaml", FILE).await;
    let two = FILE.replace("a.b.v1", "a.b.v2").replace("call: \"svc:/do\", compensate: \"svc:/undo\"", "saga: child.v1");
    let receipt = api.call(Method::PUT, "/v1/definitions/a.b.v2?replace=true", &[("content-type", "application/yaml")], two).await.json();
    assert_eq!(receipt["retired"], json!(["a.b.v1"]), "{receipt}");
    assert!(receipt["warnings"][0]["detail"].as_str().unwrap().contains("child.v1"), "{receipt}");
    let circle = "id: child.v1\ntrigger: go\nsteps: [{name: one, saga: a.b.v2}]\n";
    let refused = put(&api, "child.v1", "application/yaml", circle).await;
    assert!(refused.status >= 400 && refused.status < 500, "{refused:?}");
}
