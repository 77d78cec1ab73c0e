//! A second opinion: the state machine written once more, from the contract (sections 2, 4 and 8) and the tables of the semantics.
//!
//! It knows nothing of `core::machine`: its words are the contract's, the flow is a flat list of parts, and its clock is the saga's own,
//! from which pauses are missing, so that no limit is ever moved. It draws no jitter: it says between which times a retry may be due and
//! is told which one it became.

use std::collections::BTreeMap;

use syncor::core::saga::Saga;

use super::plan::{Plan, Road, Task, Tree, UsedUp};
use super::seen::Turn;
use super::told::{Act, Answer, End, Told};

#[path = "model/back.rs"]
mod back;
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

    /// When it must be told the time at the latest, by the clock of the wall.
    fn alarm(&self) -> Option<i64> {
        let mut times = Vec::new();
        let forward = matches!(self.phase, "running" | "hitl");
        if forward {
            times.extend(self.limit);
        }
        for track in &self.tracks {
            if forward || self.phase == "draining" {
                match track.life {
                    Life::Resting((_, due)) | Life::Parked(due) => times.push(due),
                    Life::Waiting { ring, end, .. } => times.extend(ring.into_iter().chain(end)),
                    _ => continue,
                }
                times.extend(track.limit.filter(|_| forward));
            }
            if self.phase == "compensating" {
                match track.back {
                    Back::Resting((_, due)) | Back::Parked(due) => times.push(due),
                    Back::Waiting { end, .. } => times.extend(end),
                    _ => {}
                }
            }
        }
        let wall = times.into_iter().map(|time| time + self.slept).chain(self.line.filter(|_| self.phase == "lock_wait"));
        wall.filter(|time| *time > self.looked).min()
    }

    /// Compares what is seen of a turn, and where everything stands after it.
    ///
    /// # Errors
    /// What differs.
    pub fn differs(&mut self, saga: &Saga, seen: &Turn, expected: &Turn) -> Result<(), String> {
        let same = |same: bool, what: &str| if same { Ok(()) } else { Err(format!("{what} differs from the model")) };
        same(saga.state.as_str() == self.phase, "the state")?;
        same(seen == expected, "the turn")?;
        same(saga.target.map(|target| target.state().as_str()) == self.doomed, "the target")?;
        same(saga.clean == self.clean, "clean")?;
        same(saga.paused.map(|paused| paused.resume_to.as_str()) == self.asleep.map(|(phase, _)| phase), "the pause")?;
        for (seq, (step, track)) in saga.steps.iter().zip(&mut self.tracks).enumerate() {
            let status = match track.life {
                Life::New => "pending",
                Life::Calling => "running",
                Life::Resting(_) => "backoff",
                Life::Parked(_) | Life::Waiting { .. } => "waiting",
                Life::Over(word) => word,
            };
            let back = match track.back {
                Back::No(word) => word,
                Back::Queued => "pending",
                Back::Calling => "compensating",
                Back::Resting(_) => "backoff",
                Back::Parked(_) | Back::Waiting { .. } => "waiting",
                Back::Undone => "compensated",
                Back::Stuck => "failed",
                Back::LetBe => "skipped",
            };
            let wait = match (track.life, track.back) {
                (Life::Parked(_), _) | (_, Back::Parked(_)) => Some("service"),
                (Life::Waiting { what, .. }, _) | (_, Back::Waiting { what, .. }) => Some(what),
                _ => None,
            };
            same((step.status.as_str(), step.compensation.as_str()) == (status, back), &format!("step {seq} ({status}/{back})"))?;
            same(step.wait.map(syncor::core::saga::Wait::as_str) == wait, &format!("what step {seq} waits for ({wait:?})"))?;
            same([step.attempts, step.undo_attempts, step.verifies] == track.made, &format!("the attempts of step {seq}"))?;
            same(step.ambiguous == track.doubt, &format!("the doubt about step {seq}"))?;
            same(step.order == track.place, &format!("the place of step {seq}"))?;
            for window in [
                if let Life::Resting(window) = &mut track.life { Some(window) } else { None },
                if let Back::Resting(window) = &mut track.back { Some(window) } else { None },
            ]
            .into_iter()
            .flatten()
            {
                let due = step.due_at.map_or(i64::MIN, |due| due.0 - self.slept);
                same((window.0..=window.1).contains(&due), &format!("when step {seq} is tried again ({window:?}, {due})"))?;
                *window = (due, due);
            }
        }
        same(saga.next_due().map(|due| due.0) == self.alarm(), &format!("the alarm ({:?})", self.alarm()))
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
