//! The engine of one worker process: events become sagas, sagas become calls, replies become the next call or an undo.
//!
//! ```text
//! router ──owned──► runner ──writes──► committers
//! claimer ─owned──►   ▲  │                 │
//! calls ──replies─────┘  └──calls          └──results──► runner
//! keeper: heartbeat, clock, the others' deaths
//! ```
//! Invariants: every decision is `core::machine`'s; every state change goes through a committer with the worker's fence; no
//! call is sent before its intent is durable and the lease is sure; no connection is held while a call is under way.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use uuid::Uuid;

use crate::core::story::StoryLine;
use crate::dispatch::call::Dispatcher;
use crate::store::dsn::Dsn;
use crate::store::function::Functions;
use crate::store::partitions;
use crate::store::workers::{self, Registration};
use crate::store::{Error, Store};

pub mod breakers;
pub mod calls;
pub mod claimer;
pub mod clock;
pub mod committer;
pub mod definitions;
pub mod functions;
pub mod gather;
pub mod lease;
pub mod live;
mod measures;
pub mod mending;
pub mod plan;
pub mod router;
pub mod runner;
pub mod said;
mod telling;

use breakers::Breakers;
use clock::Clock;
use committer::Committer;
use definitions::Definitions;
use lease::{Lease, Vitals};
use router::Router;
use runner::{Message, Runner};

/// Committers that share the channel of writes: while one waits for the disk, the next batch gathers.
const COMMITTERS: usize = 2;
/// Sagas in memory per call slot: while one saga's write is under way another one's call can be.
const SAGAS_PER_SLOT: usize = 2;
/// How often old read positions and workers are swept, and partitions made ahead.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How sleeping workers are woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// By NOTIFY, where it works; polling is the guarantee.
    Notify,
    /// By polling alone.
    Poll,
}

/// How an engine runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// A direct address for the listening session.
    pub listen: Dsn,
    /// Calls in flight at most.
    pub concurrency: usize,
    /// How long the worker may be silent before others take over.
    pub lease: Duration,
    /// How often to look without being woken.
    pub poll: Duration,
    /// How sleeping workers are woken.
    pub wake: Wake,
    /// How long a stop waits for calls in flight.
    pub drain_limit: Duration,
    /// Functions of the database that are called at a time, each on a connection of its own.
    pub functions: usize,
    /// The role whose rights they are called with; else our own.
    pub function_role: Option<String>,
}

/// One start of a worker: it ends with the process, or when somebody declares it dead.
#[derive(Debug)]
pub struct Worker {
    options: Options,
    store: Store,
    dispatcher: Dispatcher,
    definitions: Definitions,
    lease: Arc<Lease>,
    clock: Clock,
    vitals: Vitals,
    slots: Semaphore,
    breakers: Breakers,
    functions: Functions,
    owned: AtomicUsize,
    messages: mpsc::UnboundedSender<Message>,
    story: Option<mpsc::Sender<StoryLine>>,
    /// Rung when there is room again, or something was published that triggers something.
    router_bell: Notify,
    /// Rung when there may be sagas that nobody runs.
    orphans: Notify,
    /// Other processes should look.
    ring_wanted: AtomicBool,
    calls: TaskTracker,
}

impl Worker {
    /// How many sagas fit into memory.
    fn capacity(&self) -> usize {
        self.options.concurrency * SAGAS_PER_SLOT
    }

    /// How many more sagas fit into memory.
    fn room(&self) -> usize {
        self.capacity().saturating_sub(self.owned.load(Ordering::Relaxed))
    }

    fn take_on(&self) {
        self.owned.fetch_add(1, Ordering::Relaxed);
    }

    fn let_go(&self) {
        let before = self.owned.fetch_sub(1, Ordering::Relaxed);
        // Waking the router for every single place would be a wake-up storm: a quarter of them is worth a batch.
        let all = self.capacity();
        if before >= all || all - before == all / 4 || before == 1 {
            self.router_bell.notify_one();
        }
    }

    fn send(&self, message: Message) {
        // The runner is gone only when the worker is.
        let _gone = self.messages.send(message);
    }

    /// Tells people, if they keep up: the story is told, not recorded.
    fn tell(&self, line: StoryLine) {
        if let Some(story) = &self.story {
            let _full = story.try_send(line);
        }
    }

    /// Events of our own were published: routers look only if that can start something.
    fn published(&self, kinds: &[Cow<'static, str>]) {
        if !kinds.is_empty() {
            let active = self.definitions.active();
            if kinds.iter().any(|kind| active.triggers().any(|trigger| trigger == kind.as_ref())) {
                self.ring();
            }
        }
    }

    /// Asks all routers and claimers to look, here and elsewhere.
    fn ring(&self) {
        self.router_bell.notify_one();
        self.orphans.notify_one();
        self.ring_wanted.store(true, Ordering::Relaxed);
    }

    fn take_ring(&self) -> bool {
        self.ring_wanted.swap(false, Ordering::Relaxed)
    }
}

/// Runs workers, one after the other: a worker that was declared dead is replaced by a new one with a new id.
#[derive(Debug)]
pub struct Engine {
    options: Options,
    store: Store,
    dispatcher: Dispatcher,
    story: Option<mpsc::Sender<StoryLine>>,
}

impl Engine {
    /// An engine that has not begun.
    #[must_use]
    pub fn new(options: Options, store: Store, dispatcher: Dispatcher, story: Option<mpsc::Sender<StoryLine>>) -> Self {
        Self { options, store, dispatcher, story }
    }

    /// Runs until `stop` is cancelled: then nothing new is taken on, calls in flight are waited for up to the drain limit, and
    /// what is left is handed over.
    pub async fn run(&self, stop: CancellationToken) {
        let mut pause = Duration::from_millis(50);
        while !stop.is_cancelled() {
            match self.live_once(&stop).await {
                Ok(()) => pause = Duration::from_millis(50),
                Err(error) => {
                    warn!(%error, "the worker cannot start, trying again");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    }

    async fn live_once(&self, stop: &CancellationToken) -> Result<(), Error> {
        let (messages, inbox) = mpsc::unbounded_channel();
        let worker = Arc::new(self.register(messages).await?);
        let (writes, queue) = mpsc::unbounded_channel();
        let (results, written) = mpsc::unbounded_channel();
        let queue = Arc::new(Mutex::new(queue));
        let dead = worker.lease.dead.clone();
        let taking = stop.child_token();
        let beating = CancellationToken::new();
        let tasks = TaskTracker::new();
        for _ in 0..COMMITTERS {
            let committer = Committer {
                store: self.store.clone(),
                worker: worker.lease.worker,
                writes: Arc::clone(&queue),
                results: results.clone(),
                dead: dead.clone(),
            };
            tasks.spawn(committer.run());
        }
        tasks.spawn(keep(Arc::clone(&worker), beating.clone()));
        tasks.spawn(Router::new(Arc::clone(&worker)).run(taking.clone()));
        tasks.spawn(claimer::run(Arc::clone(&worker), taking.clone()));
        tasks.spawn(follow_catalog(Arc::clone(&worker), beating.clone()));
        tasks.spawn(watch_breakers(Arc::clone(&worker), beating.clone()));
        tasks.spawn(sweep(self.store.clone(), taking.clone()));
        let runner = Runner::new(Arc::clone(&worker), writes, results);
        tokio::select! {
            () = runner.run(inbox, written, stop.clone(), self.options.drain_limit) => {}
            () = dead.cancelled() => {}
        }
        taking.cancel();
        let lost = dead.is_cancelled();
        if !lost {
            let stopped = async { workers::stop(&self.store.client().await?, worker.lease.worker).await };
            match stopped.await {
                Ok(released) => info!(worker = worker.lease.worker, released, "stopped"),
                Err(error) => warn!(worker = worker.lease.worker, %error, "stopped without saying so: others will notice after the lease"),
            }
        }
        beating.cancel();
        dead.cancel();
        tasks.close();
        worker.calls.close();
        tasks.wait().await;
        worker.calls.wait().await;
        Ok(())
    }

    async fn register(&self, messages: mpsc::UnboundedSender<Message>) -> Result<Worker, Error> {
        let registration = Registration {
            id: Uuid::now_v7(),
            host: host_name(),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            slots: i32::try_from(self.options.concurrency).unwrap_or(i32::MAX),
            lease_ms: i32::try_from(self.options.lease.as_millis()).unwrap_or(i32::MAX),
        };
        let client = self.store.client().await?;
        let no = workers::register(&client, &registration).await?;
        let lease = Arc::new(Lease::new(no, self.options.lease));
        let beat = workers::beat(&client, no, 0, None).await?;
        let definitions = Definitions::default();
        definitions.reload(&client, &self.dispatcher).await?;
        let breakers = Breakers::default();
        breakers.load(&client).await?;
        info!(worker = no, worker.id = %registration.id, "started");
        Ok(Worker {
            options: self.options.clone(),
            store: self.store.clone(),
            dispatcher: self.dispatcher.clone(),
            definitions,
            lease,
            clock: Clock::new(beat.now),
            vitals: Vitals::default(),
            slots: Semaphore::new(self.options.concurrency),
            breakers,
            functions: Functions::new(self.store.dsn().clone(), self.options.functions, self.options.function_role.clone()),
            owned: AtomicUsize::new(0),
            messages,
            story: self.story.clone(),
            router_bell: Notify::new(),
            orphans: Notify::new(),
            ring_wanted: AtomicBool::new(false),
            calls: TaskTracker::new(),
        })
    }
}

async fn keep(worker: Arc<Worker>, stop: CancellationToken) {
    lease::keep(worker.store.clone(), &worker.lease, &worker.clock, &worker.vitals, &worker.orphans, &worker.breakers.bell, stop).await;
}

/// The router reads the definitions anew with the events that need them; the other workers' calls need them as well.
async fn follow_catalog(worker: Arc<Worker>, stop: CancellationToken) {
    let mut revision = worker.lease.catalog.subscribe();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _changed = revision.changed() => {}
        }
        let now = *revision.borrow_and_update();
        while now != 0 && worker.definitions.active().revision < now && !stop.is_cancelled() {
            let reloaded = async { worker.definitions.reload(&worker.store.client().await?, &worker.dispatcher).await };
            if let Err(error) = reloaded.await {
                warn!(%error, "the definitions cannot be read anew");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
    }
}

async fn watch_breakers(worker: Arc<Worker>, stop: CancellationToken) {
    worker.breakers.watch(Arc::clone(&worker), stop).await;
}

async fn sweep(store: Store, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let swept = async {
            let mut client = store.client().await?;
            workers::sweep(&client).await?;
            measures::strain(workers::strain(&client).await?);
            partitions::ensure(&mut client).await
        };
        if let Err(error) = swept.await {
            warn!(%error, "sweeping failed");
        }
    }
}

fn host_name() -> String {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    from_kernel.ok().filter(|name| !name.is_empty()).or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "unknown".to_owned())
}
