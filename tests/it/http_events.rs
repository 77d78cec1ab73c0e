//! Publishing over HTTP, and looking at what was published.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::json;

use crate::support::api::Api;

const CLOUD_EVENT: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_ten_times_at_once_is_one_event() {
    let api = Api::open().await;
    for round in 0..5 {
        let event = json!({"specversion": "1.0", "id": round.to_string(), "source": "/hr", "type": "t", "data": {"a": 1}}).to_string();
        let answers = join_all((0..10).map(|_| api.post_events(CLOUD_EVENT, &event))).await;
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [&[200; 9][..], &[201]].concat());
        let ids: BTreeSet<String> = answers.iter().map(|answer| answer.json()["id"].to_string()).collect();
        assert_eq!(ids.len(), 1);
        assert!(answers.iter().all(|answer| answer.header("location") == format!("/v1/events/{}", answer.json()["id"].as_str().unwrap())));
    }
    assert_eq!(api.count("select count(*) from syncor.events").await, 5);
}

#[tokio::test]
async fn a_batch_with_one_bad_item_stores_nothing() {
    let api = Api::open().await;
    let item = |id: &str, data: serde_json::Value| json!({"specversion": "1.0", "id": id, "source": "s", "type": "t", "data": data});
    // Refused when read; refused by the ledger; refused as another event has the key.
    api.post_events(CLOUD_EVENT, &item("taken", json!(1)).to_string()).await;
    let large = "x".repeat(262_200);
    for (bad, status) in [(json!({"specversion": "1.0"}), 400), (item("3", json!(large)), 413), (item("taken", json!(2)), 409)] {
        let answer = api.post_events(BATCH, &json!([item("1", json!(1)), bad, item("2", json!(1))]).to_string()).await;
        assert_eq!(answer.status, status, "{answer:?}");
        answer.problem();
    }
    assert_eq!(api.count("select count(*) from syncor.events").await, 1);
    assert_eq!(api.count("select count(*) from syncor.event_key").await, 1);
}

#[tokio::test]
async fn a_batch_answers_with_ids_in_its_order_and_repeats_in_it_are_one_event() {
    let api = Api::open().await;
    let item = |id: &str| json!({"specversion": "1.0", "id": id, "source": "s", "type": id});
    let batch = json!([item("b"), item("a"), item("b")]).to_string();
    let first = api.post_events(BATCH, &batch).await;
    assert_eq!(first.status, 201, "{first:?}");
    let ids: Vec<String> = serde_json::from_value(first.json()["ids"].clone()).unwrap();
    assert!(ids[0] == ids[2] && ids[0] != ids[1]);
    assert_eq!(api.get(&format!("/v1/events/{}", ids[1])).await.json()["type"], "a");
    let again = api.post_events(BATCH, &batch).await;
    assert_eq!((again.status, again.json()), (200, first.json()));
    assert_eq!(api.post_events(BATCH, "[]").await.status, 201);
}

#[tokio::test]
async fn refusals_say_what_and_where() {
    let api = Api::open().await;
    let data_of = |length: usize| json!({"type": "t", "data": "x".repeat(length)}).to_string();
    // Two quotes around the text: exactly 256 KiB, and one byte more.
    assert_eq!(api.post_events("application/json", &data_of(262_142)).await.status, 201);
    let answer = api.post_events("application/json", &data_of(262_143)).await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "too_large"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("store the document, publish its address"));
    assert_eq!(api.post_events("application/json", &" ".repeat((1 << 20) + 1)).await.problem(), "too_large");
    assert_eq!(api.post_events("application/json", &format!("{}{}", r#"{"type":"t"}"#, " ".repeat((1 << 20) - 12))).await.status, 201);

    for (content_type, body, status, pointer) in [
        ("application/json", r#"{"type":"t","data":{"a":"\u0000"}}"#.to_owned(), 422, "/data"),
        ("application/json", r#"{"type":"t","data":"\ud800"}"#.to_owned(), 422, ""),
        ("application/json", r#"{"type":"t","data":1e400000}"#.to_owned(), 422, ""),
        ("application/json", json!({"type": "t".repeat(256)}).to_string(), 422, ""),
        ("application/json", r#"{"data":1}"#.to_owned(), 400, "/type"),
        ("text/csv", "a,b".to_owned(), 415, ""),
        (CLOUD_EVENT, r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"AA=="}"#.to_owned(), 415, "/data_base64"),
    ] {
        let answer = api.post_events(content_type, &body).await;
        assert_eq!(answer.status, status, "{body} {answer:?}");
        answer.problem();
        assert_eq!(answer.json()["errors"][0]["pointer"].as_str().unwrap_or_default(), pointer, "{answer:?}");
    }

    let first = api.post_events("application/json", r#"{"type":"t","id":"k","data":{"b":1,"a":2}}"#).await;
    let same = api.post_events("application/json", r#"{"type":"t","id":"k","data":{"a": 2, "b": 1}}"#).await;
    assert_eq!((first.status, same.status, first.json()), (201, 200, same.json()));
    let other = api.post_events("application/json", r#"{"type":"t","id":"k","data":{}}"#).await;
    assert_eq!((other.status, other.problem().as_str()), (409, "conflict"));
    assert!(other.json()["detail"].as_str().unwrap().contains("id k "));
}

#[tokio::test]
async fn binary_mode_and_the_plain_form_end_in_the_ledger() {
    let api = Api::open().await;
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "%C3%A4"),
        ("ce-source", "/hr"),
        ("ce-type", "a"),
        ("ce-topic", "policy.v1"),
        ("ce-correlationid", "c-1"),
    ];
    let answer = api.call(Method::POST, "/v1/events", &headers, r#"{"n":1}"#).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let event = api.get(answer.header("location")).await.json();
    assert_eq!(
        (&event["dedupeKey"], &event["topic"], &event["correlationId"], &event["data"]),
        (&json!("ä"), &json!("policy.v1"), &json!("c-1"), &json!({"n": 1}))
    );

    let answer = api.post_events("application/json", r#"{"type":"b","id":"C-1"}"#).await;
    let event = api.get(answer.header("location")).await.json();
    assert_eq!(
        (&event["subject"], &event["source"], &event["topic"], &event["depth"]),
        (&json!("C-1"), &json!("http"), &json!("default"), &json!(0))
    );
    assert!(event["why"].as_str().unwrap().contains("no active definition has the trigger b"), "{event}");
    assert_eq!(event["sagas"], json!([]));
}

#[tokio::test]
async fn lists_are_filtered_and_come_in_pages_newest_first() {
    let api = Api::open().await;
    for number in 0..7 {
        api.post_events("application/json", &json!({"type": if number < 5 { "a" } else { "b" }, "id": number.to_string()}).to_string()).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/events?type=a&limit=2".to_owned();
    loop {
        let page = api.get(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.header("cache-control"), "no-store");
        seen.extend(page.json()["items"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()));
        let Some(next) = page.header("link").strip_suffix(">; rel=\"next\"") else {
            assert_eq!(page.json()["next"], json!(null));
            break;
        };
        path = next.trim_start_matches('<').to_owned();
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    assert_eq!(api.get("/v1/events?subject=6").await.json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        api.get("/v1/events?correlationId=6&topic=default&source=http&since=2020-01-01T00:00:00Z").await.json()["items"].as_array().unwrap().len(),
        1
    );
    assert_eq!(api.get("/v1/events?until=2020-01-01T00:00:00Z").await.json()["items"], json!([]));
    assert_eq!(api.get("/v1/events?limit=200").await.status, 200);
    for wrong in ["/v1/events?limit=201", "/v1/events?limit=0", "/v1/events?colour=red", "/v1/events?after=x", "/v1/events/x"] {
        assert_eq!(api.get(wrong).await.problem(), "malformed", "{wrong}");
    }
    assert_eq!(api.get("/v1/events/018f0000-0000-7000-8000-000000000001").await.problem(), "not_found");
}
