//! Whether this server should be sent requests.

use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::store::{Error, Store, migrate};

/// How long an answer of the database is good for: the route is public, the database is not its target.
const KEPT: Duration = Duration::from_secs(1);
/// How long the database may take.
const TIME: Duration = Duration::from_secs(2);

/// A question to the outside, with the words for a bad answer.
pub type Check = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The checks, their last answers, and whether the server is about to stop.
pub struct Readiness {
    draining: CancellationToken,
    checks: Vec<(&'static str, Check)>,
    last: Mutex<Option<(Instant, Vec<Answer>)>>,
}

/// What a check said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The check.
    pub name: &'static str,
    /// What is wrong, if something is.
    pub wrong: Option<String>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("draining", &self.draining.is_cancelled()).finish_non_exhaustive()
    }
}

impl Readiness {
    /// Asks `checks`, in their order, each for at most two seconds.
    #[must_use]
    pub fn new(checks: Vec<(&'static str, Check)>) -> Self {
        Self { draining: CancellationToken::new(), checks, last: Mutex::default() }
    }

    /// From now on the server is not ready, and whoever waits for something is answered.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Returns once the server is about to stop.
    pub async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// What the checks say.
    pub async fn answers(&self) -> Vec<Answer> {
        // Held while asking: those who come meanwhile share the answer.
        let mut last = self.last.lock().await;
        let mut answers = match last.as_ref() {
            Some((at, answers)) if at.elapsed() < KEPT => answers.clone(),
            _ => {
                let mut answers = Vec::with_capacity(self.checks.len() + 1);
                for (name, check) in &self.checks {
                    let wrong = match tokio::time::timeout(TIME, check()).await {
                        Ok(result) => result.err(),
                        Err(_) => Some("no answer within 2 seconds".to_owned()),
                    };
                    answers.push(Answer { name, wrong });
                }
                *last = Some((Instant::now(), answers.clone()));
                answers
            }
        };
        let stopping = self.draining.is_cancelled().then(|| "the server is about to stop".to_owned());
        answers.push(Answer { name: "draining", wrong: stopping });
        answers
    }
}

/// Whether the database answers.
#[must_use]
pub fn database(store: Store) -> Check {
    Box::new(move || {
        let store = store.clone();
        Box::pin(async move {
            store.ping().await.map_err(|error| {
                // The route is public: the reason stays in the log.
                tracing::warn!(%error, "the database does not answer");
                "it cannot be reached".to_owned()
            })
        })
    })
}

/// Whether the schema is the one this program works with.
#[must_use]
pub fn schema(store: Store) -> Check {
    Box::new(move || {
        let store = store.clone();
        Box::pin(async move {
            let ask = async || -> Result<(), Error> {
                let client = store.client().await?;
                migrate::check(&client).await
            };
            ask().await.map_err(|error| match error {
                Error::Schema(reason) => reason,
                error => {
                    tracing::warn!(%error, "the schema cannot be checked");
                    "it cannot be checked".to_owned()
                }
            })
        })
    })
}
