//! How attempts end.

use super::super::plan::{Backoff, Else, Road, Task, UndoBy};
use super::super::told::{Act, Answer, End};
use super::{Back, Life, Model, Verdict, Window, is_called, verdict, verdict_of};

impl Backoff {
    /// When the attempt after `charged` counted ones may be made, a microsecond of rounding included.
    fn window(&self, now: i64, charged: u32, wish: u32) -> Window {
        let grown = f64::from(self.base) * self.multiplier.powf(f64::from(charged.max(1)) - 1.0);
        let delay = grown.min(f64::from(self.cap)) * 1000.0;
        let wish = i64::from(wish.min(3_600_000)) * 1000;
        #[expect(clippy::cast_possible_truncation, reason = "delays are minutes at most")]
        let at = |share: f64| ((delay * share) as i64).max(wish);
        (now + at(1.0 - self.jitter) - 1, now + at(1.0 + self.jitter) + 1)
    }
}

impl Model {
    pub(super) fn answered(&mut self, seq: usize, act: Act, answer: Answer, wish: u32, free: bool) {
        let now = self.clock();
        let step = self.plan.steps[seq].clone();
        match (answer, act) {
            (Answer::Parked(pause), _) => {
                let until = now + i64::from(pause) * 1000;
                let track = &mut self.tracks[seq];
                track.made[act as usize] -= 1;
                if act == Act::Undo {
                    track.back = Back::Parked(until);
                } else {
                    track.life = Life::Parked(until);
                }
            }
            (Answer::Accepted, Act::Undo) => {
                let limit = step.undo.map_or(step.timeout, |undo| undo.timeout);
                self.tracks[seq].back = Back::Waiting { what: "callback", end: Some(now + i64::from(limit) * 1000) };
            }
            (Answer::Accepted, _) => {
                let ring = step.silence.map(|silence| now + i64::from(silence) * 1000);
                self.tracks[seq].life = Life::Waiting { what: "callback", ring, end: Some(now + i64::from(step.timeout) * 1000) };
            }
            _ => {
                let (verdict, status) = verdict(answer);
                self.end(seq, act, verdict, status, wish, free || answer == Answer::StillAtWork);
            }
        }
    }

    /// Puts the end of an attempt on record.
    pub(super) fn record(&mut self, seq: usize, act: Act, verdict: Verdict) {
        let word = match verdict {
            Verdict::Done => "succeeded",
            Verdict::Again | Verdict::Never | Verdict::NotDone => "failed",
            Verdict::Doubt => "unknown",
            Verdict::Lost => "lost",
        };
        self.turn.attempts.insert((seq, act, self.tracks[seq].made[act as usize], word));
    }

    pub(super) fn end(&mut self, seq: usize, act: Act, verdict: Verdict, status: Option<u16>, wish: u32, free: bool) {
        let still_at_work = act == Act::Do && self.tracks[seq].doubt && matches!(status, Some(409 | 425));
        let verdict = if still_at_work { Verdict::Doubt } else { verdict };
        self.record(seq, act, verdict);
        let counts = verdict != Verdict::Lost && !free && !(act == Act::Ask && verdict == Verdict::NotDone);
        match act {
            Act::Do => self.do_ended(seq, verdict, wish, counts),
            Act::Undo => self.undo_ended(seq, verdict, status, wish, counts),
            Act::Ask => self.ask_ended(seq, verdict, wish, counts),
        }
    }

    /// Attempts are made while it goes forward, and nobody wants it undone.
    fn tries_again(&self) -> bool {
        matches!(self.awake(), "running" | "hitl") && self.doomed.is_none()
    }

    fn do_ended(&mut self, seq: usize, verdict: Verdict, wish: u32, counts: bool) {
        if verdict == Verdict::Done {
            return self.done(seq);
        }
        let (now, forward) = (self.clock(), self.tries_again());
        let step = self.plan.steps[seq].clone();
        let track = &mut self.tracks[seq];
        track.doubt |= verdict == Verdict::Doubt || verdict == Verdict::Lost && step.task != Task::Function;
        track.charged[0] += u32::from(counts);
        let again = matches!(verdict, Verdict::Doubt | Verdict::Lost | Verdict::Again) && is_called(step.task);
        if !(forward && again && track.limit.is_none_or(|limit| limit > now) && track.charged[0] < step.tries) {
            return self.give_up(seq);
        }
        let at_once = verdict == Verdict::Lost;
        track.life = Life::Resting(if at_once { (now, now) } else { step.backoff.window(now, track.charged[0], wish) });
        if track.charged[0] >= self.plan.hitl_after {
            self.complain(seq);
        }
    }

    pub(super) fn done(&mut self, seq: usize) {
        self.tracks[seq].life = Life::Over("succeeded");
        self.tracks[seq].asking = false;
        self.tracks[seq].told_late = false;
        self.withdraw(seq);
    }

    /// No further attempt. Who can be asked about a doubt is asked first.
    pub(super) fn give_up(&mut self, seq: usize) {
        let (now, aborting, forward) = (self.clock(), self.phase == "aborting", self.tries_again());
        let track = &mut self.tracks[seq];
        if track.doubt && self.plan.steps[seq].verify && !track.asking && !aborting {
            (track.asking, track.charged[2]) = (true, 0);
            track.life = Life::Resting((now, now));
            return;
        }
        track.asking = false;
        track.life = Life::Over(if track.doubt {
            "unknown"
        } else if track.made[0] == 0 {
            "cancelled"
        } else {
            "failed"
        });
        if forward {
            self.complain(seq);
        }
    }

    /// Tells people of a failure, unless they know, or are asked another question.
    fn complain(&mut self, seq: usize) {
        let (step, track) = (&self.plan.steps[seq], &self.tracks[seq]);
        let known = matches!(step.task, Task::Human { .. }) && !track.for_people;
        let in_doubt = step.road == Road::Pivot && track.life == Life::Over("unknown");
        if track.ticket.is_none() && !known && !in_doubt {
            self.open(seq, "step_failed");
        }
    }

    fn ask_ended(&mut self, seq: usize, verdict: Verdict, wish: u32, counts: bool) {
        let (now, aborting) = (self.clock(), self.phase == "aborting");
        let step = self.plan.steps[seq].clone();
        let track = &mut self.tracks[seq];
        track.charged[2] += u32::from(counts && verdict != Verdict::Done);
        match verdict {
            Verdict::Done => self.done(seq),
            Verdict::NotDone => {
                track.doubt = false;
                self.give_up(seq);
            }
            _ if track.charged[2] < step.tries && track.limit.is_none_or(|limit| limit > now) && !aborting => {
                let at_once = verdict == Verdict::Lost;
                track.life = Life::Resting(if at_once { (now, now) } else { step.backoff.window(now, track.charged[2], wish) });
            }
            _ => self.give_up(seq),
        }
    }

    fn undo_ended(&mut self, seq: usize, verdict: Verdict, status: Option<u16>, wish: u32, counts: bool) {
        let now = self.clock();
        let undo = self.plan.steps[seq].undo;
        let track = &mut self.tracks[seq];
        if verdict == Verdict::Done || status == Some(410) {
            track.back = Back::Undone;
            return;
        }
        track.charged[1] += u32::from(counts);
        track.back = match undo {
            Some(undo) if status != Some(409) && track.charged[1] < undo.tries => {
                let at_once = verdict == Verdict::Lost;
                Back::Resting(if at_once { (now, now) } else { undo.backoff.window(now, track.charged[1], wish) })
            }
            _ => Back::Stuck,
        };
    }

    /// A callback, an event, the end of a child or an acknowledgement.
    pub(super) fn came(&mut self, seq: usize, act: Act, what: &'static str, end: End) -> bool {
        let step = self.plan.steps[seq].clone();
        let verdict = verdict_of(end);
        let has_token = what == "callback" && step.task == Task::Callback;
        let (flying, forward) = (self.flying(seq), matches!(self.awake(), "running" | "hitl"));
        let track = &mut self.tracks[seq];
        match act {
            Act::Ask => false,
            _ if matches!(what, "human" | "service") => false,
            // What would be broken off anyway comes too late.
            Act::Do if matches!(what, "event" | "timer") && !forward => false,
            Act::Do => {
                if matches!(track.life, Life::Waiting { what: awaited, .. } if awaited == what) || has_token && flying == Some(Act::Do) {
                    self.end(seq, act, verdict, None, 0, false);
                    return true;
                }
                match track.life {
                    Life::Over(word) => has_token && verdict == Verdict::Done && word != "succeeded" && self.comes_late(seq, word),
                    // It belongs to none of the attempts: it is one of its own.
                    _ if has_token && track.made[0] > 0 => {
                        if flying == Some(Act::Ask) {
                            self.record(seq, Act::Ask, Verdict::Doubt);
                        }
                        self.tracks[seq].asking = false;
                        self.tracks[seq].made[0] += 1;
                        self.end(seq, act, verdict, None, 0, false);
                        true
                    }
                    _ => false,
                }
            }
            Act::Undo => {
                let late = match step.undo.map(|undo| undo.how) {
                    Some(UndoBy::Call) => has_token,
                    Some(UndoBy::Event) => what == "event",
                    _ => false,
                };
                match track.back {
                    Back::Waiting { what: awaited, .. } if awaited == what => {}
                    Back::Calling if late => {}
                    Back::Queued | Back::Resting(_) | Back::Parked(_) | Back::Waiting { .. } if late && track.made[1] > 0 => track.made[1] += 1,
                    _ => return false,
                }
                self.end(seq, act, verdict, None, 0, false);
                true
            }
        }
    }

    /// A success of a step that was given up: its undo is told of it, or a human is; once.
    fn comes_late(&mut self, seq: usize, word: &'static str) -> bool {
        let track = &mut self.tracks[seq];
        if std::mem::replace(&mut track.told_late, true) {
            return false;
        }
        if word != "unknown" || !matches!(track.back, Back::No("none") | Back::Queued) {
            self.turn.tasks.insert((seq, "late_effect", true));
        }
        true
    }

    /// What happens instead of a success.
    pub(super) fn otherwise(&mut self, seq: usize, then: Else) {
        if then == Else::LeaveOut {
            self.record(seq, Act::Do, Verdict::Never);
            self.tracks[seq].life = Life::Over("skipped");
            return;
        }
        self.tracks[seq].for_people |= then == Else::Ask;
        self.end(seq, Act::Do, Verdict::Never, None, 0, false);
    }
}
