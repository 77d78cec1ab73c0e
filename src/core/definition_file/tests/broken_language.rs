//! Mistakes in what goes beyond a list of calls, each with its place and message.

use super::broken::{Row, check, seed_with, step_with};
use super::language::with_steps;

fn steps(text: &str) -> String {
    with_steps(&format!("  - {text}\n"))
}

#[test]
fn mistakes_at_the_top() {
    let rows: Vec<Row> = vec![
        (seed_with(3, "lock: {mode: wait}"), 3, 7, "`lock` needs `key`"),
        (seed_with(3, "lock: {key: []}"), 3, 13, "`key` is empty / write an expression, or leave `lock` out"),
        (seed_with(3, "lock: {key: [~]}"), 3, 14, "`key` holds an empty item"),
        (seed_with(3, "lock: {key: [data.a, dta.b]}"), 3, 22, "unknown variable `dta`: did you mean `data`?"),
        (seed_with(3, "lock: [data.a]"), 3, 7, "`lock` must be an expression or a map, not a list / several keys are `lock: {key: [...]}`"),
        (seed_with(3, "lock: saga.id"), 3, 7, "`saga` is not available here: this expression sees `data`, `event`"),
        (seed_with(3, "lock: {key: data.a, mode: abbort}"), 3, 27, "`mode` must be `wait` or `abort`, not `abbort` / did you mean `abort`?"),
        (seed_with(3, "lock: {key: data.a, timeout: 5}"), 3, 21, "unknown key `timeout` / did you mean `timeoutMs`?"),
        (seed_with(3, "cancelOn: gone"), 3, 11, "`cancelOn` must be a list, not text / write `cancelOn: [{event: TYPE, match: …}]`"),
        (seed_with(3, "cancelOn: []"), 3, 11, "`cancelOn` is empty"),
        (seed_with(3, "cancelOn: [gone]"), 3, 12, "an entry of `cancelOn` must be a map, not text"),
        (seed_with(3, "cancelOn: [{match: async.data.a == data.a}]"), 3, 12, "an entry of `cancelOn` needs `event`"),
        (
            seed_with(3, "cancelOn: [{event: x, match: async.data.a > data.a}]"),
            3,
            30,
            "`match`: it must hold one equality of a field of `async` that is joined by `&&` to the rest / write `async.data.id == data.id`; the other side must not look at `async`",
        ),
        (
            seed_with(3, "cancelOn: [{event: x, match: async.data.a == data.a && async.data.b == 1}]"),
            3,
            56,
            "`match`: it holds a second equality of a field of `async` / keep the one that tells most, and write the other as `async.data.x in [data.x]`",
        ),
        (
            seed_with(3, "cancelOn: [{event: x, match: async.data.a == steps.recalc_payments.output}]"),
            3,
            46,
            "`steps` is not available here: this expression sees `data`, `event`, `async`",
        ),
        (seed_with(3, "hitl: {after: 0}"), 3, 15, "`after` must be a whole number from 1 to 10000"),
        (seed_with(3, "hitl: {queu: x}"), 3, 8, "unknown key `queu` / did you mean `queue`?"),
        (seed_with(3, "onExhausted: human"), 3, 14, "`onExhausted` must be `compensate` or `hitl`, not `human`"),
        (
            seed_with(3, "onExhausted: continue"),
            3,
            14,
            "`onExhausted: continue` belongs into the steps that a saga can do without / write `compensate` or `hitl` here",
        ),
        (seed_with(3, "parallel: yes"), 3, 11, "`parallel` must be true or false, not text / only `true` and `false` are booleans"),
        (seed_with(3, "maxParallel: 2"), 3, 14, "`maxParallel` is about parallel steps only / write `parallel: true` beside it"),
        (seed_with(3, "parallel: true\nmaxParallel: 0"), 4, 14, "`maxParallel` must be a whole number from 1 to 200"),
        (seed_with(3, "parallel: true\nonBranchFailure: cancel"), 4, 18, "`onBranchFailure` must be `drain` or `wait`, not `cancel`"),
        (seed_with(3, "schedule: x"), 3, 1, "`schedule` is not yet supported"),
        (seed_with(3, "forEach: x"), 3, 1, "`forEach` is not yet supported"),
        (seed_with(3, "finally: x"), 3, 1, "`finally` is not yet supported"),
        (seed_with(3, "migrate: x"), 3, 1, "`migrate` is not yet supported"),
        (seed_with(3, "paralel: true"), 3, 1, "unknown key `paralel` / did you mean `parallel`?"),
    ];
    check(&rows);
}

#[test]
fn mistakes_in_groups() {
    let rows: Vec<Row> = vec![
        (steps("[]"), 4, 5, "a group needs at least one step"),
        (steps("[{parallel: true}]"), 4, 5, "a group needs at least one step"),
        (steps("{parallel: true, steps: []}"), 4, 29, "a group needs at least one step"),
        (steps("{parallel: true}"), 4, 3, "a group needs at least one step"),
        (steps("{parallel: true, steps: x}"), 4, 29, "`steps` must be a list, not text / start each step with `- name:`"),
        (
            steps("{steps: [{name: a, delayMs: 1}]}"),
            4,
            5,
            "a group of steps needs `parallel: true` / a list inside the list of steps is a group whose steps follow each other",
        ),
        (steps("{paralel: true, steps: [{name: a, delayMs: 1}]}"), 4, 6, "unknown key `paralel` / did you mean `parallel`?"),
        (
            steps("{name: a, call: s:/a, parallel: true}"),
            4,
            27,
            "`parallel` makes a group of steps, not a step / write `{parallel: true, steps: [...]}`",
        ),
        (
            steps("{parallel: true, steps: [{name: a, delayMs: 1}], when: data.x}"),
            4,
            54,
            "unknown key `when` / a group of steps has parallel, steps, maxParallel, onBranchFailure",
        ),
        (steps("[{parallel: true}, {parallel: true}, {name: a, delayMs: 1}]"), 4, 24, "whether these steps are parallel is said twice / say it once"),
        (
            steps("{parallel: true, steps: [{parallel: false}, {name: a, delayMs: 1}]}"),
            4,
            30,
            "whether these steps are parallel is said twice / say it once",
        ),
        (steps("[{maxParallel: 2}, {name: a, delayMs: 1}]"), 4, 20, "`maxParallel` is about parallel steps only / write `parallel: true` beside it"),
        (
            steps("{parallel: false, onBranchFailure: wait, steps: [{name: a, delayMs: 1}]}"),
            4,
            40,
            "`onBranchFailure` is about parallel steps only / write `parallel: true` beside it",
        ),
        (steps("[{name: a, delayMs: 1}, [{name: a, delayMs: 1}]]"), 4, 37, "two steps are named `a` / the other is on line 4"),
        (steps("[x]"), 4, 6, "a step must be a map, not text"),
    ];
    check(&rows);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn mistakes_about_what_a_step_does() {
    let something = "a step needs something to do, such as `call: service:/path` / it has one of call, sql, emit, wait, delayMs, until, human, saga";
    let rows: Vec<Row> = vec![
        (seed_with(7, "    retry: {}"), 6, 5, something),
        (step_with("    sql: benefits.book"), 9, 5, "a step does one thing: it has `call` and `sql` / make two steps of it"),
        (steps("{name: a, sq: b.c}"), 4, 15, "unknown key `sq` / did you mean `sql`?"),
        (
            steps("{name: a, sql: book}"),
            4,
            20,
            "`book` is no name of a function / write `schema.function`: lower-case letters, digits and `_`, as registered under `functions`",
        ),
        (
            steps("{name: a, sql: B.book}"),
            4,
            20,
            "`B.book` is no name of a function / write `schema.function`: lower-case letters, digits and `_`, as registered under `functions`",
        ),
        (
            steps("{name: a, sql: b.book(1)}"),
            4,
            20,
            "`b.book(1)` is no name of a function / write `schema.function`: lower-case letters, digits and `_`, as registered under `functions`",
        ),
        (
            steps("{name: a, sql: b.c, timeoutMs: 60001}"),
            4,
            36,
            "a function has at most 60000 ms / a function holds its transaction open: let a service do what takes longer",
        ),
        (steps("{name: a, emit: {topic: t}}"), 4, 21, "`emit` needs `type`"),
        (
            steps("{name: a, emit: \"x.${ data.y }\"}"),
            4,
            21,
            "`emit` holds no template / a type is a fixed word: put what varies into `topic` or `data`",
        ),
        (steps("{name: a, emit: {type: t, topic: \"p.${ dta.x }\"}}"), 4, 44, "unknown variable `dta`: did you mean `data`?"),
        (steps("{name: a, emit: {type: t, body: x}}"), 4, 31, "unknown key `body` / `emit` has type, topic, data"),
        (steps("{name: a, wait: bank.settled}"), 4, 21, "`wait` must be a map, not text / write `wait: {event: TYPE, match: …}`"),
        (steps("{name: a, wait: {match: async.data.x == 1}}"), 4, 21, "`wait` needs `event`"),
        (steps("{name: a, wait: {event: x, match: async.data.x == stps.a}}"), 4, 55, "unknown variable `stps`: did you mean `steps`?"),
        (steps("{name: a, wait: {event: x, onTimeout: stop}}"), 4, 43, "`onTimeout` must be `fail` or `hitl` or `continue`, not `stop`"),
        (steps("{name: a, wait: {event: x}, timeoutMs: 5}"), 4, 33, "`timeoutMs` does not fit a `wait` step / write it inside `wait: {…}`"),
        (steps("{name: a, delayMs: 0}"), 4, 24, "`delayMs` must be a whole number of milliseconds from 1 to 315360000000 (ten years)"),
        (steps("{name: a, delayMs: 5, timeoutMs: 5}"), 4, 27, "`timeoutMs` does not fit a `delayMs` step / `deadlineMs` is the limit of any step"),
        (steps("{name: a, until: steps.b.output}"), 4, 28, "unknown step `b`: did you mean `a`?"),
        (steps("{name: a, human: Really?}"), 4, 22, "`human` must be a map, not text / write `human: {prompt: \"…?\"}`"),
        (steps("{name: a, human: {queue: q}}"), 4, 22, "`human` needs `prompt`"),
        (steps("{name: a, human: {prompt: \"\"}}"), 4, 31, "`prompt` is empty"),
        (
            steps("{name: a, human: {prompt: p, fourEyes: 1}}"),
            4,
            44,
            "`fourEyes` must be true or false, not a number / only `true` and `false` are booleans",
        ),
        (
            steps("{name: a, human: {prompt: p, form: [x]}}"),
            4,
            40,
            "`form` must be a map, not a list / write a JSON Schema: {type: object, properties: …}",
        ),
        (
            steps("{name: a, human: {prompt: p, form: {type: objekt}}}"),
            4,
            40,
            "`form` is no JSON Schema: /type: \"objekt\" is not valid under any of the schemas listed in the 'anyOf' keyword / see https://json-schema.org; only what stands in the form can be referred to",
        ),
        (steps("{name: a, human: {prompt: p, onReject: no}}"), 4, 44, "`onReject` must be `fail` or `hitl` or `continue`, not `no`"),
        (
            steps("{name: a, human: {prompt: p}, retry: {attempts: 2}}"),
            4,
            35,
            "`retry` does not fit a `human` step / only `call` and `sql` steps are tried again",
        ),
        (steps("{name: a, saga: \"b c\"}"), 4, 21, "`saga` may hold only letters, digits, `.`, `_` and `-`, and starts with a letter or digit"),
        (steps("{name: a, saga: a.b.v1}"), 4, 21, "a saga cannot run itself as a step / name another saga"),
        (
            steps("{name: a, saga: c.v1, compensate: s:/x}"),
            4,
            27,
            "`compensate` does not fit a `saga` step / its undo is that of the saga which it ran",
        ),
        (steps("{name: a, saga: c.v1, async: true}"), 4, 27, "`async` does not fit a `saga` step / only a `call` can be ended by a callback"),
        (steps("{name: a, sql: b.c, verify: s:/x}"), 4, 25, "`verify` does not fit a `sql` step / only the outcome of a `call` can be unknown"),
        (
            steps("{name: a, wait: {event: x}, context: {b: data.x}}"),
            4,
            33,
            "`context` does not fit a `wait` step / only a reply is mapped: the whole output of other steps is their context",
        ),
    ];
    check(&rows);
}

#[test]
fn mistakes_in_the_other_keys_of_a_step() {
    let rows: Vec<Row> = vec![
        (step_with("    when: steps.send_notice.status == 'x'"), 9, 17, "unknown step `send_notice`: did you mean `send_notices`?"),
        (step_with("    async: yes"), 9, 12, "`async` must be true or false, not text / only `true` and `false` are booleans"),
        (
            step_with("    heartbeatTimeoutMs: 5"),
            9,
            25,
            "`heartbeatTimeoutMs` needs `async: true` / the reply to a call that is not asynchronous has `timeoutMs`",
        ),
        (step_with("    forEach: data.list"), 9, 5, "`forEach` is not yet supported"),
        (step_with("    finally: x"), 9, 5, "`finally` is not yet supported"),
        (step_with("    kind: pivt"), 9, 11, "`kind` must be `pivot` or `retriable`, not `pivt` / did you mean `pivot`?"),
        (step_with("    onExhausted: stop"), 9, 18, "`onExhausted` must be `compensate` or `hitl` or `continue`, not `stop`"),
        (step_with("    compensateOn: failed"), 9, 19, "`compensateOn` must be a list, not text"),
        (step_with("    compensateOn: []"), 9, 19, "`compensateOn` is empty"),
        (step_with("    compensateOn: [unknown, unknown]"), 9, 29, "`unknown` is here twice"),
        (
            step_with("    compensateOn: [fail]"),
            9,
            20,
            "`compensateOn` must be `succeeded` or `unknown` or `failed`, not `fail` / did you mean `failed`?",
        ),
        (steps("{name: a, call: s:/a, compensateOn: [failed]}"), 4, 41, "`compensateOn` needs `compensate`"),
        (
            step_with("    verify: payment-svc"),
            9,
            13,
            "`payment-svc` is no address of a call / write `service:/path`, with a service of the registry",
        ),
        (step_with("    verify: {url: p:/x, outcome: response.bdy}"), 9, 43, "response has no `bdy`: did you mean `body`?"),
        (step_with("    verify: {url: p:/x, retry: {attempts: 2}}"), 9, 25, "unknown key `retry` / `verify` has url, method, headers, body, outcome"),
        (step_with("    verify: {outcome: \"'done'\"}"), 9, 13, "`verify` needs `url`"),
        (
            seed_with(8, "    compensate: {sql: unbook}"),
            8,
            23,
            "`unbook` is no name of a function / write `schema.function`: lower-case letters, digits and `_`, as registered under `functions`",
        ),
        (
            seed_with(8, "    compensate: {sql: b.unbook, url: p:/x}"),
            8,
            33,
            "an undo does one thing: it has `sql` and `url` / a function is always given the same standard body",
        ),
        (
            seed_with(8, "    compensate: {sql: b.unbook, timeoutMs: 90000}"),
            8,
            44,
            "a function has at most 60000 ms / a function holds its transaction open: let a service do what takes longer",
        ),
        (seed_with(8, "    compensate: {timeoutMs: 5}"), 8, 17, "`compensate` needs `url`"),
        (seed_with(8, "    compensate: evnt"), 8, 17, "`evnt` is no address of a call / write `service:/path`, with a service of the registry"),
    ];
    check(&rows);
}

#[test]
fn mistakes_about_the_point_of_no_return() {
    let rows: Vec<Row> = vec![
        (
            with_steps("  - {name: a, delayMs: 1, kind: pivot}\n  - {name: b, delayMs: 1, kind: pivot}\n"),
            5,
            33,
            "a saga has one point of no return, this is its second `kind: pivot` / `a` on line 4 is the first: what follows it is `kind: retriable`",
        ),
        (
            with_steps("  - {name: a, delayMs: 1, kind: pivot}\n  - [{name: b, delayMs: 1}]\n"),
            5,
            13,
            "`b` comes after the pivot `a`, so nothing could undo it: it must be retriable / add `kind: retriable`, or put it before the pivot",
        ),
        (
            with_steps("  - {parallel: true, steps: [[{name: a, delayMs: 1, kind: pivot}]]}\n"),
            4,
            59,
            "a pivot cannot stand in a parallel group / put it behind the group: what runs beside it could not be undone any more",
        ),
        (
            format!("parallel: true\n{}", with_steps("  - {name: a, delayMs: 1, kind: pivot}\n")),
            5,
            33,
            "a pivot cannot stand in a parallel group / put it behind the group: what runs beside it could not be undone any more",
        ),
        (
            with_steps("  - {name: a, delayMs: 1, kind: pivot, onExhausted: continue}\n"),
            4,
            53,
            "a saga cannot go on without its pivot / what follows relies on the pivot: write `compensate` or `hitl`",
        ),
    ];
    check(&rows);
}
