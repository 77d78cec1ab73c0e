//! The command line: arguments in, data on stdout, talk on stderr, an exit code at the end.
//!
//! The only room that prints and the only one that uses `anyhow`. A reader that has had enough (`| head`) ends a command in
//! silence.

use std::future::Future;
use std::process::ExitCode;

use anyhow::Result;

use crate::config::Output;
use crate::telemetry;

pub mod bus;
pub mod code;
pub mod orch;

mod admin;
mod capture;
mod cells;
mod console;
mod database;
mod definitions;
mod demo;
mod deploy;
mod files;
mod follow;
mod graph;
mod identify;
mod init;
mod lists;
mod locks;
mod node;
mod operate;
mod orders;
mod output;
mod publish;
mod remote;
mod sagas;
mod service;
mod source;
mod story;
mod tasks;
mod test;
mod token;
mod up;
mod validate;

use code::Code;

/// Ends a command: its code, and the reason on stderr.
fn finish(result: Result<Code>, json: bool) -> ExitCode {
    let code = match result {
        Ok(code) => code,
        Err(error) => {
            let code = code::of(&error);
            if !code::is_broken_pipe(&error) {
                output::complain(&error, code, json);
            }
            code
        }
    };
    code.into()
}

/// Starts the log and runs `work` on a runtime of its own; SIGINT ends it with 130.
fn block_on(output: &Output, log: &str, threads: Threads, work: impl Future<Output = Result<Code>>) -> Result<Code> {
    telemetry::log(output.log.as_deref(), log, output.log_format == crate::config::LogFormat::Json)?;
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build()?;
    let result = runtime.block_on(async {
        match threads {
            // Servers handle their signals themselves.
            Threads::Many => work.await,
            Threads::One => tokio::select! {
                result = work => result,
                _ = tokio::signal::ctrl_c() => Ok(Code::Interrupted),
            },
        }
    });
    // A resolver or a file system that hangs must not keep the command.
    runtime.shutdown_background();
    result
}

/// How many threads a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Threads {
    /// A question and its answer.
    One,
    /// A server.
    Many,
}

/// Prints what clap has to say: help and version are what was asked for, the rest is a wrong command.
fn refuse(error: &clap::Error) -> ExitCode {
    // A pipe that is closed has nobody to tell.
    let _nobody = error.print();
    if error.use_stderr() { Code::Usage.into() } else { Code::Ok.into() }
}
