//! Workers inside the test's own process. Crash tests start the real binary instead.

use std::time::Duration;

use syncor::core::definition_file::{self, File};
use syncor::dispatch::call::{Dispatcher, Options as DispatchOptions};
use syncor::dispatch::token::{Algorithm, Signer};
use syncor::engine::{Engine, Options, Wake};
use syncor::store::definitions::{self, NewDefinition, Order};
use syncor::store::dsn::Dsn;
use syncor::store::{self, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running engine.
pub(crate) struct Worker {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

pub(crate) fn options(url: &str) -> Options {
    Options {
        listen: Dsn::parse(url).unwrap(),
        concurrency: 64,
        lease: Duration::from_secs(3),
        poll: Duration::from_secs(1),
        wake: Wake::Notify,
        drain_limit: Duration::from_secs(5),
        functions: 4,
        function_role: None,
    }
}

pub(crate) fn store(url: &str) -> Store {
    Store::new(store::Options { dsn: Dsn::parse(url).unwrap(), pool_size: 8, application_name: "hms-test".to_owned() })
}

impl Worker {
    pub(crate) fn start(url: &str) -> Self {
        Self::start_with(url, options(url))
    }

    pub(crate) fn start_with(url: &str, options: Options) -> Self {
        let signer = Signer::ephemeral(Algorithm::EdDsa).unwrap();
        let dispatcher =
            Dispatcher::new(DispatchOptions { issuer: "http://127.0.0.1:7600".into(), signer, user_agent: "hms-orch/test".into() }).unwrap();
        let engine = Engine::new(options, store(url), dispatcher, None);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let task = tokio::spawn(async move { engine.run(stopping).await });
        Self { stop, task: Some(task) }
    }

    /// Stops as SIGTERM would.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Deploys YAML documents as `hms-orch deploy` does.
pub(crate) async fn deploy(url: &str, text: &str) {
    let files = definition_file::read_all("test.yaml", text).unwrap_or_else(|problems| panic!("{}", problems[0]));
    let store = store(url);
    for file in &files {
        let (kind, id, family, version, revision, source) = match file {
            File::Saga(saga, _, source) => ("saga", &saga.id, &saga.family, i32::try_from(saga.version).unwrap(), &saga.revision, source),
            File::Services(registry, _, source) => ("services", &registry.id, &registry.id, 1, &registry.revision, source),
        };
        let new = NewDefinition { kind, id, family, version, revision, source };
        definitions::deploy(&store, &[new], Order { by: "test", reason: None, replace: false }).await.unwrap();
    }
}
