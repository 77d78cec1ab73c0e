//! Requests as clients send them, and what becomes of them.

use axum::http::StatusCode;
use serde_json::json;

use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
}

fn read_as(content_type: &str, body: &str) -> Result<Message, Problem> {
    read(&headers(&[("content-type", content_type)]), body.as_bytes(), "caller")
}

fn one(message: Result<Message, Problem>) -> NewEvent {
    match message.expect("an event") {
        Message::One(event) => *event,
        Message::Batch(_) => panic!("a batch"),
    }
}

fn refusal(message: Result<Message, Problem>) -> (StatusCode, String) {
    let problem = message.expect_err("a refusal");
    (problem.status(), problem.pointer().unwrap_or_default().to_owned())
}

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

#[test]
fn structured_events_keep_their_attributes() {
    let event = one(read_as(
        "application/cloudevents+json; charset=utf-8",
        r#"{"specversion":"1.0","id":"A-1","source":"/hr","type":"policy.changed","subject":"p7","topic":"policy.v1","time":"2026-01-01T00:00:00Z",
            "datacontenttype":"application/json","correlationid":"c1","causationid":"018f0000-0000-7000-8000-000000000001","data":{"a": 1.50}}"#,
    ));
    assert_eq!((event.kind.as_str(), event.topic.as_deref(), event.subject.as_deref()), ("policy.changed", Some("policy.v1"), Some("p7")));
    assert_eq!((event.source.as_deref(), event.dedupe_key.as_deref(), event.correlation_id.as_deref()), (Some("/hr"), Some("A-1"), Some("c1")));
    assert_eq!(event.causation_id.map(|id| id.to_string()).as_deref(), Some("018f0000-0000-7000-8000-000000000001"));
    assert_eq!(event.data.text(), r#"{"a": 1.50}"#, "data is carried as it came");
}

#[test]
fn the_seeds_spelling_of_extensions_is_taken() {
    let event = one(read_as(STRUCTURED, r#"{"specversion":"1.0","id":"1","source":"s","type":"t","correlationId":"c"}"#));
    assert_eq!((event.correlation_id.as_deref(), event.data.text()), (Some("c"), "null"));
}

#[test]
fn binary_events_are_headers_and_a_body() {
    let headers = headers(&[
        ("content-type", "application/vnd.acme+json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "A%20%E2%82%AC"),
        ("ce-source", "/hr"),
        ("ce-type", "policy.changed"),
        ("ce-correlationid", "c1"),
    ]);
    let event = one(read(&headers, b"[1,2]", "caller"));
    assert_eq!((event.dedupe_key.as_deref(), event.data.text(), event.correlation_id.as_deref()), (Some("A \u{20ac}"), "[1,2]", Some("c1")));
}

#[test]
fn batches_keep_their_order_and_name_the_bad_item() {
    let item = |id: &str| json!({"specversion": "1.0", "id": id, "source": "s", "type": "t"});
    match read_as(BATCH, &json!([item("1"), item("2")]).to_string()).expect("a batch") {
        Message::Batch(events) => assert_eq!(events.iter().filter_map(|event| event.dedupe_key.as_deref()).collect::<Vec<_>>(), ["1", "2"]),
        Message::One(_) => panic!("one"),
    }
    assert!(matches!(read_as(BATCH, "[]"), Ok(Message::Batch(events)) if events.is_empty()));
    let bad = json!([item("1"), {"specversion": "1.0", "id": "2", "source": "s"}]).to_string();
    assert_eq!(refusal(read_as(BATCH, &bad)), (StatusCode::BAD_REQUEST, "/1/type".to_owned()));
    let most = vec![item("1"); BATCH_MAX];
    assert!(read_as(BATCH, &json!(most).to_string()).is_ok());
    let too_many = vec![item("1"); BATCH_MAX + 1];
    assert_eq!(refusal(read_as(BATCH, &json!(too_many).to_string())).0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn the_plain_form_fills_in_what_is_missing() {
    let event = one(read_as("application/json", r#"{"type":"ComplaintFiled","id":"C-1"}"#));
    assert_eq!((event.subject.as_deref(), event.dedupe_key.as_deref(), event.source.as_deref()), (Some("C-1"), Some("C-1"), Some("caller")));
    assert_eq!((event.data.text(), event.topic), ("{}", None));
    let event = one(read_as("application/json", r#"{"type":"t","data":null,"id":"C-1","subject":"s","source":"mine","correlationId":"c"}"#));
    assert_eq!((event.subject.as_deref(), event.source.as_deref(), event.correlation_id.as_deref()), (Some("s"), Some("mine"), Some("c")));
}

#[test]
fn what_cannot_be_an_event_is_refused_with_its_place() {
    const NUL: &str = "\\u0000";
    let bad = |status, pointer: &str| (status, pointer.to_owned());
    let structured = |extra: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t"{extra}}}"#);
    for (content_type, body, expected) in [
        (STRUCTURED, "{".to_owned(), bad(StatusCode::BAD_REQUEST, "")),
        (STRUCTURED, r#"{"id":"1"}"#.to_owned(), bad(StatusCode::BAD_REQUEST, "/specversion")),
        (STRUCTURED, r#"{"specversion":"0.3","id":"1","source":"s","type":"t"}"#.to_owned(), bad(StatusCode::BAD_REQUEST, "/specversion")),
        (STRUCTURED, r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#.to_owned(), bad(StatusCode::BAD_REQUEST, "/id")),
        (STRUCTURED, r#"{"specversion":"1.0","id":7,"source":"s","type":"t"}"#.to_owned(), bad(StatusCode::BAD_REQUEST, "/id")),
        (STRUCTURED, structured(r#","causationid":"x""#), bad(StatusCode::BAD_REQUEST, "/causationid")),
        (STRUCTURED, structured(r#","data_base64":"AA==""#), bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "/data_base64")),
        (STRUCTURED, structured(r#","datacontenttype":"text/xml","data":"<a/>""#), bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "")),
        (STRUCTURED, structured(&format!(r#","data":{{"a":"{NUL}"}}"#)), bad(StatusCode::UNPROCESSABLE_ENTITY, "/data")),
        (STRUCTURED, structured(&format!(r#","subject":"{NUL}""#)), bad(StatusCode::UNPROCESSABLE_ENTITY, "/subject")),
        (STRUCTURED, structured(&format!(r#","data":{}{}"#, "[".repeat(65), "]".repeat(65))), bad(StatusCode::UNPROCESSABLE_ENTITY, "/data")),
        (BATCH, "{}".to_owned(), bad(StatusCode::BAD_REQUEST, "")),
        ("application/cloudevents+avro", String::new(), bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "")),
        ("application/json", r#"{"data":{}}"#.to_owned(), bad(StatusCode::BAD_REQUEST, "/type")),
        ("application/json", r#"{"type":"t","topik":"x"}"#.to_owned(), bad(StatusCode::BAD_REQUEST, "/topik")),
        ("application/json", "[]".to_owned(), bad(StatusCode::BAD_REQUEST, "")),
        ("text/plain", "hello".to_owned(), bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "")),
        ("", "{}".to_owned(), bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "")),
    ] {
        assert_eq!(refusal(read_as(content_type, &body)), expected, "{content_type} {body}");
    }
    assert!(read_as(STRUCTURED, &structured(&format!(r#","data":{}{}"#, "[".repeat(64), "]".repeat(64)))).is_ok());
}

#[test]
fn binary_data_that_is_not_json_is_refused() {
    let with = |content_type: &str, id: &str| {
        headers(&[("content-type", content_type), ("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "s"), ("ce-type", "t")])
    };
    assert_eq!(refusal(read(&with("text/plain", "1"), b"x", "")).0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(refusal(read(&with("application/json", "1"), b"x", "")), (StatusCode::BAD_REQUEST, "/".to_owned()));
    assert_eq!(refusal(read(&with("application/json", "%zz"), b"1", "")), (StatusCode::BAD_REQUEST, "ce-id".to_owned()));
    assert_eq!(refusal(read(&with("application/json", "%00"), b"1", "")).0, StatusCode::UNPROCESSABLE_ENTITY);
}
