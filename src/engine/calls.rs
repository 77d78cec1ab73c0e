//! Makes calls, each in a task of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use uuid::Uuid;

use super::breakers::Permit;
use super::live::Occurrence;
use super::runner::Message;
use super::{Worker, measures};
use crate::core::call::{Reply, StepCall};

/// Makes a call once there is a slot for it and the lease is sure, and tells the runner what came back.
pub fn spawn(worker: &Arc<Worker>, call: StepCall, id: Uuid, seq: usize) {
    let making = Arc::clone(worker);
    let dead = worker.lease.dead.clone();
    worker.calls.spawn(async move {
        // A dead worker's calls are cut: somebody else makes them again, with a higher fence.
        let reply = tokio::select! {
            () = dead.cancelled() => return,
            reply = make(&making, &call) => reply,
        };
        making.send(Message::Happened(id, Occurrence::Reply { seq, action: call.action, attempt: call.attempt, reply }));
    });
}

async fn make(worker: &Arc<Worker>, call: &StepCall) -> Reply {
    // Asked first, so that calls to a service that is down queue for no slot; and again with the slot, for which it may have
    // waited long.
    if let Some(rest) = worker.breakers.held_back(worker, &call.service, call.saga_id) {
        return Reply::Parked(rest);
    }
    // The semaphore is never closed.
    let _slot = worker.slots.acquire().await;
    let probe = match worker.breakers.ask(worker, &call.service, call.saga_id).await {
        Permit::Call(probe) => probe,
        Permit::Park(rest) => return Reply::Parked(rest),
    };
    worker.lease.fresh().await;
    worker.vitals.slots_used.fetch_add(1, Ordering::Relaxed);
    let began = Instant::now();
    let (reply, sign) = worker.dispatcher.make(call, worker.clock.now().unix_seconds()).await;
    worker.vitals.slots_used.fetch_sub(1, Ordering::Relaxed);
    measures::call(&call.service, &reply, began.elapsed());
    worker.breakers.report(worker, &call.service, probe, sign, reply).await
}
