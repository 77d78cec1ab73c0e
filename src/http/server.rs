//! The loop that accepts connections: HTTP/1.1, so many at once, headers within their time, and an orderly end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// Longest wait for the headers of a request, also between two requests of a connection.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// Most bytes of request line and headers.
const HEADER_BYTES: usize = 16 << 10;
/// How long requests may go on once the server is to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until `shutdown` is done, then lets the requests under way finish, for ten seconds at most.
///
/// Readiness is the caller's: it says "draining" before it ends `shutdown`.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (connections, stopping) = (TaskTracker::new(), CancellationToken::new());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // A place first: without one the next client waits and the ones being served do not suffer.
        let place = tokio::select! {
            () = &mut shutdown => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => {
                let (router, stopping) = (router.clone(), stopping.clone());
                connections.spawn(async move {
                    serve_connection(stream, router, stopping).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, or a client that left before it was accepted: neither ends the server.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    stopping.cancel();
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests are cut off: they did not finish within the grace period");
    }
}

async fn serve_connection(stream: TcpStream, router: Router, stopping: CancellationToken) {
    // Answers are small and whole: waiting to fill a packet only delays them.
    let _hint = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection broke");
    }
}
