//! What the contract promises, seen from outside: the two programs, SQL and HTTP, and nothing of ours linked in between.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;

use crate::support::api::Api;
use crate::support::cli::{bus, file, orch};
use crate::support::db;
use crate::support::process::Process;
use crate::support::role::role;
use crate::support::saga::{count, ended, publish, saga_of};
use crate::support::stub::Stub;
use crate::support::until;
use crate::support::worker::deploy;

const SEED: &str = include_str!("../../sagas/benefit-increase.yaml");

/// The newest `pg_dump`: an older one refuses a newer server.
fn pg_dump() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin/pg_dump"));
    let version = |path: &PathBuf| path.components().rev().nth(2).and_then(|part| part.as_os_str().to_str()?.parse::<u32>().ok());
    installed.filter(|path| path.exists()).max_by_key(version).unwrap_or_else(|| "pg_dump".into())
}

fn dump(url: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(pg_dump()).args(arguments).arg(url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Newer versions print a random word that differs from run to run.
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.contains("restrict")).collect::<Vec<_>>().join("\n")
}

async fn all_ended(client: &Client, sagas: i64) {
    until("the sagas have ended", Duration::from_secs(30), async || {
        (count(client, "select count(*) from syncor.sagas where finished_at is not null").await == sagas).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_published_in_three_ways_starts_a_saga_each() {
    let (api, stub) = (Api::open().await, Stub::start().await);
    let url = &api.db.url;
    deploy(url, &saga_of(2, stub.address, "")).await;
    let _worker = Process::worker(url);
    let client = db::connect(url).await;

    publish(&client, "test.go", json!({"by": "sql"})).await;
    let answer = api.post_events("application/json", r#"{"type": "test.go", "data": {"by": "http"}}"#).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    bus(url, &["publish", "test.go", "--data", r#"{"by": "console"}"#]).await.expect(0);

    all_ended(&client, 3).await;
    let rows = client.query("select data ->> 'by', state from syncor.sagas order by 1", &[]).await.unwrap();
    let found: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, ["console", "http", "sql"].map(|by| (by.to_owned(), "completed".to_owned())));
    assert_eq!(count(&client, "select count(*) from syncor.events where type = 'test.go'").await, 3);
    assert_eq!(stub.calls(), 6, "each step was called once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_file_is_deployed_before_up_and_runs_as_soon_as_its_services_are_known() {
    let (db, stub) = (db::empty_database().await, Stub::start().await);
    let folder = tempfile::tempdir().unwrap();
    let seed = file(folder.path(), "seed.yaml", SEED);
    let run = orch(&db.url, &["deploy", &seed]).await.expect(0);
    for service in ["payment-svc", "notice-svc", "archive-svc"] {
        let warning = format!("service {service} (called by dol.benefit.increase.v1) is not registered");
        assert!(run.stderr.contains(&warning), "{}", run.stderr);
    }
    let address = stub.address;
    let services: String = ["payment-svc", "notice-svc", "archive-svc"]
        .map(|name| format!("  {name}: {{url: \"http://{address}/{name}\", allow: [127.0.0.0/8]}}\n"))
        .concat();
    let services = file(folder.path(), "services.yaml", &format!("id: agency-services\nservices:\n{services}"));

    let _worker = Process::worker(&db.url);
    let run = orch(&db.url, &["deploy", &services]).await.expect(0);
    assert!(!run.stderr.contains("not registered"), "{}", run.stderr);
    let client = db::connect(&db.url).await;
    let other = publish(&client, "policy.changed", json!({"policyId": "dol.other.v1"})).await;
    let event = publish(&client, "policy.changed", json!({"policyId": "dol.unemployment.v3", "percent": 5})).await;
    assert_eq!(ended(&client, event).await.state, "completed");
    assert_eq!(stub.paths(), ["/payment-svc/recalc", "/notice-svc/broadcast", "/archive-svc/snapshot"]);
    let why = orch(&db.url, &["why", &other.to_string()]).await.expect(0);
    assert!(why.stdout.contains("filter"), "{}", why.stdout);
}

/// Places where a secret must not be, each under its name.
type Places<'a> = [(&'a str, &'a str)];

/// In which places a secret is found, as it is or as the hexadecimal digits of its bytes.
fn found<'a>(secret: &[u8], places: &Places<'a>) -> Vec<&'a str> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = std::str::from_utf8(secret).ok();
    let is_in = |place: &str| text.is_some_and(|text| place.contains(text)) || place.to_ascii_lowercase().contains(&hex);
    places.iter().filter(|(_, text)| is_in(text)).map(|(name, _)| *name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_table_no_log_and_no_metric() {
    use base64::Engine as _;
    const HEADER: &str = "header-secret-6b1f0c2d9a";
    let (db, stub) = (db::database().await, Stub::start().await);
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("signing.pem");
    let text = saga_of(2, stub.address, "retry: {attempts: 2, backoffMs: 10}\n")
        .replace("allow: [127.0.0.0/8]", "allow: [127.0.0.0/8], headers: {X-Api-Key: secret://env/ACCEPTANCE_KEY}");
    deploy(&db.url, &text).await;
    let api_key = orch(&db.url, &["token", "create", "--role", "viewer", "--name", "desk"]).await.expect(0).stdout.trim().to_owned();
    // The most talkative log there is.
    let settings =
        [("HMS_SIGNING_KEY_FILE", key_file.to_str().unwrap()), ("ACCEPTANCE_KEY", HEADER), ("HMS_LOG", "trace"), ("HMS_LISTEN", "127.0.0.1:0")];
    let worker = Process::server_with(&db.url, &settings);
    let address = until("it listens", Duration::from_secs(30), async || {
        worker.log().iter().find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()))
    })
    .await;
    let client = db::connect(&db.url).await;
    // One that completes and one that is undone.
    let event = publish(&client, "test.go", json!({"canary": "canary-in-the-data-41c7"})).await;
    assert_eq!(ended(&client, event).await.state, "completed");
    stub.always("/s2", crate::support::stub::Answer::Json(400, json!({"message": "no"})));
    let event = publish(&client, "test.go", json!({})).await;
    assert_eq!(ended(&client, event).await.state, "failed");
    client.batch_execute("create table public.canary as select 'canary-in-bytes-9d3e'::bytea as bytes").await.unwrap();

    let curl = async |path: &str, key: &str| {
        let header = format!("Authorization: Bearer {key}");
        let run = tokio::process::Command::new("curl").args(["-sf", "-H", &header, &format!("{address}{path}")]).output().await.unwrap();
        assert!(run.status.success(), "{path}: {run:?}");
        String::from_utf8(run.stdout).unwrap()
    };
    let metrics = curl("/metrics", &api_key).await;
    assert!(metrics.contains("saga_duration_ms"), "{metrics}");
    let page = curl("/", &api_key).await;
    let sagas = curl("/v1/sagas", &api_key).await;

    let journal = stub.journal();
    assert_eq!(journal[0].header("x-api-key"), HEADER, "the service gets it");
    let pem = std::fs::read_to_string(&key_file).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(&body).unwrap();
    assert!(pem.contains("PRIVATE KEY") && der.len() > 40);
    let dumped = dump(&db.url, &["--data-only"]);
    let log = worker.log().join("\n");
    let places = [("dump", dumped.as_str()), ("log", &log), ("metrics", &metrics), ("page", &page), ("sagas", &sagas)];

    // The search finds what is there: text as text, bytes as digits.
    assert!(found(b"canary-in-the-data-41c7", &places).contains(&"dump"));
    assert_eq!(found(b"canary-in-bytes-9d3e", &places), ["dump"]);
    let saga = journal[0].header("hms-saga-id").as_bytes();
    assert_eq!(found(saga, &places), ["dump", "log", "page", "sagas"], "an id is no secret");
    assert_eq!(found(b"saga_duration_ms_bucket", &places), ["metrics"]);

    let mut secrets: Vec<(String, Vec<u8>)> = vec![
        ("the key file".into(), pem.trim().into()),
        ("the key's base64".into(), body.clone().into()),
        ("the first line of the key".into(), body[..32.min(body.len())].into()),
        ("the key's DER".into(), der.clone()),
        // Of PKCS#8 for Ed25519 the seed are the 32 bytes behind a head of 16.
        ("the key's seed".into(), der[16..48].into()),
        ("the API key".into(), api_key.clone().into()),
        ("the API key's secret part".into(), api_key.splitn(3, '_').nth(2).unwrap().into()),
        ("the header".into(), HEADER.into()),
    ];
    for call in &journal {
        let token = call.header("authorization").strip_prefix("Bearer ").unwrap();
        assert_eq!(token.split('.').count(), 3, "a JWT");
        secrets.push((format!("the token of {}", call.path), token.into()));
        secrets.push((format!("the signature of {}", call.path), token.rsplit('.').next().unwrap().into()));
    }
    for (name, secret) in &secrets {
        assert!(secret.len() >= 16, "{name} is too short to search for");
        assert_eq!(found(secret, &places), [""; 0], "{name}");
    }
}

/// Twenty files that are wrong: what is, the line of it, and what the author reads to put it right.
fn broken() -> Vec<(&'static str, String, u64, &'static str)> {
    let line = |number: usize, text: &str| -> String {
        SEED.lines().enumerate().map(|(index, old)| format!("{}\n", if index + 1 == number { text } else { old })).collect()
    };
    let bomb = "id: a.v1\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\ntrigger: t\nsteps: []\n";
    let deep = format!("id: a.v1\ntrigger: t\nsteps: {}{}\n", "[".repeat(200), "]".repeat(200));
    vec![
        ("a tab", line(7, "\tcall: payment-svc:/recalc"), 7, "indent with spaces"),
        ("a duplicate key", line(2, "trigger: a\ntrigger: b"), 3, "first on line 2"),
        ("an alias bomb", bomb.to_owned(), 2, "are not allowed"),
        ("an unknown key", line(8, "    compensat: payment-svc:/revert"), 8, "did you mean `compensate`?"),
        ("two actions in a step", line(7, "    call: payment-svc:/recalc\n    delayMs: 5"), 8, "a step does one thing"),
        ("an unquoted expression", line(3, "filter: data.kind == \"a: b\""), 3, "quote the whole expression: 'data.kind == \"a: b\"'"),
        ("a bad expression", line(3, "filter: data.policyId =="), 3, "ends too early"),
        ("ten megabytes", format!("{SEED}# {}\n", "x".repeat(10 << 20)), 22, "give each saga a file of its own"),
        ("BOM and CRLF", format!("\u{feff}{}", line(2, "triger: x").replace('\n', "\r\n")), 2, "did you mean `trigger`?"),
        ("deep nesting", deep, 3, "nest more than 32 deep"),
        ("a wrong type", line(19, "  attempts: three"), 19, "only digits"),
        ("an unknown form of a service", line(7, "    call: http://payments.example/recalc"), 7, "write `service:/path`"),
        ("a step's name twice", line(10, "  - name: recalc_payments"), 10, "the other is on line 6"),
        ("versions that disagree", line(1, "id: dol.benefit.v2\nversion: 3"), 2, "both must agree"),
        ("a negative retry", line(19, "  attempts: -1"), 19, "a whole number from 1 to 10000"),
        ("yes, which is no boolean", line(19, "  attempts: yes"), 19, "must be a whole number, not text"),
        ("an unknown root", line(3, "filter: payload.policyId == \"x\""), 3, "there is data, event"),
        ("an unknown function", line(3, "filter: data.policyId.beginsWith(\"x\")"), 3, "unknown function `beginsWith`"),
        ("an empty file", String::new(), 1, "`hms-orch init` writes files to begin with"),
        ("a reserved key", line(2, "trigger: policy.changed\nschedule: daily"), 3, "`schedule` is not yet supported"),
    ]
}

#[tokio::test]
async fn twenty_broken_files_are_refused_with_a_place_and_change_nothing() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let folder = tempfile::tempdir().unwrap();
    let good = file(folder.path(), "good.yaml", SEED);
    orch(&db.url, &["deploy", &good]).await.expect(0);
    let definitions = async || -> String {
        client.query_one("select jsonb_agg(to_jsonb(d) order by no)::text from syncor.definition d", &[]).await.unwrap().get(0)
    };
    let before = definitions().await;
    let files = broken();
    assert_eq!(files.iter().map(|(what, ..)| *what).collect::<HashSet<_>>().len(), 20);
    let mut failures = Vec::new();
    for (index, (what, text, line, remedy)) in files.iter().enumerate() {
        let path = file(folder.path(), &format!("broken-{index}.yaml"), text);
        let run = orch(&db.url, &["validate", &path]).await;
        if run.code != 3 || !run.stdout.contains(&format!("{path}:{line}:")) || !run.stdout.contains(remedy) {
            failures.push(format!("{what}: exit {}, {}{}", run.code, run.stdout, run.stderr));
        }
        let as_json = orch(&db.url, &["validate", &path, "--json"]).await.expect(3).json();
        if as_json["problems"][0]["line"] != *line {
            failures.push(format!("{what}: {as_json}"));
        }
        let run = orch(&db.url, &["deploy", &good, &path]).await;
        if run.code != 3 || !run.stderr.contains("nothing was deployed") {
            failures.push(format!("{what}: deploy ended with {}: {}", run.code, run.stderr));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(definitions().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_owns_one_schema_runs_everything_and_leaves_nothing() {
    let (db, stub) = (db::empty_database().await, Stub::start().await);
    let (owner, publisher) = (role(&db).await, role(&db).await);
    let admin = db::connect(&db.url).await;
    admin
        .batch_execute("create table public.agency (id int primary key); create schema theirs; create view theirs.v as select 1 as one")
        .await
        .unwrap();
    let before = dump(&db.url, &["-s"]);
    admin.batch_execute(&format!("create schema syncor authorization \"{}\"", owner.name)).await.unwrap();
    let others = || dump(&db.url, &["-s", "-N", "syncor"]);
    let others_before = others();
    let folder = tempfile::tempdir().unwrap();
    let saga = file(folder.path(), "saga.yaml", &saga_of(2, stub.address, ""));

    orch(&owner.url, &["migrate"]).await.expect(0);
    let mut worker = Process::worker(&owner.url);
    orch(&owner.url, &["deploy", &saga]).await.expect(0);
    let event = publish(&db::connect(&owner.url).await, "test.go", json!({})).await;
    assert_eq!(ended(&admin, event).await.state, "completed");

    let grants = orch(&owner.url, &["grants", &publisher.name, "--as", "publisher"]).await.expect(0).stdout;
    db::connect(&owner.url).await.batch_execute(&grants).await.unwrap();
    let client = db::connect(&publisher.url).await;
    let event = publish(&client, "test.go", json!({"by": "publisher"})).await;
    assert_eq!(ended(&admin, event).await.state, "completed");
    assert!(client.query("select data from syncor.events", &[]).await.is_err(), "a publisher does not read");
    drop(client);

    assert_eq!(others(), others_before, "nothing outside our schema has changed");
    worker.signal("TERM");
    assert_eq!(worker.wait(), Some(0));
    orch(&owner.url, &["uninstall", "--yes"]).await.expect(0);
    // The schema was the role's own, so it goes as well; one that was only lent is handed back empty (see `uninstall`).
    assert_eq!(dump(&db.url, &["-s"]), before);
}
