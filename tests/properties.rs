//! Random sagas and random fates: the machine against a model of its own and against laws, a hundred thousand times.
//!
//! `SYNCOR_CASES` sets another number of cases, `SYNCOR_SEED` the first of them. A case that fails is made as small as it gets and told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use syncor::core::machine::{advance, record};

#[path = "properties/chance.rs"]
mod chance;
#[path = "properties/explore.rs"]
mod explore;
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
#[path = "properties/script.rs"]
mod script;
#[path = "properties/seen.rs"]
mod seen;
#[path = "properties/told.rs"]
mod told;
#[path = "properties/undoing.rs"]
mod undoing;

use chance::{Chance, shrink};
use moves::Legal;
use mutants::Mistake;
use plan::{Plan, Task, UsedUp};
use play::{Engine, Judges, Stage, play};
use seen::Seen;

/// Cases of one run unless `SYNCOR_CASES` says otherwise.
const CASES: u32 = 100_000;
/// Cases after which everything that can happen has happened.
const CASES_FOR_COVERAGE: u32 = 100_000;
/// Cases that a mistake has to be found in.
const CASES_PER_MISTAKE: u32 = 20_000;
/// Fates of one saga: making it costs more than playing it.
const FATES: u32 = 10;

fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// What judges and what is judged.
#[derive(Clone, Copy)]
struct Trial<'a> {
    engine: Engine<'a>,
    judges: Judges,
    mistake: Option<Mistake>,
}

/// A case that fails: what was drawn for the saga and for its fate, and what is wrong.
#[derive(Debug)]
struct Failure {
    saga: Vec<u32>,
    fate: Vec<u32>,
    reason: String,
}

impl Trial<'_> {
    fn stage(self, chance: &mut Chance) -> Stage {
        let plan = Plan::draw(chance);
        let mut played = plan.clone();
        if let Some(mistake) = self.mistake {
            mistake.spoil_plan(&mut played);
        }
        Stage { definition: played.definition(), plan, event: plan::event() }
    }

    #[expect(clippy::print_stdout, reason = "the saga of a case that fails")]
    fn replay(self, saga: &[u32], fate: &[u32], tell: bool) -> Result<(), String> {
        let stage = self.stage(&mut Chance::of_list(saga));
        if tell {
            println!("{:?}", stage.plan);
        }
        play(&stage, &mut Chance::of_list(fate), self.engine, self.judges, &mut Seen::default(), tell)
    }

    /// Plays random cases on all processors; what was seen, or a case that fails.
    fn search(self, cases: u32) -> Result<Seen, Failure> {
        let first = number("SYNCOR_SEED").unwrap_or(1);
        let sagas = cases.div_ceil(FATES);
        let (next, over) = (AtomicU32::new(0), AtomicBool::new(false));
        let found = Mutex::new((Seen::default(), None::<Failure>));
        let work = || {
            let mut seen = Seen::default();
            loop {
                let saga = next.fetch_add(1, Ordering::Relaxed);
                if saga >= sagas || over.load(Ordering::Relaxed) {
                    break;
                }
                let seed = u64::from(first + saga) << 32;
                let mut drawn = Chance::of_seed(seed);
                let stage = self.stage(&mut drawn);
                for fate in 0..FATES {
                    let mut chance = Chance::of_seed(seed + 1 + u64::from(fate));
                    if let Err(reason) = play(&stage, &mut chance, self.engine, self.judges, &mut seen, false) {
                        over.store(true, Ordering::Relaxed);
                        found.lock().expect("no panic").1 = Some(Failure { saga: drawn.drawn, fate: chance.drawn, reason });
                        return;
                    }
                }
            }
            found.lock().expect("no panic").0.add(seen);
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(work);
            }
        });
        let (seen, failure) = found.into_inner().expect("no panic");
        failure.map_or(Ok(seen), Err)
    }

    /// Tells the same failure, as small as it gets.
    fn smallest(self, failure: &Failure) -> String {
        let fate = shrink(&failure.fate, &mut |fate| self.replay(&failure.saga, fate, false).is_err());
        let saga = shrink(&failure.saga, &mut |saga| self.replay(saga, &fate, false).is_err());
        let fate = shrink(&fate, &mut |fate| self.replay(&saga, fate, false).is_err());
        self.replay(&saga, &fate, true).expect_err("it failed")
    }
}

#[test]
fn machine_does_what_the_model_says_and_keeps_the_laws() {
    let began = Instant::now();
    let cases = number("SYNCOR_CASES").unwrap_or(CASES);
    let engine: Engine<'_> = &|definition, event, saga, input, now, chance, go_on| {
        let step = if go_on { advance } else { record };
        step(definition, event, saga, input, now, chance)
    };
    let trial = Trial { engine, judges: Judges { model: true, laws: true }, mistake: None };
    let seen = trial.search(cases).unwrap_or_else(|failure| panic!("{}", trial.smallest(&failure)));
    println!(
        "{} cases, {} inputs ({} stale, {} also by record), {} calls, {:.1?}",
        seen.ends.values().sum::<u64>(),
        seen.turns,
        seen.stale,
        seen.resumed,
        seen.calls,
        began.elapsed()
    );
    println!("ends {:?}\nanswers {:?}", seen.ends, seen.answers);
    if std::env::var("SYNCOR_WRITE_MOVES").is_ok() {
        seen.write_moves();
    }
    covered("saga", &seen.saga_moves, "saga_legal_move", cases);
    covered("step", &seen.step_moves, "step_legal_move", cases);
    covered("undo", &seen.undo_moves, "step_legal_undo", cases);
}

/// Every move on the list was made, no other was, and the database lets all of them through.
fn covered(what: &str, seen: &seen::Moves, trigger: &str, cases: u32) {
    let seen: Legal = seen.keys().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    let possible = moves::of_machine(what);
    let unexpected: Vec<_> = seen.difference(&possible).collect();
    assert!(unexpected.is_empty(), "{what}: not in legal_moves.txt: {unexpected:?}");
    let missing: Vec<_> = possible.difference(&seen).collect();
    assert!(missing.is_empty() || cases < CASES_FOR_COVERAGE, "{what}: never seen in {cases} cases: {missing:?}");
    let legal = moves::of_trigger(trigger);
    let illegal: Vec<_> = possible.difference(&legal).collect();
    assert!(illegal.is_empty(), "{what}: the database refuses {illegal:?}");
}

#[test]
fn every_planted_mistake_is_found() {
    let only = std::env::var("SYNCOR_MISTAKE").ok();
    let mut missed = Vec::new();
    for mistake in Mistake::ALL.iter().copied().filter(|mistake| only.as_ref().is_none_or(|only| format!("{mistake:?}") == *only)) {
        let began = Instant::now();
        let engine: Engine<'_> =
            &|definition, event, saga, input, now, chance, go_on| mistake.run(definition, event, saga, input, now, chance, go_on);
        let find = |judges| Trial { engine, judges, mistake: Some(mistake) }.search(CASES_PER_MISTAKE).err();
        let by_model = if mistake.needs_laws() { None } else { find(Judges { model: true, laws: false }) };
        let by_laws = if mistake.needs_model() { None } else { find(Judges { model: false, laws: true }) };
        let told = |found: &Option<Failure>| {
            found.as_ref().map_or("-".to_owned(), |found| found.reason.lines().next().unwrap_or_default().chars().take(120).collect())
        };
        println!("{mistake:?} ({:.1?})\n  model: {}\n  laws:  {}", began.elapsed(), told(&by_model), told(&by_laws));
        if by_model.is_none() && !mistake.needs_laws() || by_laws.is_none() && !mistake.needs_model() {
            missed.push(mistake);
        }
    }
    assert!(missed.is_empty(), "mistakes that nobody found: {missed:?}");
}

#[test]
fn every_state_of_a_small_saga_keeps_the_laws_and_leads_to_an_end() {
    let all = [
        (Task::Call, None, UsedUp::GoBack),
        (Task::Call, None, UsedUp::Ask),
        (Task::Call, Some(0), UsedUp::GoBack),
        (Task::Call, Some(1), UsedUp::GoBack),
        (Task::Callback, Some(1), UsedUp::GoBack),
        (Task::Call, Some(3), UsedUp::GoBack),
    ];
    std::thread::scope(|scope| {
        for half in all.chunks(all.len() / 2) {
            scope.spawn(move || {
                for (task, pivot, used_up) in half {
                    let began = Instant::now();
                    let found = explore::explore(&explore::plan(*pivot, *used_up, *task)).unwrap_or_else(|error| panic!("{error}"));
                    println!("{task:?}, pivot {pivot:?}, {used_up:?}: {} states, {} edges, {:.1?}", found.states, found.edges, began.elapsed());
                }
            });
        }
    });
}

#[test]
fn an_undo_saga_undoes_what_it_was_given_unless_it_has_passed_its_pivot() {
    undoing::undoes_what_it_was_given();
    undoing::stops_at_a_point_of_no_return();
}

#[test]
fn legal_moves_are_read_from_the_migration() {
    let moves = moves::legal("create trigger t before update when (a <> all (array['a>b',\n 'b>c'])) execute", "t");
    assert_eq!(moves, [("a", "b"), ("b", "c")].map(|(from, to)| (from.to_owned(), to.to_owned())).into());
    assert!(moves::of_trigger("saga_legal_move").len() > 40);
}
