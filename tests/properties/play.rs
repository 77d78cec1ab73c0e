//! Plays one case: the machine and the model are told the same, and what they answer is compared and judged.

use std::collections::{BTreeMap, BTreeSet};

use syncor::core::definition::Definition;
use syncor::core::event::Event;
use syncor::core::machine::{Advance, Emission, Input, TaskChange};
use syncor::core::saga::{Locks, Saga, SagaState, StepStatus, Wait};
use syncor::core::time::Timestamp;
use uuid::Uuid;

use super::chance::Chance;
use super::laws::{Judged, Laws};
use super::model::Model;
use super::plan::Plan;
use super::script::{self, Scene};
use super::seen::{Seen, Turn};
use super::told::{Act, Answer, End, Told, at};

/// `machine::advance` (`go_on`) or `machine::record`, or a mutant of them.
pub type Engine<'a> = &'a (dyn Fn(&Definition, &Event, &mut Saga, Input, Timestamp, f64, bool) -> Advance + Sync);

/// Who judges.
#[derive(Clone, Copy)]
pub struct Judges {
    pub model: bool,
    pub laws: bool,
}

/// A saga and everything that is the same in all its fates.
#[derive(Debug)]
pub struct Stage {
    pub plan: Plan,
    pub definition: Definition,
    pub event: Event,
}

/// Turns in which a saga ends at the latest once everybody behaves.
const TURNS_MAX: usize = 1_500;

pub struct Play<'a> {
    stage: &'a Stage,
    engine: Engine<'a>,
    judges: Judges,
    saga: Saga,
    model: Model,
    laws: Laws,
    now: i64,
    fence: i64,
    /// Cancels and decisions that wait for the pivot.
    deferred: Vec<Told>,
    /// Open tasks: place and kind.
    tasks: BTreeSet<(usize, &'static str)>,
    beats: BTreeMap<usize, i64>,
    seen: &'a mut Seen,
    tell: bool,
}

/// Plays a case to its end.
///
/// # Errors
/// What is wrong, in words.
pub fn play(stage: &Stage, chance: &mut Chance, engine: Engine<'_>, judges: Judges, seen: &mut Seen, tell: bool) -> Result<(), String> {
    let mut play = Play {
        stage,
        engine,
        judges,
        saga: Saga::new(Uuid::nil(), stage.plan.steps.len()),
        model: Model::new(&stage.plan),
        laws: Laws::default(),
        now: 1_000_000,
        fence: 0,
        deferred: Vec::new(),
        tasks: BTreeSet::new(),
        beats: BTreeMap::new(),
        seen,
        tell,
    };
    play.run(chance)
}

impl Play<'_> {
    fn run(&mut self, chance: &mut Chance) -> Result<(), String> {
        let queued = self.stage.plan.lock.is_some() && chance.happens(60);
        self.saga.locks = if queued { Locks::Queued } else { Locks::None };
        let mut latest = None;
        if !chance.happens(5) {
            self.turn(Told::Start { queued }, 0.5, true)?;
        }
        for _ in 0..chance.below(60) {
            if self.saga.state.is_terminal() {
                break;
            }
            let tasks: Vec<_> = self.tasks.iter().copied().collect();
            let scene = script::draw(&self.stage.plan, &self.saga, &tasks, chance);
            let (share, go_on) = (chance.share(), !chance.happens(6));
            self.now += if chance.happens(20) { i64::from(chance.below(500)) * 1000 } else { 0 };
            let told = match scene {
                Scene::Tell(Told::Start { .. }) => Told::Start { queued },
                Scene::Tell(told) => told,
                Scene::Tick(time) => {
                    self.now += time;
                    Told::Time
                }
                Scene::Alarm => {
                    self.now = self.saga.next_due().map_or(self.now, |due| due.0.max(self.now));
                    Told::Time
                }
                Scene::Echo => latest.unwrap_or(Told::Time),
                Scene::Beat(seq) => {
                    self.beats.insert(seq, self.now);
                    continue;
                }
            };
            if !matches!(told, Told::Order { .. }) {
                latest = Some(told);
            }
            self.turn(told, share, go_on)?;
        }
        self.run_out(chance)?;
        if chance.happens(30) {
            self.barrage()?;
        }
        if self.judges.laws {
            self.laws.at_the_end(&self.saga, &self.tasks)?;
        }
        *self.seen.ends.entry((self.saga.state.as_str(), self.saga.clean)).or_default() += 1;
        Ok(())
    }

    /// Well-behaved time: calls are answered, alarms ring, people decide. It must end.
    fn run_out(&mut self, chance: &mut Chance) -> Result<(), String> {
        // Whoever was stopping is gone.
        let next = if chance.happens(50) || self.saga.state == SagaState::Pending { Told::Time } else { Told::TakenOver };
        self.turn(next, 0.5, true)?;
        for _ in 0..TURNS_MAX {
            if self.saga.state.is_terminal() {
                return Ok(());
            }
            let Some(told) = self.next(chance) else {
                return Err(format!("it stands still: {:?}", self.saga));
            };
            self.turn(told, 0.5, true)?;
        }
        Err(format!("no end in sight: {:?}", self.saga))
    }

    fn next(&mut self, chance: &mut Chance) -> Option<Told> {
        let (plan, saga) = (&self.stage.plan, &self.saga);
        match saga.state {
            SagaState::Pending => return Some(Told::Start { queued: saga.locks == Locks::Queued }),
            SagaState::Paused => return Some(Told::Order { order: "resume", step: None }),
            _ => {}
        }
        if let Some(call) = script::in_flight(saga).first() {
            self.now += 1000;
            return Some(match script::answer(plan, saga, *call, chance) {
                Told::Answer { seq, act, number, answer: Answer::Parked(_) | Answer::StillAtWork, .. } => {
                    Told::Answer { seq, act, number, answer: Answer::Broken, wish: 0, free: false }
                }
                Told::Answer { seq, act, number, answer, wish, .. } => Told::Answer { seq, act, number, answer, wish, free: false },
                told => told,
            });
        }
        if let Some(due) = saga.next_due() {
            self.now = due.0.max(self.now);
            return Some(Told::Time);
        }
        // Nothing is due: it waits for somebody.
        if saga.state == SagaState::LockWait {
            return Some(Told::Locked);
        }
        let blocking = |(seq, kind): &&(usize, &'static str)| match *kind {
            "step_failed" => saga.state == SagaState::Hitl && matches!(saga.steps[*seq].status, StepStatus::Failed | StepStatus::Unknown),
            "late_effect" => false,
            _ => true,
        };
        if let Some((seq, kind)) = self.tasks.iter().find(blocking).copied() {
            let words: &[&'static str] = match kind {
                "approval" => &["approve", "reject"],
                "comp_failed" => &["undone", "skip"],
                "pivot_unknown" => &["done", "not_done"],
                _ => &["skip", "done"],
            };
            return Some(Told::Decision { seq: Some(seq), kind, word: chance.one_of(words) });
        }
        let (seq, act, what) = script::awaited(saga).first().copied()?;
        Some(Told::Came { seq, act, what, end: chance.one_of(&[End::Good, End::Never]) })
    }

    /// At the end nothing changes it any more.
    fn barrage(&mut self) -> Result<(), String> {
        self.now += 1_000_000_000;
        let end = self.saga.clone();
        let mut all = vec![Told::Start { queued: false }, Told::Locked, Told::Time, Told::TakenOver, Told::Reopened];
        for act in Act::ALL {
            let number = self.saga.steps[0].attempt(act.action());
            all.push(Told::Answer { seq: 0, act, number, answer: Answer::Status(200), wish: 0, free: false });
            all.push(Told::Came { seq: 0, act, what: "callback", end: End::Good });
        }
        all.extend(super::told::ORDERS.map(|order| Told::Order { order, step: None }));
        all.push(Told::Decision { seq: Some(0), kind: "step_failed", word: "retry" });
        for told in all {
            self.turn(told, 0.0, true)?;
            if self.saga != end {
                return Err(format!("{told:?} changed a saga at its end: {end:?} became {:?}", self.saga));
            }
        }
        Ok(())
    }

    /// One input to machine and model; then what was deferred is asked again.
    fn turn(&mut self, told: Told, chance: f64, go_on: bool) -> Result<(), String> {
        let answer = self.tell(told, chance, go_on)?;
        if answer == Some("deferred") && !self.deferred.contains(&told) {
            self.deferred.push(told);
        }
        for told in std::mem::take(&mut self.deferred) {
            if self.tell(told, chance, go_on)? == Some("deferred") {
                self.deferred.push(told);
            }
        }
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "the story of a case that fails")]
    fn tell(&mut self, told: Told, chance: f64, go_on: bool) -> Result<Option<&'static str>, String> {
        for (seq, beat) in &self.beats {
            // As a loader finds it.
            if self.saga.steps[*seq].wait == Some(Wait::Callback) {
                self.saga.steps[*seq].beat_at = Some(at(*beat));
            }
        }
        let before = self.saga.clone();
        let now = at(self.now);
        let input = told.input();
        if self.judges.laws && go_on && self.seen.turns.is_multiple_of(4) {
            self.stop_and_go(&input, chance)?;
        }
        let stage = self.stage;
        let advance = (self.engine)(&stage.definition, &stage.event, &mut self.saga, input, now, chance, go_on);
        for (seq, _) in &advance.calls {
            self.fence += 1;
            self.saga.steps[*seq].fence = self.fence;
        }
        let turn = Turn::of(&advance);
        for change in &advance.tasks {
            match change {
                TaskChange::Open(task) => {
                    if !self.tasks.insert((task.seq, task.kind.as_str())) {
                        return Err(format!("a task is opened twice: {task:?}"));
                    }
                }
                TaskChange::Withdraw { seq, kind } => {
                    if !self.tasks.remove(&(*seq, kind.as_str())) {
                        return Err(format!("a task is withdrawn that is not open: {seq} {kind:?}"));
                    }
                }
            }
        }
        if self.tell {
            println!(
                "{:>10} {told:?}{}\n           {} -> {}: {:?}\n           {}",
                self.now,
                if go_on { "" } else { " (stopping)" },
                before.state.as_str(),
                self.saga.state.as_str(),
                turn,
                self.saga
                    .steps
                    .iter()
                    .map(|s| format!(
                        "{}/{}{}",
                        s.status.as_str(),
                        s.compensation.as_str(),
                        s.wait.map_or(String::new(), |w| format!("({})", w.as_str()))
                    ))
                    .collect::<Vec<_>>()
                    .join(" ")
            );
        }
        self.seen.note(&before, &self.saga, &advance);
        if let Some(answer) = turn.answer {
            let what = match told {
                Told::Order { order, .. } => order,
                Told::Decision { word, .. } => word,
                _ => "",
            };
            *self.seen.answers.entry((what, before.state.as_str(), answer)).or_default() += 1;
        }
        let whole = |error: &str| format!("{error}\n  told {told:?} at {} (go on: {go_on})\n  did {turn:?}", now.0);
        if self.judges.laws {
            let judged = Judged { before: &before, after: &self.saga, advance: &advance, told, now, go_on, tasks: &self.tasks };
            self.laws.judge(&stage.definition, &judged).map_err(|error| whole(&error))?;
        }
        if self.judges.model {
            let expected = self.model.tell(told, self.now, go_on, &self.beats);
            let differs = self.model.differs(&self.saga, &turn, &expected);
            differs.map_err(|error| format!("{}\n  model {:?}\n  expected {expected:?}", whole(&error), self.model))?;
        }
        Ok(turn.answer)
    }

    /// `record` makes no call, and a later `Due` goes on as if the worker had never stopped.
    fn stop_and_go(&mut self, input: &Input, chance: f64) -> Result<(), String> {
        let now = at(self.now);
        let stage = self.stage;
        let run = |saga: &mut Saga, input: Input, go_on| (self.engine)(&stage.definition, &stage.event, saga, input, now, chance, go_on);
        let (mut whole, mut split) = (self.saga.clone(), self.saga.clone());
        let at_once = run(&mut whole, input.clone(), true);
        let recorded = run(&mut split, input.clone(), false);
        if !recorded.calls.is_empty() || !recorded.children.is_empty() || recorded.stale != at_once.stale {
            return Err(format!("recording {input:?} made calls or judged otherwise: {recorded:?} and {at_once:?}"));
        }
        if recorded.stale || split.state == SagaState::Pending || split.state.is_terminal() {
            return Ok(());
        }
        let resumed = run(&mut split, Input::Due, true);
        let joined = |a: &[Emission], b: &[Emission]| [a, b].concat();
        let steps: BTreeSet<_> = recorded.steps.iter().chain(&resumed.steps).copied().collect();
        let same = split == whole
            && [&*recorded.attempts, &*resumed.attempts].concat() == at_once.attempts
            && resumed.calls == at_once.calls
            && resumed.children == at_once.children
            && [&*recorded.tasks, &*resumed.tasks].concat() == at_once.tasks
            && [&*recorded.child_orders, &*resumed.child_orders].concat() == at_once.child_orders
            && joined(&recorded.emissions, &resumed.emissions) == at_once.emissions
            && steps.into_iter().eq(at_once.steps.iter().copied());
        self.seen.resumed += 1;
        if same {
            Ok(())
        } else {
            Err(format!(
                "{input:?}: stopping and going on differs from going on\n  {split:?}\n  {whole:?}\n  {at_once:?}\n {recorded:?}\n {resumed:?}"
            ))
        }
    }
}
