//! Random sagas and random fates: the machine against a model of its own and against laws, a hundred thousand times.
//!
//! `PROPTEST_CASES` sets another number of cases. A case that fails is made as small as it gets and printed with its file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Instant;

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use syncor::core::machine::{advance, record};

#[path = "properties/laws.rs"]
mod laws;
#[path = "properties/model.rs"]
mod model;
#[path = "properties/moves.rs"]
mod moves;
#[path = "properties/mutants.rs"]
mod mutants;
#[path = "properties/plan.rs"]
mod plan;
#[path = "properties/play.rs"]
mod play;
#[path = "properties/replies.rs"]
mod replies;

use mutants::Mistake;
use plan::Case;
use play::{Engine, Judges, Seen, play};

/// Cases of one run unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 100_000;
/// Cases after which everything that can happen has happened.
const CASES_FOR_COVERAGE: u32 = 5_000;
/// Cases that a mistake has to be found in.
const CASES_PER_MISTAKE: u32 = 4_000;

/// Moves of a saga that runs its steps one after the other and that nobody touches.
const SAGA_MOVES: &[(&str, &str)] = &[
    ("pending", "running"),
    ("running", "completed"),
    ("running", "draining"),
    ("running", "compensating"),
    ("running", "failed"),
    ("draining", "compensating"),
    ("draining", "failed"),
    ("compensating", "failed"),
    ("compensating", "comp_failed"),
];
/// Moves of `steps.status`.
const STEP_MOVES: &[(&str, &str)] = &[
    ("pending", "running"),
    ("running", "succeeded"),
    ("running", "backoff"),
    ("running", "failed"),
    ("running", "unknown"),
    ("backoff", "running"),
    ("backoff", "failed"),
    ("backoff", "unknown"),
];
/// Moves of `steps.compensation`.
const UNDO_MOVES: &[(&str, &str)] = &[
    ("none", "pending"),
    ("none", "compensating"),
    ("none", "not_needed"),
    ("pending", "compensating"),
    ("compensating", "compensated"),
    ("compensating", "backoff"),
    ("compensating", "failed"),
    ("backoff", "compensating"),
];

const MIGRATION: &str = include_str!("../migrations/V004__sagas.sql");

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

/// Plays random cases and returns what was seen, or the smallest saga that fails, with its fates and the reason.
fn search(cases: u32, engine: Engine<'_>, judges: Judges) -> Result<Seen, (Vec<Case>, String)> {
    // A saga has eight fates on average, and each is a case.
    let config = Config { cases: cases.div_ceil(8), failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let seen = Mutex::new(Seen::default());
    let played = TestRunner::new(config).run(&plan::cases(), |cases| {
        let definition = cases[0].plan.definition();
        let mut seen = seen.lock().expect("one thread");
        cases.iter().try_for_each(|case| play(case, &definition, engine, judges, &mut seen)).map_err(TestCaseError::fail)
    });
    match played {
        Ok(()) => Ok(seen.into_inner().expect("one thread")),
        Err(TestError::Fail(reason, cases)) => Err((cases, reason.to_string())),
        Err(TestError::Abort(reason)) => panic!("the search was given up: {reason}"),
    }
}

#[test]
fn machine_does_what_the_model_says_and_keeps_the_laws() {
    let began = Instant::now();
    let cases = cases();
    let engine: Engine<'_> = &|definition, saga, input, now, chance, go_on| {
        let step = if go_on { advance } else { record };
        step(definition, saga, input, now, chance)
    };
    let seen = search(cases, engine, Judges { model: true, laws: true }).unwrap_or_else(|(cases, reason)| {
        let fates: Vec<_> = cases.iter().map(|case| (&case.script, &case.tail)).collect();
        panic!("{reason}\n\n{}\nscripts, and answers after them: {fates:#?}", cases[0].plan.yaml());
    });
    println!(
        "{} cases, {} inputs ({} stale, {} also by record), {} calls, {:.1?}",
        seen.ends.values().sum::<u64>(),
        seen.turns,
        seen.stale,
        seen.resumed,
        seen.calls,
        began.elapsed()
    );
    println!("ends {:?}\nsaga {:?}\nstep {:?}\nundo {:?}", seen.ends, seen.saga_moves, seen.step_moves, seen.undo_moves);
    covered("saga", &seen.saga_moves, SAGA_MOVES, "saga_legal_move", cases);
    covered("step", &seen.step_moves, STEP_MOVES, "step_legal_move", cases);
    covered("undo", &seen.undo_moves, UNDO_MOVES, "step_legal_undo", cases);
}

/// Every move that can be made was made, no other was, and the database lets all of them through.
fn covered(what: &str, seen: &BTreeMap<(&'static str, &'static str), u64>, possible: &[(&'static str, &'static str)], trigger: &str, cases: u32) {
    let seen: BTreeSet<_> = seen.keys().copied().collect();
    let possible: BTreeSet<_> = possible.iter().copied().collect();
    let legal = moves::legal(MIGRATION, trigger);
    let illegal: Vec<_> = seen.iter().filter(|(from, to)| !legal.contains(&((*from).to_owned(), (*to).to_owned()))).collect();
    assert!(illegal.is_empty(), "{what}: the database refuses {illegal:?}");
    let unexpected: Vec<_> = seen.difference(&possible).collect();
    assert!(unexpected.is_empty(), "{what}: nobody expects {unexpected:?}");
    let missing: Vec<_> = possible.difference(&seen).collect();
    assert!(missing.is_empty() || cases < CASES_FOR_COVERAGE, "{what}: never seen in {cases} cases: {missing:?}");
}

#[test]
fn every_planted_mistake_is_found() {
    let mut missed = Vec::new();
    for mistake in Mistake::ALL {
        let began = Instant::now();
        let engine: Engine<'_> = &|definition, saga, input, now, chance, go_on| mistake.run(definition, saga, input, now, chance, go_on);
        let find = |judges| search(CASES_PER_MISTAKE, engine, judges).err();
        let by_model = find(Judges { model: true, laws: false });
        let by_laws = find(Judges { model: false, laws: true });
        let told = |found: &Option<(Vec<Case>, String)>| match found {
            Some((cases, reason)) => {
                format!("{} steps, {} moves: {}", cases[0].plan.steps.len(), cases[0].script.len(), reason.lines().next().unwrap_or_default())
            }
            None => "missed".to_owned(),
        };
        println!("{mistake:?} ({:.1?})\n  model: {}\n  laws:  {}", began.elapsed(), told(&by_model), told(&by_laws));
        // What is written and what a stop may do is no business of the model.
        let model_is_blind = matches!(mistake, Mistake::ForgetsToWriteAStep);
        if by_model.is_none() && !model_is_blind || by_laws.is_none() && !mistake.needs_model() {
            missed.push(mistake);
        }
    }
    assert!(missed.is_empty(), "mistakes that nobody found: {missed:?}");
}

#[test]
fn legal_moves_are_read_from_the_migration() {
    let moves = moves::legal("create trigger t before update when (a <> all (array['a>b',\n 'b>c'])) execute", "t");
    assert_eq!(moves, [("a", "b"), ("b", "c")].map(|(from, to)| (from.to_owned(), to.to_owned())).into());
    assert!(moves::legal(MIGRATION, "saga_legal_move").len() > 40);
}
