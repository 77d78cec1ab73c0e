//! The story of a scenario: what happened at which virtual time.

use std::fmt;
use std::time::Duration;

use super::call_name;
use super::world::World;
use crate::core::machine::Advance;
use crate::core::saga::SagaState;

/// One line of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// After the beginning.
    pub at: Duration,
    /// The call or step that it is about, or `saga`.
    pub who: String,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12} ms  {:<24} {}", grouped(self.at.as_millis()), self.who, self.what)
    }
}

/// A number in groups of three digits, as people read milliseconds.
pub(super) fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl World<'_> {
    /// Adds a line to the story.
    pub(super) fn tell(&mut self, who: &str, what: impl Into<String>) {
        let at = self.since_the_beginning();
        self.record.story.push(Moment { at, who: who.to_owned(), what: what.into() });
    }

    pub(super) fn tell_attempts(&mut self, advance: &Advance) {
        for attempt in &advance.attempts {
            let (outcome, said) = (&attempt.outcome, attempt.outcome.error.as_ref().or(attempt.outcome.message.as_ref()));
            let said = said.map(|said| format!(": {said}")).unwrap_or_default();
            self.tell(&call_name(self.definition, attempt.seq, attempt.action), format!("{}{said}", outcome.as_str()));
        }
    }

    pub(super) fn tell_state(&mut self) {
        let saga = &self.record.saga;
        let reason = saga.reason.as_ref().filter(|_| saga.state != SagaState::Compensating).map(|reason| format!(": {reason}")).unwrap_or_default();
        self.tell("saga", format!("{}{reason}", saga.state.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_line_up() {
        let moment = Moment { at: Duration::from_secs(86_400), who: "approve".to_owned(), what: "approved".to_owned() };
        assert_eq!(moment.to_string(), "  86 400 000 ms  approve                  approved");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1234), "1 234");
    }
}
