//! What operators order and people decide.

use super::super::plan::Task;
use super::super::told::Act;
use super::{Back, Life, Model, Verdict};

const APPLIED: &str = "applied";
const REFUSED: &str = "refused";
const DEFERRED: &str = "deferred";

impl Model {
    pub(super) fn order(&mut self, order: &'static str, step: Option<usize>) -> &'static str {
        match order {
            "cancel" => match (self.phase, self.awake()) {
                ("pending" | "lock_wait", _) => {
                    self.doomed = Some("cancelled");
                    self.finish("cancelled");
                    APPLIED
                }
                ("draining" | "compensating", _) if self.doomed == Some("cancelled") => APPLIED,
                (_, "running" | "hitl") => self.turn_round_by_order("cancelled"),
                _ => REFUSED,
            },
            "pause" => match self.phase {
                "running" if self.doomed.is_some() => REFUSED,
                "running" | "compensating" => {
                    self.asleep = Some((self.phase, self.now));
                    self.phase = "paused";
                    APPLIED
                }
                _ => REFUSED,
            },
            "resume" if self.phase == "paused" => {
                self.wake();
                APPLIED
            }
            "abort" if self.phase != "aborting" => {
                self.abort();
                APPLIED
            }
            "retry" => self.retry(step),
            "skip" => self.skip(step),
            _ => REFUSED,
        }
    }

    fn wake(&mut self) {
        if let Some((phase, since)) = self.asleep.take() {
            self.slept += self.now - since;
            self.phase = phase;
            for (track, step) in self.tracks.iter_mut().zip(&self.plan.steps) {
                // A point in time is not moved by a pause.
                if let (Life::Waiting { ring: Some(ring), .. }, Task::Until { .. }) = (&mut track.life, step.task) {
                    *ring -= self.now - since;
                }
            }
        }
    }

    fn turn_round_by_order(&mut self, target: &'static str) -> &'static str {
        if self.doomed.is_some() {
            return DEFERRED;
        }
        if matches!(self.pivot_is(), "passed" | "unknown") {
            return REFUSED;
        }
        self.wake();
        self.turn_round(target);
        if self.phase == "draining" { APPLIED } else { DEFERRED }
    }

    fn retry(&mut self, step: Option<usize>) -> &'static str {
        let phase = self.phase;
        let mut any = false;
        for seq in 0..self.tracks.len() {
            if step.is_none_or(|step| step == seq) {
                any |= self.retry_one(phase, seq, step.is_some());
            }
        }
        if any { APPLIED } else { REFUSED }
    }

    fn retry_one(&mut self, phase: &str, seq: usize, named: bool) -> bool {
        let now = self.clock();
        let doomed = self.doomed.is_some();
        let track = &mut self.tracks[seq];
        match (phase, track.life, track.back) {
            ("running" | "hitl" | "draining", Life::Resting(_), _) => track.life = Life::Resting((now, now)),
            ("running" | "hitl" | "draining", Life::Parked(_), _) => track.life = Life::Parked(now),
            ("compensating", _, Back::Resting(_)) => track.back = Back::Resting((now, now)),
            ("compensating", _, Back::Parked(_)) => track.back = Back::Parked(now),
            ("running" | "hitl", Life::Over("failed" | "unknown"), _) if !doomed && (named || phase == "hitl") => {
                (track.life, track.limit) = (Life::New, None);
                (track.charged[0], track.charged[2]) = (0, 0);
                (track.for_people, track.asking) = (false, false);
                self.withdraw(seq);
                self.phase = "running";
            }
            ("comp_failed" | "compensating", _, Back::Stuck) if named || phase == "comp_failed" => {
                (track.back, track.charged[1]) = (Back::Queued, 0);
                self.withdraw(seq);
                self.phase = "compensating";
            }
            _ => return false,
        }
        true
    }

    fn is_skippable(&self, seq: usize) -> bool {
        let track = &self.tracks[seq];
        let doubtful_pivot = track.doubt && self.pivot() == Some(seq);
        match (self.phase, track.life, track.back) {
            ("hitl", Life::Over("failed" | "unknown"), _) => !doubtful_pivot,
            ("running" | "hitl", Life::Resting(_) | Life::Parked(_) | Life::Waiting { what: "timer" | "event" | "human", .. }, _) => !doubtful_pivot,
            ("comp_failed" | "compensating", _, Back::Stuck) | ("compensating", _, Back::Resting(_) | Back::Parked(_)) => true,
            _ => false,
        }
    }

    fn skip(&mut self, step: Option<usize>) -> &'static str {
        let can: Vec<usize> = (0..self.tracks.len()).filter(|seq| step.is_none_or(|step| step == *seq) && self.is_skippable(*seq)).collect();
        let [seq] = can.as_slice() else { return REFUSED };
        self.skip_one(*seq);
        APPLIED
    }

    fn skip_one(&mut self, seq: usize) {
        self.withdraw(seq);
        if matches!(self.phase, "comp_failed" | "compensating") {
            self.tracks[seq].back = Back::LetBe;
            (self.clean, self.phase) = (false, "compensating");
            return;
        }
        if matches!(self.tracks[seq].life, Life::Waiting { .. }) {
            self.record(seq, Act::Do, Verdict::Never);
        }
        self.tracks[seq].life = Life::Over("skipped");
        (self.tracks[seq].for_people, self.tracks[seq].asking) = (false, false);
        self.phase = "running";
    }

    pub(super) fn decide(&mut self, seq: Option<usize>, kind: &'static str, word: &'static str) -> &'static str {
        let allowed: &[&str] = match kind {
            "approval" | "policy" => &["approve", "reject"],
            "step_failed" => &["retry", "skip", "done", "compensate", "abort"],
            "comp_failed" => &["retry", "undone", "skip", "abort"],
            "pivot_unknown" => &["done", "not_done", "retry"],
            _ => &["acknowledge"],
        };
        if !allowed.contains(&word) {
            return REFUSED;
        }
        if word == "acknowledge" {
            return APPLIED;
        }
        let Some(seq) = seq.filter(|seq| self.tracks.get(*seq).is_some_and(|track| track.ticket == Some(kind))) else { return REFUSED };
        if word == "abort" && self.phase == "aborting" {
            return REFUSED;
        }
        match (kind, word) {
            ("approval", _) if !matches!(self.awake(), "running" | "hitl") => REFUSED,
            ("approval", "approve") => {
                self.withdraw(seq);
                self.end(seq, Act::Do, Verdict::Done, None, 0, false);
                APPLIED
            }
            ("approval", _) => {
                self.withdraw(seq);
                if let Task::Human { rejected, .. } = self.plan.steps[seq].task {
                    self.otherwise(seq, rejected);
                }
                APPLIED
            }
            ("comp_failed", _) => self.decide_undo(seq, word),
            (_, "abort") => {
                self.withdraw(seq);
                self.abort();
                APPLIED
            }
            (_, "compensate") => {
                let answer = match self.awake() {
                    "draining" | "compensating" | "comp_failed" => APPLIED,
                    "running" | "hitl" => self.turn_round_by_order("failed"),
                    _ => REFUSED,
                };
                if answer == APPLIED {
                    self.withdraw(seq);
                }
                answer
            }
            _ => self.decide_step(seq, word),
        }
    }

    fn decide_step(&mut self, seq: usize, word: &'static str) -> &'static str {
        let stands = matches!(self.tracks[seq].life, Life::Over("failed" | "unknown") | Life::Resting(_) | Life::Parked(_));
        if !stands || !matches!(self.phase, "running" | "hitl") {
            return REFUSED;
        }
        let doubtful_pivot = self.tracks[seq].doubt && self.pivot() == Some(seq);
        match word {
            "retry" => {
                if !self.retry_one(self.phase, seq, true) {
                    return REFUSED;
                }
                self.withdraw(seq);
                return APPLIED;
            }
            "skip" if doubtful_pivot => return REFUSED,
            "skip" => {
                self.withdraw(seq);
                self.skip_one(seq);
                return APPLIED;
            }
            "done" => {
                self.withdraw(seq);
                // What a person says was done is an entry of the ledger like any other.
                self.tracks[seq].made[Act::Do as usize] += 1;
                self.record(seq, Act::Do, Verdict::Done);
                self.done(seq);
            }
            _ => {
                self.withdraw(seq);
                (self.tracks[seq].life, self.tracks[seq].doubt) = (Life::Over("failed"), false);
            }
        }
        self.tracks[seq].for_people = false;
        self.phase = "running";
        APPLIED
    }

    fn decide_undo(&mut self, seq: usize, word: &'static str) -> &'static str {
        if !matches!(self.phase, "comp_failed" | "compensating") || self.tracks[seq].back != Back::Stuck {
            return REFUSED;
        }
        self.withdraw(seq);
        match word {
            "retry" => drop(self.retry_one(self.phase, seq, true)),
            "undone" => (self.tracks[seq].back, self.phase) = (Back::Undone, "compensating"),
            "skip" => self.skip_one(seq),
            _ => self.abort(),
        }
        APPLIED
    }
}
