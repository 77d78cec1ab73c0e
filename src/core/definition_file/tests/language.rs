//! The whole language: every kind of step, groups in their spellings, and what each key becomes.

use std::time::Duration;

use serde_json::json;

use super::{Problem, SEED, read, saga, shown};
use crate::core::definition::{
    CompensateOn, Definition, Group, Hitl, LockMode, Node, OnBranchFailure, OnExhausted, Otherwise, Step, StepKind, Undo, Work,
};
use crate::core::definition_file::File;
use crate::core::expression::Scope;
use crate::core::expression::tests::event;

/// The example of the contract, section 2, byte for byte but for the form, which is no YAML there.
pub(in crate::core) const CONTRACT: &str = include_str!("contract.yaml");

/// A saga with these steps.
pub(super) fn with_steps(steps: &str) -> String {
    format!("id: a.b.v1\ntrigger: x.happened\nsteps:\n{steps}")
}

fn steps(text: &str) -> Definition {
    saga(&with_steps(text))
}

fn named<'a>(definition: &'a Definition, name: &str) -> &'a Step {
    definition.steps.iter().find(|step| step.name == name).expect(name)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn the_example_of_the_contract_is_read() {
    let whole = saga(CONTRACT);
    let names: Vec<_> = whole.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["recalc_payments", "approve", "send_notices", "audit", "settle", "cool_off", "book", "pay", "mail", "tell"]);
    let group = Group { branches: vec![Node::Step(2), Node::Step(3)], max: 2, on_branch_failure: OnBranchFailure::Drain };
    let mut flow: Vec<_> = (0..10).filter(|seq| *seq != 3).map(Node::Step).collect();
    flow[2] = Node::Parallel(group);
    assert_eq!(whole.flow, Node::Sequence(flow));

    let lock = whole.lock.as_ref().expect("a lock");
    assert_eq!((lock.keys.len(), lock.mode, lock.timeout), (1, LockMode::Wait, Some(millis(600_000))));
    let event = event(json!({"policyId": "p1"}));
    assert_eq!(lock.keys[0].text(&Scope::of_event(&event)).as_deref(), Ok("policy:p1"));
    let cancel = &whole.cancel_on[0];
    let matching = cancel.matching.as_ref().expect("a match");
    assert_eq!(
        (cancel.event.as_str(), matching.path.join(".").as_str(), matching.value.source()),
        ("policy.withdrawn", "data.policyId", "data.policyId")
    );
    assert_eq!(whole.hitl, Hitl { after: 3, queue: "benefits-oversight".to_owned() });

    let recalc = named(&whole, "recalc_payments");
    let verify = recalc.verify.as_ref().expect("verify");
    assert_eq!((verify.call.service.as_str(), verify.call.path.source(), verify.outcome.is_none()), ("payment-svc", "/recalc/status", true));
    let approve = named(&whole, "approve");
    assert!(approve.when.is_some());
    let Work::Human(human) = &approve.work else { panic!("a human step") };
    assert_eq!((human.prompt.source(), human.queue.as_deref(), human.four_eyes), ("Approve the increase?", Some("benefits-oversight"), true));
    assert_eq!((human.on_reject, human.timeout, human.on_timeout), (Otherwise::Fail, Some(millis(86_400_000)), Otherwise::Fail));
    assert_eq!(human.form, Some(json!({"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}})));
    let notices = named(&whole, "send_notices");
    assert_eq!((notices.asynchronous, notices.timeout, notices.heartbeat_timeout), (true, millis(21_600_000), Some(millis(60_000))));
    assert!(matches!(&named(&whole, "audit").work, Work::Saga(id) if id == "audit.snapshot.v1"));
    let Work::Wait(wait) = &named(&whole, "settle").work else { panic!("a wait") };
    let matching = wait.matching.as_ref().expect("a match");
    assert_eq!((matching.path.join(".").as_str(), matching.value.source()), ("data.batch", "steps.recalc_payments.context.batchId"));
    assert_eq!((wait.event.as_str(), wait.timeout, wait.on_timeout), ("bank.settled", Some(millis(7_200_000)), Otherwise::Hitl));
    assert!(matches!(named(&whole, "cool_off").work, Work::Delay(time) if time == millis(60_000)));
    let book = named(&whole, "book");
    assert!(matches!(&book.work, Work::Sql(sql) if sql.function == "benefits.book"));
    let undo = book.compensate.as_ref().expect("an undo");
    assert!(matches!(&undo.undo, Undo::Sql(sql) if sql.function == "benefits.unbook"));
    assert_eq!((book.timeout, undo.timeout), (millis(60_000), millis(60_000)), "the saga's 300 s are more than a function may take");
    let mail = named(&whole, "mail");
    assert_eq!((mail.kind, mail.on_exhausted, named(&whole, "pay").kind), (StepKind::Retriable, OnExhausted::Continue, StepKind::Pivot));
    let Work::Emit(emit) = &named(&whole, "tell").work else { panic!("an emit") };
    assert_eq!((emit.kind.as_str(), emit.topic.as_ref().map(|topic| topic.source())), ("benefit.increased", Some("policy.${ data.region }")));
    assert!(emit.data.is_some());
}

#[test]
fn a_parallel_group_has_three_spellings() {
    let group = |branches: Vec<Node>, max| Node::Parallel(Group { branches, max, on_branch_failure: OnBranchFailure::Drain });
    let two = || vec![Node::Step(1), Node::Step(2)];
    let expected = Node::Sequence(vec![Node::Step(0), group(two(), 2), Node::Step(3)]);
    for middle in [
        "  - parallel: true\n    steps:\n      - {name: b, delayMs: 1}\n      - {name: c, delayMs: 1}\n",
        "  -\n    - parallel: true\n    - {name: b, delayMs: 1}\n    - {name: c, delayMs: 1}\n",
        "  - [{name: b, delayMs: 1}, {name: c, delayMs: 1}, {parallel: true}]\n",
        "  - {steps: [{name: b, delayMs: 1}, {name: c, delayMs: 1}], parallel: true}\n",
    ] {
        let found = steps(&format!("  - {{name: a, delayMs: 1}}\n{middle}  - {{name: d, delayMs: 1}}\n"));
        assert_eq!(found.flow, expected, "{middle}");
    }
    let seed = SEED.replace("archive-svc:/snapshot", "GET archive-svc:/snapshot");
    let at_the_top = saga(&format!("parallel: true\n{seed}"));
    assert_eq!(at_the_top.flow, group(vec![Node::Step(0), Node::Step(1), Node::Step(2)], 3));
    let settings = saga(&format!("parallel: true\nmaxParallel: 2\nonBranchFailure: wait\n{seed}"));
    let Node::Parallel(found) = settings.flow else { panic!("parallel") };
    assert_eq!((found.max, found.on_branch_failure), (2, OnBranchFailure::Wait));
}

#[test]
fn groups_nest_and_a_plain_list_is_a_sequence() {
    let found = steps(
        "  - parallel: true
    maxParallel: 2
    steps:
      - [{name: a, delayMs: 1}, {name: b, delayMs: 1}]
      - - {parallel: true, onBranchFailure: wait}
        - {name: c, delayMs: 1}
        - {name: d, delayMs: 1}
      - {name: e, delayMs: 1}
  - parallel: false
    steps: [{name: f, delayMs: 1}]
",
    );
    let inner = Group { branches: vec![Node::Step(2), Node::Step(3)], max: 2, on_branch_failure: OnBranchFailure::Wait };
    let outer = Group {
        branches: vec![Node::Sequence(vec![Node::Step(0), Node::Step(1)]), Node::Parallel(inner), Node::Step(4)],
        max: 2,
        on_branch_failure: OnBranchFailure::Drain,
    };
    assert_eq!(found.flow, Node::Sequence(vec![Node::Parallel(outer), Node::Sequence(vec![Node::Step(5)])]));
    assert_eq!(found.steps.iter().map(|step| step.name.as_str()).collect::<String>(), "abcdef");
}

#[test]
fn limits_are_the_steps_then_the_sagas_then_those_of_the_kind() {
    let text =
        "  - {name: a, call: s:/a, async: true, compensate: {sql: x.y}}\n  - {name: b, sql: x.y, compensate: event}\n  - {name: c, call: s:/c}\n";
    let limits = |text: &str| -> Vec<u64> {
        let definition = saga(text);
        definition.steps.iter().map(|step| u64::try_from(step.timeout.as_millis()).unwrap()).collect()
    };
    assert_eq!(limits(&with_steps(text)), [86_400_000, 5000, 30_000]);
    assert_eq!(limits(&format!("timeoutMs: 70000\n{}", with_steps(text))), [70_000, 60_000, 70_000]);
    assert_eq!(limits(&with_steps(&text.replace("sql: x.y, comp", "sql: x.y, timeoutMs: 9000, comp"))), [86_400_000, 9000, 30_000]);
    let found = steps(text);
    let undos: Vec<_> = found.steps.iter().filter_map(|step| step.compensate.as_ref()).collect();
    assert!(matches!(undos[0].undo, Undo::Sql(_)) && matches!(undos[1].undo, Undo::Event));
    assert_eq!((undos[0].timeout, undos[1].timeout), (millis(5000), millis(5000)));
}

#[test]
fn short_forms_and_words_are_read() {
    let text = "onExhausted: hitl\nlock: data.id\ncancelOn: [{event: gone}]\n".to_owned()
        + &with_steps(
            "  - {name: a, emit: x.done}
  - {name: b, until: \"data.day + 'T08:00:00Z'\", deadlineMs: 5, onExhausted: compensate}
  - {name: c, wait: {event: y}}
  - {name: d, call: s:/d, compensate: s:/e, compensateOn: [unknown, failed], verify: {url: \"s:/v/${ step.doKey }\", method: GET, outcome: response.body.state}}
  - {name: e, human: {prompt: \"Pay ${ data.n }?\", assignee: \"${ data.boss }\", onReject: continue, timeoutMs: 5, onTimeout: continue}}
  - {name: f, saga: child.v2, compensateOn: [succeeded]}
",
        );
    let found = saga(&text);
    let lock = found.lock.as_ref().expect("a lock");
    assert_eq!((lock.mode, lock.timeout, lock.keys[0].source()), (LockMode::Wait, None, "data.id"));
    assert!(found.cancel_on[0].matching.is_none());
    let exhausted: Vec<_> = found.steps.iter().map(|step| step.on_exhausted == OnExhausted::Hitl).collect();
    assert_eq!(exhausted, [true, false, true, true, true, true]);
    assert_eq!(named(&found, "b").deadline, Some(millis(5)));
    let d = named(&found, "d");
    assert_eq!(d.compensate_on, CompensateOn { succeeded: false, unknown: true, failed: true });
    assert_eq!(d.verify.as_ref().map(|verify| (verify.call.method.as_str(), verify.outcome.is_some())), Some(("GET", true)));
    let Work::Human(human) = &named(&found, "e").work else { panic!("human") };
    assert_eq!((human.on_reject, human.on_timeout, human.queue.is_none()), (Otherwise::Continue, Otherwise::Continue, true));
    assert!(found.steps.iter().all(|step| step.name == "d" || step.compensate_on == CompensateOn::default() || step.name == "f"));
    assert_eq!(found.hitl, Hitl { after: 3, queue: "default".to_owned() });
}

#[test]
fn there_may_be_200_steps_and_no_more() {
    let list = |count: usize| {
        let items: String = (0..count).map(|n| format!("    - {{name: s{n}, delayMs: 1}}\n")).collect();
        with_steps(&format!("  -\n{items}  - parallel: true\n    steps: [{{name: last, delayMs: 1}}]\n"))
    };
    assert_eq!(saga(&list(199)).steps.len(), 200);
    let found = read("f.yaml", &list(200)).expect_err("201 steps");
    assert_eq!((found[0].line, found[0].message.as_str()), (4, "a saga has at most 200 steps, not 201"), "{}", shown(&found));
}

#[test]
fn lists_and_maps_nest_32_deep_and_no_deeper() {
    // The map of the file and the list of steps are the first two, the step's map is the last.
    let nested = |depth: usize| format!("id: a\ntrigger: b\nsteps: [{}{{name: a, delayMs: 1}}{}]\n", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(saga(&nested(29)).steps.len(), 1);
    let found = read("f.yaml", &nested(30)).expect_err("too deep");
    assert_eq!(found[0].message, "lists and maps nest more than 32 deep");
}

#[test]
fn what_makes_no_sense_together_is_pointed_out() {
    let warnings = |text: &str| -> Vec<String> {
        match read("f.yaml", text).unwrap_or_else(|found| panic!("{}", shown(&found))) {
            File::Saga(_, warnings, _) => warnings.iter().map(|warning: &Problem| format!("{} {}", warning.line, warning.message)).collect(),
            other => panic!("{other:?}"),
        }
    };
    let text = with_steps("  - {name: a, wait: {event: x, onTimeout: continue}}\n");
    assert_eq!(warnings(&text), ["4 `onTimeout` never happens without `timeoutMs`"]);
    let text = format!("lock: {{key: data.id, mode: abort, timeoutMs: 5}}\n{}", with_steps("  - {name: a, delayMs: 5}\n"));
    assert_eq!(warnings(&text), ["1 nothing is waited for with `mode: abort`: `timeoutMs` has no effect"]);
}
