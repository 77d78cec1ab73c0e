//! `hms-orch test` as people run it, without a database and a network; and every saga of ours has scenarios, which pass.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use syncor::core::definition_file::{self, File};

/// Code, stdout and stderr of a run in a folder, without times that differ from run to run.
fn test(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hms-orch"));
    // An address where nobody listens: nothing may ask it.
    command.env_clear().env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing").current_dir(folder).arg("test").args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let stdout = text(output.stdout);
    let timeless = match stdout.split_once("finished in ") {
        Some((before, after)) => format!("{before}finished in {}", after.split_once("s (").map_or(after, |(_, rest)| rest)),
        None => stdout,
    };
    (output.status.code().unwrap(), timeless, text(output.stderr))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

const SAGA: &str = "
id: demo.pay.v1
trigger: pay
steps:
  - {name: book, call: 'a:/book', compensate: 'a:/unbook'}
  - {name: sign, human: {prompt: 'Pay ${ data.amount }?', timeoutMs: 86400000}}
  - {name: pay, call: {url: 'b:/pay/${ data.amount }'}}
";

const SCENARIOS: &str = "
saga: demo.yaml
event: {data: {amount: 5}}
scenarios:
  - name: it is paid
    at: [{afterMs: 3600000, decide: approve, step: sign, by: ann}]
    expect: {state: completed, requests: {pay: {path: /pay/5}}, elapsedMs: 3600000}
  - name: nobody signs
    expect:
      state: completed
      calls: [book, pay]
      undone: []
";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("demo.yaml"), SAGA).unwrap();
    fs::write(folder.path().join("demo.scenario.yaml"), SCENARIOS).unwrap();
    folder
}

const GOLDEN: &str = r#"running 2 scenarios
test demo::it is paid ... ok
test demo::nobody signs ... FAILED

failures:

---- demo::nobody signs ----
demo.scenario.yaml:10: state:
    expected completed
    found    failed (step sign failed: timed out: nobody decided (attempt 1 of 3))
demo.scenario.yaml:11: calls:
        book
      - pay
      + book.undo
demo.scenario.yaml:12: undone:
      + book
what happened, in virtual time:
           0 ms  saga                     running
           0 ms  event                    saga.started
           0 ms  book                     POST a:/book (attempt 1)
           0 ms  book                     succeeded
           0 ms  sign                     opens a human task: approval (Pay 5?)
  86 400 000 ms  sign                     failed: timed out: nobody decided
  86 400 000 ms  saga                     compensating
  86 400 000 ms  event                    saga.compensate
  86 400 000 ms  sign                     the task approval is withdrawn
  86 400 000 ms  book.undo                POST a:/unbook (attempt 1)
  86 400 000 ms  book.undo                succeeded
  86 400 000 ms  saga                     failed: step sign failed: timed out: nobody decided (attempt 1 of 3)
  86 400 000 ms  event                    saga.failed

failures:
    demo::nobody signs

test result: FAILED. 1 passed; 1 failed; 0 filtered out; finished in 25 h 0 m of virtual time)
"#;

#[test]
fn what_fails_is_shown_with_its_place_and_its_story() {
    let folder = folder();
    let (code, stdout, stderr) = test(folder.path(), &["demo.scenario.yaml"]);
    assert_eq!((code, stderr.as_str()), (1, ""), "{stdout}");
    assert_eq!(stdout, GOLDEN);
    // A saga stands for the scenarios beside it, a folder for all in it.
    for argument in ["demo.yaml", "."] {
        let (code, stdout, _) = test(folder.path(), &[argument]);
        assert!(code == 1 && stdout.contains("1 passed; 1 failed"), "{argument}: {stdout}");
    }
}

#[test]
fn filters_and_reports_for_machines() {
    let folder = folder();
    let (code, stdout, _) = test(folder.path(), &["demo.scenario.yaml", "--filter", "is paid"]);
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("running 1 scenario\n") && stdout.contains("1 passed; 0 failed; 1 filtered out"), "{stdout}");

    let (code, stdout, _) = test(folder.path(), &["demo.scenario.yaml", "--json", "--junit", "report.xml"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["passed"], &report["failed"]), (1, &1.into(), &1.into()));
    assert_eq!(report["scenarios"][0]["elapsedMs"], 3_600_000);
    assert_eq!(report["scenarios"][1]["differences"][0]["line"], 10);
    assert_eq!(report["scenarios"][1]["differences"][0]["what"], "state");
    let xml = fs::read_to_string(folder.path().join("report.xml")).unwrap();
    assert!(xml.contains("<testsuite name=\"demo.scenario.yaml\" tests=\"2\" failures=\"1\""), "{xml}");
}

#[test]
fn broken_files_are_refused_with_their_place_and_nothing_runs() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("bad.scenario.yaml"), SCENARIOS.replace("calls: [book", "calls: [bok").replace("decide:", "decid:")).unwrap();
    let (code, stdout, stderr) = test(path, &["."]);
    assert_eq!(code, 3, "{stdout}");
    assert!(stdout.contains("bad.scenario.yaml:6:29") && stdout.contains("did you mean `decide`?"), "{stdout}");
    assert!(stdout.contains("bad.scenario.yaml:11:15") && stdout.contains("did you mean `book`?"), "{stdout}");
    assert!(!stdout.contains("running") && stderr.contains("nothing was tested"), "{stdout}{stderr}");

    fs::write(path.join("bad.scenario.yaml"), SCENARIOS.replace("demo.yaml", "gone.yaml")).unwrap();
    let (code, stdout, _) = test(path, &["bad.scenario.yaml"]);
    assert!(code == 3 && stdout.contains("gone.yaml"), "{stdout}");
    fs::write(path.join("bad.scenario.yaml"), SCENARIOS.replace("demo.yaml", "other.v1")).unwrap();
    let (code, stdout, _) = test(path, &["bad.scenario.yaml"]);
    assert!(code == 3 && stdout.contains("no file here defines the saga other.v1"), "{stdout}");
    // A broken saga is shown as `validate` shows it.
    fs::write(path.join("demo.yaml"), SAGA.replace("trigger", "triger")).unwrap();
    let (code, stdout, _) = test(path, &["demo.scenario.yaml"]);
    assert!(code == 3 && stdout.contains("demo.yaml:3:1"), "{stdout}");
    let (code, _, stderr) = test(path, &["nowhere.scenario.yaml"]);
    assert!(code == 1 && stderr.contains("nowhere.scenario.yaml"), "{stderr}");
    let (code, _, stderr) = test(path, &["demo.yaml", "."]);
    assert!(code == 3, "{stderr}");
    fs::create_dir(path.join("empty")).unwrap();
    assert_eq!(test(path, &["empty"]).0, 4);
}

#[test]
fn the_example_of_the_documentation_is_true() {
    let text = fs::read_to_string(root().join("docs/scenarios.md")).unwrap();
    let blocks: Vec<&str> = text.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("order.yaml"), blocks[0]).unwrap();
    fs::write(folder.path().join("order.scenario.yaml"), blocks[1]).unwrap();
    let (code, stdout, _) = test(folder.path(), &["order.scenario.yaml"]);
    assert_eq!(code, 0, "{stdout}");
    let shown = stdout.replace("finished in ", "finished in 0.01s (");
    assert!(text.contains(&shown), "{shown}");

    fs::write(folder.path().join("order.scenario.yaml"), blocks[1].replace("decide: approve", "decide: reject")).unwrap();
    let (_, stdout, _) = test(folder.path(), &["order.scenario.yaml"]);
    let failure = text.split("(here for `decide: reject`):\n\n```\n").nth(1).unwrap().split("           ...").next().unwrap();
    assert!(stdout.contains(failure), "{stdout}");
}

#[test]
fn every_saga_of_ours_has_scenarios_and_they_pass() {
    let sagas = root().join("sagas");
    let mut with_scenarios = 0;
    for entry in fs::read_dir(&sagas).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".yaml") || name.contains(".scenario.") {
            continue;
        }
        let files = definition_file::read_all(&name, &fs::read_to_string(&entry).unwrap()).unwrap();
        if files.iter().any(|file| matches!(file, File::Saga(..))) {
            let scenarios = sagas.join(name.replace(".yaml", ".scenario.yaml"));
            assert!(scenarios.exists(), "{name} has no scenarios: write {}", scenarios.display());
            with_scenarios += 1;
        }
    }
    assert!(with_scenarios > 0);
    let (code, stdout, stderr) = test(root(), &["sagas"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
}
