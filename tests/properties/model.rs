//! A second opinion: the state machine written once more, from the contract (sections 4 and 8) and its table of transitions.
//!
//! It knows nothing of `core::machine`: its words are the contract's, its undo list is a stack, and it has at most one call in
//! flight. It draws no jitter: it says between which times a retry may be due and is told which one it became.

use super::plan::{Answer, Plan};
use super::replies::{Told, Turn, Verdict, verdict};

/// One step; pairs are `[do, undo]`.
#[derive(Clone, Debug, Default)]
pub struct Track {
    pub status: &'static str,
    pub undo: &'static str,
    doubt: bool,
    made: [u32; 2],
    charged: [u32; 2],
}

#[derive(Debug, Default)]
pub struct Model {
    plan: Plan,
    pub state: &'static str,
    pub target: Option<&'static str>,
    pub clean: bool,
    pub tracks: Vec<Track>,
    end: Option<i64>,
    flight: Option<(usize, bool)>,
    /// Earliest and latest time of the next attempt, where one is waited for; equal once it is known.
    pub wait: Option<(i64, i64)>,
    /// Still to be undone, the next one last.
    stack: Vec<usize>,
}

impl Model {
    pub fn new(plan: Plan) -> Self {
        let tracks = vec![Track { status: "pending", undo: "none", ..Track::default() }; plan.steps.len()];
        Self { plan, state: "pending", clean: true, tracks, ..Self::default() }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, "completed" | "failed")
    }

    /// When it must be told the time at the latest.
    pub fn alarm(&self) -> Option<i64> {
        let wait = self.wait.map(|(_, latest)| latest);
        if self.state == "running" { wait.into_iter().chain(self.end).min() } else { wait }
    }

    pub fn tell(&mut self, told: Told, now: i64, go_on: bool) -> Turn {
        let mut turn = Turn::default();
        let fits = match told {
            _ if self.is_over() => false,
            Told::Start => self.state == "pending",
            Told::Answer { seq, undo, number, .. } => self.flight == Some((seq, undo)) && self.tracks[seq].made[usize::from(undo)] == number,
            Told::Time => self.state != "pending",
            Told::TakenOver => true,
        };
        if !fits {
            return Turn { stale: true, ..turn };
        }
        match told {
            Told::Start => {
                self.state = "running";
                self.end = self.plan.deadline_ms.map(|limit| now + i64::from(limit) * 1000);
                turn.events.push(("saga.started", None));
            }
            Told::Answer { seq, undo, number, answer, retry_after_ms } => {
                self.flight = None;
                let word = if undo { self.undo_ended(seq, answer, retry_after_ms, now) } else { self.do_ended(seq, answer, retry_after_ms, now) };
                turn.attempts.push((seq, undo, number, word));
            }
            Told::TakenOver => {
                // A lost worker: the effect is unknown, and the attempt is not counted.
                if let Some((seq, undo)) = self.flight.take() {
                    turn.attempts.push((seq, undo, self.tracks[seq].made[usize::from(undo)], "lost"));
                    let track = &mut self.tracks[seq];
                    let again = undo || self.state == "running";
                    let word = if again { "backoff" } else { "unknown" };
                    track.doubt |= !undo;
                    *(if undo { &mut track.undo } else { &mut track.status }) = word;
                    self.wait = again.then_some((now, now));
                }
            }
            Told::Time => {}
        }
        while go_on && self.step(now, &mut turn) {}
        turn
    }

    fn do_ended(&mut self, seq: usize, answer: Answer, retry_after_ms: u32, now: i64) -> &'static str {
        let plan = self.plan.steps[seq].clone();
        let track = &mut self.tracks[seq];
        let verdict = if track.doubt && matches!(answer, Answer::Status(409 | 425)) { Verdict::Unknown } else { verdict(answer) };
        if verdict == Verdict::Done {
            track.status = "succeeded";
            return "succeeded";
        }
        track.doubt |= verdict == Verdict::Unknown;
        track.charged[0] += 1;
        track.status = if track.doubt { "unknown" } else { "failed" };
        if self.state == "running" && verdict != Verdict::Never && track.charged[0] < plan.tries {
            track.status = "backoff";
            self.wait = Some(plan.backoff.window(now, track.charged[0], retry_after_ms));
        }
        if verdict == Verdict::Unknown { "unknown" } else { "failed" }
    }

    fn undo_ended(&mut self, seq: usize, answer: Answer, retry_after_ms: u32, now: i64) -> &'static str {
        let (tries, backoff) = self.plan.steps[seq].undo.clone().expect("an undo");
        let track = &mut self.tracks[seq];
        let verdict = verdict(answer);
        if verdict == Verdict::Done || answer == Answer::Status(410) {
            track.undo = "compensated";
            return if verdict == Verdict::Done { "succeeded" } else { "failed" };
        }
        track.charged[1] += 1;
        if answer == Answer::Status(409) || track.charged[1] == tries {
            (track.undo, self.clean) = ("failed", false);
        } else {
            track.undo = "backoff";
            self.wait = Some(backoff.window(now, track.charged[1], retry_after_ms));
        }
        if verdict == Verdict::Unknown { "unknown" } else { "failed" }
    }

    /// One move that needs nobody; false if there is none.
    fn step(&mut self, now: i64, turn: &mut Turn) -> bool {
        let ring = self.wait.is_some_and(|(_, latest)| latest <= now);
        match self.state {
            "running" => {
                let Some(at) = self.tracks.iter().position(|track| track.status != "succeeded") else {
                    self.finish("completed", "saga.completed", None, turn);
                    return false;
                };
                let late = self.end.is_some_and(|end| end <= now);
                match self.tracks[at].status {
                    status if late || matches!(status, "failed" | "unknown") => {
                        (self.state, self.target) = ("draining", Some("failed"));
                        if status == "backoff" {
                            self.tracks[at].status = if self.tracks[at].doubt { "unknown" } else { "failed" };
                            self.wait = None;
                        }
                        return true;
                    }
                    status if status == "pending" || status == "backoff" && ring => self.call(at, false, turn),
                    _ => {}
                }
                false
            }
            "draining" if self.flight.is_none() => {
                for (seq, track) in self.tracks.iter_mut().enumerate() {
                    if matches!(track.status, "succeeded" | "unknown") {
                        let has_undo = self.plan.steps[seq].undo.is_some();
                        track.undo = if has_undo { "pending" } else { "not_needed" };
                        self.stack.extend(has_undo.then_some(seq));
                    }
                }
                self.state = "compensating";
                true
            }
            "compensating" => self.step_back(ring, turn),
            _ => false,
        }
    }

    fn step_back(&mut self, ring: bool, turn: &mut Turn) -> bool {
        self.stack.pop_if(|seq| matches!(self.tracks[*seq].undo, "compensated" | "failed"));
        let stuck = self.tracks.iter().position(|track| track.undo == "failed");
        match (self.stack.last().copied(), stuck) {
            (next, Some(stuck)) if next.is_none() || !self.plan.undo_goes_on => {
                self.finish("comp_failed", "saga.compensation.failed", Some(stuck), turn);
            }
            (None, _) => self.finish("failed", "saga.failed", None, turn),
            (Some(seq), _) => match self.tracks[seq].undo {
                "pending" => {
                    turn.events.push(("saga.compensate", Some(seq)));
                    self.call(seq, true, turn);
                }
                "backoff" if ring => self.call(seq, true, turn),
                _ => {}
            },
        }
        false
    }

    fn finish(&mut self, state: &'static str, event: &'static str, seq: Option<usize>, turn: &mut Turn) {
        self.state = state;
        turn.events.push((event, seq));
    }

    fn call(&mut self, seq: usize, undo: bool, turn: &mut Turn) {
        let track = &mut self.tracks[seq];
        *(if undo { &mut track.undo } else { &mut track.status }) = if undo { "compensating" } else { "running" };
        track.made[usize::from(undo)] += 1;
        (self.flight, self.wait) = (Some((seq, undo)), None);
        turn.calls.push((seq, undo));
    }
}
