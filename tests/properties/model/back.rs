//! The way back, and the end by force.

use super::super::plan::{Task, UndoBy};
use super::super::told::Act;
use super::{Back, Life, Model, Verdict};

impl Model {
    /// What was begun comes to its end; nothing else begins.
    pub(super) fn drain(&mut self) -> bool {
        let now = self.clock();
        let mut any = false;
        for seq in 0..self.tracks.len() {
            let track = &self.tracks[seq];
            match track.life {
                Life::Resting((_, due)) | Life::Parked(due) if track.asking => {
                    if due <= now {
                        self.call(seq, Act::Ask);
                    }
                    continue;
                }
                Life::Resting(_) | Life::Parked(_) => self.give_up(seq),
                Life::New if track.made[0] > 0 => self.give_up(seq),
                Life::Waiting { what: "callback", .. } => {
                    any |= self.hears_nothing(seq, false);
                    continue;
                }
                Life::Waiting { what: "child", .. } => continue,
                Life::Waiting { .. } => self.break_off(seq),
                _ => continue,
            }
            any = true;
        }
        if any {
            return true;
        }
        if self.tracks.iter().any(|track| !matches!(track.life, Life::New | Life::Over(_))) {
            return false;
        }
        for seq in 0..self.tracks.len() {
            if self.is_to_be_undone(seq) {
                self.tracks[seq].back = Back::Queued;
            } else if matches!(self.tracks[seq].life, Life::Over("succeeded" | "unknown")) {
                self.tracks[seq].back = Back::No("not_needed");
            }
        }
        self.phase = "compensating";
        true
    }

    fn break_off(&mut self, seq: usize) {
        self.withdraw(seq);
        self.record(seq, Act::Do, Verdict::Never);
        self.tracks[seq].life = Life::Over("cancelled");
    }

    fn is_to_be_undone(&self, seq: usize) -> bool {
        let step = &self.plan.steps[seq];
        let [succeeded, unknown, failed] = step.undone_if;
        let asked = match self.tracks[seq].life {
            Life::Over("succeeded") => succeeded,
            Life::Over("unknown") => unknown,
            Life::Over("failed") => failed,
            _ => false,
        };
        asked && (step.undo.is_some() || step.task == Task::Child)
    }

    pub(super) fn go_back(&mut self) -> bool {
        let now = self.clock();
        let has = |back: fn(Back) -> bool| self.tracks.iter().any(|track| back(track.back));
        let stuck = has(|back| back == Back::Stuck);
        self.clean = !stuck && !has(|back| back == Back::LetBe);
        if stuck && !self.plan.undo_goes_on {
            return self.ask_about_undo();
        }
        let mut order: Vec<usize> = (0..self.tracks.len()).collect();
        order.sort_by_key(|seq| (self.tracks[*seq].place, *seq));
        let last = |back: fn(Back) -> bool| order.iter().rev().copied().find(|seq| back(self.tracks[*seq].back));
        let under_way = last(|back| matches!(back, Back::Calling | Back::Resting(_) | Back::Parked(_) | Back::Waiting { .. }));
        let Some(seq) = under_way.or_else(|| last(|back| back == Back::Queued)) else {
            if stuck {
                return self.ask_about_undo();
            }
            self.finish(self.doomed.unwrap_or("failed"));
            return false;
        };
        let by_event = self.plan.steps[seq].undo.is_some_and(|undo| undo.how == UndoBy::Event);
        match self.tracks[seq].back {
            Back::Queued => {
                self.tell_of("saga.compensate", Some(seq));
                self.undo(seq);
            }
            Back::Resting((_, due)) | Back::Parked(due) if due <= now => {
                if by_event {
                    self.tell_of("saga.compensate", Some(seq));
                }
                self.undo(seq);
            }
            Back::Waiting { end, .. } if end.is_some_and(|end| end <= now) => {
                self.end(seq, Act::Undo, Verdict::Doubt, None, 0, false);
                return true;
            }
            _ => {}
        }
        false
    }

    fn undo(&mut self, seq: usize) {
        let step = &self.plan.steps[seq];
        let limit = step.undo.map(|undo| self.clock() + i64::from(undo.timeout) * 1000);
        let how = step.undo.map(|undo| undo.how);
        let track = &mut self.tracks[seq];
        track.made[1] += 1;
        track.back = match how {
            None => {
                self.turn.children.insert((seq, Act::Undo));
                Back::Waiting { what: "child", end: None }
            }
            Some(UndoBy::Event) => Back::Waiting { what: "event", end: limit },
            Some(_) => {
                self.turn.calls.insert((seq, Act::Undo));
                Back::Calling
            }
        };
    }

    fn ask_about_undo(&mut self) -> bool {
        self.phase = "comp_failed";
        for seq in 0..self.tracks.len() {
            if self.tracks[seq].back == Back::Stuck && self.tracks[seq].ticket != Some("comp_failed") {
                self.tell_of("saga.compensation.failed", Some(seq));
                self.open(seq, "comp_failed");
            }
        }
        false
    }

    pub(super) fn abort(&mut self) {
        if matches!(self.phase, "pending" | "lock_wait") {
            return self.finish("aborted");
        }
        self.phase = "aborting";
        self.asleep = None;
        self.order_children("abort");
    }

    /// Ends by force: no further call, but the record is to be true.
    pub(super) fn wind_up(&mut self) -> bool {
        for seq in 0..self.tracks.len() {
            match self.tracks[seq].life {
                Life::Resting(_) | Life::Parked(_) => self.give_up(seq),
                Life::New if self.tracks[seq].made[0] > 0 => self.give_up(seq),
                Life::Waiting { what: "callback", .. } => self.end(seq, Act::Do, Verdict::Doubt, None, 0, false),
                Life::Waiting { what: "child", .. } => {}
                Life::Waiting { .. } => self.break_off(seq),
                _ => {}
            }
        }
        if self.is_flying() || self.tracks.iter().any(|track| matches!(track.life, Life::Waiting { .. })) {
            return false;
        }
        for seq in 0..self.tracks.len() {
            self.withdraw(seq);
            if matches!(self.tracks[seq].back, Back::Waiting { .. }) {
                self.record(seq, Act::Undo, Verdict::Doubt);
            }
            if matches!(self.tracks[seq].back, Back::Queued | Back::Resting(_) | Back::Parked(_) | Back::Waiting { .. }) {
                self.tracks[seq].back = Back::LetBe;
            }
        }
        self.clean = (0..self.tracks.len()).all(|seq| !self.is_to_be_undone(seq) || self.tracks[seq].back == Back::Undone);
        self.finish("aborted");
        false
    }
}
