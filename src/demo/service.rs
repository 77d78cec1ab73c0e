//! What the three services have in common: their state, their router, seeing a call through.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use axum::{Json, Router, http::StatusCode, routing::get};
use serde_json::Value;
use tokio_util::task::TaskTracker;

use super::{
    Error, Options, archive,
    database::Database,
    keys::Keys,
    notice, payment,
    problem::Problem,
    verify::{Action, Call, Verifier},
};

/// The value of `Service::failure` that is none.
pub(super) const HEALTHY: u16 = 0;

pub(super) type Shared = Arc<Service>;
pub(super) type Answer = Result<Json<Value>, Problem>;

/// One of the three.
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) database: Database,
    pub(super) verifier: Verifier,
    /// The status that every `do` answers while the service plays dead.
    pub(super) failure: AtomicU16,
    calls: TaskTracker,
}

impl Service {
    pub(super) fn new(name: &'static str, database: Database, options: &Options) -> Result<Shared, Error> {
        Ok(Arc::new(Self {
            name,
            database,
            verifier: Verifier::new(name, Keys::new(&options.jwks_url)?),
            failure: AtomicU16::new(HEALTHY),
            calls: TaskTracker::new(),
        }))
    }

    /// Runs a call to its end even if the caller hangs up.
    ///
    /// The server drops a handler whose connection is gone. Half-done work would then be rolled back
    /// while the retry already waits for its key, and be done twice over; seen through, the retry
    /// finds the answer.
    pub(super) async fn see_through<W, F>(&self, call: Call, action: Action, work: W) -> Answer
    where
        W: FnOnce(Database, Call) -> F,
        F: Future<Output = Result<Value, Problem>> + Send + 'static,
    {
        if call.action != action {
            return Err(Problem::unauthorized("the token is for another action"));
        }
        if action == Action::Do {
            self.refuse_if_failing()?;
        }
        let (saga, step) = (call.saga.clone(), call.step.clone());
        let work = self.calls.spawn(work(self.database.clone(), call));
        // A panic rolled its transaction back: nothing happened.
        let answer = work.await.unwrap_or_else(|error| Err(Problem::unavailable(error.to_string())));
        let service = self.name;
        match &answer {
            Ok(reply) => {
                let message = reply["message"].as_str().unwrap_or_default();
                tracing::info!(service, saga.id = saga, step.name = step, "{message}");
            }
            Err(problem) => {
                let status = problem.status.as_u16();
                let detail = &problem.detail;
                tracing::info!(service, saga.id = saga, step.name = step, status, "{detail}");
            }
        }
        answer.map(Json)
    }

    /// Waits for the calls whose callers are gone.
    pub(super) async fn drained(&self) {
        self.calls.close();
        self.calls.wait().await;
    }

    fn refuse_if_failing(&self) -> Result<(), Problem> {
        match self.failure.load(Ordering::Relaxed) {
            HEALTHY => Ok(()),
            status => {
                let system = self.name.trim_end_matches("-svc");
                Err(Problem::new(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), format!("{system} system is down")))
            }
        }
    }
}

/// The routes of a service, by its name, and a `/healthz` that needs no token.
pub(super) fn router(service: Shared) -> Router {
    let routes = match service.name {
        "payment-svc" => payment::routes(),
        "notice-svc" => notice::routes(),
        _ => archive::routes(),
    };
    routes.route("/healthz", get(|| async { "ok\n" })).with_state(service)
}

/// 2001445 as "2 001 445".
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped_by_a_normal_space() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (2_001_445, "2 001 445")] {
            assert_eq!(grouped(n), text);
        }
    }
}
