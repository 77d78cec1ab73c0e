//! The server process: whether it runs, how it is started and stopped.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Cluster, Error, StopMode, make, port, session};

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// How many failures without a known passing cause are borne; a broken setting must not cost a minute.
const ODD_FAILURES_MAX: u32 = 3;
const LOG_TAIL_LINES: usize = 20;

/// What passes by itself: orphans of a killed server that are still going, a server that is just going down or coming
/// up, and a port taken between our look at it and the start.
const PASSING: [&str; 4] =
    ["pre-existing shared memory block", "lock file \"postmaster.pid\"", "could not bind", "could not create any TCP/IP sockets"];

#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No server runs; Postgres deals with a left `postmaster.pid` by itself.
    Down,
    /// No server runs, and its process id now belongs to something else, so Postgres would refuse to start.
    Stale,
    /// A server runs, goes up or goes down.
    Running { port: Option<u16> },
}

/// Told from `postmaster.pid` and the process that it names.
pub(super) fn state(data_dir: &Path) -> Result<State, Error> {
    let file = pid_file(data_dir);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Down),
        Err(error) => return Err(Error::io(format_args!("read {}", file.display()))(error)),
    };
    let mut lines = text.lines();
    let Some(pid) = lines.next().and_then(|line| line.trim().parse().ok()) else {
        return Ok(State::Down);
    };
    // pid, data folder, start time, port
    let port = lines.nth(2).and_then(|line| line.trim().parse().ok());
    Ok(match process(pid, data_dir)? {
        Process::Gone => State::Down,
        Process::Other => State::Stale,
        Process::Server => State::Running { port },
    })
}

enum Process {
    Gone,
    Other,
    Server,
}

fn process(pid: u32, data_dir: &Path) -> Result<Process, Error> {
    if !Path::new("/proc/self").exists() {
        let mut probe = Command::new("kill");
        let probe = probe.args(["-0", &pid.to_string()]).stderr(Stdio::null());
        let alive = probe.status().map_err(Error::io("run `kill -0`"))?;
        let alive = alive.success();
        return Ok(if alive { Process::Server } else { Process::Gone });
    }
    // The command line rather than the working folder: within a container even root may not look at the latter.
    let Ok(command_line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return Ok(Process::Gone);
    };
    let command_line = String::from_utf8_lossy(&command_line);
    let mut arguments = command_line.split('\0');
    let program = arguments.next().and_then(|path| Path::new(path).file_name());
    // A process that has ended but was not reaped has no command line. It counts as something else, as it does for the
    // server, which would wait for it forever in a container whose first process reaps nobody.
    if !program.is_some_and(|name| name == "postgres" || name == "postmaster") {
        return Ok(Process::Other);
    }
    let theirs = arguments.skip_while(|word| *word != "-D").nth(1);
    let folders = theirs.map(|theirs| (fs::canonicalize(theirs), fs::canonicalize(data_dir)));
    Ok(match folders {
        Some((Ok(theirs), Ok(ours))) if theirs != ours => Process::Other,
        _ => Process::Server,
    })
}

fn pid_file(data_dir: &Path) -> PathBuf {
    data_dir.join("postmaster.pid")
}

/// Starts the server unless it runs, and waits until it lets us in. Returns its port.
///
/// To be called under the lock.
pub(super) async fn start(cluster: &Cluster) -> Result<u16, Error> {
    let (place, data_dir) = (&cluster.place, cluster.place.data_dir());
    let deadline = Instant::now() + START_DEADLINE;
    let mut odd_failures = 0;
    loop {
        let reason = match state(data_dir)? {
            State::Running { port: Some(port) } => match session::connect(port, &cluster.password, "postgres").await {
                Ok(_) => return Ok(port),
                Err(session::Refusal::Password) => {
                    let path = place.password();
                    return Err(Error::PasswordRefused { path });
                }
                Err(session::Refusal::NotYet(reason)) => reason,
            },
            State::Running { port: None } => "it has no port yet".to_owned(),
            down => {
                if down == State::Stale {
                    remove_pid_file(data_dir)?;
                }
                match launch(cluster).await? {
                    None => continue,
                    Some(failure) => {
                        odd_failures += u32::from(!failure.passing);
                        failure.reason
                    }
                }
            }
        };
        if odd_failures >= ODD_FAILURES_MAX || Instant::now() >= deadline {
            let log = place.log();
            let tail = last_lines(&read_from(&log, 0), LOG_TAIL_LINES);
            return Err(Error::NotReady { reason, log, tail });
        }
        sleep(POLL).await;
    }
}

struct Failure {
    reason: String,
    passing: bool,
}

/// One attempt of `pg_ctl start`, which waits for the server to be ready or to end.
async fn launch(cluster: &Cluster) -> Result<Option<Failure>, Error> {
    let (place, account) = (&cluster.place, cluster.account.as_ref());
    remove_sockets(cluster);
    let port = port::choose(&cluster.options, place)?;
    make::configuration(&cluster.options, place, account, port)?;
    let log = place.log();
    let log_bytes = fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let mut command = cluster.binaries.command("pg_ctl", account, place.parent());
    command
        .args(["start", "--wait", "--silent", "--pgdata"])
        .arg(place.data_dir())
        .arg("--log")
        .arg(&log)
        .args(["--timeout", &START_DEADLINE.as_secs().to_string()])
        // pg_ctl gives the server a session of its own, which keeps Ctrl-C and the terminal's end from it. This is for
        // the moment before that, and for a pg_ctl that outlives us.
        .process_group(0);
    let started = make::run("pg_ctl start", command, START_DEADLINE * 2).await;
    match started {
        Ok(()) => {
            tracing::info!(folder = %place.data_dir().display(), port, "start the private PostgreSQL");
            Ok(None)
        }
        Err(Error::Program { output, .. }) => {
            let said = read_from(&log, log_bytes);
            let passing = PASSING.iter().any(|cause| said.contains(cause));
            tracing::debug!(passing, "retry a start that failed: {output}");
            let reason = format!("pg_ctl: {output}");
            Ok(Some(Failure { reason, passing }))
        }
        Err(other) => Err(other),
    }
}

/// The server still looks for orphans of the last one: their shared memory is found by the folder's inode as well.
fn remove_pid_file(data_dir: &Path) -> Result<(), Error> {
    let file = pid_file(data_dir);
    tracing::info!(file = %file.display(), "remove a stale pid file, its process is another one now");
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(format_args!("remove {}", file.display()))(error)),
        _ => Ok(()),
    }
}

/// Sockets have lock files too, which name the dead server's process id and fool the next one in the same way.
///
/// Best effort, and safe: no server runs, and the folder is this cluster's alone.
fn remove_sockets(cluster: &Cluster) {
    let Some(folder) = cluster.place.socket_dir() else {
        return;
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Err(error) = fs::remove_file(entry.path()) {
            tracing::debug!(%error, file = %entry.path().display(), "leave a stale socket behind");
        }
    }
}

/// Stops the server and waits until it is down. To be called under the lock.
pub(super) async fn stop(cluster: &Cluster, mode: StopMode) -> Result<(), Error> {
    let data_dir = cluster.place.data_dir();
    if !matches!(state(data_dir)?, State::Running { .. }) {
        return Ok(());
    }
    let mode = match mode {
        StopMode::Fast => "fast",
        StopMode::Immediate => "immediate",
    };
    let mut command = cluster.binaries.command("pg_ctl", cluster.account.as_ref(), cluster.place.parent());
    command.args(["stop", "--wait", "--silent", "--mode", mode, "--pgdata"]).arg(data_dir).args(["--timeout", &STOP_DEADLINE.as_secs().to_string()]);
    let stopped = make::run("pg_ctl stop", command, STOP_DEADLINE * 2).await;
    match stopped {
        // It went down by itself in between.
        Err(_) if !matches!(state(data_dir)?, State::Running { .. }) => Ok(()),
        stopped => stopped,
    }
}

/// What the log says from this byte on, at most its last 64 KiB. A log that cannot be read says nothing.
fn read_from(log: &Path, start: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(64 << 10))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_with(text: &str) -> State {
        let data_dir = tempfile::tempdir().unwrap();
        fs::write(pid_file(data_dir.path()), text).unwrap();
        state(data_dir.path()).unwrap()
    }

    #[test]
    fn no_or_an_unreadable_pid_file_means_down() {
        let data_dir = tempfile::tempdir().unwrap();
        assert_eq!(state(data_dir.path()).unwrap(), State::Down);
        assert_eq!(state_with(""), State::Down);
        assert_eq!(state_with("-7\n"), State::Down);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pid_of_nobody_means_down_and_of_another_program_stale() {
        let no_process = u32::MAX;
        assert_eq!(state_with(&format!("{no_process}\n/x\n1\n5432\n")), State::Down);
        let ourselves = std::process::id();
        assert_eq!(state_with(&format!("{ourselves}\n/x\n1\n5432\n")), State::Stale);
    }

    #[test]
    fn last_lines_are_the_end_of_the_text() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a\n", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }
}
