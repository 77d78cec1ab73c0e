//! Random sagas and random fates: the machine against a model of its own and against laws, a hundred thousand times.
//!
//! `SYNCOR_CASES` sets another number of cases, `SYNCOR_SEED` the first of them. A case that fails is made as small as it gets and told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use syncor::core::machine::{advance, record};

#[path = "properties/chance.rs"]
mod chance;
#[path = "properties/laws.rs"]
mod laws;
#[path = "properties/model.rs"]
mod model;
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

use chance::{Chance, shrink};
use plan::Plan;
use play::{Engine, Judges, Stage, play};
use seen::Seen;

/// Cases of one run unless `SYNCOR_CASES` says otherwise.
const CASES: u32 = 100_000;
/// Fates of one saga: making it costs more than playing it.
const FATES: u32 = 10;

fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// A case that fails: what was drawn for the saga and for its fate, and what is wrong.
#[derive(Debug)]
struct Failure {
    saga: Vec<u32>,
    fate: Vec<u32>,
    reason: String,
}

fn stage(chance: &mut Chance) -> Stage {
    let plan = Plan::draw(chance);
    Stage { definition: plan.definition(), plan, event: plan::event() }
}

fn replay(saga: &[u32], fate: &[u32], engine: Engine<'_>, judges: Judges, tell: bool) -> Result<(), String> {
    let stage = stage(&mut Chance::of_list(saga));
    if tell {
        println!("{:?}", stage.plan);
    }
    play(&stage, &mut Chance::of_list(fate), engine, judges, &mut Seen::default(), tell)
}

/// Plays random cases on all processors; what was seen, or a case that fails.
fn search(cases: u32, engine: Engine<'_>, judges: Judges) -> Result<Seen, Failure> {
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
            let stage = stage(&mut drawn);
            for fate in 0..FATES {
                let mut chance = Chance::of_seed(seed + 1 + u64::from(fate));
                if let Err(reason) = play(&stage, &mut chance, engine, judges, &mut seen, false) {
                    over.store(true, Ordering::Relaxed);
                    found.lock().expect("no panic").1 = Some(Failure { saga: drawn.drawn.clone(), fate: chance.drawn, reason });
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

/// The same failure, as small as it gets.
fn smallest(failure: &Failure, engine: Engine<'_>, judges: Judges) -> Failure {
    let fate = shrink(&failure.fate, &mut |fate| replay(&failure.saga, fate, engine, judges, false).is_err());
    let saga = shrink(&failure.saga, &mut |saga| replay(saga, &fate, engine, judges, false).is_err());
    let fate = shrink(&fate, &mut |fate| replay(&saga, fate, engine, judges, false).is_err());
    let reason = replay(&saga, &fate, engine, judges, true).expect_err("it failed");
    Failure { saga, fate, reason }
}

#[test]
fn machine_does_what_the_model_says_and_keeps_the_laws() {
    let began = Instant::now();
    let engine: Engine<'_> = &|definition, event, saga, input, now, chance, go_on| {
        let step = if go_on { advance } else { record };
        step(definition, event, saga, input, now, chance)
    };
    let judges = Judges { model: true, laws: true };
    let seen = search(number("SYNCOR_CASES").unwrap_or(CASES), engine, judges).unwrap_or_else(|failure| {
        let failure = smallest(&failure, engine, judges);
        panic!("{}\n{:?}\n{:?}", failure.reason, failure.saga, failure.fate);
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
    println!("{:?}", seen.answers);
}
