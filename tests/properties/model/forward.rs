//! The way forward.

use std::collections::BTreeSet;

use super::super::plan::{Else, Road, Task, UNTIL, UsedUp, Wanted};
use super::super::told::Act;
use super::{Life, Model, Part, Verdict};

/// How it stands with a part of the flow.
#[derive(Clone, Copy, PartialEq)]
struct Mood {
    word: &'static str,
    /// Something of it was begun.
    touched: bool,
}

impl Model {
    pub(super) fn go_forward(&mut self) -> bool {
        if self.ring() {
            return true;
        }
        if self.doomed.is_some() {
            return self.await_pivot();
        }
        if self.is_late() {
            return self.turn_round("failed");
        }
        let moods = self.moods();
        match moods[self.parts.len() - 1].word {
            "broken" => {
                if self.lost().into_iter().any(|seq| self.goes_back_after(seq)) {
                    return self.turn_round("failed");
                }
                if !self.is_flying() {
                    self.phase = "hitl";
                    self.ask_people();
                }
                false
            }
            "over" => {
                self.clean = true;
                self.finish("completed");
                false
            }
            _ => self.start(&moods),
        }
    }

    /// People are asked; limits go on.
    pub(super) fn stand(&mut self) -> bool {
        if self.ring() {
            return true;
        }
        if self.is_late() || self.lost().into_iter().any(|seq| self.goes_back_after(seq)) {
            return self.turn_round("failed");
        }
        self.ask_people();
        false
    }

    fn ask_people(&mut self) {
        for seq in self.lost() {
            let in_doubt = self.plan.steps[seq].road == Road::Pivot && self.tracks[seq].life == Life::Over("unknown");
            self.open(seq, if in_doubt { "pivot_unknown" } else { "step_failed" });
        }
    }

    fn is_late(&self) -> bool {
        self.limit.is_some_and(|limit| limit <= self.clock()) && !matches!(self.pivot_is(), "passed" | "unknown")
    }

    fn goes_back_after(&self, seq: usize) -> bool {
        let (step, track) = (&self.plan.steps[seq], &self.tracks[seq]);
        let asks = step.used_up == UsedUp::Ask || step.road == Road::After || track.for_people;
        !asks && !matches!(self.pivot_is(), "passed" | "unknown")
    }

    /// The moods of all parts, children first.
    fn moods(&self) -> Vec<Mood> {
        let mut moods: Vec<Mood> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let inner = |parts: &[usize]| parts.iter().map(|part| moods[*part]).collect::<Vec<_>>();
            moods.push(match part {
                Part::Step(seq) => {
                    let word = match self.tracks[*seq].life {
                        Life::Over("succeeded" | "skipped") => "over",
                        Life::Over("failed" | "unknown") if self.tolerates(*seq) => "over",
                        Life::Over(_) => "broken",
                        _ => "open",
                    };
                    Mood { word, touched: self.tracks[*seq].life != Life::New }
                }
                Part::Chain(parts) => {
                    let inner = inner(parts);
                    let word = inner.iter().find(|mood| mood.word != "over").map_or("over", |mood| mood.word);
                    Mood { word, touched: inner.iter().any(|mood| mood.touched) }
                }
                Part::Fan { branches, waits, .. } => {
                    let inner = inner(branches);
                    let has = |word| inner.iter().any(|mood| mood.word == word);
                    let busy = inner.iter().any(|mood| mood.word == "open" && mood.touched);
                    let word = match (has("broken"), has("open")) {
                        (true, _) if *waits && busy => "open",
                        (true, _) => "broken",
                        (false, true) => "open",
                        (false, false) => "over",
                    };
                    Mood { word, touched: inner.iter().any(|mood| mood.touched) }
                }
            });
        }
        moods
    }

    /// The steps that may move, from the root down.
    fn free(&self, moods: &[Mood]) -> Vec<usize> {
        let mut parts = vec![self.parts.len() - 1];
        let mut free = Vec::new();
        while let Some(part) = parts.pop() {
            match &self.parts[part] {
                Part::Step(seq) => free.push(*seq),
                Part::Chain(inner) => parts.extend(inner.iter().find(|part| moods[**part].word != "over")),
                Part::Fan { branches, max, .. } => {
                    let open = |touched| branches.iter().copied().filter(move |part| moods[*part].word == "open" && moods[*part].touched == touched);
                    let broken = branches.iter().any(|part| moods[*part].word == "broken");
                    let room = if broken { 0 } else { max.saturating_sub(open(true).count()) };
                    let chosen: Vec<_> = open(true).chain(open(false).take(room)).collect();
                    parts.extend(chosen.into_iter().rev());
                }
            }
        }
        free
    }

    fn start(&mut self, moods: &[Mood]) -> bool {
        let now = self.clock();
        let mut more = false;
        for seq in self.free(moods) {
            match self.tracks[seq].life {
                Life::New => self.begin_step(seq),
                Life::Resting((_, due)) | Life::Parked(due) if due <= now => self.call(seq, if self.tracks[seq].asking { Act::Ask } else { Act::Do }),
                _ => continue,
            }
            more |= matches!(self.tracks[seq].life, Life::Over(_) | Life::Waiting { .. });
            if matches!(self.tracks[seq].life, Life::Over("failed" | "unknown")) {
                break;
            }
        }
        more
    }

    pub(super) fn call(&mut self, seq: usize, act: Act) {
        self.tracks[seq].made[act as usize] += 1;
        self.tracks[seq].life = Life::Calling;
        self.turn.calls.insert((seq, act));
    }

    fn begin_step(&mut self, seq: usize) {
        let now = self.clock();
        let step = self.plan.steps[seq].clone();
        let place = 1 + self.tracks.iter().map(|track| track.place).max().unwrap_or(0);
        let track = &mut self.tracks[seq];
        track.place = place;
        track.limit = step.limit.map(|limit| now + i64::from(limit) * 1000);
        if !track.doubt && step.wanted == Wanted::No {
            track.life = Life::Over("skipped");
            self.withdraw(seq);
            return;
        }
        let broken = step.wanted == Wanted::Broken && !track.doubt;
        let fails = matches!(step.task, Task::Emit { broken: true } | Task::Until { broken: true, .. } | Task::Human { broken: true, .. });
        if !broken && !fails && matches!(step.task, Task::Call | Task::Callback | Task::Function) {
            return self.call(seq, Act::Do);
        }
        track.made[0] += 1;
        if broken || fails {
            return self.end(seq, Act::Do, Verdict::Never, None, 0, false);
        }
        let after = |limit: Option<u32>| limit.map(|limit| now + i64::from(limit) * 1000);
        let waits = |what, ring, end| Life::Waiting { what, ring, end };
        track.life = match step.task {
            Task::Delay(delay) => waits("timer", after(Some(delay)), None),
            Task::Until { at, .. } => waits("timer", Some(UNTIL[at as usize] * 1_000_000 - self.slept), None),
            Task::Event { limit, .. } => waits("event", None, after(limit)),
            Task::Human { limit, .. } => waits("human", None, after(limit)),
            Task::Child => waits("child", None, None),
            _ => {
                self.tell_of(&format!("emit.{seq}"), None);
                return self.end(seq, Act::Do, Verdict::Done, None, 0, false);
            }
        };
        match step.task {
            Task::Human { .. } => self.open(seq, "approval"),
            Task::Child => drop(self.turn.children.insert((seq, Act::Do))),
            _ => {}
        }
    }

    /// Ends what has waited long enough.
    fn ring(&mut self) -> bool {
        let now = self.clock();
        let mut any = false;
        for seq in 0..self.tracks.len() {
            let dead = self.tracks[seq].limit.is_some_and(|limit| limit <= now);
            let is = |time: Option<i64>| time.is_some_and(|time| time <= now);
            let track = &mut self.tracks[seq];
            match track.life {
                Life::Waiting { what: "timer", ring, .. } if is(ring) => self.end(seq, Act::Do, Verdict::Done, None, 0, false),
                Life::Waiting { what: "callback", .. } => {
                    any |= self.hears_nothing(seq, dead);
                    continue;
                }
                Life::Waiting { what: "event" | "human", end, .. } if is(end) => {
                    let then = match self.plan.steps[seq].task {
                        Task::Event { then, .. } | Task::Human { then, .. } => then,
                        _ => Else::Fail,
                    };
                    self.withdraw(seq);
                    self.otherwise(seq, then);
                }
                Life::Waiting { what: "child", .. } if dead => {
                    track.limit = None;
                    self.turn.child_orders.insert((seq, "cancel"));
                }
                Life::Waiting { .. } if dead => {
                    self.withdraw(seq);
                    self.end(seq, Act::Do, Verdict::Never, None, 0, false);
                }
                Life::Parked(_) if dead && !track.asking => {
                    track.made[0] += 1;
                    self.end(seq, Act::Do, Verdict::Never, None, 0, false);
                }
                Life::Resting(_) if dead && !track.asking => self.give_up(seq),
                _ => continue,
            }
            any = true;
        }
        any
    }

    /// An asynchronous call whose callback, or whose heartbeat, does not come.
    pub(super) fn hears_nothing(&mut self, seq: usize, dead: bool) -> bool {
        let (now, slept) = (self.clock(), self.slept);
        let silence = self.plan.steps[seq].silence.map(|silence| i64::from(silence) * 1000);
        let beat = self.beats.get(&seq).copied();
        let Life::Waiting { ring, end, .. } = &mut self.tracks[seq].life else { return false };
        if let (Some(silence), Some(beat)) = (silence, beat) {
            *ring = (*ring).max(Some(beat + silence - slept));
        }
        let over = dead || ring.is_some_and(|ring| ring <= now) || end.is_some_and(|end| end <= now);
        if over {
            self.end(seq, Act::Do, Verdict::Doubt, None, 0, false);
        }
        over
    }

    /// It is to be undone, if the pivot turns out not to have been passed.
    fn await_pivot(&mut self) -> bool {
        let (Some(pivot), Some(doomed)) = (self.pivot(), self.doomed) else { return false };
        let now = self.clock();
        match self.pivot_is() {
            "passed" | "unknown" => {
                self.doomed = None;
                true
            }
            "in play" => match self.tracks[pivot].life {
                Life::Resting((_, due)) | Life::Parked(due) if self.tracks[pivot].asking => {
                    if due <= now {
                        self.call(pivot, Act::Ask);
                    }
                    false
                }
                Life::Resting(_) | Life::Parked(_) | Life::New => {
                    self.give_up(pivot);
                    true
                }
                _ => false,
            },
            _ => self.turn_round(doomed),
        }
    }

    pub(super) fn turn_round(&mut self, target: &'static str) -> bool {
        self.doomed = Some(target);
        if self.pivot_is() == "in play" {
            self.phase = "running";
            return true;
        }
        self.phase = "draining";
        self.order_children("cancel");
        true
    }

    pub(super) fn order_children(&mut self, order: &'static str) {
        let children: BTreeSet<_> =
            (0..self.tracks.len()).filter(|seq| matches!(self.tracks[*seq].life, Life::Waiting { what: "child", .. })).collect();
        self.turn.child_orders.extend(children.into_iter().map(|seq| (seq, order)));
    }
}
