//! The end of what a step waited for, as the outcome that the machine is told.

use serde_json::json;
use uuid::Uuid;

use super::definition::{Definition, Match};
use super::event::Event;
use super::expression::Scope;
use super::outcome::{Action, Class, Outcome};
use super::payload::Payload;
use super::reply::line;
use super::request::{scope, steps_scope};
use super::saga::{Saga, SagaState};

/// How a child saga ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildEnd {
    /// The child.
    pub saga: Uuid,
    /// Its terminal state.
    pub state: SagaState,
    /// Whether everything that was to be undone was.
    pub clean: bool,
    /// Why it did not complete.
    pub reason: Option<String>,
}

/// What the end of a child means for its parent's step. One that left nothing behind has failed; one that may have is in doubt.
#[must_use]
pub fn of_child(definition: &str, action: Action, end: &ChildEnd) -> Outcome {
    let summary = || Some(Payload::from(json!({"sagaId": end.saga, "state": end.state.as_str()})));
    let error = line(&format!("{definition} is {}: {}", end.state.as_str(), end.reason.as_deref().unwrap_or_default()));
    match (action, end.state, end.clean) {
        (Action::Do, SagaState::Completed, _) | (Action::Undo, SagaState::Cancelled, true) => Outcome::success(summary()),
        (Action::Do, _, false) => Outcome::without_reply(Class::Unknown, error),
        _ => Outcome::without_reply(Class::Refused, error),
    }
}

/// What the consumer of `saga.compensate` said about the undo.
#[must_use]
pub fn of_acknowledgement(ok: bool, error: Option<&str>) -> Outcome {
    if ok { Outcome::success(None) } else { Outcome::without_reply(Class::Failed, line(error.unwrap_or("no reason given"))) }
}

/// What an event of the right type and key means for the step that waits; `None` where the whole condition does not hold.
#[must_use]
pub fn of_event(definition: &Definition, saga: &Saga, event: &Event, matching: Option<&Match>, arriving: &Event) -> Option<Outcome> {
    match fits(definition, saga, event, matching, arriving) {
        Ok(false) => None,
        Ok(true) => Some(Outcome::success(Some(arriving.data.clone()))),
        Err(error) => Some(of_broken_match(&error)),
    }
}

/// A wait whose `match` cannot be evaluated.
#[must_use]
pub fn of_broken_match(error: &str) -> Outcome {
    Outcome::without_reply(Class::Refused, line(&format!("`match` cannot be evaluated: {error}")))
}

/// Whether an arriving event meets the whole condition.
///
/// # Errors
/// The text of the condition's error.
pub fn fits(definition: &Definition, saga: &Saga, event: &Event, matching: Option<&Match>, arriving: &Event) -> Result<bool, String> {
    let Some(matching) = matching else { return Ok(true) };
    let views = steps_scope(definition, saga);
    let scope = Scope { arriving: Some(arriving), ..scope(definition, saga, event, &views) };
    matching.condition.test(&scope).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_left_something_behind_is_in_doubt() {
        let check = |action, state, clean, class| {
            let end = ChildEnd { saga: Uuid::nil(), state, clean, reason: Some("no".to_owned()) };
            let outcome = of_child("audit.v1", action, &end);
            assert_eq!(outcome.class, class, "{action:?} {state:?} {clean}");
            assert!(outcome.error.is_none_or(|error| error == format!("audit.v1 is {}: no", state.as_str())));
        };
        check(Action::Do, SagaState::Completed, true, Class::Succeeded);
        check(Action::Do, SagaState::Failed, true, Class::Refused);
        check(Action::Do, SagaState::Failed, false, Class::Unknown);
        check(Action::Do, SagaState::Aborted, false, Class::Unknown);
        check(Action::Undo, SagaState::Cancelled, true, Class::Succeeded);
        check(Action::Undo, SagaState::Cancelled, false, Class::Refused);
        check(Action::Undo, SagaState::Completed, true, Class::Refused);
    }
}
