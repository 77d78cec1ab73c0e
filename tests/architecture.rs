//! The house rules that no compiler checks, read from the sources: who may import whom, what may be named where, how long a file is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[path = "architecture/source.rs"]
mod source;

use source::{Source, heads, imports, places, source, without_tests};

/// Rooms and the rooms that each may import; `cli` and the binaries may import everything.
const ROOMS: &[(&str, &[&str])] = &[
    ("http", &["store", "core", "config", "telemetry"]),
    ("engine", &["store", "dispatch", "core", "config", "telemetry"]),
    ("demo", &[]),
    ("store", &["core", "config", "telemetry"]),
    ("dispatch", &["core", "config", "telemetry"]),
    ("core", &[]),
    ("config", &[]),
    ("telemetry", &[]),
    ("dev_postgres", &[]),
];
const NOT_IN_CORE: &[&str] =
    &["tokio", "Instant", "SystemTime", "std::fs", "rand", "sqlx", "tokio_postgres", "async fn", "println!", "eprintln!", "reqwest", "hyper"];
const ADDRESSES: &[&str] = &["IpAddr", "Ipv4Addr", "Ipv6Addr"];
const SQLX_HOMES: &[&str] = &["src/store/read/", "src/store/read.rs", "src/store/mod.rs", "src/store/dsn/", "src/store/dsn.rs"];
const SQL_HOMES: &[&str] = &["store", "demo", "dev_postgres"];
const SQL_OPENINGS: &[&str] = &["select ", "insert into ", "update ", "delete from ", "create ", "with "];
const LINES_MAX: usize = 400;
/// What breaks a rule today, with the reason. One that is no longer needed fails.
const EXCUSED: &[(&str, &str, &str)] = &[];

/// Everything that is wrong with a source file.
fn problems(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Source { code, strings } = source(text);
    let room = path.split('/').nth(1).unwrap_or_default().trim_end_matches(".rs");
    let is_test = path.contains("/tests/") || path.ends_with("tests.rs");
    if let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) {
        let is_room = |name: &str| name == "cli" || ROOMS.iter().any(|(room, _)| *room == name);
        let wrong = imports(path, &code).into_iter().filter(|import| is_room(import) && *import != room && !allowed.contains(import));
        found.extend(wrong.map(|import| format!("{room} must not import {import}")));
    }
    let has = |word: &str| places(&code, word).next().is_some();
    if has("unsafe") {
        found.push("unsafe".to_owned());
    }
    if is_test {
        return found;
    }
    if room == "core" {
        found.extend(NOT_IN_CORE.iter().filter(|word| has(word)).map(|word| format!("{word} in core")));
        let nets = places(&code, "std::net::").flat_map(heads).filter(|name| !ADDRESSES.contains(name));
        found.extend(nets.map(|name| format!("std::net::{name} in core")));
    }
    if has("sqlx") && !SQLX_HOMES.iter().any(|home| path.starts_with(home)) {
        found.push("sqlx outside store/read".to_owned());
    }
    let starts = |text: &str| SQL_OPENINGS.iter().any(|opening| text.trim_start().to_lowercase().replace('\n', " ").starts_with(opening));
    if !SQL_HOMES.contains(&room) {
        found.extend(strings.iter().filter(|text| starts(text)).map(|text| format!("SQL outside store: {text:?}")));
    }
    if !matches!(room, "cli" | "bin") {
        found.extend(
            ["println!", "eprintln!", "print!", "eprint!", "anyhow"].iter().filter(|word| has(word)).map(|word| format!("{word} outside cli")),
        );
    }
    let lines = without_tests(text).lines().count();
    if lines > LINES_MAX {
        found.push(format!("{lines} lines, {LINES_MAX} are allowed"));
    }
    found
}

/// Everything that is wrong with a migration: each table and column is explained.
fn migration_problems(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("-- ") {
        found.push("does not open with a comment".to_owned());
    }
    let mut need = |what: String| {
        if !text.contains(&format!("comment on {what} is ")) {
            found.push(format!("no comment on {what}"));
        }
    };
    for (opening, kind) in [("\ncreate table ", "table"), ("\ncreate view ", "view")] {
        for (at, _) in text.match_indices(opening) {
            let rest = &text[at + opening.len()..];
            let name = rest.split([' ', '(', '\n']).next().unwrap_or_default();
            need(format!("{kind} {name}"));
            let body = rest.split_once("(\n").filter(|(head, _)| kind == "table" && head.trim() == name).and_then(|(_, body)| body.split_once("\n)"));
            let columns = body.map(|(body, _)| body).unwrap_or_default().lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
            let names = columns.filter_map(|line| line.split_whitespace().next());
            let keys = ["constraint", "primary", "unique", "foreign", "check", "exclude", "--"];
            names.filter(|column| !keys.contains(column)).for_each(|column| need(format!("column {name}.{column}")));
        }
    }
    found
}

fn files(folder: &Path, ending: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            files(&entry, ending, found);
        } else if entry.to_string_lossy().ends_with(ending) {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let name = entry.strip_prefix(root).expect("inside").to_string_lossy().replace('\\', "/");
            found.push((name, fs::read_to_string(&entry).expect("text")));
        }
    }
    found.sort();
}

fn all(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), ending, &mut found);
    assert!(!found.is_empty(), "nothing in {folder}");
    found
}

#[test]
fn sources_keep_the_house_rules() {
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<_> = EXCUSED.iter().collect();
    for (path, text) in all("src", ".rs") {
        for problem in problems(&path, &text) {
            match EXCUSED.iter().find(|(excused, what, _)| *excused == path && problem.contains(what)) {
                Some(excuse) => _ = unused.remove(excuse),
                None => wrong.push(format!("{path}: {problem}")),
            }
        }
    }
    assert!(wrong.is_empty(), "house rules are broken:\n{}", wrong.join("\n"));
    assert!(unused.is_empty(), "rules that are kept by now: {unused:?}");
}

#[test]
fn migrations_explain_themselves() {
    let wrong: Vec<_> = all("migrations", ".sql")
        .iter()
        .flat_map(|(path, text)| migration_problems(text).into_iter().map(move |problem| format!("{path}: {problem}")))
        .collect();
    assert!(wrong.is_empty(), "migrations are not explained:\n{}", wrong.join("\n"));
}

#[test]
fn every_rule_bites() {
    let check = |path: &str, text: &str, expected: &[&str]| {
        let found = problems(path, text);
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.starts_with(e)), "{path}: {text}\ngives {found:?}");
    };
    check("src/core/a.rs", "use crate::store::Store;", &["core must not import store"]);
    check("src/store/a/b.rs", "use super::super::super::dispatch::Call;\nuse super::super::Error;", &["store must not import dispatch"]);
    check("src/http/a.rs", "use crate::{core::{engine, event}, engine::Engine, store};", &["http must not import engine"]);
    check("src/engine/mod.rs", "fn f() { super::cli::run(); crate::dispatch::go(); }", &["engine must not import cli"]);
    check("src/demo/a.rs", "use crate::core::event::Event;", &["demo must not import core"]);
    check("src/config.rs", "use crate::core::event::Event;", &["config must not import core"]);
    check("src/cli/a.rs", "use crate::{engine, http}; use anyhow::Result; fn f() { println!(); }", &[]);
    check("src/core/a.rs", "use std::time::{Duration, Instant};", &["Instant in core"]);
    check("src/core/a.rs", "use std::net::{IpAddr, TcpStream};", &["std::net::TcpStream in core"]);
    check("src/core/a.rs", "async fn f() { tokio::spawn(g) }", &["tokio in core", "async fn in core"]);
    check("src/core/a.rs", "// tokio\n/* rand */ const A: (&str, char) = (\"sqlx \\\" tokio\", '\"'); fn strand<'a>() {}", &[]);
    check("src/core/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n use std::time::Instant; }", &[]);
    check("src/store/claim.rs", "use sqlx::query;", &["sqlx outside"]);
    check("src/engine/a.rs", "const A: &str = r#\"\n  SELECT \"a\" from b\"#;", &["SQL outside store"]);
    check("src/store/a.rs", "const A: &str = \"select 1\";", &[]);
    check("src/engine/a.rs", "fn f() -> anyhow::Result<()> { eprintln!(); unsafe { g() } }", &["unsafe", "eprintln!", "anyhow"]);
    check("src/http/a.rs", &"\n".repeat(LINES_MAX + 1), &["401 lines"]);
    let good = "-- A.\ncreate table s.a (\n  b int,\n  primary key (b)\n);\ncomment on table s.a is 'x';\ncomment on column s.a.b is 'y';";
    assert_eq!(migration_problems(good), Vec::<String>::new());
    assert_eq!(migration_problems(&good.replace("-- A.", "")), ["does not open with a comment"]);
    assert_eq!(migration_problems(&good.replace("table s.a is", "")), ["no comment on table s.a"]);
    assert_eq!(migration_problems(&good.replace("  b int,", "  b int,\n  c int,")), ["no comment on column s.a.c"]);
}
