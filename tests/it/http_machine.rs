//! What machines ask for, and the shape of every refusal.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::api::Api;
use crate::support::db;

#[tokio::test]
async fn keys_are_served_with_a_life_of_five_minutes() {
    let api = Api::open().await;
    assert_eq!(api.get("/.well-known/jwks.json").await.json(), json!({"keys": []}));
    api.sql(r#"insert into syncor.signing_key (kid, jwk) values ('k1', '{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"k1"}')"#).await;
    let answer = api.get("/.well-known/jwks.json").await;
    assert_eq!(answer.json()["keys"][0]["kid"], "k1");
    assert!(answer.header("cache-control").contains("max-age=300"));
}

#[tokio::test]
async fn readiness_follows_the_schema_and_liveness_does_not() {
    let api = Api::open().await;
    assert_eq!(api.get("/readyz").await.text, "ok\n");
    let verbose = api.get("/readyz?verbose").await.text;
    assert!(verbose.contains("[+] database ok") && verbose.contains("[+] schema ok") && verbose.contains("[+] draining ok"), "{verbose}");
    api.sql("drop schema syncor cascade").await;
    // The last answer is good for a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let answer = api.get("/readyz").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "not_ready"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("schema"), "{answer:?}");
    for path in ["/livez", "/healthz"] {
        assert_eq!(api.get(path).await.text, "ok\n");
    }
    // A failure tells its client an id and nothing else.
    let answer = api.get("/v1/sagas").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
    assert!(answer.json()["correlationId"].is_string() && !answer.text.contains("syncor.saga"), "{answer:?}");
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let api = Api::open().await;
    let long = format!("/{}", "x".repeat(3000));
    for (method, path, body, status, code) in [
        (Method::GET, "/nowhere", "", 404, "not_found"),
        (Method::GET, long.as_str(), "", 404, "not_found"),
        (Method::DELETE, "/v1/sagas", "", 405, "method_not_allowed"),
        (Method::PATCH, "/livez", "", 405, "method_not_allowed"),
        (Method::POST, "/v1/events", "{", 415, "not_json"),
        (Method::GET, "/v1/sagas/not-a-uuid", "", 400, "malformed"),
        (Method::GET, "/v1/sagas?limit=many", "", 400, "malformed"),
        (Method::GET, "/schema/nothing.json", "", 404, "not_found"),
        (Method::GET, "/problems/nothing", "", 404, "not_found"),
        (Method::PUT, "/v1/definitions/a.v1", "x", 415, "not_json"),
    ] {
        let answer = api.call(method, path, &[], body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let page = api.get(answer.json()["type"].as_str().unwrap()).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    }
    assert_eq!(api.call(Method::DELETE, "/v1/sagas/x", &[], "").await.header("allow"), "GET, HEAD");
    assert_eq!(api.call(Method::HEAD, "/livez", &[], "").await.status, 200);
}

#[tokio::test]
async fn metrics_and_the_description_are_served() {
    let api = Api::open().await;
    let metrics = api.get("/metrics").await;
    assert!(metrics.text.contains("hms_build_info 1") && metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let document = api.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["paths"]["/v1/events"]["post"]["responses"]["409"].is_object());
    let answer = api.get("/livez").await;
    assert!(answer.header("content-security-policy").starts_with("default-src 'none'") && answer.header("referrer-policy") == "no-referrer");
}

#[tokio::test]
async fn a_query_is_ended_after_two_seconds() {
    let api = Api::open().await;
    let other = db::connect(&api.db.url).await;
    other.batch_execute("begin; lock table syncor.saga in access exclusive mode").await.unwrap();
    let since = Instant::now();
    let answer = api.get("/v1/sagas").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "too_broad"));
    assert!(since.elapsed() >= Duration::from_secs(2) && since.elapsed() < Duration::from_secs(10));
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(api.get("/v1/sagas").await.status, 200);
}

#[tokio::test]
async fn a_database_that_comes_back_is_read_again() {
    let api = Api::open().await;
    assert_eq!(api.get("/v1/sagas").await.status, 200);
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'hms-api'";
    api.sql(&format!("do $$ begin perform count(*) from ({end}) ended; end $$")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(api.get("/v1/sagas").await.status, 200);
}

#[tokio::test]
async fn a_client_that_sends_half_a_header_is_cut_off() {
    let api = Api::open().await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: local").await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(end.is_ok() && !answer.starts_with(b"HTTP/1.1 200"));
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let large = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Large: {}\r\n\r\n", "x".repeat(17 << 10));
    stream.write_all(large.as_bytes()).await.unwrap();
    // The server answers while we may still be sending: a reset is as good an end as its 431.
    let mut answer = Vec::new();
    let _end = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}
