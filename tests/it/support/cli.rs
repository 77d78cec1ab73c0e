//! The two programs, run as people run them.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::Command;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// For chaining: the run, if it ended with this code.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A command without the caller's environment.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

pub(crate) async fn orch(url: &str, arguments: &[&str]) -> Run {
    command(env!("CARGO_BIN_EXE_hms-orch")).env("DATABASE_URL", url).args(arguments).output().await.unwrap().into()
}

pub(crate) async fn bus(url: &str, arguments: &[&str]) -> Run {
    command(env!("CARGO_BIN_EXE_hms-bus")).env("DATABASE_URL", url).args(arguments).output().await.unwrap().into()
}

/// `hms-orch` that knows a server and no database.
pub(crate) async fn orch_at(address: std::net::SocketAddr, key: &str, arguments: &[&str]) -> Run {
    let mut command = command(env!("CARGO_BIN_EXE_hms-orch"));
    command.env("HMS_URL", format!("http://{address}")).env("HMS_API_KEY", key).args(arguments).output().await.unwrap().into()
}

/// Writes a file and returns its path.
pub(crate) fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
