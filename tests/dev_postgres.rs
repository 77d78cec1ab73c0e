//! The private cluster and the test harness built on it, on real servers.

#![allow(clippy::unwrap_used, reason = "a test stops where something fails")]
#![allow(clippy::print_stdout, reason = "the child tells its parent what it found")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use syncor::dev_postgres::{Cluster, Error, Options, StopMode};

#[path = "it/support/db.rs"]
mod db;

/// Tells the helper below which cluster to make.
const CHILD_DATA_DIR: &str = "SYNCOR_TEST_CHILD_DATA_DIR";

#[tokio::test]
async fn made_cluster_is_found_again_with_the_same_server_and_password() {
    let cluster = db::own_cluster().await;
    let pid = db::postmaster_pid(cluster.data_dir()).unwrap();
    let again = Cluster::ensure(&options(cluster.data_dir())).await.unwrap();
    assert_eq!(db::postmaster_pid(cluster.data_dir()), Some(pid));
    assert_eq!(again.url("postgres"), cluster.url("postgres"));
    assert!((15..=18).contains(&again.version()));
    assert_eq!(setting(&cluster, "max_connections").await, "300");
    assert_eq!(setting(&cluster, "listen_addresses").await, "127.0.0.1");
    assert_eq!(setting(&cluster, "fsync").await, "off");
    assert_eq!(setting(&cluster, "server_encoding").await, "UTF8");
    assert_eq!(setting(&cluster, "TimeZone").await, "UTC");
}

#[tokio::test]
async fn several_commands_at_once_share_one_server() {
    let folder = Folder::new();
    let options = options(&folder.data_dir());
    let mut child = start_child(&folder.data_dir());
    let (one, two, three) = tokio::join!(Cluster::ensure(&options), Cluster::ensure(&options), Cluster::ensure(&options),);
    let (one, two, three) = (one.unwrap(), two.unwrap(), three.unwrap());
    let childs_pid = wait_for_child(&mut child);
    assert_eq!(one.url("postgres"), two.url("postgres"));
    assert_eq!(one.url("postgres"), three.url("postgres"));
    assert_eq!(db::postmaster_pid(one.data_dir()), Some(childs_pid));
    assert_eq!(setting(&one, "data_directory").await, folder.data_dir().to_str().unwrap());
    kill_child(child);
}

#[tokio::test]
async fn cluster_outlives_the_killed_process_that_made_it() {
    let folder = Folder::new();
    let mut child = start_child(&folder.data_dir());
    let pid = wait_for_child(&mut child);
    kill_child(child);
    // A lock left by the dead would show here as a hang.
    let cluster = Cluster::ensure(&options(&folder.data_dir())).await.unwrap();
    assert_eq!(db::postmaster_pid(cluster.data_dir()), Some(pid));
    #[cfg(target_os = "linux")]
    {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after_name = stat.rsplit_once(") ").unwrap().1;
        let fields: Vec<u32> = after_name.split(' ').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
        assert_eq!(fields, [pid, pid], "leads a process group and a session of its own");
    }
}

#[tokio::test]
async fn killed_server_comes_back_with_what_was_committed() {
    let cluster = db::own_cluster().await;
    let client = db::connect(&cluster.url("postgres")).await;
    client.batch_execute("create table kept (n int); insert into kept values (7)").await.unwrap();
    let killed = db::postmaster_pid(cluster.data_dir()).unwrap();
    kill(killed);
    let again = Cluster::ensure(&options(cluster.data_dir())).await.unwrap();
    assert_ne!(db::postmaster_pid(again.data_dir()), Some(killed));
    assert_eq!(again.port(), cluster.port(), "the port is remembered");
    let client = db::connect(&again.url("postgres")).await;
    assert_eq!(client.query_one("select n from kept", &[]).await.unwrap().get::<_, i32>(0), 7);
}

#[tokio::test]
async fn pid_file_that_names_a_foreign_process_does_not_keep_the_server_down() {
    let cluster = db::own_cluster().await;
    let pid_file = cluster.data_dir().join("postmaster.pid");
    let text = fs::read_to_string(&pid_file).unwrap();
    cluster.stop(StopMode::Immediate).await.unwrap();
    // Linux counts a process that was killed and not yet reaped the same way.
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).unwrap();
    cluster.start().await.unwrap();
    assert_eq!(setting(&cluster, "port").await, cluster.port().to_string());
}

#[tokio::test]
async fn stopped_cluster_starts_again_on_its_port_or_on_a_new_one_if_that_is_taken() {
    let cluster = db::own_cluster().await;
    let port = cluster.port();
    cluster.stop(StopMode::Fast).await.unwrap();
    cluster.stop(StopMode::Fast).await.unwrap();
    assert!(tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.is_err());
    cluster.start().await.unwrap();
    cluster.start().await.unwrap();
    assert_eq!(cluster.port(), port);
    cluster.stop(StopMode::Fast).await.unwrap();
    let _squatter = TcpListener::bind(("127.0.0.1", port)).unwrap();
    cluster.start().await.unwrap();
    assert_ne!(cluster.port(), port);
    assert_eq!(setting(&cluster, "port").await, cluster.port().to_string());
}

#[tokio::test]
async fn wanted_port_is_used_and_refused_if_it_is_taken() {
    let folder = Folder::new();
    let squatter = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = squatter.local_addr().unwrap().port();
    let options = Options { port: Some(port), ..options(&folder.data_dir()) };
    let refused = Cluster::ensure(&options).await;
    assert!(matches!(refused, Err(Error::PortTaken { port: taken }) if taken == port), "{refused:?}");
    drop(squatter);
    assert_eq!(Cluster::ensure(&options).await.unwrap().port(), port);
}

#[tokio::test]
async fn half_made_cluster_is_thrown_away() {
    let folder = Folder::new();
    let leftover = folder.0.join("pg.making-0badcafe");
    fs::create_dir(&leftover).unwrap();
    fs::write(leftover.join("PG_VERSION"), "15\n").unwrap();
    Cluster::ensure(&options(&folder.data_dir())).await.unwrap();
    assert!(!leftover.exists());
}

#[tokio::test]
async fn cluster_of_an_unknown_version_is_refused_and_left_alone() {
    let folder = Folder::new();
    fs::create_dir(folder.data_dir()).unwrap();
    fs::write(folder.data_dir().join("PG_VERSION"), "14\n").unwrap();
    let refused = Cluster::ensure(&options(&folder.data_dir())).await;
    assert!(matches!(&refused, Err(Error::VersionUnknown { version, .. }) if version == "14"), "{refused:?}");
    assert!(folder.data_dir().join("PG_VERSION").exists());
}

#[tokio::test]
async fn broken_setting_is_reported_with_the_log_and_without_a_long_wait() {
    let folder = Folder::new();
    let settings = vec![("shared_buffers".to_owned(), "plenty".to_owned())];
    let options = Options { settings, ..options(&folder.data_dir()) };
    let refused = tokio::time::timeout(Duration::from_secs(50), Cluster::ensure(&options)).await;
    let message = refused.expect("gave up early").unwrap_err().to_string();
    assert!(message.contains("invalid value for parameter \"shared_buffers\""), "{message}");
}

#[tokio::test]
async fn other_users_of_the_machine_get_in_only_with_the_password() {
    use std::os::unix::fs::PermissionsExt;

    let cluster = db::own_cluster().await;
    for login in ["hms", "postgres", "hms:wrong"] {
        let url = format!("postgres://{login}@127.0.0.1:{}/postgres", cluster.port());
        assert!(tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_err(), "{login}");
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cluster.data_dir().with_extension("password")), 0o600);
    assert_eq!(mode(cluster.data_dir()), 0o700);
    assert!(!format!("{cluster:?}").contains("password"));
}

#[tokio::test]
async fn lost_password_is_reported_by_its_path() {
    let cluster = db::own_cluster().await;
    let file = cluster.data_dir().with_extension("password");
    let password = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let lost = Cluster::ensure(&options(cluster.data_dir())).await;
    assert!(matches!(lost, Err(Error::PasswordMissing { path }) if path == file));
    fs::write(&file, "0123").unwrap();
    let wrong = Cluster::ensure(&options(cluster.data_dir())).await;
    assert!(matches!(wrong, Err(Error::PasswordRefused { path }) if path == file));
    fs::write(&file, password).unwrap();
}

#[tokio::test]
async fn server_of_root_runs_as_another_user() {
    use std::os::unix::fs::MetadataExt;

    let cluster = db::own_cluster().await;
    let owner = fs::metadata(cluster.data_dir()).unwrap().uid();
    let ourselves = fs::metadata(cluster.data_dir().with_extension("lock")).unwrap().uid();
    if ourselves == 0 {
        assert_ne!(owner, 0);
    } else {
        assert_eq!(owner, ourselves);
    }
}

#[tokio::test]
async fn folder_that_the_servers_user_cannot_reach_is_named() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let folder = Folder::new();
    if fs::metadata(&folder.0).unwrap().uid() != 0 {
        return;
    }
    let closed = folder.0.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    let refused = Cluster::ensure(&options(&closed.join("pg"))).await;
    assert!(matches!(refused, Err(Error::Unreachable { folder, .. }) if folder == closed));
}

#[tokio::test]
async fn database_is_made_once_by_many_at_once() {
    let cluster = db::own_cluster().await;
    let name = "odd \"name\"/1";
    let (one, two, three) = tokio::join!(cluster.ensure_database(name), cluster.ensure_database(name), cluster.ensure_database(name),);
    one.and(two).and(three).unwrap();
    let client = db::connect(&cluster.url(name)).await;
    let found: String = client.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    assert_eq!(found, name);
}

#[tokio::test]
async fn test_databases_are_apart_and_gone_afterwards() {
    let (one, two) = tokio::join!(db::database(), db::database());
    assert_ne!(one.name, two.name);
    db::connect(&one.url).await.batch_execute("create table only_here ()").await.unwrap();
    let sql = "select to_regclass('only_here') is null";
    assert!(db::connect(&two.url).await.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    let (name, cluster) = (one.name.clone(), one.cluster);
    drop(one);
    let admin = db::connect(&cluster.url("postgres")).await;
    let found = admin.query("select from pg_database where datname = $1", &[&name]).await.unwrap();
    assert_eq!(found.len(), 0);
}

#[tokio::test]
async fn template_is_prepared_once_for_many_databases() {
    let key = format!("prepared once by {}", std::process::id());
    let made = std::sync::atomic::AtomicU32::new(0);
    let prepare = async |url: String| {
        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        db::connect(&url).await.batch_execute("create table prepared ()").await.unwrap();
    };
    let (one, two) = tokio::join!(db::database_with(&key, prepare), db::database_with(&key, prepare));
    for database in [&one, &two] {
        db::connect(&database.url).await.batch_execute("table prepared").await.unwrap();
    }
    assert_eq!(made.into_inner(), 1);
}

/// Not a test: the process that other tests kill.
#[tokio::test]
#[ignore = "started by the tests that need a process to kill"]
async fn child_makes_a_cluster_and_stays() {
    let Some(data_dir) = env::var_os(CHILD_DATA_DIR) else {
        return;
    };
    let cluster = Cluster::ensure(&options(Path::new(&data_dir))).await.unwrap();
    println!("\npostmaster {}", db::postmaster_pid(cluster.data_dir()).unwrap());
    // Until it is killed, or its parent is: then the pipe ends.
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    read.await.unwrap().unwrap();
}

fn start_child(data_dir: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "child_makes_a_cluster_and_stays", "--ignored", "--nocapture"])
        .env(CHILD_DATA_DIR, data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for_child(child: &mut Child) -> u32 {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let pid = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("postmaster ")?.parse().ok());
    pid.expect("the child says which server it found")
}

fn kill_child(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

async fn setting(cluster: &Cluster, name: &str) -> String {
    let client = db::connect(&cluster.url("postgres")).await;
    client.query_one("select current_setting($1)", &[&name]).await.unwrap().get(0)
}

fn options(data_dir: &Path) -> Options {
    Options { data_dir: data_dir.to_owned(), fsync: false, port: None, settings: Vec::new() }
}

/// A folder for a cluster that the test makes by itself.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::Builder::new().prefix("made-").tempdir_in(db::base_dir()).unwrap().keep();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn data_dir(&self) -> PathBuf {
        self.0.join("pg")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Killed without ceremony: no test looks at it any more.
        if let Some(pid) = db::postmaster_pid(&self.data_dir()) {
            Command::new("kill").args(["-QUIT", &pid.to_string()]).status().ok();
        }
        fs::remove_dir_all(&self.0).ok();
    }
}
