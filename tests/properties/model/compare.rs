//! Where the model stands, beside the machine.

use syncor::core::saga::Saga;

use super::super::seen::Turn;
use super::{Back, Life, Model};

impl Model {
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
