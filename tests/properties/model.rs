//! A second opinion: the state machine written once more, from the contract (sections 2, 4 and 8) and the tables of the semantics.
//!
//! It knows nothing of `core::machine`: its words are the contract's, the flow is a flat list of parts, and its clock is the saga's own,
//! from which pauses are missing, so that no limit is ever moved. It draws no jitter: it says between which times a retry may be due and
//! is told which one it became.

use std::collections::BTreeMap;

use super::plan::{Plan, Road, Task, Tree, UsedUp};
use super::seen::Turn;
use super::told::{Act, Answer, End, Told};

#[path = "model/back.rs"]
mod back;
#[path = "model/compare.rs"]
mod compare;
#[path = "model/ends.rs"]
mod ends;
#[path = "model/forward.rs"]
mod forward;
#[path = "model/people.rs"]
mod people;

/// Earliest and latest time, by the saga's own clock.
type Window = (i64, i64);

/// How far doing a step has come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    New,
    Calling,
    Resting(Window),
    Parked(i64),
    Waiting { what: &'static str, ring: Option<i64>, end: Option<i64> },
    Over(&'static str),
}

/// How far undoing it has come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Back {
    No(&'static str),
    Queued,
    Calling,
    Resting(Window),
    Parked(i64),
    Waiting { what: &'static str, end: Option<i64> },
    Undone,
    Stuck,
    LetBe,
}

#[derive(Clone, Debug)]
struct Track {
    life: Life,
    back: Back,
    /// Nobody knows whether it was done.
    doubt: bool,
    /// `verify` is being asked.
    asking: bool,
    /// Do, undo, ask.
    made: [u32; 3],
    charged: [u32; 3],
    limit: Option<i64>,
    place: u32,
    /// A human decides, whatever the file says.
    for_people: bool,
    ticket: Option<&'static str>,
    told_late: bool,
}

/// A part of the flow; children come before their parents.
#[derive(Debug)]
enum Part {
    Step(usize),
    Chain(Vec<usize>),
    Fan { branches: Vec<usize>, max: usize, waits: bool },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Done,
    Again,
    Never,
    Doubt,
    Lost,
    NotDone,
}

#[derive(Debug)]
pub struct Model {
    plan: Plan,
    parts: Vec<Part>,
    phase: &'static str,
    /// While paused: where it goes on, and since when (by the clock of the wall).
    asleep: Option<(&'static str, i64)>,
    /// How long it was paused before.
    slept: i64,
    doomed: Option<&'static str>,
    clean: bool,
    limit: Option<i64>,
    /// Until when it stands in line, by the clock of the wall.
    line: Option<i64>,
    tracks: Vec<Track>,
    now: i64,
    looked: i64,
    beats: BTreeMap<usize, i64>,
    turn: Turn,
}

fn flatten(tree: &Tree, parts: &mut Vec<Part>) -> usize {
    let part = match tree {
        Tree::Leaf(seq) => Part::Step(*seq),
        Tree::Chain(inner) => Part::Chain(inner.iter().map(|tree| flatten(tree, parts)).collect()),
        Tree::Fan { branches, max, waits } => {
            Part::Fan { branches: branches.iter().map(|tree| flatten(tree, parts)).collect(), max: *max, waits: *waits }
        }
    };
    parts.push(part);
    parts.len() - 1
}

impl Model {
    pub fn new(plan: &Plan) -> Self {
        let track = Track {
            life: Life::New,
            back: Back::No("none"),
            doubt: false,
            asking: false,
            made: [0; 3],
            charged: [0; 3],
            limit: None,
            place: 0,
            for_people: false,
            ticket: None,
            told_late: false,
        };
        let mut parts = Vec::new();
        flatten(&plan.flow, &mut parts);
        Self {
            tracks: vec![track; plan.steps.len()],
            plan: plan.clone(),
            parts,
            phase: "pending",
            asleep: None,
            slept: 0,
            doomed: None,
            clean: true,
            limit: None,
            line: None,
            now: 0,
            looked: i64::MIN,
            beats: BTreeMap::new(),
            turn: Turn::default(),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, "completed" | "failed" | "cancelled" | "aborted" | "rejected")
    }

    /// The saga's own time.
    fn clock(&self) -> i64 {
        self.asleep.map_or(self.now, |(_, since)| since) - self.slept
    }

    /// Where it stands, or stood before it was paused.
    fn awake(&self) -> &'static str {
        self.asleep.map_or(self.phase, |(phase, _)| phase)
    }

    pub fn tell(&mut self, told: Told, now: i64, go_on: bool, beats: &BTreeMap<usize, i64>) -> Turn {
        self.now = now;
        self.beats.clone_from(beats);
        let taken = if self.is_over() {
            self.turn.answer = matches!(told, Told::Order { .. } | Told::Decision { .. }).then_some("refused");
            false
        } else {
            self.take(told)
        };
        self.turn.stale = !taken;
        if taken && go_on {
            while self.round() {}
            self.looked = now;
        }
        std::mem::take(&mut self.turn)
    }

    fn take(&mut self, told: Told) -> bool {
        match told {
            Told::Start { queued } => {
                if self.phase != "pending" {
                    return false;
                }
                match self.plan.lock {
                    Some(lock) if queued && lock.aborts => self.finish("rejected"),
                    Some(lock) if queued => {
                        self.phase = "lock_wait";
                        self.line = lock.limit.map(|limit| self.now + i64::from(limit) * 1000);
                    }
                    _ => self.begin(),
                }
                true
            }
            Told::Locked => {
                let fits = matches!(self.phase, "pending" | "lock_wait");
                if fits {
                    self.begin();
                }
                fits
            }
            Told::Answer { seq, act, number, answer, wish, free } => {
                let fits = self.flying(seq) == Some(act) && self.tracks[seq].made[act as usize] == number;
                if fits {
                    self.answered(seq, act, answer, wish, free);
                }
                fits
            }
            Told::Came { seq, act, what, end } => self.came(seq, act, what, end),
            Told::Time => self.phase != "pending",
            Told::Reopened => {
                let now = self.clock();
                let mut any = false;
                for track in &mut self.tracks {
                    if let Life::Parked(due) = &mut track.life {
                        (*due, any) = (now, true);
                    }
                    if let Back::Parked(due) = &mut track.back {
                        (*due, any) = (now, true);
                    }
                }
                any
            }
            Told::TakenOver => {
                for seq in 0..self.tracks.len() {
                    if let Some(act) = self.flying(seq) {
                        self.end(seq, act, Verdict::Lost, None, 0, false);
                    }
                }
                true
            }
            Told::Order { order, step } => {
                let answer = self.order(order, step);
                self.turn.answer = Some(answer);
                answer != "refused"
            }
            Told::Decision { seq, kind, word } => {
                let answer = self.decide(seq, kind, word);
                self.turn.answer = Some(answer);
                answer != "refused"
            }
        }
    }

    fn begin(&mut self) {
        self.tell_of("saga.started", None);
        self.phase = "running";
        self.line = None;
        self.limit = self.plan.limit.map(|limit| self.clock() + i64::from(limit) * 1000);
    }

    /// One move that needs nobody; false if there is none.
    fn round(&mut self) -> bool {
        match self.phase {
            "lock_wait" if self.line.is_some_and(|line| line <= self.now) => {
                self.finish("rejected");
                false
            }
            "running" => self.go_forward(),
            "hitl" => self.stand(),
            "draining" => self.drain(),
            "compensating" => self.go_back(),
            "aborting" => self.wind_up(),
            _ => false,
        }
    }

    fn finish(&mut self, phase: &'static str) {
        (self.phase, self.asleep) = (phase, None);
        self.tell_of(&format!("saga.{phase}"), None);
    }

    fn tell_of(&mut self, event: &str, seq: Option<usize>) {
        self.turn.events.push((event.to_owned(), seq));
    }

    fn flying(&self, seq: usize) -> Option<Act> {
        match (self.tracks[seq].life, self.tracks[seq].back) {
            (Life::Calling, _) => Some(if self.tracks[seq].asking { Act::Ask } else { Act::Do }),
            (_, Back::Calling) => Some(Act::Undo),
            _ => None,
        }
    }

    fn is_flying(&self) -> bool {
        (0..self.tracks.len()).any(|seq| self.flying(seq).is_some())
    }

    fn pivot(&self) -> Option<usize> {
        self.plan.steps.iter().position(|step| step.road == Road::Pivot)
    }

    /// What the pivot says about going back: `passed`, `unknown`, `in play` or `ahead`.
    fn pivot_is(&self) -> &'static str {
        let Some(pivot) = self.pivot() else { return "ahead" };
        let track = &self.tracks[pivot];
        match track.life {
            Life::Over("succeeded") => "passed",
            Life::Over("unknown") => "unknown",
            Life::Calling | Life::Resting(_) | Life::Waiting { what: "callback" | "child", .. } => "in play",
            Life::Parked(_) if track.made[0] > 0 => "in play",
            Life::New if track.doubt => "in play",
            _ => "ahead",
        }
    }

    fn tolerates(&self, seq: usize) -> bool {
        let step = &self.plan.steps[seq];
        step.used_up == UsedUp::GoOn && step.road != Road::Pivot && !self.tracks[seq].for_people
    }

    /// Steps that stop the saga.
    fn lost(&self) -> Vec<usize> {
        let lost = |seq: &usize| matches!(self.tracks[*seq].life, Life::Over("failed" | "unknown")) && !self.tolerates(*seq);
        (0..self.tracks.len()).filter(lost).collect()
    }

    fn open(&mut self, seq: usize, kind: &'static str) {
        if self.tracks[seq].ticket != Some(kind) {
            self.withdraw(seq);
            self.tracks[seq].ticket = Some(kind);
            self.turn.tasks.insert((seq, kind, true));
        }
    }

    fn withdraw(&mut self, seq: usize) {
        if let Some(kind) = self.tracks[seq].ticket.take() {
            self.turn.tasks.insert((seq, kind, false));
        }
    }
}

/// What an answer means (contract, section 4), with the status where one came.
fn verdict(answer: Answer) -> (Verdict, Option<u16>) {
    match answer {
        Answer::Status(status @ 200..=299) => (Verdict::Done, Some(status)),
        Answer::Status(status @ (502 | 504)) => (Verdict::Doubt, Some(status)),
        Answer::Status(status @ (408 | 425 | 429 | 500..=599)) => (Verdict::Again, Some(status)),
        Answer::Status(status) => (Verdict::Never, Some(status)),
        Answer::Broken | Answer::Unkept => (Verdict::Doubt, None),
        Answer::NotDone => (Verdict::NotDone, None),
        Answer::NotSent | Answer::StillAtWork | Answer::Parked(_) | Answer::Accepted => (Verdict::Again, None),
    }
}

fn verdict_of(end: End) -> Verdict {
    match end {
        End::Good => Verdict::Done,
        End::Bad => Verdict::Again,
        End::Never => Verdict::Never,
        End::Doubt => Verdict::Doubt,
    }
}

/// Whether a service or a function does it, so that it can be tried again.
fn is_called(task: Task) -> bool {
    matches!(task, Task::Call | Task::Callback | Task::Function)
}
