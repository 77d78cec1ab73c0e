//! Fault F20: services and networks at their worst. Each ends in time, with the right word for what is known.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::call::tests::{NOW, answering, call, dispatcher, read_request};
use crate::core::call::{REPLY_BYTES_MAX, Reply, StepCall};

/// A service whose every connection is handled by `serve` once a request was read.
async fn serving<F, S>(serve: S) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(TcpStream) -> F + Send + Sync + Copy + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if read_request(&mut stream).await.is_some() {
                    serve(stream).await;
                }
            });
        }
    });
    address
}

async fn ask(address: SocketAddr, timeout_ms: u64) -> Reply {
    let timeout = Duration::from_millis(timeout_ms);
    let began = Instant::now();
    let reply = dispatcher(&format!("http://{address}")).call(&StepCall { timeout, ..call() }, NOW).await;
    assert!(began.elapsed() < timeout + Duration::from_millis(250), "{:?}", began.elapsed());
    reply
}

fn broken(reply: &Reply) {
    assert!(matches!(reply, Reply::Broken(_)), "{reply:?}");
}

#[tokio::test]
async fn a_refused_port_and_an_unknown_name_are_not_sent() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address");
    let reply = ask(gone, 5000).await;
    let Reply::NotSent(reason) = reply else { panic!("{reply:?}") };
    assert!(reason.contains("refused") && reason.contains("check that it runs"), "{reason}");
    let reply = dispatcher("http://no-such-host.invalid").call(&call(), NOW).await;
    let Reply::NotSent(reason) = reply else { panic!("{reply:?}") };
    assert!(reason.contains("no-such-host.invalid cannot be resolved"), "{reason}");
}

#[tokio::test]
async fn a_connection_that_hangs_is_not_sent() {
    // A full accept queue: the kernel leaves further connections unanswered.
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind("127.0.0.1:0".parse().expect("address")).expect("bind");
    let listener = socket.listen(1).expect("listen");
    let address = listener.local_addr().expect("address");
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        held.push(stream);
    }
    let reply = ask(address, 300).await;
    assert!(matches!(reply, Reply::NotSent(ref reason) if reason.contains("no connection within 300 ms")), "{reply:?}");
}

#[tokio::test]
async fn a_reset_after_the_request_is_broken() {
    broken(&ask(serving(|stream| async move { stream.set_zero_linger().expect("linger") }).await, 5000).await);
    broken(&ask(serving(|stream| async move { drop(stream) }).await, 5000).await);
}

#[tokio::test]
async fn what_is_no_whole_http_reply_is_broken() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\0\0\0\0",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 99999 X\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let address = serving(move |mut stream| async move {
            let _sent = stream.write_all(bytes.as_bytes()).await;
            let _ended = stream.shutdown().await;
            // Unread bytes would turn the end into a reset.
            let _rest = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let reply = ask(address, 5000).await;
        assert!(matches!(reply, Reply::Broken(_)), "{bytes:?}: {reply:?}");
    }
}

#[tokio::test]
async fn a_slow_head_a_slow_body_and_silence_end_in_time() {
    broken(&ask(serving(|_stream| std::future::pending()).await, 300).await);
    for opening in ["HTTP/1.1 200 OK\r\nX-Slow: ", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"] {
        let address = serving(move |mut stream| async move {
            let _sent = stream.write_all(opening.as_bytes()).await;
            while stream.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        broken(&ask(address, 300).await);
    }
}

#[tokio::test]
async fn a_service_that_reads_nothing_ends_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let body = vec![b' '; 32 << 20];
    let call = StepCall { timeout: Duration::from_millis(1000), body: body.into(), ..call() };
    let began = Instant::now();
    let reply = dispatcher(&format!("http://{address}")).call(&call, NOW).await;
    broken(&reply);
    assert!(began.elapsed() < Duration::from_millis(1250), "{:?}", began.elapsed());
    drop(listener);
}

#[tokio::test]
async fn a_large_reply_is_left_unread() {
    let size = 2 << 20;
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    let until_close = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    for mut reply in [announced, until_close] {
        reply.resize(reply.len() + size, b'x');
        let (address, _) = answering(reply).await;
        let reply = ask(address, 5000).await;
        assert!(matches!(reply, Reply::Answered { status: 200, body: None, .. }), "{reply:?}");
    }
    let mut exact = format!("HTTP/1.1 200 OK\r\nContent-Length: {REPLY_BYTES_MAX}\r\n\r\n").into_bytes();
    exact.resize(exact.len() + REPLY_BYTES_MAX, b'x');
    let (address, _) = answering(exact).await;
    let reply = ask(address, 5000).await;
    assert!(matches!(reply, Reply::Answered { body: Some(ref body), .. } if body.len() == REPLY_BYTES_MAX), "the limit itself is kept");
}

#[tokio::test]
async fn an_endless_reply_is_cut_off_and_its_connection_closed() {
    let (closed, mut told) = tokio::sync::mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accept");
        read_request(&mut stream).await.expect("request");
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("head");
        let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
        let mut written = 0;
        while stream.write_all(&chunk).await.is_ok() {
            written += chunk.len();
        }
        closed.send(written).expect("told");
    });
    let reply = ask(address, 5000).await;
    assert!(matches!(reply, Reply::Answered { status: 200, body: None, .. }), "{reply:?}");
    let written = tokio::time::timeout(Duration::from_secs(5), told.recv()).await.expect("closed").expect("told");
    assert!(written < 32 << 20, "no more than the kernel's buffers: {written}");
}

#[tokio::test]
async fn floods_of_heads_end_in_time() {
    for line in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"] {
        let address = serving(move |mut stream| async move { while stream.write_all(line.as_bytes()).await.is_ok() {} }).await;
        broken(&ask(address, 300).await);
    }
    let address = serving(|mut stream| async move {
        let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"X-Flood: 0123456789012345678901234567890123456789\r\n").await.is_ok() {}
    })
    .await;
    broken(&ask(address, 2000).await);
}

#[tokio::test]
async fn a_dead_idle_connection_is_replaced_without_a_lost_or_doubled_call() {
    // Answers once per connection, promises to keep it, and closes.
    let address = serving(|mut stream| async move {
        let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let dispatcher = dispatcher(&format!("http://{address}"));
    for _ in 0..20 {
        let reply = dispatcher.call(&call(), NOW).await;
        assert!(matches!(reply, Reply::Answered { status: 200, .. }), "{reply:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_share_kept_connections() {
    let (address, seen) = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    let dispatcher = dispatcher(&format!("http://{address}"));
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let dispatcher = dispatcher.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    let reply = dispatcher.call(&call(), NOW).await;
                    assert!(matches!(reply, Reply::Answered { status: 200, .. }), "{reply:?}");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("caller");
    }
    let [connections, requests] = &*seen;
    assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), 64 * 20);
    let connections = connections.load(std::sync::atomic::Ordering::SeqCst);
    assert!(connections <= 128, "{connections}");
}
