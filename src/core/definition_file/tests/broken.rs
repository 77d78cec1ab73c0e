//! Files that are wrong, each with the place and the message that its author needs.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::language::CONTRACT;
use super::{SEED, SERVICES, WHOLE, shown};
use crate::core::definition_file::{FILE_BYTES_MAX, Problem, from_stored, read, read_all};

/// The seed with one line put in the place of another (by number).
pub(super) fn seed_with(line: usize, text: &str) -> String {
    SEED.lines().enumerate().map(|(index, old)| format!("{}\n", if index + 1 == line { text } else { old })).collect()
}

/// The seed with lines added to its first step.
pub(super) fn step_with(text: &str) -> String {
    seed_with(8, &format!("    compensate: payment-svc:/revert\n{text}"))
}

fn services_with(text: &str) -> String {
    format!("services:\n  a: {text}\n")
}

fn problems(text: &str) -> Vec<Problem> {
    read_all("f.yaml", text).map(|files| panic!("this should be refused:\n{text}\n{files:?}")).unwrap_err()
}

/// The message, and behind a slash the help.
fn words(problem: &Problem) -> String {
    format!("{}{}", problem.message, problem.help.as_ref().map(|help| format!(" / {help}")).unwrap_or_default())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_mistake_names_its_place() {
    let table: Vec<Row> = vec![
        (seed_with(7, "    cal: payment-svc:/recalc"), 7, 5, "unknown key `cal` / did you mean `call`?"),
        (seed_with(7, "    call payment-svc:/recalc"), 7, 5, "a `:` is missing on this line (simple key expected ':') / write `key: value`"),
        (seed_with(1, "id: dol benefit"), 1, 5, "`id` may hold only letters, digits, `.`, `_` and `-`, and starts with a letter or digit"),
        (seed_with(1, "id: dol.benefit.v0"), 1, 5, "`.v0` is no version: write `.v1`, `.v2` and so on"),
        (
            seed_with(1, "id: dol.benefit.v2\nversion: 3"),
            2,
            10,
            "`version` is 3, but the id ends with `.v2` / both must agree; one of them is enough",
        ),
        (seed_with(1, "id: 5"), 1, 5, "`id` must be text, not a number / put it in quotes"),
        (seed_with(1, ""), 2, 1, "a saga needs `id`"),
        (seed_with(2, "triger: policy.changed"), 2, 1, "unknown key `triger` / did you mean `trigger`?"),
        (seed_with(2, "trigger: []"), 2, 10, "`trigger` is empty"),
        (seed_with(2, "trigger: [a, a]"), 2, 14, "`a` is here twice"),
        (seed_with(2, "trigger: [a, {b: c}]"), 2, 14, "`trigger` must be text, not a map"),
        (seed_with(2, "trigger:"), 2, 1, "`trigger` has no value / write one, or leave the key out"),
        (seed_with(2, "trigger: a\ntrigger: b"), 3, 1, "the key `trigger` is here twice / first on line 2"),
        (
            seed_with(3, "filter: data.kind == \"a: b\""),
            3,
            9,
            "YAML cannot read this line (mapping values are not allowed in this context) / quote the whole expression: 'data.kind == \"a: b\"'",
        ),
        (
            seed_with(3, "filter: \"x\" == data.a"),
            3,
            9,
            "YAML cannot read this line (invalid trailing content after double-quoted scalar) / quote the whole expression: '\"x\" == data.a'",
        ),
        (
            seed_with(3, "filter: data.a == \"x # y\""),
            3,
            19,
            "the string has no closing quote / YAML ends the expression before `# y\"`: quote the whole expression",
        ),
        (
            seed_with(3, "filter: data.a == # 2"),
            3,
            18,
            "the expression ends too early / YAML ends the expression before `# 2`: quote the whole expression",
        ),
        (
            seed_with(3, "filter: !has(data.x)"),
            3,
            9,
            "YAML tags (`!`) are not allowed / an expression that starts with `&` or `!` must be quoted as a whole",
        ),
        (
            seed_with(3, "filter: [1, 2] == data.x"),
            3,
            9,
            "YAML cannot read this line (while parsing a block mapping, did not find expected key) / quote the whole expression: '[1, 2] == data.x'",
        ),
        (
            seed_with(3, "filter: {'a': 1} == data.x"),
            3,
            9,
            "YAML cannot read this line (while parsing a block mapping, did not find expected key) / quote the whole expression: \"{'a': 1} == data.x\"",
        ),
        (
            seed_with(3, "filter: [data.x]"),
            3,
            9,
            "`filter` must be an expression, not a list / quote the whole expression where it starts with `[` or `{` or holds `: `",
        ),
        (
            seed_with(3, "dedupe: {key: data.list[0], after: never}"),
            3,
            9,
            "YAML cannot read this line (while parsing a flow mapping, did not find expected ',' or '}') / quote the whole expression; inside `{…}` also one that holds `[`, `{` or `,`",
        ),
        (seed_with(3, "dedupe: {key: dta.x, after: never}"), 3, 15, "unknown variable `dta`: did you mean `data`?"),
        (
            seed_with(3, "filter: *data"),
            3,
            9,
            "YAML aliases (`*`) are not allowed / write the value out; an expression that starts with `*` must be quoted as a whole",
        ),
        (
            seed_with(3, "filter: &x data.a"),
            3,
            12,
            "YAML anchors (`&`) are not allowed / an expression that starts with `&` or `!` must be quoted as a whole",
        ),
        (seed_with(3, "filter: dta.policyId == 1"), 3, 9, "unknown variable `dta`: did you mean `data`?"),
        (seed_with(3, "filter: 'data.a == 1 && dta.policyId'"), 3, 25, "unknown variable `dta`: did you mean `data`?"),
        (seed_with(3, "filter: steps.recalc_payments.output == 1"), 3, 9, "`steps` is not available here: this expression sees `data`, `event`"),
        (seed_with(3, "filter: data.policyId = 1"), 3, 23, "`=` compares nothing: write `==`"),
        (seed_with(3, "filter: size(data.x"), 3, 20, "syntax error: missing ')' at the end"),
        (seed_with(3, "filter: lenght(data.x)"), 3, 9, "unknown function `lenght`"),
        (seed_with(3, "schedule: x"), 3, 1, "`schedule` is not yet supported"),
        (seed_with(3, "dedupe: {key: event.id, after: allways}"), 3, 32, "`after` must be `never` or `failed` or `terminal`, not `allways`"),
        (
            seed_with(3, "dedupe: {after: failled}"),
            3,
            17,
            "`after` must be `never` or `failed` or `terminal`, not `failled` / did you mean `failed`?",
        ),
        (
            seed_with(3, "dedupeKey: event.id\ndedupe: {after: failed}"),
            3,
            12,
            "`dedupeKey` is the short form of `dedupe: {key: …}`: write one of them",
        ),
        (seed_with(3, "timeoutms: 5"), 3, 1, "unknown key `timeoutms` / did you mean `timeoutMs`?"),
        (seed_with(17, "retry: 3"), 18, 11, "this is no valid YAML: mapping values are not allowed in this context"),
        (seed_with(18, "  attempts: three"), 18, 13, "`attempts` must be a whole number, not text / only digits"),
        (seed_with(18, "  attempts: 0"), 18, 13, "`attempts` must be a whole number from 1 to 10000"),
        (seed_with(18, "  attempts: 2.5"), 18, 13, "`attempts` must be a whole number from 1 to 10000"),
        (seed_with(18, "  attempts: \"3\""), 18, 13, "`attempts` must be a whole number, not text / write it without quotes"),
        (seed_with(18, "  attempts: 012"), 18, 13, "`attempts` must be a whole number, not text / a leading zero makes it text: leave it out"),
        (seed_with(18, "  attempts: yes"), 18, 13, "`attempts` must be a whole number, not text / only digits"),
        (seed_with(18, "  attempts: true"), 18, 13, "`attempts` must be a whole number, not true or false"),
        (seed_with(18, "  multiplier: 0.5"), 18, 15, "`multiplier` must be a number from 1 to 1000"),
        (seed_with(18, "  jitter: 1.5"), 18, 11, "`jitter` must be a number from 0 to 1"),
        (seed_with(18, "  maxBackoffMs: 10"), 18, 17, "`maxBackoffMs` is below `backoffMs`"),
        (seed_with(18, "\tattempts: 3"), 18, 1, "a tab indents this line: YAML allows only spaces / indent with spaces"),
        (seed_with(20, "timeoutMs: 5m"), 20, 12, "`timeoutMs` must be a whole number of milliseconds, not text / milliseconds, only digits: 30000"),
        (
            seed_with(20, "timeoutMs: 999999999999999"),
            20,
            12,
            "`timeoutMs` must be a whole number of milliseconds from 1 to 315360000000 (ten years)",
        ),
        (seed_with(20, "timeoutMs: -1"), 20, 12, "`timeoutMs` must be a whole number of milliseconds from 1 to 315360000000 (ten years)"),
        (seed_with(20, "deadlineMs:"), 20, 1, "`deadlineMs` has no value / write one, or leave the key out"),
        (seed_with(20, "compensation: {onFailure: stopp}"), 20, 27, "`onFailure` must be `stop` or `continue`, not `stopp` / did you mean `stop`?"),
        (seed_with(20, "compensation: {timeoutMs: 5}"), 20, 16, "unknown key `timeoutMs` / `compensation` has retry, onFailure"),
        (
            seed_with(6, "  - name: recalc-payments"),
            6,
            11,
            "`recalc-payments` is no step name: letters, digits and `_`, not starting with a digit / write `recalc_payments`: expressions say `steps.NAME`",
        ),
        (seed_with(6, "  - name: 5"), 6, 11, "`name` must be text, not a number / put it in quotes"),
        (seed_with(6, "  - nme: recalc_payments"), 6, 5, "unknown key `nme` / did you mean `name`?"),
        (seed_with(10, "  - name: recalc_payments"), 10, 11, "two steps are named `recalc_payments` / the other is on line 6"),
        (seed_with(6, "  -name: recalc_payments"), 6, 3, "a space must follow the `-` of a list / write `- `"),
        (
            seed_with(7, "    call: payment-svc"),
            7,
            11,
            "`payment-svc` is no address of a call / write `service:/path`, with a service of the registry",
        ),
        (
            seed_with(7, "    call: http://payment-svc/recalc"),
            7,
            11,
            "a call names a service of the registry, not a URL / write `service:/path`, with a service of the registry",
        ),
        (
            seed_with(7, "    call: payment-svc:recalc"),
            7,
            11,
            "the path of `payment-svc:recalc` must start with `/` / write `service:/path`, with a service of the registry",
        ),
        (seed_with(7, "    call: post payment-svc:/recalc"), 7, 11, "`post` is no method: GET, POST, PUT, PATCH or DELETE / write `POST`"),
        (seed_with(7, "    call: FETCH payment-svc:/recalc"), 7, 11, "`FETCH` is no method: GET, POST, PUT, PATCH or DELETE"),
        (
            seed_with(7, "    call: ${data.svc}:/recalc"),
            7,
            11,
            "a template cannot name the service / write `service:/path`, with a service of the registry",
        ),
        (seed_with(7, "    call: payment-svc:/a/../b"), 7, 11, "a path must not hold `.` or `..` segments"),
        (seed_with(7, "    call: payment-svc:/a b"), 7, 11, "a path holds only the characters of a URL: percent-encode the others"),
        (seed_with(7, "    call: payment-svc:/a/${ dta.id }"), 7, 29, "unknown variable `dta`: did you mean `data`?"),
        (seed_with(7, "    call: payment-svc:/a/${ data.id"), 7, 26, "`${` has no closing `}`; write `$${` for the two characters"),
        (
            seed_with(7, "    call: payment-svc:/a/${ steps.recalc_payment.output }"),
            7,
            35,
            "unknown step `recalc_payment`: did you mean `recalc_payments`?",
        ),
        (
            seed_with(7, "    call: payment-svc:/a/${ step.context }"),
            7,
            29,
            "`step` is not available here: this expression sees `data`, `event`, `saga`, `steps`",
        ),
        (seed_with(7, "    call: {method: GET}"), 7, 11, "`call` needs `url`"),
        (
            seed_with(7, "    call: {url: \"p:/x\", method: GTE}"),
            7,
            33,
            "`method` must be `GET` or `POST` or `PUT` or `PATCH` or `DELETE`, not `GTE` / did you mean `GET`?",
        ),
        (seed_with(7, "    call: {url: p:/x, headers: {Authorization: x}}"), 7, 33, "the header `Authorization` is set by the worker"),
        (seed_with(7, "    call: {url: p:/x, headers: {\"a b\": x}}"), 7, 33, "`a b` is no name of a header"),
        (seed_with(7, "    call: {url: p:/x, body: {a: [\"${ dta.x }\"]}}"), 7, 38, "unknown variable `dta`: did you mean `data`?"),
        (seed_with(7, "    call: {url: p:/x, retry: {attempts: 3}}"), 7, 23, "unknown key `retry` / `call` has url, method, headers, body"),
        (seed_with(7, "    call: {url: POST p:/x}"), 7, 17, "`url` holds no method: write `method` beside it"),
        (
            seed_with(8, "    compensate: {url: p:/x, timeoutMs: 0}"),
            8,
            40,
            "`timeoutMs` must be a whole number of milliseconds from 1 to 315360000000 (ten years)",
        ),
        (step_with("    context: response.body"), 9, 14, "`context` must be a map of names to expressions, not text"),
        (step_with("    context: {id: response.bdy.x}"), 9, 28, "response has no `bdy`: did you mean `body`?"),
        (
            step_with("    context: {id: matches(data.a, data.b)}"),
            9,
            33,
            "syntax error: missing ')' at the end / YAML ends the expression before `, data.b)}`: quote the whole expression",
        ),
        ("steps: []\nid: a\ntrigger: b\n".to_owned(), 1, 8, "a saga needs at least one step"),
        ("id: a\ntrigger: b\nsteps: {name: x}\n".to_owned(), 3, 8, "`steps` must be a list, not a map / start each step with `- name:`"),
        ("- when: A\n  then: [B]\n".to_owned(), 1, 1, "rules are not yet supported"),
        ("id: a\nrules: []\n".to_owned(), 2, 1, "rules are not yet supported"),
        ("policies: []\n".to_owned(), 1, 1, "policies are not yet supported"),
        ("hello".to_owned(), 1, 1, "a file must be a map with keys such as `id`, `trigger` and `steps`, not text"),
        ("foo: bar".to_owned(), 1, 1, "this is no file of this program / a saga has `trigger` and `steps`, a registry has `services`"),
        ("".to_owned(), 1, 1, "the file is empty / `hms-orch init` writes files to begin with"),
        ("---\n---\n# nothing\n".to_owned(), 1, 1, "the file is empty / `hms-orch init` writes files to begin with"),
        (seed_with(7, "\tcall: payment-svc:/recalc"), 7, 1, "a tab indents this line: YAML allows only spaces / indent with spaces"),
        (
            format!("a: &a [x]\nb: *a\n{SEED}"),
            1,
            7,
            "YAML anchors (`&`) are not allowed / an expression that starts with `&` or `!` must be quoted as a whole",
        ),
        (format!("<<: {{a: 1}}\n{SEED}"), 1, 1, "YAML merge keys (`<<`) are not allowed / write the values out"),
        (
            format!("? [a]\n: b\n{SEED}"),
            1,
            3,
            "a key must be text, not a list / an expression or template that starts with `[` or `{` must be quoted as a whole",
        ),
        (format!("{SEED}x-deep: {}{}", "[".repeat(40), "]".repeat(40)), 21, 40, "lists and maps nest more than 32 deep"),
        (services_with("{url: ftp://h}"), 2, 12, "`ftp` is no scheme of a service / write http or https"),
        (services_with("{url: \"http://u:p@h\"}"), 2, 12, "a URL must not hold a user or password / send a header with `secret://env/NAME`"),
        (services_with("{url: \"http://h?x=1\"}"), 2, 12, "the URL of a service has no query and no fragment"),
        (services_with("{url: nowhere}"), 2, 12, "`nowhere` is no URL: relative URL without a base / write http://host:port or https://host"),
        (services_with("{audience: x}"), 2, 6, "a service needs `url`"),
        (services_with("{url: http://h, allow: [10.0.0.0/33]}"), 2, 30, "`10.0.0.0/33`: the prefix goes from 0 to 32"),
        (services_with("{url: http://h, maxConcurent: 5}"), 2, 22, "unknown key `maxConcurent` / did you mean `maxConcurrent`?"),
        (services_with("{url: http://h, maxConcurrent: 0}"), 2, 37, "`maxConcurrent` must be a whole number from 1 to 1000000"),
        (
            services_with("{url: http://h, headers: {X-Api-Key: hunter2}}"),
            2,
            43,
            "the header `X-Api-Key` looks like a secret: its value does not belong into a file / write `secret://env/NAME` or `secret://file/path`",
        ),
        (
            services_with("{url: http://h, headers: {X-Api-Key: secret://vault/x}}"),
            2,
            43,
            "a secret is `secret://env/NAME` or `secret://file/absolute/path`",
        ),
        ("id: x\nservices: [a]\n".to_owned(), 2, 11, "`services` must be a map of names to services, not a list"),
        (
            "services: {a: {url: http://h}}\nfunctions: a.b\n".to_owned(),
            2,
            12,
            "`functions` must be a list of names such as `benefits.book`, not text",
        ),
        (
            "services: {a: {url: http://h}}\nfunctions: [a.b, a.B]\n".to_owned(),
            2,
            18,
            "`a.B` is no name of a function / write `schema.function`: lower-case letters, digits and `_`, as registered under `functions`",
        ),
        ("services: {a: {url: http://h}}\nfunctions: [a.b, a.c, a.b]\n".to_owned(), 2, 23, "`a.b` is here twice"),
    ];
    check(&table);
}

/// A file, the place of its first problem, and what is said of it.
pub(super) type Row = (String, usize, usize, &'static str);

/// Reads every file of a table and tells of all that differ at once.
pub(super) fn check(table: &[Row]) {
    let mut wrong = String::new();
    for (text, line, column, part) in table {
        let Err(found) = read_all("f.yaml", text) else {
            wrong += &format!("want {line}:{column} {part}\nthis is taken:\n{text}\n");
            continue;
        };
        if (found[0].line, found[0].column) != (*line, *column) || words(&found[0]) != *part {
            wrong += &format!("want {line}:{column} {part}\n{}\n", shown(&found));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn several_mistakes_are_found_in_one_run() {
    let text = WHOLE
        .replace("jitter: 0", "jitter: 7")
        .replace("    timeoutMs: 2000", "    timeoutMs: soon")
        .replace("event.subject", "evnt.subject")
        .replace("method: DELETE", "metod: DELETE");
    let found = problems(&text);
    assert_eq!(found.iter().map(|problem| problem.line).collect::<Vec<_>>(), [7, 8, 20, 25], "{}", shown(&found));
}

#[test]
fn a_comment_behind_an_expression_is_pointed_out() {
    let Ok(super::File::Saga(_, warnings, _)) = read("f.yaml", &seed_with(3, "filter: data.a == 1 # 2")) else { panic!("a saga") };
    assert_eq!((warnings.len(), warnings[0].line, warnings[0].column), (1, 3, 9));
    assert!(warnings[0].message.contains("comment") && warnings[0].to_string().starts_with("warning: "));
}

#[test]
fn a_secret_is_not_shown() {
    let found = problems(&services_with("{url: http://h, headers: {Cookie: hunter2}}"));
    assert!(!shown(&found).contains("hunter2"), "{}", shown(&found));
}

#[test]
fn unquoted_words_for_booleans_are_text() {
    let Ok(super::File::Saga(_, _, source)) = read("f.yaml", &format!("{SEED}x-words: [yes, no, on, off, True, true, 012, 0x10, 1_000, .inf, ~]\n"))
    else {
        panic!("a saga")
    };
    assert_eq!(source["x-words"], serde_json::json!(["yes", "no", "on", "off", "True", true, "012", "0x10", "1_000", ".inf", null]));
}

/// Files made to hurt: each answered within the bound (wide, since debug builds on busy machines are slow).
#[test]
fn hostile_files_are_answered_quickly() {
    let bomb: String = (0..9).map(|level| format!("x-{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(9))).collect();
    let keys: String = (0..30_000).map(|key| format!("{key}: \n")).collect();
    let files = [
        ("10 MB", "x".repeat(10_000_000)),
        ("NUL", "id: \0\n".to_owned()),
        ("escaped NUL", seed_with(1, "id: \"a\\0b\"")),
        ("alias bomb", bomb),
        ("deep flow", "[".repeat(10_000)),
        ("deep flow maps", "{a: ".repeat(10_000)),
        ("deep block", (0..700).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()),
        ("deep compact lists", "- ".repeat(10_000)),
        ("deep complex keys", "? ".repeat(10_000)),
        ("wide", keys),
        ("wide flow", format!("{{{}}}", "a,".repeat(100_000))),
        ("long key", format!("{}: 1", "k".repeat(200_000))),
        ("long expression", seed_with(3, &format!("filter: data.a == '{}'", "x".repeat(200_000)))),
        ("deep expression", seed_with(3, &format!("filter: '{}1'", "(".repeat(4_000)))),
        ("many steps", format!("id: a\ntrigger: b\nsteps:\n{}", "  - {name: a, call: x:/y}\n".repeat(8_000))),
        (
            "many bad expressions",
            format!("{SEED}x-a: 1\n").replace(
                "    call: payment-svc:/recalc",
                &format!("    call: p:/x\n    context:\n{}", (0..5_000).map(|n| format!("      a{n}: dta.x\n")).collect::<String>()),
            ),
        ),
        ("directives", "%YAML 1.2\n".repeat(10_000)),
        ("tags", "!!a ".repeat(50_000)),
        ("quotes", "\"".repeat(200_000)),
        ("colons", ": ".repeat(100_000)),
        ("dashes", "---\n".repeat(60_000)),
    ];
    for (name, text) in files {
        let started = Instant::now();
        let found = read_all("f.yaml", &text);
        let took = started.elapsed();
        println!(
            "{name:>22} {took:>12?} {}",
            found.as_ref().err().and_then(|found| found.first()).map_or("fine", |first| first.message.as_str()).chars().take(90).collect::<String>()
        );
        assert!(found.is_err(), "{name}");
        assert!(shown(&found.expect_err(name)).len() < 100_000, "{name}: too much to read");
        assert!(took < Duration::from_secs(2), "{name} took {took:?}");
    }
    let long = read("f.yaml", &"x: y\n".repeat(FILE_BYTES_MAX / 5 + 1)).expect_err("too long");
    assert_eq!((long[0].line, long[0].column, long[0].excerpt.as_str()), (FILE_BYTES_MAX / 5 + 1, 1, ""), "where the limit is passed");
}

/// Reads, prints and reads back: nothing of it may panic.
fn exercise(text: &str) {
    let started = Instant::now();
    match read_all("f.yaml", text) {
        Ok(files) => {
            for file in files {
                let (revision, source) = match &file {
                    super::File::Saga(definition, _, source) => (definition.revision.clone(), source),
                    super::File::Services(registry, _, source) => (registry.revision.clone(), source),
                };
                let again = match from_stored(source).unwrap_or_else(|found| panic!("{text}\n{}", shown(&found))) {
                    super::File::Saga(definition, ..) => definition.revision,
                    super::File::Services(registry, ..) => registry.revision,
                };
                assert_eq!(again, revision, "{text}");
                assert_eq!(super::schemas::complaints(source), [""; 0], "{text}");
            }
        }
        Err(found) => {
            assert!(!found.is_empty());
            assert!(!shown(&found).is_empty());
        }
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn random_text_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        exercise(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_yaml_never_panics(text in "([a-z\\-: \\[\\]{}\"'#&*!|>%@`,\n\t$é]|steps:|- name: a\n|call: ){0,120}") {
        exercise(&text);
    }

    #[test]
    fn mutations_never_panic(file in 0..4_usize, edits in proptest::collection::vec((any::<prop::sample::Index>(), "[ -~\n\t\u{0}é😀]{0,3}", 0..12_usize), 1..6)) {
        let mut text: Vec<char> = [SEED, WHOLE, SERVICES, CONTRACT][file].chars().collect();
        for (at, insert, delete) in edits {
            let at = at.index(text.len().max(1)).min(text.len());
            let end = (at + delete).min(text.len());
            text.splice(at..end, insert.chars());
        }
        exercise(&text.into_iter().collect::<String>());
    }
}
