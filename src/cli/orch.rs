//! `hms-orch`: the command tree.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use super::code::Code;
use super::{
    Threads, admin, block_on, capture, definitions, demo, deploy, finish, graph, init, locks, operate, sagas, service, tasks, test, token, up,
    validate,
};
use crate::config;
use crate::store::orders::Verb as Order;

/// A saga orchestrator on Postgres
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 validation failed, 4 not found, 5 conflict, 6 saga ended failed, 7 wait timed out,
/// 8 nothing goes on without a human, 69 database or server unavailable, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "hms-orch", version, max_term_width = 110)]
struct Orch {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    database: config::Database,
    #[command(flatten)]
    output: config::Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Migrate, then run engine and HTTP interface
    Up(Box<up::Up>),
    /// Show the whole story with services of our own
    Demo(Box<demo::Demo>),
    /// Run one service of the demo alone, for a container of its own
    #[command(hide = true)]
    DemoService(demo::DemoService),
    /// Write a saga and a services file to begin with
    Init(init::Init),
    /// Put files into force, all or none
    Deploy(deploy::Deploy),
    /// Say what is wrong with files, without a database
    Validate(validate::Validate),
    /// Write a scenario of what happened to a saga
    Capture(capture::Capture),
    /// Play scenario files in virtual time, without a database
    Test(test::Test),
    /// Print the JSON Schema of a kind of file
    Schema(validate::Schema),
    /// List what is deployed, or show what two revisions differ in
    Definitions(definitions::Definitions),
    /// Put a revision in force again
    Activate(definitions::Activate),
    /// Take definitions out of force; sagas under way finish with them
    Retire(definitions::Retire),
    /// Draw a saga file
    Graph(graph::Graph),
    /// List sagas, newest first
    Sagas(sagas::Sagas),
    /// Show one saga, or watch it
    Show(sagas::Show),
    /// Say why a saga waits, or why an event started nothing
    Why(sagas::Why),
    /// Hold services back, and take them up again
    Service(service::Service),
    /// Undo what sagas did and end them as cancelled
    Cancel(operate::Order),
    /// Let sagas start nothing new; their limits stand still
    Pause(operate::Order),
    /// Let paused sagas go on
    Resume(operate::Order),
    /// End sagas as they are, without undoing anything
    Abort(operate::Order),
    /// Try again now what failed: one step, or all that wait for another attempt
    Retry(operate::StepOrder),
    /// Leave a step, or its undo, be and go on without it
    Skip(operate::StepOrder),
    /// Start an ended saga anew from a step, keeping what was done before it
    Fork(operate::Fork),
    /// List what people are asked
    Tasks(tasks::Tasks),
    /// Decide about a human task
    Decide(tasks::Decide),
    /// List who holds which object, and who waits for it
    Locks(locks::Locks),
    /// Bring the schema up to date
    Migrate,
    /// Print the GRANTs for a database role
    Grants(admin::Grants),
    /// Remove everything of ours from the database
    Uninstall(admin::Uninstall),
    /// Look the database over
    Doctor,
    /// Make, list and revoke API keys
    Token(token::Token),
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
    let Orch { verb, database, output } = match Orch::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return super::refuse(&error),
    };
    let json = output.json;
    finish(run(verb, &database, &output), json)
}

fn run(verb: Verb, database: &config::Database, output: &config::Output) -> Result<Code> {
    let json = output.json;
    match verb {
        // These need no runtime, and an editor waits for `validate` at every save.
        Verb::Validate(arguments) => validate::validate(&arguments, json),
        Verb::Test(arguments) => test::test(&arguments, json),
        Verb::Schema(arguments) => validate::schema(&arguments),
        Verb::Graph(arguments) => graph::graph(&arguments),
        Verb::Init(arguments) => init::init(&arguments, json),
        Verb::Grants(arguments) => admin::grants(&arguments),
        Verb::Completions(arguments) => completions(arguments.shell),
        Verb::Up(arguments) => block_on(output, "info", Threads::Many, up::up(&arguments, database)),
        Verb::Demo(arguments) => block_on(output, "warn", Threads::Many, demo::demo(&arguments, database)),
        Verb::DemoService(arguments) => block_on(output, "info", Threads::Many, demo::serve(&arguments, database)),
        verb => block_on(output, "warn", Threads::One, async {
            match verb {
                Verb::Deploy(arguments) => deploy::deploy(&arguments, database, json).await,
                Verb::Definitions(arguments) => definitions::list(&arguments, database, json).await,
                Verb::Activate(arguments) => definitions::activate(&arguments, database, json).await,
                Verb::Retire(arguments) => definitions::retire(&arguments, database, json).await,
                Verb::Sagas(arguments) => sagas::list(&arguments, database, json).await,
                Verb::Show(arguments) => sagas::show(&arguments, database, json).await,
                Verb::Capture(arguments) => capture::capture(&arguments, database, json).await,
                Verb::Why(arguments) => sagas::why(&arguments, database, json).await,
                Verb::Cancel(arguments) => operate::order(Order::Cancel, &arguments, database, json).await,
                Verb::Pause(arguments) => operate::order(Order::Pause, &arguments, database, json).await,
                Verb::Resume(arguments) => operate::order(Order::Resume, &arguments, database, json).await,
                Verb::Abort(arguments) => operate::order(Order::Abort, &arguments, database, json).await,
                Verb::Retry(arguments) => operate::order_step(Order::Retry, &arguments, database, json).await,
                Verb::Skip(arguments) => operate::order_step(Order::Skip, &arguments, database, json).await,
                Verb::Fork(arguments) => operate::fork(&arguments, database, json).await,
                Verb::Tasks(arguments) => tasks::list(&arguments, database, json).await,
                Verb::Decide(arguments) => tasks::decide(&arguments, database, json).await,
                Verb::Locks(arguments) => locks::list(&arguments, database, json).await,
                Verb::Migrate => admin::migrate(database, json).await,
                Verb::Uninstall(arguments) => admin::uninstall(&arguments, database, json).await,
                Verb::Service(arguments) => service::service(&arguments, database, json).await,
                Verb::Token(arguments) => token::token(&arguments, database, json).await,
                _ => admin::doctor(database, json).await,
            }
        }),
    }
}

fn completions(shell: Shell) -> Result<Code> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Orch::command(), "hms-orch", &mut script);
    super::output::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Code::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Orch::command().debug_assert();
    }

    #[test]
    fn values_of_secrets_are_not_in_the_help() {
        let mut command = Orch::command();
        command.build();
        let secret = ["database_url", "listen_url", "read_url"];
        assert!(command.get_arguments().filter(|argument| secret.contains(&argument.get_id().as_str())).all(clap::Arg::is_hide_env_values_set));
    }

    #[test]
    fn arguments_are_read_as_the_contract_has_them() {
        for line in [
            "hms-orch up --role worker --listen 127.0.0.1:0 --concurrency 8 --database-url postgres://x/y",
            "hms-orch deploy a.yaml b --replace --reason why --json",
            "hms-orch grants web --as publisher",
            "hms-orch uninstall --dry-run",
            "hms-orch token create --role operator --name ci",
            "hms-orch service pause payment-svc --reason maintenance",
            "hms-orch service resume payment-svc",
            "hms-orch service list --json",
            "hms-orch sagas --state failed,completed --since 1h",
            "hms-orch show 0192ab --watch",
            "hms-orch cancel 0192ab 0192ac --reason why",
            "hms-orch pause --state running --definition a.b --waiting-for timer --correlation-id c --lock-key k --all-matching --yes --reason why",
            "hms-orch resume --state paused --dry-run",
            "hms-orch abort 0192ab --reason why --url http://127.0.0.1:7600 --api-key k",
            "hms-orch retry 0192ab --step pay --reason why --json",
            "hms-orch skip 0192ab --step pay --reason why",
            "hms-orch fork 0192ab --from pay --reason why",
            "hms-orch tasks --queue q --kind comp_failed --all",
            "hms-orch decide 0192ab approve --note why --output {}",
            "hms-orch locks --key k --state held",
            "hms-orch demo --keep --claimants 1000",
            "hms-orch demo-service notice-svc --listen 0.0.0.0:9002 --jwks-url http://orch:7600/.well-known/jwks.json",
            "hms-orch --json validate a.yaml",
            "hms-orch capture 0192ab --out a.scenario.yaml",
            "hms-orch test sagas a.scenario.yaml --filter approve --junit report.xml --story --json",
            "hms-orch definitions a.b.v1 --diff",
            "hms-orch definitions a.b.v1 --diff 0123ab --json",
            "hms-orch activate a.b.v1 --revision 0123 --reason why",
            "hms-orch retire a.b.v1 a.b.v2 --reason why",
            "hms-orch graph a.yaml --format svg",
            "hms-orch test sagas a.scenario.yaml --filter approve --junit report.xml --story --json",
        ] {
            Orch::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "hms-orch",
            "hms-orch deploy",
            "hms-orch definitions --diff",
            "hms-orch retire",
            "hms-orch graph a.yaml --format png",
            "hms-orch sagas --state lost",
            "hms-orch cancel 0192ab --state running --reason why",
            "hms-orch cancel 0192ab --step pay --reason why",
            "hms-orch fork 0192ab --reason why",
            "hms-orch decide 0192ab approve",
            "hms-orch tasks --kind lost",
            "hms-orch grants web",
            "hms-orch up --role boss",
            "hms-orch service pause payment-svc",
            "hms-orch demo-service other-svc --listen 0.0.0.0:1 --jwks-url http://x/",
        ] {
            assert!(Orch::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
