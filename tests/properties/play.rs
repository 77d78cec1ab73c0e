//! Plays one case: the machine and the model are told the same, and what they answer is compared and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use syncor::core::definition::Definition;
use syncor::core::emission;
use syncor::core::machine::{Advance, Emission, Input};
use syncor::core::outcome::{Action, Class, Outcome};
use syncor::core::reply::class_of;
use syncor::core::saga::{Saga, SagaState};
use syncor::core::time::Timestamp;
use uuid::Uuid;

use super::laws::{Judged, Laws};
use super::model::Model;
use super::plan::{Answer, Case, Move, Plan};
use super::replies::{Told, Turn};

/// `machine::advance` (`go_on`) or `machine::record`, or a mutant of them.
pub type Engine<'a> = &'a dyn Fn(&Definition, &mut Saga, Input, Timestamp, f64, bool) -> Advance;

/// Who judges.
#[derive(Clone, Copy)]
pub struct Judges {
    pub model: bool,
    pub laws: bool,
}

/// What was seen in all cases together.
#[derive(Debug, Default)]
pub struct Seen {
    pub saga_moves: BTreeMap<(&'static str, &'static str), u64>,
    pub step_moves: BTreeMap<(&'static str, &'static str), u64>,
    pub undo_moves: BTreeMap<(&'static str, &'static str), u64>,
    pub turns: u64,
    pub calls: u64,
    pub stale: u64,
    pub resumed: u64,
    pub ends: BTreeMap<&'static str, u64>,
}

struct Play<'a> {
    plan: &'a Plan,
    definition: &'a Definition,
    engine: Engine<'a>,
    judges: Judges,
    saga: Saga,
    model: Model,
    laws: Laws,
    now: i64,
    fence: i64,
    seen: &'a mut Seen,
}

/// Plays `case` to its end.
///
/// # Errors
/// What is wrong, in words.
pub fn play(case: &Case, definition: &Definition, engine: Engine<'_>, judges: Judges, seen: &mut Seen) -> Result<(), String> {
    let steps = case.plan.steps.len();
    let mut play = Play {
        plan: &case.plan,
        definition,
        engine,
        judges,
        saga: Saga::new(Uuid::nil(), steps),
        model: Model::new(case.plan.clone()),
        laws: Laws::default(),
        now: 1_000_000,
        fence: 0,
        seen,
    };
    let mut latest = None;
    for (place, scene) in case.script.iter().enumerate() {
        if is_over(&play.saga) {
            break;
        }
        if place == 1 {
            play.turn(Told::Start, 0.5, true)?;
        }
        let chance = f64::from(scene.chance) / 256.0;
        let go_on = !scene.stopping;
        match scene.what {
            Move::Start => play.turn(Told::Start, chance, go_on)?,
            Move::TakenOver => play.turn(Told::TakenOver, chance, go_on)?,
            Move::Tick(ms) => {
                play.now += i64::from(ms) * 1000;
                play.turn(Told::Time, chance, go_on)?;
            }
            Move::Alarm => {
                play.now = play.saga.next_due().map_or(play.now, |due| due.0.max(play.now));
                play.turn(Told::Time, chance, go_on)?;
            }
            Move::Reply(answer, retry_after_ms) => {
                if let Some(told) = play.reply(answer, retry_after_ms) {
                    latest = Some(told);
                    play.now += i64::from(scene.chance) * 100;
                    play.turn(told, chance, go_on)?;
                }
            }
            Move::Echo => {
                if let Some(told) = latest {
                    play.turn(told, chance, go_on)?;
                }
            }
            Move::Stale { seq, undo, off, answer } => {
                let seq = seq.min(steps - 1);
                let made = i64::from(play.saga.steps[seq].attempt(action_of(undo)));
                let number = u32::try_from(made + off).unwrap_or(0);
                play.turn(Told::Answer { seq, undo, number, answer, retry_after_ms: 0 }, chance, go_on)?;
            }
        }
    }
    play.run_out(&case.tail)?;
    play.barrage()?;
    play.laws.at_the_end(&play.saga)?;
    *play.seen.ends.entry(play.saga.state.as_str()).or_default() += 1;
    Ok(())
}

pub fn action_of(undo: bool) -> Action {
    if undo { Action::Undo } else { Action::Do }
}

fn is_over(saga: &Saga) -> bool {
    saga.state.is_terminal() || saga.state == SagaState::CompFailed
}

impl Play<'_> {
    fn reply(&self, answer: Answer, retry_after_ms: u32) -> Option<Told> {
        let (seq, action) = self.saga.in_flight().next()?;
        let number = self.saga.steps[seq].attempt(action);
        Some(Told::Answer { seq, undo: action == Action::Undo, number, answer, retry_after_ms })
    }

    /// Well-behaved time: every call is answered, every alarm rings. It must end.
    fn run_out(&mut self, tail: &[Answer]) -> Result<(), String> {
        let calls_max: u32 = self.plan.steps.iter().map(|step| step.tries + step.undo.as_ref().map_or(0, |(tries, _)| *tries)).sum();
        let mut answers = tail.iter().cycle();
        if self.saga.state == SagaState::Pending {
            self.turn(Told::Start, 0.5, true)?;
        }
        for _ in 0..=3 * calls_max + 3 {
            if is_over(&self.saga) {
                return Ok(());
            }
            if let Some(told) = self.reply(*answers.next().ok_or("no answers")?, 0) {
                self.now += 1000;
                self.turn(told, 0.5, true)?;
            } else {
                self.now = self.saga.next_due().map_or(self.now, |due| due.0.max(self.now));
                let before = self.saga.clone();
                self.turn(Told::Time, 0.5, true)?;
                if before == self.saga {
                    return Err(format!("nothing in flight, nothing due, no end: {before:?}"));
                }
            }
        }
        Err(format!("no end after {calls_max} calls could have been made: {:?}", self.saga))
    }

    /// At the end nothing changes it any more.
    fn barrage(&mut self) -> Result<(), String> {
        self.now += 1_000_000_000;
        let end = self.saga.clone();
        let made = |undo| self.saga.steps[0].attempt(action_of(undo));
        let replies = [false, true].map(|undo| Told::Answer { seq: 0, undo, number: made(undo), answer: Answer::Status(200), retry_after_ms: 0 });
        for told in [Told::Start, Told::Time, Told::TakenOver].into_iter().chain(replies) {
            self.turn(told, 0.0, true)?;
            if self.saga != end {
                return Err(format!("{told:?} changed a saga at its end: {end:?} became {:?}", self.saga));
            }
        }
        Ok(())
    }

    /// One input to machine and model.
    fn turn(&mut self, told: Told, chance: f64, go_on: bool) -> Result<(), String> {
        let before = self.saga.clone();
        let now = Timestamp(self.now);
        if self.judges.laws && go_on && self.seen.turns.is_multiple_of(4) {
            self.stop_and_go(told, chance)?;
        }
        let advance = (self.engine)(self.definition, &mut self.saga, input(told), now, chance, go_on);
        for (seq, _) in &advance.calls {
            self.fence += 1;
            self.saga.steps[*seq].fence = self.fence;
        }
        self.count(&before, &advance);
        if self.judges.laws {
            let reply = match told {
                Told::Answer { seq, undo, number, retry_after_ms, .. } => {
                    Some((seq, action_of(undo), number, Duration::from_millis(retry_after_ms.into())))
                }
                _ => None,
            };
            let turn = Judged { before: &before, after: &self.saga, advance: &advance, now, go_on, reply };
            self.laws.judge(self.definition, &turn).map_err(|error| format!("{error}\n  told {told:?}\n  {turn:?}"))?;
        }
        if self.judges.model {
            let expected = self.model.tell(told, self.now, go_on);
            let judged = compare(&expected, &advance).and_then(|()| compare_state(&mut self.model, &self.saga));
            judged.map_err(|error| {
                format!("{error}\n  told {told:?} at {} (go on: {go_on})\n  saga  {:?}\n  model {:?}", self.now, self.saga, self.model)
            })?;
        }
        Ok(())
    }

    /// `record` makes no call, and a later `Due` goes on as if the worker had never stopped.
    fn stop_and_go(&mut self, told: Told, chance: f64) -> Result<(), String> {
        let now = Timestamp(self.now);
        let (mut whole, mut split) = (self.saga.clone(), self.saga.clone());
        let at_once = (self.engine)(self.definition, &mut whole, input(told), now, chance, true);
        let recorded = (self.engine)(self.definition, &mut split, input(told), now, chance, false);
        if !recorded.calls.is_empty() || recorded.stale != at_once.stale {
            return Err(format!("recording {told:?} made calls or judged otherwise: {recorded:?} and {at_once:?}"));
        }
        if recorded.stale || split.state == SagaState::Pending {
            return Ok(());
        }
        let resumed = (self.engine)(self.definition, &mut split, Input::Due, now, chance, true);
        let joined = |a: &[Emission], b: &[Emission]| [a, b].concat();
        let steps: BTreeSet<_> = recorded.steps.iter().chain(&resumed.steps).copied().collect();
        let same = split == whole
            && [&*recorded.attempts, &*resumed.attempts].concat() == at_once.attempts
            && resumed.calls == at_once.calls
            && joined(&recorded.emissions, &resumed.emissions) == at_once.emissions
            && steps.into_iter().eq(at_once.steps.iter().copied());
        self.seen.resumed += 1;
        if same { Ok(()) } else { Err(format!("{told:?}: stopping and going on differs from going on\n  {split:?}\n  {whole:?}")) }
    }

    fn count(&mut self, before: &Saga, advance: &Advance) {
        self.seen.turns += 1;
        self.seen.calls += advance.calls.len() as u64;
        self.seen.stale += u64::from(advance.stale);
        let note = |moves: &mut BTreeMap<_, u64>, from: &'static str, to: &'static str| {
            if from != to {
                *moves.entry((from, to)).or_default() += 1;
            }
        };
        note(&mut self.seen.saga_moves, before.state.as_str(), self.saga.state.as_str());
        for (old, new) in before.steps.iter().zip(&self.saga.steps) {
            note(&mut self.seen.step_moves, old.status.as_str(), new.status.as_str());
            note(&mut self.seen.undo_moves, old.compensation.as_str(), new.compensation.as_str());
        }
    }
}

fn input(told: Told) -> Input {
    match told {
        Told::Start => Input::Start,
        Told::Time => Input::Due,
        Told::TakenOver => Input::TakenOver,
        Told::Answer { seq, undo, number, answer, retry_after_ms } => {
            let mut outcome = match answer {
                Answer::Status(status) => Outcome { status: Some(status), ..Outcome::without_reply(class_of(status), format!("HTTP {status}")) },
                Answer::Unkept => Outcome { status: Some(200), ..Outcome::without_reply(Class::Unknown, "too large") },
                Answer::NotSent => Outcome::without_reply(Class::Failed, "refused"),
                Answer::Broken => Outcome::without_reply(Class::Unknown, "timeout"),
            };
            if outcome.class == Class::Succeeded {
                outcome.error = None;
            }
            outcome.retry_after = (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms.into()));
            Input::Reply { seq, action: action_of(undo), attempt: number, outcome: Box::new(outcome) }
        }
    }
}

fn compare(expected: &Turn, advance: &Advance) -> Result<(), String> {
    let undo = |action| action == Action::Undo;
    let seen = Turn {
        stale: advance.stale,
        calls: advance.calls.iter().map(|(seq, action)| (*seq, undo(*action))).collect(),
        attempts: advance.attempts.iter().map(|a| (a.seq, undo(a.action), a.number, a.outcome.as_str())).collect(),
        events: advance
            .emissions
            .iter()
            .map(|emitted| match emitted {
                Emission::Compensate(seq) | Emission::CompensationFailed(seq) => (emission::kind(*emitted), Some(*seq)),
                Emission::Started | Emission::Ended(_) => (emission::kind(*emitted), None),
            })
            .collect(),
    };
    if seen == *expected { Ok(()) } else { Err(format!("the machine did {seen:?}, the model expects {expected:?}")) }
}

fn compare_state(model: &mut Model, saga: &Saga) -> Result<(), String> {
    let differs = |what: &str| Err(format!("{what} differs"));
    if saga.state.as_str() != model.state || saga.target.map(|target| target.state().as_str()) != model.target {
        return differs("the state or the target");
    }
    if saga.clean != model.clean {
        return differs("clean");
    }
    for (step, track) in saga.steps.iter().zip(&model.tracks) {
        if (step.status.as_str(), step.compensation.as_str()) != (track.status, track.undo) {
            return differs("a step");
        }
    }
    let due = saga.steps.iter().find_map(|step| step.due_at);
    match (due, model.wait) {
        (None, None) => {}
        (Some(due), Some((earliest, latest))) if (earliest..=latest).contains(&due.0) => model.wait = Some((due.0, due.0)),
        _ => return differs("the time of the next attempt"),
    }
    let over = is_over(saga);
    if !over && saga.next_due().map(|due| due.0) != model.alarm() {
        return differs("the next alarm");
    }
    if over && saga.next_due().is_some() {
        return differs("an alarm at the end");
    }
    Ok(())
}
