//! Workers as real processes, to be killed, stopped and continued.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// A running `hms-orch up`.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    _home: tempfile::TempDir,
}

impl Process {
    pub(crate) fn worker(url: &str) -> Self {
        Self::worker_with(url, &[])
    }

    pub(crate) fn worker_with(url: &str, settings: &[(&str, &str)]) -> Self {
        Self::start(&["up", "--role", "worker"], url, settings)
    }

    /// A server with engine and HTTP; the settings say where it listens.
    pub(crate) fn server_with(url: &str, settings: &[(&str, &str)]) -> Self {
        Self::start(&["up"], url, settings)
    }

    fn start(arguments: &[&str], url: &str, settings: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hms-orch"));
        command
            .args(arguments)
            .env("DATABASE_URL", url)
            .env("HMS_SIGNING_KEY_FILE", home.path().join("signing.pem"))
            .env("HMS_DATA_DIR", home.path())
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        for stream in [Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>, Box::new(child.stderr.take().unwrap())] {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    log.lock().unwrap().push(line);
                }
            });
        }
        Self { child, log, _home: home }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name, such as STOP, CONT or TERM.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Waits for its end and returns the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
        if thread::panicking() {
            for line in self.log() {
                println!("worker {}: {line}", self.pid());
            }
        }
    }
}
