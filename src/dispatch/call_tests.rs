//! Calls to listeners on loopback: what is sent, and what comes back of well-behaved services.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::super::token::Algorithm;
use super::*;
use crate::core::outcome::Action;
use crate::core::service::HeaderSource;

pub(in crate::dispatch) const NOW: i64 = 1_700_000_000;

pub(in crate::dispatch) fn options() -> Options {
    Options { issuer: "https://orch.example".into(), signer: Signer::ephemeral(Algorithm::EdDsa).expect("key"), user_agent: "hms-orch/0.1.0".into() }
}

pub(in crate::dispatch) fn dispatcher(url: &str) -> Dispatcher {
    let dispatcher = Dispatcher::with_tls(options(), Err("no TLS in this test".into())).expect("dispatcher");
    dispatcher.set_services(vec![service(url)]);
    dispatcher
}

pub(in crate::dispatch) fn service(url: &str) -> Service {
    let allow = ["127.0.0.0/8", "::1"].map(|text| text.parse().expect("network")).to_vec();
    Service { name: "svc".into(), url: url.into(), audience: "svc-audience".into(), allow, headers: vec![] }
}

pub(in crate::dispatch) fn call() -> StepCall {
    StepCall {
        service: "svc".into(),
        method: "POST".into(),
        path: "/recalc?x=1".into(),
        headers: vec![],
        body: r#"{"sagaId":"s"}"#.into(),
        saga_id: Uuid::from_u128(0xabcd),
        step: "recalc".into(),
        action: Action::Do,
        attempt: 2,
        fence: 41,
        idempotency_key: "s/recalc/do".into(),
        correlation_id: "case 7\r\nX-Evil: 1".into(),
        timeout: Duration::from_secs(5),
        callback_token: None,
    }
}

/// Reads one request: its head, and its body as announced.
pub(in crate::dispatch) async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return Some((head, bytes[end + 4..].to_vec()));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A service that answers every request with the same bytes on kept connections. Returns its address and counters of connections and requests.
pub(in crate::dispatch) async fn answering(reply: impl Into<Vec<u8>>) -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let reply: Arc<[u8]> = reply.into().into();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let seen = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counters = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counters[0].fetch_add(1, Ordering::SeqCst);
            let (counters, reply) = (counters.clone(), reply.clone());
            tokio::spawn(async move {
                while read_request(&mut stream).await.is_some() {
                    counters[1].fetch_add(1, Ordering::SeqCst);
                    if stream.write_all(&reply).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, seen)
}

#[tokio::test]
async fn a_reply_comes_back_whole_on_a_kept_connection() {
    let (address, seen) =
        answering("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Odd: \u{ff}\r\nContent-Length: 11\r\n\r\n{\"ok\":true}").await;
    let dispatcher = dispatcher(&format!("http://{address}"));
    for _ in 0..5 {
        let Reply::Answered { status: 200, headers, body: Some(body), retry_after: None } = dispatcher.call(&call(), NOW).await else {
            panic!("answered")
        };
        assert_eq!(body, r#"{"ok":true}"#);
        assert!(headers.contains(&("content-type".into(), "application/json".into())));
        assert!(!headers.iter().any(|(name, _)| name == "x-odd"), "not text");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((seen[0].load(Ordering::SeqCst), seen[1].load(Ordering::SeqCst)), (1, 5));
}

#[tokio::test]
async fn every_promised_header_is_sent_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://localhost:{}/base", listener.local_addr().expect("address").port());
    let dispatcher = dispatcher(&url);
    dispatcher.set_services(vec![Service { headers: vec![("X-Own".into(), HeaderSource::Plain("operator".into()))], ..service(&url) }]);
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let request = read_request(&mut stream).await.expect("request");
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("write");
        request
    });
    let call = StepCall {
        headers: vec![("X-Own".into(), "definition".into()), ("X-Tenant".into(), "a".into())],
        callback_token: Some("t".into()),
        ..call()
    };
    let reply = dispatcher.call(&call, NOW).await;
    assert!(matches!(reply, Reply::Answered { status: 204, body: Some(ref body), .. } if body.is_empty()), "{reply:?}");
    let (head, body) = served.await.expect("served");
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /base/recalc?x=1 HTTP/1.1"));
    let mut sent = HashMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("header");
        assert!(sent.insert(name.to_ascii_lowercase(), value.to_owned()).is_none(), "{name} is sent twice");
    }
    let bearer = sent.remove("authorization").expect("token");
    assert_eq!(bearer.strip_prefix("Bearer ").expect("bearer").split('.').count(), 3);
    let expected = [
        ("host", url["http://".len()..].trim_end_matches("/base")),
        ("user-agent", "hms-orch/0.1.0"),
        ("content-type", "application/json"),
        ("accept-encoding", "identity"),
        ("content-length", "14"),
        ("idempotency-key", "s/recalc/do"),
        ("hms-saga-id", "00000000-0000-0000-0000-00000000abcd"),
        ("hms-step", "recalc"),
        ("hms-attempt", "2"),
        ("hms-fence", "41"),
        ("hms-callback-url", "https://orch.example/v1/callbacks/t"),
        ("traceparent", "00-0000000000000000000000000000abcd-0000000000000029-01"),
        ("x-correlation-id", "case%207%0D%0AX-Evil:%201"),
        ("x-own", "operator"),
        ("x-tenant", "a"),
    ];
    assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(body, call.body);
}

#[tokio::test]
async fn a_redirect_is_a_reply_and_nobody_follows_it() {
    let (canary, seen) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let (address, _) = answering(format!("HTTP/1.1 302 Found\r\nLocation: http://{canary}/\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")).await;
    let dispatcher = dispatcher(&format!("http://{address}"));
    for _ in 0..2 {
        let reply = dispatcher.call(&call(), NOW).await;
        assert!(matches!(reply, Reply::Answered { status: 302, .. }), "{reply:?}");
    }
    assert_eq!(seen[0].load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_wish_to_wait_is_handed_on() {
    for (wish, secs) in [("Retry-After: 7", 7), ("Retry-After: Tue, 14 Nov 2023 22:13:50 GMT", 30)] {
        let (address, _) = answering(format!("HTTP/1.1 500 Oops\r\n{wish}\r\nContent-Length: 4\r\n\r\noops")).await;
        let reply = dispatcher(&format!("http://{address}")).call(&call(), NOW).await;
        let Reply::Answered { status: 500, body: Some(body), retry_after, .. } = reply else { panic!("{reply:?}") };
        assert_eq!((body, retry_after), ("oops".into(), Some(Duration::from_secs(secs))));
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_not_sent() {
    let (address, seen) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let dispatcher = dispatcher(&format!("http://{address}"));
    let header = |name: &str, value: &str| StepCall { headers: vec![(name.into(), value.into())], ..call() };
    let hostile = [
        StepCall { service: "nobody".into(), ..call() },
        StepCall { path: "/a/../b".into(), ..call() },
        StepCall { path: "recalc".into(), ..call() },
        StepCall { path: "/a\r\nX: y".into(), ..call() },
        StepCall { method: "CONNECT".into(), ..call() },
        header("X-A", "canary\r\nX-Evil: 1"),
        header("X-A", "canary\nX-Evil: 1"),
        header("X-A\r\nX-Evil", "1"),
        header("Authorization", "Bearer canary"),
        header("Content-Length", "0"),
        header("hms-fence", "99"),
    ];
    for call in hostile {
        let reply = dispatcher.call(&call, NOW).await;
        let Reply::NotSent(reason) = reply else { panic!("{call:?}: {reply:?}") };
        assert!(!reason.contains("canary") && !reason.contains('\n'), "{reason}");
    }
    assert_eq!(seen[0].load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn forbidden_addresses_see_no_packet() {
    let (address, seen) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let port = address.port();
    let urls = [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::]",
        "[::1]",
    ];
    let dispatcher = dispatcher("http://unused.example");
    for host in urls {
        dispatcher.set_services(vec![Service { allow: vec![], ..service(&format!("http://{host}:{port}")) }]);
        let reply = dispatcher.call(&call(), NOW).await;
        assert!(matches!(reply, Reply::NotSent(_)), "{host}: {reply:?}");
    }
    assert_eq!(seen[0].load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let dispatcher = dispatcher("http://127.0.0.1:1");
    dispatcher
        .set_services(vec![Service { headers: vec![("X-Key".into(), HeaderSource::Plain("canary-77".into()))], ..service("http://127.0.0.1:1") }]);
    let reply = dispatcher.call(&call(), NOW).await;
    let (_, request) = dispatcher.prepare(&call(), Some("http://x/canary-77"), NOW).expect("prepared");
    assert!(!format!("{dispatcher:?} {reply:?}").contains("canary"));
    assert!(!format!("{request:?}").contains("Bearer"), "the token is marked sensitive");
}
