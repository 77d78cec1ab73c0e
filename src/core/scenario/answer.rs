//! What comes back from the calls of a scenario, and when.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use super::world::{Coming, World};
use super::{Answer, What};
use crate::core::call::Reply;
use crate::core::definition::{Undo, Work};
use crate::core::ending;
use crate::core::failure::TIMED_OUT;
use crate::core::outcome::{Action, Outcome};
use crate::core::saga::{SagaState, Wait};

impl World<'_> {
    /// Plans the answer to what was just asked for. A call has the number of its attempt and its limit.
    pub(super) fn answer(&mut self, seq: usize, action: Action, call: Option<(u32, Duration)>) {
        let Answer { delay, what } = self.next_answer(seq, action);
        match call {
            Some((attempt, timeout)) => self.answer_call(seq, action, attempt, timeout, delay, what),
            None => {
                if let Some((wait, outcome)) = self.end_of(seq, action, what) {
                    self.plan(self.now.plus(delay), Coming::Ended { seq, action, wait, outcome });
                }
            }
        }
    }

    /// The answer to the next attempt: the last one repeats, and what nobody scripted succeeds.
    fn next_answer(&mut self, seq: usize, action: Action) -> Answer {
        let used = self.answered.entry((seq, action)).or_default();
        let scripted = self.scenario.answers.iter().find(|answers| (answers.seq, answers.action) == (seq, action));
        let answer = scripted.and_then(|answers| answers.list.get(*used).or(answers.list.last()));
        *used += 1;
        answer.cloned().unwrap_or_else(|| Answer { delay: Duration::ZERO, what: self.success_of(seq, action) })
    }

    /// A plain success of whatever does the step or its undo.
    fn success_of(&self, seq: usize, action: Action) -> What {
        let step = &self.definition.steps[seq];
        let child = |state| What::Ends { state, clean: true, reason: None };
        match (action, &step.work, step.compensate.as_ref().map(|compensate| &compensate.undo)) {
            (Action::Do, Work::Sql(_), _) | (Action::Undo, _, Some(Undo::Sql(_))) => What::Returns(json!({})),
            (Action::Do, Work::Saga(_), _) => child(SagaState::Completed),
            (Action::Undo, Work::Saga(_), _) => child(SagaState::Cancelled),
            (Action::Undo, _, Some(Undo::Event)) => What::Acknowledged { ok: true, error: None },
            _ => What::Reply { status: 200, headers: Vec::new(), body: Some(json!({})), retry_after: None, callback: None, heartbeats: None },
        }
    }

    fn answer_call(&mut self, seq: usize, action: Action, attempt: u32, timeout: Duration, delay: Duration, what: What) {
        if delay >= timeout || matches!(what, What::Silence) {
            let reply = if self.is_function(seq, action) {
                Reply::RolledBack(format!("{TIMED_OUT}: the function took longer than {} ms", timeout.as_millis()))
            } else {
                Reply::Broken(format!("{TIMED_OUT}: no whole reply within {} ms", timeout.as_millis()))
            };
            return self.plan(self.now.plus(timeout), Coming::Reply { seq, action, attempt, reply });
        }
        let at = self.now.plus(delay);
        let reply = match what {
            What::Returns(value) => Reply::Returned(value.into()),
            What::Raises(error) => Reply::RolledBack(error),
            What::Unreachable => Reply::NotSent("the service cannot be reached: connection refused".to_owned()),
            What::Reply { status, headers, body, retry_after, callback, heartbeats } => {
                let body = Some(body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string())));
                let reply = Reply::Answered { status, headers, body, retry_after };
                self.plan(at, Coming::Reply { seq, action, attempt, reply });
                if let Some(beats) = heartbeats {
                    let beat = Coming::Heartbeat { seq, every: beats.every, until: at.plus(beats.until) };
                    self.plan(at.plus(beats.every), beat);
                }
                if let Some(callback) = callback {
                    self.plan(at.plus(callback.after), Coming::Callback { seq, action, end: callback.end });
                }
                return;
            }
            _ => Reply::Broken("the connection broke after the call was sent: it was reset".to_owned()),
        };
        self.plan(at, Coming::Reply { seq, action, attempt, reply });
    }

    fn is_function(&self, seq: usize, action: Action) -> bool {
        let step = &self.definition.steps[seq];
        match action {
            Action::Do => matches!(step.work, Work::Sql(_)),
            Action::Undo => step.compensate.as_ref().is_some_and(|compensate| matches!(compensate.undo, Undo::Sql(_))),
            Action::Verify => false,
        }
    }

    /// The end of a child, or of an undo by event; nothing for silence.
    fn end_of(&self, seq: usize, action: Action, what: What) -> Option<(Wait, Outcome)> {
        match (what, &self.definition.steps[seq].work) {
            (What::Ends { state, clean, reason }, Work::Saga(child)) => {
                let end = ending::ChildEnd { saga: Uuid::from_u128(2), state, clean, reason };
                Some((Wait::Child, ending::of_child(child, action, &end)))
            }
            (What::Acknowledged { ok, error }, _) => Some((Wait::Event, ending::of_acknowledgement(ok, error.as_deref()))),
            _ => None,
        }
    }
}
