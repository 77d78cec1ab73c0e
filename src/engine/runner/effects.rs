//! What follows from a decision once it is durable, and what happens to one that cannot be made so.

use std::sync::Arc;

use tracing::error;
use uuid::Uuid;

use super::Runner;
use crate::core::call::Sending;
use crate::core::matching::Deployed;
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::request;
use crate::engine::live::{InFlight, Occurrence, completed_steps};
use crate::engine::{calls, functions, measures, mending};
use crate::store::claim::Loaded;

impl Runner {
    /// Makes the calls that were committed to.
    pub(super) fn perform(&mut self, id: Uuid, calls: &[(usize, Action)]) {
        for &(seq, action) in calls {
            let Some(live) = self.sagas.get_mut(&id) else {
                return;
            };
            let attempt = live.saga.steps[seq].attempt(action);
            match request::build(live.definition(), &live.saga, &live.event, seq, action) {
                Ok(None) => {}
                Ok(Some(Sending::Function(call))) => functions::spawn(&self.worker, *call, id, seq),
                Ok(Some(Sending::Call(mut call))) => {
                    call.callback_token = live.tokens.get(&(seq, action)).cloned();
                    if live.saga.steps[seq].order == 1 && attempt == 1 && action == Action::Do {
                        measures::first_call(self.worker.clock.now().since(live.event.created_at));
                    }
                    calls::spawn(&self.worker, *call, id, seq);
                }
                Err(problem) => {
                    let outcome = Outcome::without_reply(Class::Refused, format!("the call could not be made: {problem}"));
                    live.waiting.push_back(Occurrence::Judged { seq, action, attempt, outcome });
                }
            }
        }
        self.next_waiting(id);
    }

    /// What the machine decided cannot be stored: go back to what the database has.
    pub(super) fn reload(&mut self, id: Uuid, cause: Option<(usize, Action, u32)>, reason: String) {
        error!(saga.id = %id, reason, "a decision cannot be stored");
        let Some(live) = self.sagas.get_mut(&id) else {
            return;
        };
        // Memory is ahead of the database by something that will never be written: nothing else may be judged by it.
        live.writing = Some(InFlight::default());
        let rests = live.mended || cause.is_none();
        let worker = Arc::clone(&self.worker);
        tokio::spawn(async move {
            let dead = worker.lease.dead.clone();
            let message = tokio::select! {
                () = dead.cancelled() => return,
                message = async { if rests { mending::put_back(&worker, id).await } else { mending::load_again(&worker, id, cause, reason).await } } => message,
            };
            worker.send(message);
        });
    }

    /// Judges the reply that cannot be stored anew: as one of unknown effect, without what it said.
    pub(super) fn mend(&mut self, loaded: Loaded, deployed: &Deployed, cause: Option<(usize, Action, u32)>, reason: &str) {
        let id = loaded.saga.id;
        let Some(live) = self.sagas.get_mut(&id) else {
            return;
        };
        let (saga, stored) = completed_steps(loaded.saga, loaded.steps, &deployed.definition);
        (live.saga, live.stored, live.rev, live.epoch) = (saga, stored, loaded.rev, loaded.epoch);
        (live.writing, live.mended) = (None, true);
        if let Some((seq, action, attempt)) = cause {
            // A function is undone with the transaction that could not be stored: there is no doubt about it.
            let class = if deployed.definition.steps[seq].is_function(action) { Class::Failed } else { Class::Unknown };
            let outcome = Outcome::without_reply(class, format!("the result cannot be stored: {}", crate::core::reply::line(reason)));
            self.apply(id, Occurrence::Judged { seq, action, attempt, outcome });
        }
        self.next_waiting(id);
    }
}
