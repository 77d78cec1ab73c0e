//! What the model is told and what it answers, and the contract's tables: what a reply means, how long a retry waits.

use super::plan::{Answer, Backoff};

/// What the saga is told.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    Start,
    Answer { seq: usize, undo: bool, number: u32, answer: Answer, retry_after_ms: u32 },
    Time,
    TakenOver,
}

/// What is seen from outside after one input.
#[derive(Debug, Default, PartialEq)]
pub struct Turn {
    pub stale: bool,
    /// Place, undo.
    pub calls: Vec<(usize, bool)>,
    /// Place, undo, number, outcome.
    pub attempts: Vec<(usize, bool, u32, &'static str)>,
    /// Event type and place.
    pub events: Vec<(&'static str, Option<usize>)>,
}

/// What the table of replies says.
#[derive(PartialEq)]
pub enum Verdict {
    Done,
    Again,
    Never,
    Unknown,
}

pub fn verdict(answer: Answer) -> Verdict {
    match answer {
        Answer::Status(status) if (200..300).contains(&status) => Verdict::Done,
        Answer::Status(502 | 504) | Answer::Broken | Answer::Unkept => Verdict::Unknown,
        Answer::Status(408 | 425 | 429) | Answer::NotSent => Verdict::Again,
        Answer::Status(status) if status >= 500 => Verdict::Again,
        Answer::Status(_) => Verdict::Never,
    }
}

impl Backoff {
    /// Earliest and latest time of the attempt after `charged` counted ones, a microsecond of rounding included.
    pub fn window(&self, now: i64, charged: u32, retry_after_ms: u32) -> (i64, i64) {
        let grown = f64::from(self.base_ms) * self.multiplier.powf(f64::from(charged) - 1.0);
        let delay = grown.min(f64::from(self.cap_ms)) * 1000.0;
        let wish = i64::from(retry_after_ms.min(3_600_000)) * 1000;
        #[expect(clippy::cast_possible_truncation, reason = "delays are minutes at most")]
        let at = |share: f64| ((delay * share) as i64).max(wish);
        (now + at(1.0 - self.jitter) - 1, now + at(1.0 + self.jitter) + 1)
    }
}
