//! One command at a time makes, starts or stops a cluster.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::Error;

/// Longer than an `initdb` and a start together may take.
const DEADLINE: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(50);

/// The lock on a cluster, held until dropped. The system frees it when its owner is killed.
///
/// The file is never deleted: a lock on a deleted file excludes nobody.
/// It is closed on exec, so the server that is started under it does not go on holding it.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) async fn take(path: &Path) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io(format_args!("open {}", path.display())))?;
        let deadline = Instant::now() + DEADLINE;
        // Polled rather than waited for in a thread: a thread stuck in flock would hold up the end of the runtime.
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL).await,
                Err(TryLockError::WouldBlock) => {
                    let path = path.to_owned();
                    return Err(Error::Locked { path });
                }
                Err(TryLockError::Error(source)) => {
                    return Err(Error::io(format_args!("lock {}", path.display()))(source));
                }
            }
        }
    }
}
