//! What the integration tests stand on: databases, a scripted service, workers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    dead_code,
    reason = "helpers of tests fail the test by panicking, and not every test uses each"
)]

use std::time::{Duration, Instant};

pub(crate) mod api;
pub(crate) mod cli;
pub(crate) mod db;
pub(crate) mod invariants;
pub(crate) mod plant;
pub(crate) mod process;
pub(crate) mod role;
pub(crate) mod saga;
pub(crate) mod stub;
pub(crate) mod worker;

/// Waits until `probe` answers, at most `limit`: the only way a test waits.
pub(crate) async fn until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
