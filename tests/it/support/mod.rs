//! What the integration tests stand on: databases, a scripted service, workers.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, reason = "helpers of tests fail the test by panicking, and not every test uses each")]

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use syncor::store::dsn::Dsn;
use syncor::store::migrate;

pub(crate) mod db;
pub(crate) mod saga;
pub(crate) mod stub;
pub(crate) mod worker;

/// A database with our schema.
pub(crate) async fn migrated() -> db::TestDatabase {
    db::database_with(&schema_key(), async |url| {
        migrate::migrate(&Dsn::parse(&url).unwrap()).await.unwrap();
    })
    .await
}

/// Changes with every change of a migration.
fn schema_key() -> String {
    let mut digest = Sha256::new();
    let mut files: Vec<_> =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        digest.update(std::fs::read(file).unwrap());
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

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
