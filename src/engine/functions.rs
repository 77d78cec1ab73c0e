//! Calls functions of the database, each in a task of its own: they may take long, and hold up nobody.
//!
//! A function that returned keeps its transaction open until the machine has decided what follows: then the decision is written
//! in that transaction, and both become durable together. Whatever happens to the worker before that undoes the function.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;
use uuid::Uuid;

use super::Worker;
use super::committer::{Results, WriteResult};
use super::live::Occurrence;
use super::runner::Message;
use crate::core::call::{FunctionCall, Reply};
use crate::core::payload::Payload;
use crate::store::commit::SagaWrite;
use crate::store::function::FunctionSession;

/// Between two tries to reach the database.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Calls a function once there is a connection for it and the lease is sure, and tells the runner what came of it.
pub fn spawn(worker: &Arc<Worker>, call: FunctionCall, id: Uuid, seq: usize) {
    let calling = Arc::clone(worker);
    let dead = worker.lease.dead.clone();
    worker.calls.spawn(async move {
        // What a dead worker has begun is undone with its connection.
        let (reply, session) = tokio::select! {
            () = dead.cancelled() => return,
            ended = run(&calling, &call) => ended,
        };
        let session = session.map(Box::new);
        calling.send(Message::Happened(id, Occurrence::FunctionEnded { seq, action: call.action, attempt: call.attempt, reply, session }));
    });
}

async fn run(worker: &Worker, call: &FunctionCall) -> (Reply, Option<FunctionSession>) {
    let mut pause = PAUSE_FIRST;
    // A database that cannot be reached is not the step's fault: nothing was begun, so nothing is counted.
    let session = loop {
        worker.lease.fresh().await;
        let begun = async {
            if !worker.definitions.has_function(&worker.store, &worker.dispatcher, &call.function).await? {
                return Ok(None);
            }
            worker.functions.begin(call.timeout).await.map(Some)
        };
        match begun.await {
            Ok(Some(session)) => break session,
            Ok(None) => {
                let hint = "add it to `functions` of a services file and deploy that";
                return (Reply::RolledBack(format!("the function {} is not registered: {hint}", call.function)), None);
            }
            Err(error) => warn!(function = call.function, %error, "no connection for a function, trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    };
    let problem = match session.call(&call.function, &call.argument).await {
        Ok(output) => match Payload::parse(output.as_deref().unwrap_or("null")) {
            Some(output) => return (Reply::Returned(output), Some(session)),
            None => format!("{} returned something that is not JSON: it must return jsonb", call.function),
        },
        Err(error) => error.message,
    };
    session.rollback().await;
    (Reply::RolledBack(problem), None)
}

/// Writes a decision in the transaction of the function that led to it. The result comes back like that of any other write.
pub fn write_with_session(worker: &Arc<Worker>, session: FunctionSession, write: SagaWrite, results: mpsc::UnboundedSender<Results>) {
    let dead = worker.lease.dead.clone();
    let (store, no) = (worker.store.clone(), worker.lease.worker);
    worker.calls.spawn(async move {
        let written = tokio::select! {
            () = dead.cancelled() => return,
            written = session.commit_with(&store, no, &write) => written,
        };
        // The runner is gone only when the worker is.
        let _gone = results.send(vec![WriteResult::of(&write, written)]);
    });
}

/// Undoes a function whose result does not count.
pub fn roll_back(worker: &Worker, session: FunctionSession) {
    worker.calls.spawn(session.rollback());
}
