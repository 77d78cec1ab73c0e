//! A server as people run it: started, used over SQL and HTTP, stopped.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::support::cli::{bus, command, file, orch};
use crate::support::saga::saga_of;
use crate::support::stub::{Answer, Stub};
use crate::support::{db, until};

/// `hms-orch up` on a free port.
struct Up {
    child: Child,
    address: String,
    stdout: Lines<BufReader<ChildStdout>>,
    _home: TempDir,
}

impl Up {
    async fn start(url: &str, further: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut child = command(env!("CARGO_BIN_EXE_hms-orch"))
            .args(["up", "--listen", "127.0.0.1:0"])
            .args(further)
            .env("DATABASE_URL", url)
            .env("HMS_LOG", "warn")
            .env("HMS_SIGNING_KEY_FILE", home.path().join("key.pem"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(Duration::from_secs(30), stdout.next_line()).await.unwrap().unwrap().unwrap();
        let address = first.strip_prefix("listening on ").unwrap_or_else(|| panic!("{first}")).to_owned();
        Self { child, address, stdout, _home: home }
    }

    async fn stop(mut self) -> (Option<i32>, Vec<String>) {
        let pid = self.child.id().unwrap().to_string();
        command("kill").args(["-TERM", &pid]).status().await.unwrap();
        let status = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.unwrap().unwrap();
        let mut lines = Vec::new();
        while let Some(line) = self.stdout.next_line().await.unwrap() {
            lines.push(line);
        }
        (status.code(), lines)
    }
}

async fn deploy(url: &str, stub: &Stub, further: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "saga.yaml", &saga_of(2, stub.address, further));
    orch(url, &["deploy", &path]).await.expect(0);
}

#[tokio::test]
async fn publish_waits_for_what_it_starts_and_says_how_it_ended() {
    let (db, stub) = (db::database().await, Stub::start().await);
    deploy(&db.url, &stub, "retry: {attempts: 2, backoffMs: 10}\n").await;
    stub.always("/s1", Answer::Json(200, json!({"message": "first things first"})));
    let up = Up::start(&db.url, &["--drain-limit-ms", "500"]).await;

    let run = bus(&db.url, &["publish", "test.go", "--wait", "--timeout-ms", "20000"]).await.expect(0);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[1..4], ["▶ test.saga.v1             START", "✓ s1                       first things first", "✓ s2                       done"]);
    assert!(lines[4].starts_with("✔ test.saga.v1             COMPLETED ("), "{lines:?}");

    stub.always("/s2", Answer::Json(500, json!({})));
    let failing = bus(&db.url, &["publish", "test.go", "--wait", "--timeout-ms", "20000"]).await.expect(6);
    let lines: Vec<&str> = failing.stdout.lines().collect();
    assert!(lines[3].starts_with("✗ s2") && lines[3].ends_with("(attempt 1 of 2)"), "{lines:?}");
    assert!(lines[4].ends_with("(attempt 2 of 2)") && lines[5].starts_with("? test.saga.v1") && lines[6].starts_with("↶ s1"), "{lines:?}");
    assert!(lines[7].contains("FAILED, rolled back"), "{lines:?}");

    let nothing = bus(&db.url, &["publish", "test.other", "--wait"]).await.expect(4);
    assert!(nothing.stderr.contains("no active definition has the trigger test.other"), "{}", nothing.stderr);
    stub.always("/s1", Answer::Hang);
    bus(&db.url, &["publish", "test.go", "--wait", "--timeout-ms", "700"]).await.expect(7);

    // The same over HTTP, without a database.
    stub.always("/s1", Answer::ok());
    stub.always("/s2", Answer::ok());
    let over_http = command(env!("CARGO_BIN_EXE_hms-bus"))
        .args(["publish", "test.go", "--subject", "s", "--key", "k", "--wait", "--timeout-ms", "20000"])
        .env("HMS_URL", &up.address)
        .output()
        .await
        .unwrap();
    assert_eq!(over_http.status.code(), Some(0), "{over_http:?}");
    assert!(String::from_utf8_lossy(&over_http.stdout).contains("✔ test.saga.v1"));

    let list = orch(&db.url, &["sagas", "--state", "failed", "--json"]).await.expect(0).json();
    let id = list[0]["id"].as_str().unwrap().to_owned();
    let show = orch(&db.url, &["show", &id]).await.expect(0);
    assert!(show.stdout.contains("compensated") && show.stdout.contains("HTTP"), "{}", show.stdout);
    let watched = orch(&db.url, &["show", &id[..35], "--watch"]).await.expect(6);
    let retold: Vec<&str> = watched.stdout.lines().collect();
    assert_eq!(retold, lines[1..], "the story is the same when it is read");

    let metrics = String::from_utf8(command("curl").args(["-s", &format!("{}/metrics", up.address)]).output().await.unwrap().stdout).unwrap();
    assert!(metrics.contains("saga_duration_ms_bucket") && metrics.contains("hms_build_info"), "{metrics}");
    let (code, story) = up.stop().await;
    assert_eq!(code, Some(0));
    // The end is timed by two clocks; all other lines are the same to the letter.
    let until_end = |line: &str| line.split("back (").next().unwrap_or_default().to_owned();
    let (live, retold): (Vec<String>, Vec<String>) = (story.iter().map(|l| until_end(l)).collect(), retold.iter().map(|l| until_end(l)).collect());
    assert!(live.windows(retold.len()).any(|told| told == retold), "{live:?}");
}

#[tokio::test]
async fn a_taken_port_and_an_open_door_are_refused() {
    let db = db::database().await;
    let up = Up::start(&db.url, &["--role", "api"]).await;
    let address = up.address.trim_start_matches("http://").to_owned();
    let run = orch(&db.url, &["up", "--listen", &address]).await.expect(1);
    assert!(run.stderr.contains("is taken") && run.stderr.contains("--listen"), "{}", run.stderr);
    let run = orch(&db.url, &["up", "--listen", "0.0.0.0:0", "--role", "api"]).await.expect(2);
    assert!(run.stderr.contains("no authentication"), "{}", run.stderr);
    assert_eq!(up.stop().await.0, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (db, stub) = (db::database().await, Stub::start().await);
    deploy(&db.url, &stub, "").await;
    stub.always("/s1", Answer::Hang);
    let mut up = Up::start(&db.url, &[]).await;
    bus(&db.url, &["publish", "test.go"]).await.expect(0);
    until("the call is under way", Duration::from_secs(10), async || (stub.calls() > 0).then_some(())).await;
    let pid = up.child.id().unwrap().to_string();
    command("kill").args(["-INT", &pid]).status().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), up.child.wait()).await.is_err(), "it waits for the call");
    command("kill").args(["-INT", &pid]).status().await.unwrap();
    let status = tokio::time::timeout(Duration::from_secs(5), up.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
}

#[tokio::test]
async fn the_demo_tells_both_stories() {
    let db = db::database().await;
    let home = tempfile::tempdir().unwrap();
    let run = command(env!("CARGO_BIN_EXE_hms-orch"))
        .args(["demo", "--claimants", "2000", "--listen", "127.0.0.1:0"])
        .env("DATABASE_URL", &db.url)
        .env("HMS_SIGNING_KEY_FILE", home.path().join("key.pem"))
        .output();
    let run = tokio::time::timeout(Duration::from_secs(120), run).await.unwrap().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.status.code(), Some(0), "{stdout}\n{stderr}");
    assert!(stdout.contains("COMPLETED (") && stdout.contains("FAILED, rolled back (") && stdout.contains("(attempt 3 of 3)"), "{stdout}");
    assert!(stdout.contains("Restored to the cent.") && stdout.contains("hms-orch sagas"), "{stdout}");

    let active = orch(&db.url, &["definitions", "--json"]).await.expect(0).json();
    assert_eq!(active, json!([]), "its addresses lead nowhere now");
    let sagas = orch(&db.url, &["sagas", "--json"]).await.expect(0).json();
    assert_eq!(sagas.as_array().unwrap().len(), 2);
    for saga in sagas.as_array().unwrap() {
        let show = orch(&db.url, &["show", saga["id"].as_str().unwrap()]).await.expect(0);
        assert!(show.stdout.contains("recalc_payments"), "{}", show.stdout);
    }
    // `init` has services of its own: they live beside those of the demo.
    let folder = home.path().join("mine");
    orch(&db.url, &["init", folder.to_str().unwrap()]).await.expect(0);
    let agency = concat!(env!("CARGO_MANIFEST_DIR"), "/sagas");
    orch(&db.url, &["deploy", folder.to_str().unwrap(), agency]).await.expect(0);
}
