use super::*;
use crate::core::event::Event;
use crate::core::payload::Payload;
use crate::core::time::Timestamp;
use serde_json::json;
use uuid::Uuid;

const ALL: &[Root] = &[Root::Data, Root::Event, Root::Saga, Root::Steps, Root::Step, Root::Response];

pub(in crate::core) fn event(data: Value) -> Event {
    Event {
        id: Uuid::from_u128(7),
        kind: "policy.changed".to_owned(),
        topic: "default".to_owned(),
        source: "tests".to_owned(),
        subject: Some("dol.unemployment.v3".to_owned()),
        data: data.into(),
        correlation_id: "c-1".to_owned(),
        causation_id: None,
        dedupe_key: None,
        depth: 0,
        created_at: Timestamp(1_700_000_000_000_000),
    }
}

fn compile_all(source: &str) -> Result<Expression, ExpressionError> {
    Expression::compile(source, ALL, Some(&["book", "mail"]))
}

fn evaluate(source: &str, data: Value) -> Result<Value, EvaluationError> {
    let event = event(data);
    compile_all(source).unwrap_or_else(|error| panic!("{source}: {error}")).evaluate(&Scope::of_event(&event))
}

#[test]
fn expressions_give_the_expected_values() {
    let data = json!({"policyId": "dol.unemployment.v3", "n": 5, "f": 5.0, "half": 100.5, "list": [1, 2, 3], "nested": {"a": {"b": "x"}}, "nothing": null,
        "items": [{"id": 1, "ok": true}, {"id": 2, "ok": false}], "odd name": 1, "big": 18_446_744_073_709_551_615_u64});
    for (source, expected) in [
        (r#"data.policyId == "dol.unemployment.v3""#, json!(true)),
        ("data.n == data.f && data.n == 5.0 && data.f == 5", json!(true)),
        ("data.half > 100 && data.n < 5.5 && data.n >= 4.9", json!(true)),
        ("data.n + 1", json!(6)),
        ("data.f", json!(5.0)),
        ("data.big", json!(18_446_744_073_709_551_615_u64)),
        ("data.nothing == null", json!(true)),
        ("has(data.policyId) && !has(data.missing)", json!(true)),
        ("has(data.nested.a.b) && !has(data.nested.a.c)", json!(true)),
        ("data.missing == 1 || true", json!(true)),
        ("data.list.map(x, x * 2)", json!([2, 4, 6])),
        ("data.list.filter(data, data > 1)", json!([2, 3])),
        ("data.items.exists(i, i.ok && i.id == data.list[0])", json!(true)),
        ("data.items[1].id", json!(2)),
        ("data['odd name'] + data[\"n\"]", json!(6)),
        ("2 in data.list && 'n' in data", json!(true)),
        ("size(data) > 5 && data.list.size() == 3", json!(true)),
        ("data.policyId.startsWith('dol.') && data.policyId.matches('v[0-9]$')", json!(true)),
        ("{'k': data.nested, 'l': [data.n]}", json!({"k": {"a": {"b": "x"}}, "l": [5]})),
        ("event.type + ' ' + event.topic + ' ' + event.subject", json!("policy.changed default dol.unemployment.v3")),
        ("event.id", json!("00000000-0000-0000-0000-000000000007")),
        ("event.time", json!("2023-11-14T22:13:20+00:00")),
        ("event.time - timestamp('2023-11-14T22:13:00Z')", json!("20s")),
        ("event.causationId == null && event.depth == 0 && event.data.n == 5", json!(true)),
        ("type(data.n) == int && type(data.f) == double", json!(true)),
        ("data.n > 3 ? 'many' : 'few'", json!("many")),
        ("'policy:' + data.policyId", json!("policy:dol.unemployment.v3")),
    ] {
        assert_eq!(evaluate(source, data.clone()), Ok(expected), "{source}");
    }
}

#[test]
fn what_is_missing_is_an_error_that_says_so() {
    for (source, data, missing, part) in [
        ("data.policyId == 'x'", json!({}), true, "no `policyId`"),
        ("data.policyId == 'x'", json!(null), true, "null"),
        ("data.a.b", json!({"a": null}), true, "null"),
        ("data.a.b", json!({"a": 5}), false, "int"),
        ("data.list[3]", json!({"list": []}), true, "shorter"),
        ("data.a + 1", json!({"a": "x"}), false, "string and int"),
        ("data.a < 1", json!({"a": "secret"}), false, "string and int"),
        ("data.a / 0", json!({"a": 1}), false, "zero"),
        ("9223372036854775807 + data.a", json!({"a": 1}), false, "too large"),
        ("1.0 / double(data.a)", json!({"a": 0}), false, "without end"),
        ("timestamp(data.a)", json!({"a": "secret"}), false, "timestamp"),
        ("saga.id", json!({}), false, "`saga`"),
    ] {
        let error = evaluate(source, data).expect_err(source);
        assert_eq!(error.missing, missing, "{source}: {error}");
        assert!(error.message.contains(part), "{source}: {error}");
        assert!(!error.message.contains("secret"), "{source}: data does not belong into messages");
    }
}

#[test]
fn wrong_names_are_refused_with_the_nearest() {
    for (source, column, part) in [
        ("dta.x == 1", 1, "unknown variable `dta`: did you mean `data`?"),
        ("data.x == 1 && zebra", 16, "unknown variable `zebra`: there is data, event"),
        (".data.x", 2, "did you mean `data`?"),
        ("siz(data)", 1, "unknown function `siz`: did you mean `size`?"),
        ("data.x.startWith('a')", 8, "did you mean `startsWith`?"),
        ("steps.bok.output", 7, "unknown step `bok`: did you mean `book`?"),
        ("steps['bok'].output", 7, "did you mean `book`?"),
        ("has(steps.bok.output)", 11, "did you mean `book`?"),
        ("steps.book.outptu", 12, "a step has no `outptu`: did you mean `output`?"),
        ("event.kind", 7, "event has no `kind`"),
        ("event.correlation_id", 7, "did you mean `correlationId`?"),
        ("async.data.x", 1, "not available here"),
        ("data.list.exists(x, y == 1)", 21, "unknown variable `y`"),
        ("has(data)", 5, "has()"),
        ("data.list.exists(x)", 11, "does not take these arguments"),
        ("Thing{a: 1}", 6, "only maps"),
        ("data.policyId = 'x'", 15, "write `==`"),
        ("data.a == 'unfinished", 11, "no closing quote"),
        ("'ü' == dta.x", 8, "did you mean `data`?"),
        ("'üüü' = data.x", 7, "write `==`"),
        ("true &&\n  dta", 3, "did you mean `data`?"),
        ("", 1, "empty"),
        ("  ", 1, "empty"),
    ] {
        let error = compile_all(source).expect_err(source);
        assert!(error.message.contains(part), "{source}: {error}");
        println!("{source:?} {}:{} {}", error.line, error.column, error.message);
        assert_eq!(error.column, column, "{source}: {error}");
    }
}

#[test]
fn hostile_sources_are_refused_without_overflow() {
    let deep = [
        "(".repeat(4000),
        format!("{}1{}", "(".repeat(2000), ")".repeat(2000)),
        format!("{}1{}", "[".repeat(60), "]".repeat(60)),
        format!("{}true", "!".repeat(4000)),
        format!("{}1", "-".repeat(4000)),
        format!("data{}", ".a".repeat(2000)),
        format!("1{}", "+1".repeat(2000)),
        format!("{}1", "true?1:".repeat(500)),
        format!("data{}", "[0]".repeat(1300)),
        format!("data{}", ".size()".repeat(500)),
        format!("{{}}{}", ".a".repeat(2000)),
        "x".repeat(5000),
        "data.a.exists(x, data.b.exists(y, data.c.exists(z, x == y)))".to_owned(),
    ];
    for source in &deep {
        let started = std::time::Instant::now();
        let result = compile_all(source);
        println!("{:>8?} {} {:?}", started.elapsed(), &source[..source.len().min(20)], result.as_ref().map(|_| ()).map_err(|e| &e.message));
        // What compiles must also evaluate on a small stack.
        if let Ok(expression) = result {
            let event = event(json!({}));
            let _any = expression.evaluate(&Scope::of_event(&event));
        }
    }
    assert!(compile_all(&deep[12]).is_err());
    assert!(compile_all(&deep[0]).is_err());
    // The deepest tree that is allowed runs on a test thread's 2 MiB.
    let event = event(json!({}));
    let sum = format!("1{}", "+1".repeat(30));
    assert_eq!(compile_all(&sum).expect("allowed").evaluate(&Scope::of_event(&event)), Ok(json!(31)));
    assert!(compile_all(&vec!["data.a == 1"; 250].join(" || ")).is_ok(), "a long list of alternatives is no depth");
}

#[test]
fn loops_over_long_lists_are_refused() {
    let data = json!({"list": vec![1; 5000]});
    assert_eq!(evaluate("data.list.all(x, x == 1)", data.clone()), Ok(json!(true)));
    assert!(evaluate("data.list.all(x, data.list.all(y, x == y))", data.clone()).expect_err("25 million turns").message.contains("too long"));
    assert!(evaluate("data.list.all(x, x in data.list)", data).expect_err("25 million turns").message.contains("too long"));
}

#[test]
fn a_saga_is_in_scope() {
    let (output, context) = (Payload::from(json!({"total": 3})), Payload::from(json!({"backupId": "b-1"})));
    let body = json!({"context": {"id": 9}});
    let event = event(json!({}));
    let headers = [("etag".to_owned(), "x".to_owned())];
    let steps = [StepScope { name: "book", status: "succeeded", output: Some(&output), context: None }];
    let scope = Scope {
        saga: Some(SagaScope { id: Uuid::from_u128(1), definition: "a.v2", version: 2 }),
        steps: &steps,
        step: Some(UndoScope { name: "book", context: Some(&context), do_key: "k/book/do" }),
        response: Some(ResponseScope { status: 200, headers: &headers, body: &body }),
        ..Scope::of_event(&event)
    };
    for (source, expected) in [
        ("steps.book.output.total", json!(3)),
        ("steps.book.status == 'succeeded' && steps.book.context == null", json!(true)),
        ("steps", json!({"book": {"status": "succeeded", "output": {"total": 3}, "context": null}})),
        ("step.context.backupId + step.doKey + step.name", json!("b-1k/book/dobook")),
        ("saga.definition + string(saga.version)", json!("a.v22")),
        ("saga", json!({"id": Uuid::from_u128(1).to_string(), "definition": "a.v2", "version": 2})),
        ("response.body.context.id == 9 && response.status == 200 && response.headers.etag == 'x'", json!(true)),
    ] {
        assert_eq!(compile_all(source).expect(source).evaluate(&scope), Ok(expected), "{source}");
    }
    let late = compile_all("steps.mail.output").expect("known step");
    assert!(late.evaluate(&scope).expect_err("not in scope yet").missing);
}

#[test]
fn tests_and_keys_have_their_types() {
    let event = event(json!({"s": "x", "n": 5, "f": 5.0, "b": true, "z": null, "l": []}));
    let scope = Scope::of_event(&event);
    let expression = |source| compile_all(source).expect(source);
    assert_eq!(expression("data.b").test(&scope), Ok(true));
    assert!(expression("data.n").test(&scope).is_err());
    assert!(expression("data.z").test(&scope).is_err());
    for (source, expected) in [
        ("data.s", Some("x")),
        ("data.n", Some("5")),
        ("data.f", Some("5")),
        ("data.b", Some("true")),
        ("data.z", None),
        ("data.l", None),
        ("data", None),
    ] {
        assert_eq!(expression(source).text(&scope).ok().as_deref(), expected, "{source}");
    }
    assert!(expression("data.s").uses(Root::Data) && !expression("data.s").uses(Root::Event));
}

#[test]
fn every_listed_function_exists() {
    let event = event(json!({}));
    for name in check::FUNCTIONS {
        let calls = [format!("{name}('a')"), format!("'a'.{name}('a')"), format!("timestamp('2023-11-14T22:13:00Z').{name}()"), format!("{name}(1)")];
        let known = calls.iter().any(|call| {
            let result = compile_all(call).expect(call).run(&Scope::of_event(&event));
            !result.is_err_and(|error| error.message.contains("not known") || error.message.contains("does not apply"))
        });
        assert!(known, "{name}");
    }
}

proptest::proptest! {
    #[test]
    fn random_expressions_never_panic(words in proptest::collection::vec(0..WORDS.len(), 1..14)) {
        let source: String = words.into_iter().map(|word| WORDS[word]).collect();
        if let Ok(expression) = compile_all(&source) {
            let event = event(json!({"n": i64::MIN, "f": 1e308, "s": "é😀", "l": [1, "x", null], "m": {"a": {"b": [1]}}}));
            let message = expression.evaluate(&Scope::of_event(&event)).err().map(|error| error.message);
            assert_ne!(message.as_deref(), Some("the expression cannot be evaluated"), "{source}");
        }
    }
}

/// Pieces that make many valid expressions by chance.
const WORDS: &[&str] = &[
    "data.n",
    "data.f",
    "data.s",
    "data.l",
    "data.m",
    "data",
    "event.time",
    ".a",
    "[0]",
    "[-1]",
    "['a']",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " == ",
    " < ",
    " in ",
    " && ",
    "!",
    "-",
    "(",
    ")",
    " ? ",
    " : ",
    "1",
    "-1",
    "9223372036854775807",
    "1u",
    "0",
    "0.0",
    "'x'",
    "b'x'",
    "null",
    "true",
    "int(",
    "uint(",
    "double(",
    "string(",
    "timestamp(",
    "duration(",
    "'9999999999s'",
    "'-1h'",
    "type(",
    "size(",
    ".size()",
    ".matches('(a+)+$')",
    ".contains('x')",
    ".map(x, x + 1)",
    ".exists(x, x == 1)",
    ".filter(x, true)",
    ".getFullYear()",
    ".getHours('+99:99')",
    ".getDate('Nowhere')",
    "[",
    "]",
    "{'a': ",
    "}",
    ", ",
    "has(data.m.a)",
];
