//! Several workers, one store, services: thousands of seeds in which everything fails that can, and nothing may be lost.
//!
//! A seed is the whole story. `SYNCOR_SEED=7 cargo test --test simulation` runs one again; `SYNCOR_SEEDS` sets how many run.

use std::sync::Arc;
use std::time::Instant;

use syncor::core::definition::Definition;

#[allow(dead_code, reason = "the properties use the rest")]
#[path = "properties/chance.rs"]
mod chance;
#[path = "simulation/judge.rs"]
mod judge;
#[allow(dead_code, reason = "the properties use the rest")]
#[path = "properties/moves.rs"]
mod moves;
#[path = "simulation/people.rs"]
mod people;
#[allow(dead_code, reason = "the properties use the rest")]
#[path = "properties/plan.rs"]
mod plan;
#[path = "simulation/service.rs"]
mod service;
#[path = "simulation/store.rs"]
mod store;
#[path = "simulation/tally.rs"]
mod tally;
#[path = "simulation/wire.rs"]
mod wire;
#[path = "simulation/world.rs"]
mod world;

use chance::Chance;
use plan::{Plan, Task, UndoBy};
use tally::{Mistake, Tally};
use world::World;

/// Seeds of one run unless `SYNCOR_SEEDS` says otherwise.
const SEEDS: u64 = 3_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Sagas of all sorts, the same in every run: everything but children, functions and locks.
fn definitions() -> Arc<[Definition]> {
    let mut chance = Chance::of_seed(0);
    let definition = |_| {
        let mut plan = Plan::draw(&mut chance);
        plan.lock = None;
        for step in &mut plan.steps {
            if matches!(step.task, Task::Child | Task::Function) {
                step.task = Task::Call;
            }
            if let Some(undo) = step.undo.as_mut().filter(|undo| undo.how == UndoBy::Function) {
                undo.how = UndoBy::Call;
            }
        }
        plan.definition()
    };
    (0..120).map(definition).collect()
}

#[test]
fn nothing_is_lost_or_doubled_whatever_fails() {
    let began = Instant::now();
    let definitions = definitions();
    let seeds = number("SYNCOR_SEED").map_or(0..number("SYNCOR_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let few = seeds.end - seeds.start < SEEDS;
    let mut all = Tally::default();
    for seed in seeds.clone() {
        match World::new(seed, Arc::clone(&definitions), None).run() {
            Ok(tally) => all.add(&tally),
            Err(what) => panic!("SYNCOR_SEED={seed} fails: {what}"),
        }
    }
    println!("{} seeds in {:.1?}: {all:?}", seeds.end - seeds.start, began.elapsed());
    let never: Vec<_> = all.named().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
    assert!(never.is_empty() || few, "never happened: {never:?}");
}

#[test]
fn a_seed_is_the_whole_story() {
    let definitions = definitions();
    let run = |seed| World::new(seed, Arc::clone(&definitions), None).run().expect("a run");
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn every_planted_mistake_is_found() {
    let definitions = definitions();
    for mistake in Mistake::ALL {
        let found = (0..SEEDS).find_map(|seed| World::new(seed, Arc::clone(&definitions), Some(mistake)).run().err().map(|what| (seed, what)));
        let (seed, what) = found.unwrap_or_else(|| panic!("nobody found that a worker {mistake:?}"));
        println!("{mistake:?}: seed {seed}: {}", what.chars().take(150).collect::<String>());
    }
}
