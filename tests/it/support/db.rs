//! Databases for the tests: one private cluster for all test processes, one database per test, made from a template.
//!
//! The cluster stays up between runs, so only the first run pays for it.
//! A test's database is dropped at its end, and kept for an hour where the test failed; what killed runs leave behind is
//! swept by later ones.

#![allow(dead_code, reason = "each test binary that includes this file uses its part of it")]

use std::{
    env,
    fs::{self, File},
    future::Future,
    ops::Deref,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use sha2::{Digest, Sha256};
use syncor::dev_postgres::{Cluster, Options, StopMode};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// Advisory locks of the harness on the database `postgres`, apart from those of any test's own database.
const USE_LOCK: i64 = 0x686d_7375_7365_6462;
const TEMPLATE_LOCK: i64 = 0x686d_7374_656d_706c;

static SHARED: OnceCell<Cluster> = OnceCell::const_new();

/// A database of its own for one test.
#[derive(Debug)]
pub(crate) struct TestDatabase {
    pub(crate) url: String,
    pub(crate) name: String,
    /// The cluster of all tests. Stop it and they all fail: crash tests take [`own_cluster`].
    pub(crate) cluster: &'static Cluster,
}

/// A database with our schema in it.
pub(crate) async fn database() -> TestDatabase {
    database_with(&syncor::store::migrate::fingerprint(), async |url| {
        let dsn = syncor::store::dsn::Dsn::parse(&url).unwrap();
        syncor::store::migrate::migrate(&dsn).await.unwrap();
    })
    .await
}

/// An empty database.
pub(crate) async fn empty_database() -> TestDatabase {
    let cluster = shared_cluster().await;
    let admin = connect(&cluster.url("postgres")).await;
    let name = new_name(&admin).await;
    create(&admin, &name, "template0").await.unwrap();
    TestDatabase::new(cluster, name)
}

/// A copy of a template, which `prepare` makes the first time that any test process asks for this key.
///
/// The key stands for all that `prepare` does, so a digest of the migrations is a good one.
/// `prepare` gets the URL of an empty database and closes its sessions before it returns.
pub(crate) async fn database_with(template_key: &str, prepare: impl AsyncFnOnce(String)) -> TestDatabase {
    let cluster = shared_cluster().await;
    let admin = connect(&cluster.url("postgres")).await;
    let digest = Sha256::digest(template_key);
    let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let template = format!("hms_template_{digest}");
    let name = new_name(&admin).await;
    // Shared, so that no sweep of another process drops the template in between.
    lock(&admin, "lock_shared", USE_LOCK).await;
    make_template(cluster, &admin, &template, prepare).await;
    create(&admin, &name, &template).await.unwrap();
    TestDatabase::new(cluster, name)
}

/// A cluster that a test may stop and break. Removed at the end of the test.
pub(crate) async fn own_cluster() -> OwnCluster {
    let base = base_dir();
    sweep_own_clusters(&base);
    let folder = tempfile::Builder::new().prefix("own-").tempdir_in(&base);
    // Kept here rather than by the TempDir: the server has to be stopped first.
    let folder = folder.unwrap().keep();
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Locked before it has its name: the sweep of another test must not find it free.
    let unnamed = folder.join("alive.new");
    let alive = File::create(&unnamed).unwrap();
    alive.lock().unwrap();
    fs::rename(unnamed, folder.join("alive")).unwrap();
    let mut options = options(folder.join("pg"));
    // With fsync off the module gives up these as well, and then a killed server forgets its last commits. With them a
    // commit is in the system's cache, which outlives the server.
    for name in ["synchronous_commit", "full_page_writes"] {
        options.settings.push((name.to_owned(), "on".to_owned()));
    }
    let cluster = Cluster::ensure(&options).await.unwrap();
    OwnCluster { cluster, folder, _alive: alive }
}

/// See [`own_cluster`].
#[derive(Debug)]
pub(crate) struct OwnCluster {
    cluster: Cluster,
    folder: PathBuf,
    /// Locked while the test lives, so that a later run can tell what a killed one left.
    _alive: File,
}

impl Deref for OwnCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        block_on(self.cluster.stop(StopMode::Immediate)).ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

impl TestDatabase {
    fn new(cluster: &'static Cluster, name: String) -> Self {
        Self { url: cluster.url(&name), name, cluster }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if thread::panicking() {
            // A failed test is easier to understand with its rows at hand.
            tracing::info!(url = self.url, "kept for an hour");
            return;
        }
        let admin = self.cluster.url("postgres");
        let sql = format!("drop database if exists {} with (force)", self.name);
        block_on(async move {
            if let Ok((client, connection)) = tokio_postgres::connect(&admin, NoTls).await {
                tokio::spawn(connection);
                client.batch_execute(&sql).await.ok();
            }
        });
    }
}

/// Opens a session that ends with its client.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Where the clusters of the tests live: in the target folder, unless the server's user cannot get there.
pub(crate) fn base_dir() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let id = Command::new("id").arg("-u").output().unwrap();
    let uid: u32 = String::from_utf8(id.stdout).unwrap().trim().parse().unwrap();
    let open = |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.mode() & 0o001 != 0);
    if uid != 0 || target.ancestors().all(open) {
        return target.to_owned();
    }
    let folder = PathBuf::from(format!("/var/tmp/syncor-tests-{uid}"));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder).unwrap();
    let owner = fs::symlink_metadata(&folder).unwrap();
    assert!(owner.is_dir() && owner.uid() == uid, "{} belongs to somebody else", folder.display());
    folder
}

async fn shared_cluster() -> &'static Cluster {
    SHARED
        .get_or_init(|| async {
            let cluster = Cluster::ensure(&options(base_dir().join("pg"))).await.unwrap();
            sweep_databases(&connect(&cluster.url("postgres")).await).await;
            cluster
        })
        .await
}

fn options(data_dir: PathBuf) -> Options {
    let settings = [("max_connections", "300")];
    Options { data_dir, fsync: false, port: None, settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec() }
}

/// Made under another name and renamed when whole, so that a killed test process leaves no half template.
async fn make_template(cluster: &Cluster, admin: &Client, template: &str, prepare: impl AsyncFnOnce(String)) {
    if exists(admin, template).await {
        return;
    }
    // Held by this session, so it is freed with the session whatever happens.
    lock(admin, "lock", TEMPLATE_LOCK).await;
    if !exists(admin, template).await {
        let making = format!("{template}_making");
        let drop = format!("drop database if exists {making} with (force)");
        admin.batch_execute(&drop).await.unwrap();
        create(admin, &making, "template0").await.unwrap();
        prepare(cluster.url(&making)).await;
        // The rename waits a few seconds for sessions that are just closing.
        for sql in [
            format!("alter database {making} is_template true allow_connections false"),
            // Its age, for the sweep.
            format!("do $$ begin execute format('comment on database {making} is %L', extract(epoch from now())::bigint); end $$"),
            format!("alter database {making} rename to {template}"),
        ] {
            admin.batch_execute(&sql).await.unwrap();
        }
    }
    lock(admin, "unlock", TEMPLATE_LOCK).await;
}

async fn lock(admin: &Client, verb: &str, key: i64) {
    let sql = format!("select pg_advisory_{verb}($1)");
    admin.execute(&sql, &[&key]).await.unwrap();
}

async fn exists(admin: &Client, name: &str) -> bool {
    let sql = "select from pg_database where datname = $1";
    admin.query_opt(sql, &[&name]).await.unwrap().is_some()
}

async fn create(admin: &Client, name: &str, template: &str) -> Result<(), tokio_postgres::Error> {
    admin.batch_execute(&format!("create database {name} template {template}")).await
}

/// The name tells the sweep its age, by the server's clock.
async fn new_name(admin: &Client) -> String {
    let sql = "select 'hms_test_' || extract(epoch from now())::bigint || '_' || left(md5(gen_random_uuid()::text), 12)";
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

/// Drops what runs left an hour ago or earlier, and templates older than a day.
async fn sweep_databases(admin: &Client) {
    // Exclusive and not waited for: neither two sweeps at once nor one while a template is being used.
    let sql = "select pg_try_advisory_lock($1)";
    let locked: bool = admin.query_one(sql, &[&USE_LOCK]).await.unwrap().get(0);
    if !locked {
        return;
    }
    let sql = "select datname::text, datistemplate from pg_database
        where datname ~ '^hms_test_[0-9]+_'
          and split_part(datname, '_', 3)::bigint < extract(epoch from now()) - 3600
           or datname ~ '^hms_template_'
          and shobj_description(oid, 'pg_database')::bigint < extract(epoch from now()) - 86400
        limit 50";
    for row in admin.query(sql, &[]).await.unwrap() {
        let name: &str = row.get(0);
        if row.get(1) {
            let sql = format!("alter database {name} is_template false");
            admin.batch_execute(&sql).await.ok();
        }
        let sql = format!("drop database if exists {name} with (force)");
        // One that cannot be dropped now is left to the next sweep.
        admin.batch_execute(&sql).await.ok();
    }
    // Freed with the session.
}

/// Ends and removes the clusters of killed test processes.
fn sweep_own_clusters(base: &Path) {
    for entry in fs::read_dir(base).unwrap().flatten() {
        let folder = entry.path();
        if !entry.file_name().to_string_lossy().starts_with("own-") {
            continue;
        }
        let Ok(alive) = File::open(folder.join("alive")) else {
            continue;
        };
        if alive.try_lock().is_err() {
            continue;
        }
        let pid = postmaster_pid(&folder.join("pg"));
        let ours = |pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*folder.to_string_lossy()))
        };
        if let Some(pid) = pid.filter(ours) {
            Command::new("kill").args(["-QUIT", &pid.to_string()]).status().ok();
        }
        fs::remove_dir_all(&folder).ok();
    }
}

/// Process id of the server of a data folder, if it has one.
pub(crate) fn postmaster_pid(data_dir: &Path) -> Option<u32> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// For `Drop`, which may run within a runtime: a thread and a runtime of their own, waited for.
pub(crate) fn block_on<T: Send>(work: impl Future<Output = T> + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(work)
            })
            .join()
            .unwrap()
    })
}
