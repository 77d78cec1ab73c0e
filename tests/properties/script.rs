//! What happens to a saga: drawn while it is played, because only then is it known what can happen.

use syncor::core::saga::{Compensation, Saga, SagaState, StepStatus};

use super::chance::Chance;
use super::plan::{Plan, Task};
use super::told::{Act, Answer, DECISIONS, End, KINDS, ORDERS, Told, WAITS};

/// Something to happen next.
#[derive(Clone, Copy, Debug)]
pub enum Scene {
    Tell(Told),
    /// So many microseconds go by.
    Tick(i64),
    /// Time goes by until something is due.
    Alarm,
    /// What it was told last comes once more.
    Echo,
    /// An asynchronous step says that it is alive.
    Beat(usize),
}

/// The calls in flight.
pub fn in_flight(saga: &Saga) -> Vec<(usize, Act)> {
    saga.in_flight().map(|(seq, action)| (seq, Act::of(action))).collect()
}

/// What is waited for: place, act, what.
pub fn awaited(saga: &Saga) -> Vec<(usize, Act, &'static str)> {
    let of_step = |(seq, step): (usize, &syncor::core::saga::StepProgress)| {
        let forward = step.waits_for().map(|wait| (seq, Act::Do, wait.as_str()));
        forward.or_else(|| step.undo_waits_for().map(|wait| (seq, Act::Undo, wait.as_str())))
    };
    let waits = saga.steps.iter().enumerate().filter_map(of_step);
    waits.filter(|(.., what)| matches!(*what, "callback" | "event" | "child")).collect()
}

pub fn answer(plan: &Plan, saga: &Saga, (seq, act): (usize, Act), chance: &mut Chance) -> Told {
    let step = &plan.steps[seq];
    let is_function =
        if act == Act::Do { step.task == Task::Function } else { step.undo.is_some_and(|undo| undo.how == super::plan::UndoBy::Function) };
    let answer = Answer::draw(chance).fitting(act, step.task == Task::Callback, is_function, chance);
    let wish = if chance.happens(10) { chance.one_of(&[1, 3000, 5_000_000]) } else { 0 };
    Told::Answer { seq, act, number: saga.steps[seq].attempt(act.action()), answer, wish, free: chance.happens(5) }
}

fn end(chance: &mut Chance, what: &str, act: Act) -> End {
    if chance.happens(60) {
        return End::Good;
    }
    match (what, act) {
        ("event", Act::Do) => End::Good,
        _ => chance.one_of(&[End::Bad, End::Never, End::Doubt]),
    }
}

/// Draws what happens next. `tasks` are open: place and kind.
pub fn draw(plan: &Plan, saga: &Saga, tasks: &[(usize, &'static str)], chance: &mut Chance) -> Scene {
    let steps = plan.steps.len();
    let (flying, waiting) = (in_flight(saga), awaited(saga));
    match chance.below(64) {
        0..24 if !flying.is_empty() => Scene::Tell(answer(plan, saga, chance.one_of(&flying), chance)),
        0..30 if !waiting.is_empty() => {
            let (seq, act, what) = chance.one_of(&waiting);
            Scene::Tell(Told::Came { seq, act, what, end: end(chance, what, act) })
        }
        0..36 if !tasks.is_empty() => {
            let (seq, kind) = chance.one_of(tasks);
            let fitting: &[&'static str] = match kind {
                "approval" => &["approve", "reject"],
                "step_failed" => &["retry", "skip", "done", "compensate", "abort", "retry", "skip"],
                "comp_failed" => &["retry", "undone", "skip", "abort", "retry", "undone"],
                "pivot_unknown" => &["done", "not_done", "retry"],
                _ => &["acknowledge"],
            };
            Scene::Tell(Told::Decision { seq: Some(seq), kind, word: chance.one_of(fitting) })
        }
        0..44 => Scene::Alarm,
        44..46 => Scene::Tick(i64::from(chance.below(3000)) * 1000),
        46..48 => Scene::Tell(Told::TakenOver),
        48 => Scene::Echo,
        49 => Scene::Tell(Told::Reopened),
        50 => {
            let seq = chance.place(steps);
            let act = chance.one_of(&Act::ALL);
            let made = i64::from(saga.steps[seq].attempt(act.action()));
            let number = u32::try_from(made + i64::from(chance.below(5)) - 2).unwrap_or(0);
            Scene::Tell(Told::Answer { seq, act, number, answer: Answer::draw(chance), wish: 0, free: false })
        }
        // Anything may be reported about any step.
        51 => {
            let (seq, act) = (chance.place(steps), chance.one_of(&Act::ALL));
            let what = chance.one_of(&WAITS);
            Scene::Tell(Told::Came { seq, act, what, end: chance.one_of(&[End::Good, End::Bad, End::Never, End::Doubt]) })
        }
        // Callbacks come early and late.
        52..54 => {
            let seq = chance.place(steps);
            let begun = |step: &syncor::core::saga::StepProgress| step.attempts > 0 || step.compensation != Compensation::None;
            let act = if saga.steps[seq].compensation == Compensation::None { Act::Do } else { chance.one_of(&[Act::Do, Act::Undo]) };
            let seq = if begun(&saga.steps[seq]) { seq } else { 0 };
            Scene::Tell(Told::Came { seq, act, what: "callback", end: end(chance, "callback", act) })
        }
        54 => Scene::Tell(Told::Decision {
            seq: chance.happens(90).then(|| chance.place(steps)),
            kind: chance.one_of(&KINDS),
            word: chance.one_of(&DECISIONS),
        }),
        55 | 56 => Scene::Beat(chance.place(steps)),
        57 => Scene::Tell(if chance.happens(50) { Told::Locked } else { Told::Start { queued: false } }),
        58 if saga.state == SagaState::Paused => Scene::Tell(Told::Order { order: "resume", step: None }),
        58 => Scene::Tell(Told::Order { order: chance.one_of(&["pause", "cancel"]), step: None }),
        59 | 60 => {
            let troubled = saga.steps.iter().position(|step| matches!(step.status, StepStatus::Failed | StepStatus::Unknown | StepStatus::Backoff));
            let step = if chance.happens(50) { troubled } else { chance.happens(60).then(|| chance.place(steps + 1)) };
            Scene::Tell(Told::Order { order: chance.one_of(&["retry", "skip"]), step })
        }
        61 | 62 => {
            Scene::Tell(Told::Order { order: chance.one_of(&["pause", "resume", "cancel", "pause", "resume", "cancel", "abort"]), step: None })
        }
        _ => Scene::Tell(Told::Order { order: chance.one_of(&ORDERS), step: chance.happens(50).then(|| chance.place(steps)) }),
    }
}
