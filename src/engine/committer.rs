//! Group commit: whatever finished since the last commit goes into the next one.
//!
//! Batches grow with load and an idle saga commits at once. A write whose fate is unknown is looked up before it is sent again;
//! a row that Postgres refuses is split out and never sinks its batch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::store::commit::{SagaWrite, Written, commit, landed};
use crate::store::{Error, Store};

/// Most writes in one commit; throughput is flat beyond.
const BATCH_MAX: usize = 500;

/// What became of one write, and of which: a saga may have changed hands, and come back, before the answer arrives.
#[derive(Debug)]
pub struct WriteResult {
    /// The saga.
    pub id: Uuid,
    /// The epoch of the write.
    pub epoch: i32,
    /// The rev that the write found.
    pub rev: i32,
    /// What became of it.
    pub written: Written,
}

impl WriteResult {
    /// The result of a write.
    #[must_use]
    pub fn of(write: &SagaWrite, written: Written) -> Self {
        Self { id: write.id, epoch: write.epoch, rev: write.rev, written }
    }
}

/// Where the results of a batch go.
pub type Results = Vec<WriteResult>;

/// Drains the channel of writes, one batch at a time; several of these may share the channel.
#[derive(Debug)]
pub struct Committer {
    /// The database.
    pub store: Store,
    /// The worker that fences the writes.
    pub worker: i32,
    /// Writes to make, at most one per saga at any time.
    pub writes: Arc<Mutex<mpsc::UnboundedReceiver<SagaWrite>>>,
    /// Called with what became of each batch.
    pub results: mpsc::UnboundedSender<Results>,
    /// Stops a committer that waits for the database: its worker is dead.
    pub dead: CancellationToken,
}

impl Committer {
    /// Runs until the channel is closed and empty, or the worker is dead.
    pub async fn run(self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let taken = tokio::select! {
                () = self.dead.cancelled() => return,
                taken = async { self.writes.lock().await.recv_many(&mut batch, BATCH_MAX).await } => taken,
            };
            if taken == 0 {
                return;
            }
            metrics::histogram!("hms_commit_batch_size").record(f64::from(u32::try_from(taken).unwrap_or(u32::MAX)));
            let writes = std::mem::take(&mut batch);
            tokio::select! {
                () = self.dead.cancelled() => return,
                () = self.write(writes) => {}
            }
        }
    }

    /// Writes until every one of the batch has a result.
    async fn write(&self, mut batch: Vec<SagaWrite>) {
        let mut pause = Duration::from_millis(20);
        let mut uncertain = false;
        while !batch.is_empty() {
            match self.once(&mut batch, uncertain).await {
                Ok(()) => {}
                Err(error) if error.is_transient() => {
                    warn!(%error, writes = batch.len(), "commit failed, trying again");
                    uncertain = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Err(error) if batch.len() > 1 => {
                    debug!(%error, writes = batch.len(), "a row of the batch is refused: sending them singly");
                    for write in std::mem::take(&mut batch) {
                        Box::pin(self.write(vec![write])).await;
                    }
                }
                Err(error) => {
                    let results = batch.drain(..).map(|write| WriteResult::of(&write, Written::Unstorable(error.to_string()))).collect();
                    self.report(results);
                }
            }
        }
    }

    /// One try; writes that got a result leave the batch.
    async fn once(&self, batch: &mut Vec<SagaWrite>, uncertain: bool) -> Result<(), Error> {
        let client = self.store.client().await?;
        if uncertain {
            let known = landed(&client, self.worker, batch).await?;
            let mut results = Results::new();
            let mut rest = Vec::with_capacity(batch.len());
            for (write, result) in batch.drain(..).zip(known) {
                match result {
                    Some(result) => results.push(WriteResult::of(&write, result)),
                    None => rest.push(write),
                }
            }
            *batch = rest;
            self.report(results);
            if batch.is_empty() {
                return Ok(());
            }
        }
        let mut written = commit(&client, self.worker, batch).await?;
        if uncertain && written.contains(&Written::Fenced) {
            // The first sending may have been on its way all the time, in a backend that outlived its connection, and be what
            // fenced the second: then it landed.
            let known = landed(&client, self.worker, batch).await?;
            for (result, known) in written.iter_mut().zip(known) {
                if let (Written::Fenced, Some(known)) = (&result, known) {
                    *result = known;
                }
            }
        }
        let results = batch.drain(..).zip(written).map(|(write, written)| WriteResult::of(&write, written)).collect();
        self.report(results);
        Ok(())
    }

    fn report(&self, results: Results) {
        if !results.is_empty() {
            // The runner is gone only when the worker is: then nobody needs to know.
            let _gone = self.results.send(results);
        }
    }
}
