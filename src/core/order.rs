//! What operators order.

/// An order about one saga. The words are those of `commands.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Undo what was done, and end as cancelled.
    Cancel,
    /// Start nothing new; time stands still.
    Pause,
    /// Go on after a pause.
    Resume,
    /// End as it is, without undo.
    Abort,
    /// Try again now what failed: one step, or all.
    Retry(Option<usize>),
    /// Leave a step be.
    Skip(Option<usize>),
}

impl Order {
    /// The word used in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Retry(_) => "retry",
            Self::Skip(_) => "skip",
        }
    }

    /// The order of a word, about `step` where it takes one.
    #[must_use]
    pub fn parse(word: &str, step: Option<usize>) -> Option<Self> {
        [Self::Cancel, Self::Pause, Self::Resume, Self::Abort, Self::Retry(step), Self::Skip(step)].into_iter().find(|order| order.as_str() == word)
    }
}

/// What became of an order or a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out; what came of it.
    Applied(String),
    /// It was not, and why.
    Refused(String),
    /// It is decided when the point of no return is known to be passed or not: ask again after each change.
    Deferred,
}
