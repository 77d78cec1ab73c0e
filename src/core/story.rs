//! What a saga tells people while it runs: one line per thing that happened.

use std::fmt;
use std::time::Duration;

use super::saga::SagaState;

/// One line of the console story.
#[derive(Clone, Debug, PartialEq)]
pub struct StoryLine {
    /// The saga's definition.
    pub definition: String,
    /// What happened.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// The saga began.
    Started,
    /// A step is being called.
    Calling {
        /// Its name.
        step: String,
        /// Whether it is being undone.
        undo: bool,
    },
    /// A step says how far it has come.
    Progress {
        /// Its name.
        step: String,
        /// So much is done.
        done: Option<i64>,
        /// Of so much.
        total: Option<i64>,
        /// What the service had to say.
        message: Option<String>,
    },
    /// A step succeeded.
    Done {
        /// Its name.
        step: String,
        /// What the service had to say.
        message: Option<String>,
    },
    /// An attempt did not succeed.
    AttemptFailed {
        /// The step's name.
        step: String,
        /// Why.
        error: String,
        /// Number of the attempt.
        attempt: u32,
        /// Of how many.
        of: u32,
    },
    /// A step, or the undo of one, waits for something other than a reply.
    Waits {
        /// The step's name.
        step: String,
        /// What for, in a few words.
        what: String,
    },
    /// A step was left out.
    Skipped {
        /// The step's name.
        step: String,
    },
    /// The saga as a whole stands still, or goes on again.
    Stands {
        /// Why, in a few words.
        what: String,
    },
    /// A human is asked.
    Asks {
        /// What, in one line.
        reason: String,
        /// In which queue.
        queue: String,
    },
    /// A step was undone.
    Undone {
        /// Its name.
        step: String,
        /// What the service had to say.
        message: Option<String>,
    },
    /// An undo failed for good.
    UndoFailed {
        /// The step's name.
        step: String,
        /// Why.
        error: String,
    },
    /// The saga ended.
    Ended {
        /// How.
        state: SagaState,
        /// Whether everything that was done was undone.
        clean: bool,
        /// How long it took.
        took: Duration,
    },
}

/// Width of the name column, so that what follows lines up.
const NAME_WIDTH: usize = 24;

impl fmt::Display for StoryLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.definition;
        match &self.what {
            Happening::Started => write!(f, "▶ {id:<NAME_WIDTH$} START"),
            Happening::Calling { step, undo: false } => write!(f, "… {step}"),
            Happening::Calling { step, undo: true } => write!(f, "… undoing {step}"),
            Happening::Progress { step, done, total, message } => {
                let figures = match (done, total) {
                    (Some(done), Some(total)) => format!("{done} of {total}"),
                    (Some(done), None) => done.to_string(),
                    _ => String::new(),
                };
                let gap = if figures.is_empty() || message.is_none() { "" } else { ": " };
                write!(f, "… {step:<NAME_WIDTH$} {figures}{gap}{}", message.as_deref().unwrap_or_default())
            }
            Happening::Done { step, message } => write!(f, "✓ {step:<NAME_WIDTH$} {}", message.as_deref().unwrap_or("done")),
            Happening::AttemptFailed { step, error, attempt, of } => write!(f, "✗ {step:<NAME_WIDTH$} {error} (attempt {attempt} of {of})"),
            Happening::Waits { step, what } => write!(f, "… {step:<NAME_WIDTH$} waits for {what}"),
            Happening::Skipped { step } => write!(f, "- {step:<NAME_WIDTH$} skipped"),
            Happening::Stands { what } => write!(f, "… {id:<NAME_WIDTH$} {what}"),
            Happening::Asks { reason, queue } => write!(f, "? {id:<NAME_WIDTH$} {reason} (human task in {queue})"),
            Happening::Undone { step, message } => match message {
                Some(message) => write!(f, "↶ {step:<NAME_WIDTH$} undone: {message}"),
                None => write!(f, "↶ {step:<NAME_WIDTH$} undone"),
            },
            Happening::UndoFailed { step, error } => write!(f, "✘ {step:<NAME_WIDTH$} cannot be undone: {error}; waits for a human"),
            Happening::Ended { state: SagaState::Completed, took, .. } => write!(f, "✔ {id:<NAME_WIDTH$} COMPLETED ({})", Took(*took)),
            Happening::Ended { state, clean, took } => {
                let word = state.as_str().to_uppercase();
                match (state, clean) {
                    (SagaState::Failed | SagaState::Cancelled, true) => write!(f, "✘ {id:<NAME_WIDTH$} {word}, rolled back ({})", Took(*took)),
                    (SagaState::Failed | SagaState::Cancelled, false) => write!(f, "✘ {id:<NAME_WIDTH$} {word}, not all undone ({})", Took(*took)),
                    _ => write!(f, "✘ {id:<NAME_WIDTH$} {word} ({})", Took(*took)),
                }
            }
        }
    }
}

/// A duration as people say it: `14.2 s`, `3 m 14 s`, `2 h 5 m`.
#[derive(Clone, Copy, Debug)]
pub struct Took(pub Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            60..3600 => write!(f, "{} m {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} m", seconds / 3600, seconds % 3600 / 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_the_contract_shows_them() {
        let check = |what, expected: &str| assert_eq!(StoryLine { definition: "dol.benefit.increase.v1".into(), what }.to_string(), expected);
        check(Happening::Started, "▶ dol.benefit.increase.v1  START");
        check(Happening::Skipped { step: "approve".into() }, "- approve                  skipped");
        check(
            Happening::Waits { step: "settle".into(), what: "the event bank.settled".into() },
            "… settle                   waits for the event bank.settled",
        );
        check(
            Happening::Done { step: "recalc_payments".into(), message: Some("117 956 payments updated".into()) },
            "✓ recalc_payments          117 956 payments updated",
        );
        check(
            Happening::Progress { step: "send_notices".into(), done: Some(40), total: Some(100), message: Some("letters".into()) },
            "… send_notices             40 of 100: letters",
        );
        check(
            Happening::AttemptFailed { step: "send_notices".into(), error: "HTTP 500".into(), attempt: 3, of: 3 },
            "✗ send_notices             HTTP 500 (attempt 3 of 3)",
        );
        check(Happening::Undone { step: "recalc_payments".into(), message: None }, "↶ recalc_payments          undone");
        check(
            Happening::Ended { state: SagaState::Failed, clean: true, took: Duration::from_millis(14_200) },
            "✘ dol.benefit.increase.v1  FAILED, rolled back (14.2 s)",
        );
        check(
            Happening::Ended { state: SagaState::Completed, clean: true, took: Duration::from_secs(194) },
            "✔ dol.benefit.increase.v1  COMPLETED (3 m 14 s)",
        );
    }
}
