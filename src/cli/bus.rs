//! `hms-bus`: the command tree.

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use super::code::Code;
use super::{Threads, block_on, finish, output, publish};
use crate::config;

/// The event bus on Postgres
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 validation failed, 4 nothing started, 5 conflict, 6 saga ended failed,
/// 7 wait timed out, 8 nothing goes on without a human, 69 database or server unavailable, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "hms-bus", version, max_term_width = 110)]
struct Bus {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    database: config::Database,
    #[command(flatten)]
    output: config::Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Publish an event and print its id and topic
    Publish(Box<publish::Publish>),
    /// Print completions for a shell
    Completions(Completions),
}

#[derive(Args, Debug)]
struct Completions {
    /// The shell
    shell: Shell,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let Bus { verb, database, output } = match Bus::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return super::refuse(&error),
    };
    let json = output.json;
    let result = match verb {
        Verb::Publish(arguments) => block_on(&output, "warn", Threads::One, publish::publish(*arguments, &database, json)),
        Verb::Completions(arguments) => {
            let mut script = Vec::new();
            clap_complete::generate(arguments.shell, &mut Bus::command(), "hms-bus", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end()).map(|()| Code::Ok).map_err(Into::into)
        }
    };
    finish(result, json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Bus::command().debug_assert();
        let line = ["hms-bus", "publish", "policy.changed", "--data", "{}", "--wait", "--timeout-ms", "5000", "--correlation-id", "c"];
        assert!(Bus::try_parse_from(line).is_ok());
        assert!(Bus::try_parse_from(["hms-bus", "publish", "x", "--timeout-ms", "5"]).is_err(), "a limit without a wait");
    }
}
