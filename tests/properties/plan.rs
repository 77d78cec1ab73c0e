//! Random sagas and random fates for them.

use std::fmt::Write;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use syncor::core::definition::Definition;
use syncor::core::definition_file::{File, read};

/// The most fates of one saga.
pub const FATES: usize = 15;

/// A saga, before it is written as a file.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub steps: Vec<StepPlan>,
    pub deadline_ms: Option<u32>,
    /// `compensation.onFailure: continue`
    pub undo_goes_on: bool,
}

#[derive(Clone, Debug)]
pub struct StepPlan {
    pub tries: u32,
    pub backoff: Backoff,
    pub undo: Option<(u32, Backoff)>,
}

#[derive(Clone, Debug)]
pub struct Backoff {
    pub base_ms: u32,
    pub multiplier: f64,
    pub cap_ms: u32,
    pub jitter: f64,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// An HTTP status.
    Status(u16),
    /// A 2xx whose reply cannot be kept.
    Unkept,
    /// Refused, DNS, TLS.
    NotSent,
    /// A timeout or a reset.
    Broken,
}

/// Something that happens to the saga.
#[derive(Clone, Debug)]
pub enum Move {
    Start,
    /// The call in flight is answered.
    Reply(Answer, u32),
    /// Milliseconds go by.
    Tick(u32),
    /// Time goes by until the next alarm.
    Alarm,
    TakenOver,
    /// The latest reply comes once more.
    Echo,
    /// A reply to a call that is not in flight: to another step, action or attempt.
    Stale {
        seq: usize,
        undo: bool,
        off: i64,
        answer: Answer,
    },
}

/// A move, the chance that decides the jitter, and whether the worker is about to stop.
#[derive(Clone, Debug)]
pub struct Scene {
    pub what: Move,
    pub chance: u8,
    pub stopping: bool,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub plan: Plan,
    pub script: Vec<Scene>,
    /// Answers to the calls that follow, over and over.
    pub tail: Vec<Answer>,
}

impl Plan {
    /// The file's text.
    pub fn yaml(&self) -> String {
        let mut text = String::from("id: random.saga.v1\ntrigger: begun\n");
        let mut line = |args: std::fmt::Arguments<'_>| text.write_fmt(args).expect("strings grow");
        if let Some(deadline) = self.deadline_ms {
            line(format_args!("deadlineMs: {deadline}\n"));
        }
        line(format_args!("compensation: {{onFailure: {}}}\nsteps:\n", if self.undo_goes_on { "continue" } else { "stop" }));
        for (seq, step) in self.steps.iter().enumerate() {
            line(format_args!("  - name: s{seq}\n    call: svc:/do\n    retry: {}\n", step.backoff.yaml(step.tries)));
            if let Some((tries, backoff)) = &step.undo {
                line(format_args!("    compensate: {{url: \"svc:/undo\", retry: {}}}\n", backoff.yaml(*tries)));
            }
        }
        text
    }

    /// The definition, made by the only public maker.
    pub fn definition(&self) -> Definition {
        match read("random.yaml", &self.yaml()) {
            Ok(File::Saga(definition, _, _)) => definition,
            other => panic!("{}\nis no saga: {other:?}", self.yaml()),
        }
    }
}

impl Backoff {
    fn yaml(&self, tries: u32) -> String {
        let Self { base_ms, multiplier, cap_ms, jitter } = self;
        format!("{{attempts: {tries}, backoffMs: {base_ms}, multiplier: {multiplier}, maxBackoffMs: {cap_ms}, jitter: {jitter}}}")
    }
}

/// Draws from a number, digit by digit: a number costs a tenth of a structure to make, and shrinks as well.
struct Digits(u32);

impl Digits {
    fn below(&mut self, base: u32) -> u32 {
        let digit = self.0 % base;
        self.0 /= base;
        digit
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(u32::try_from(all.len()).expect("few")) as usize]
    }

    fn backoff(&mut self) -> Backoff {
        let base_ms = self.one_of(&[1, 7, 100, 1999]);
        let multiplier = self.one_of(&[1.0, 1.5, 2.0, 3.0]);
        Backoff { base_ms, multiplier, cap_ms: base_ms * (1 + self.below(4)), jitter: self.one_of(&[0.0, 0.1, 0.5, 0.9]) }
    }

    fn step(&mut self) -> StepPlan {
        let (tries, undo) = (1 + self.below(4), self.below(4) < 3);
        let backoff = self.backoff();
        StepPlan { tries, undo: undo.then(|| (1 + self.below(4), self.backoff())), backoff }
    }

    fn answer(&mut self) -> Answer {
        use Answer::{Broken, NotSent, Status, Unkept};
        let (good, bad) = (self.below(2), self.below(26) as usize);
        if good == 0 {
            return Status(self.one_of(&[200, 201, 204, 299]));
        }
        let statuses = [500, 408, 425, 429, 503, 599, 502, 504, 502, 504, 409, 425, 409, 410, 410, 301, 400, 404, 422];
        statuses.get(bad).copied().map_or_else(|| [Unkept, NotSent, Broken, Broken][bad % 4], Status)
    }

    fn scene(&mut self, steps: usize) -> Scene {
        let kind = self.below(28);
        let stopping = self.below(16) == 15;
        let chance = u8::try_from(self.below(256)).unwrap_or_default();
        let what = match kind {
            0..14 => {
                let hurried = self.below(10) < 9;
                let answer = self.answer();
                Move::Reply(answer, if hurried { 0 } else { self.one_of(&[1, 3000, 5_000_000]) })
            }
            14..20 => Move::Alarm,
            20..22 => Move::Tick(self.below(3000)),
            22..24 => Move::TakenOver,
            24 => Move::Echo,
            25 | 26 => {
                let seq = self.below(u32::try_from(steps).expect("few")) as usize;
                Move::Stale { seq, undo: self.below(2) == 1, off: i64::from(self.below(5)) - 2, answer: self.answer() }
            }
            _ => Move::Start,
        };
        Scene { what, chance, stopping }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    (vec(any::<u32>(), 1..=8), weighted(0.4, 1..20_000_u32), any::<bool>()).prop_map(|(steps, deadline_ms, undo_goes_on)| Plan {
        steps: steps.into_iter().map(|number| Digits(number).step()).collect(),
        deadline_ms,
        undo_goes_on,
    })
}

/// A saga with several fates: reading its file costs more than playing one.
pub fn cases() -> impl Strategy<Value = Vec<Case>> {
    let fate = (vec(any::<u32>(), 0..32), vec(any::<u32>(), 1..8));
    (plan(), vec(fate, 1..=FATES)).prop_map(|(plan, fates)| {
        let case = |(script, tail): (Vec<u32>, Vec<u32>)| Case {
            script: script.into_iter().map(|number| Digits(number).scene(plan.steps.len())).collect(),
            tail: tail.into_iter().map(|number| Digits(number).answer()).collect(),
            plan: plan.clone(),
        };
        fates.into_iter().map(case).collect()
    })
}
