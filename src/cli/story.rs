//! The story of a saga that is read: rebuilt from its steps and attempts, in the lines that were told live.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use crate::core::saga::SagaState;
use crate::core::story::{Happening, StoryLine};

/// A saga as `GET /v1/sagas/{id}` shows it, as far as the story needs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// Full id of the definition.
    pub definition: String,
    /// Where it stands.
    pub state: String,
    clean: bool,
    /// What it waits for.
    pub waiting_for: Option<String>,
    duration_ms: i64,
    /// One sentence: why it waits, or how it ended.
    pub why: Option<String>,
    steps: Vec<Step>,
    attempts: Vec<Attempt>,
    #[serde(default)]
    tasks: Vec<Task>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    name: String,
    #[serde(default)]
    status: String,
    compensation: String,
    message: Option<String>,
    output: Option<Value>,
    progress: Option<Progress>,
    finished_at: Option<String>,
}

/// How far a step has come.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Progress {
    done: Option<i64>,
    total: Option<i64>,
    message: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    reason: String,
    prompt: Option<String>,
    queue: String,
    opened_at: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    step: String,
    action: String,
    attempt: u32,
    fence: i64,
    outcome: Option<String>,
    error: Option<String>,
    finished_at: Option<String>,
}

/// How often a step and its undo are tried at most, by the step's name.
pub(super) type Limits = HashMap<String, (u32, u32)>;

impl Record {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        SagaState::parse(&self.state).is_some_and(SagaState::is_terminal)
    }

    /// Whether nothing goes on without a human.
    pub fn needs_human(&self) -> bool {
        matches!(self.state.as_str(), "hitl" | "comp_failed") || self.waiting_for.as_deref() == Some("human")
    }

    /// What has happened so far. Later readings of the same saga only add to the end.
    pub fn story(&self, limits: &Limits) -> Vec<StoryLine> {
        let mut what = vec![Happening::Started];
        // One saga has one write at a time, so this is the order in which it was told; a fence orders what came in one write.
        let attempts = self.attempts.iter().filter(|attempt| attempt.outcome.is_some());
        let mut told: Vec<(&str, i64, Happening)> =
            attempts.map(|attempt| (attempt.finished_at.as_deref().unwrap_or_default(), attempt.fence, self.happening(attempt, limits))).collect();
        let skipped = self.steps.iter().filter(|step| step.status == "skipped");
        told.extend(skipped.filter_map(|step| Some((step.finished_at.as_deref()?, i64::MAX - 1, Happening::Skipped { step: step.name.clone() }))));
        told.extend(self.tasks.iter().map(|task| {
            let reason = task.prompt.clone().unwrap_or_else(|| task.reason.clone());
            (task.opened_at.as_str(), i64::MAX, Happening::Asks { reason, queue: task.queue.clone() })
        }));
        told.sort_by_key(|(at, place, _)| (instant(at), *place));
        what.extend(told.into_iter().map(|(_, _, happening)| happening));
        if let Some(state) = SagaState::parse(&self.state).filter(|state| state.is_terminal()) {
            let took = Duration::from_millis(u64::try_from(self.duration_ms).unwrap_or(0));
            what.push(Happening::Ended { state, clean: self.clean, took });
        }
        what.into_iter().map(|what| self.line(what)).collect()
    }

    /// The call that is under way.
    pub fn calling(&self) -> Option<StoryLine> {
        let attempt = self.attempts.iter().find(|attempt| attempt.outcome.is_none())?;
        Some(self.line(Happening::Calling { step: attempt.step.clone(), undo: attempt.action == "undo" }))
    }

    /// How far the steps have come that are under way, where they say so.
    pub fn progress(&self) -> Vec<StoryLine> {
        let under_way = self.steps.iter().filter(|step| matches!(step.status.as_str(), "running" | "waiting"));
        let said = under_way.filter_map(|step| {
            let Progress { done, total, message } = step.progress.clone()?;
            Some(Happening::Progress { step: step.name.clone(), done, total, message })
        });
        said.map(|what| self.line(what)).collect()
    }

    fn line(&self, what: Happening) -> StoryLine {
        StoryLine { definition: self.definition.clone(), what }
    }

    fn happening(&self, attempt: &Attempt, limits: &Limits) -> Happening {
        let name = attempt.step.clone();
        let step = self.steps.iter().find(|step| step.name == name);
        let compensation = step.map_or("none", |step| step.compensation.as_str());
        let error = attempt.error.clone().unwrap_or_else(|| "no reason given".to_owned());
        let (of_do, of_undo) = limits.get(&name).copied().unwrap_or_default();
        let is_last =
            |action: &str| !self.attempts.iter().any(|other| other.step == name && other.action == action && other.attempt > attempt.attempt);
        match (attempt.action.as_str(), attempt.outcome.as_deref()) {
            ("do", Some("succeeded")) => Happening::Done { message: step.and_then(|step| step.said(compensation)), step: name },
            ("do", _) => Happening::AttemptFailed { step: name, error, attempt: attempt.attempt, of: of_do.max(attempt.attempt) },
            (_, _) if compensation == "compensated" && is_last("undo") => {
                Happening::Undone { message: step.and_then(|step| step.message.clone()), step: name }
            }
            (_, _) if compensation == "failed" && is_last("undo") => Happening::UndoFailed { step: name, error },
            (_, _) => Happening::AttemptFailed { step: format!("undo {name}"), error, attempt: attempt.attempt, of: of_undo.max(attempt.attempt) },
        }
    }
}

/// Times are compared as such: their texts differ in the digits of the second.
fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    text.parse().map_err(|_| text.to_owned())
}

impl Step {
    /// What the service said when the step was done: an undo that succeeded has put its own message in that place.
    fn said(&self, compensation: &str) -> Option<String> {
        let of_reply = self.output.as_ref().and_then(|output| output.get("message")).and_then(Value::as_str).map(str::to_owned);
        if compensation == "compensated" { of_reply } else { of_reply.or_else(|| self.message.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(state: &str, steps: &Value, attempts: &Value) -> Record {
        serde_json::from_value(json!({
            "definition": "x.v1", "state": state, "clean": true, "waitingFor": null, "durationMs": 14_200, "why": null,
            "steps": steps, "attempts": attempts, "somethingNew": 1,
        }))
        .expect("the shape of the interface")
    }

    fn told(record: &Record) -> Vec<String> {
        let limits = Limits::from([("notify".to_owned(), (3, 10))]);
        record.story(&limits).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_failed_saga_is_told_as_it_was_live() {
        let steps = json!([
            {"name": "pay", "compensation": "compensated", "message": "put back", "output": {"message": "raised"}},
            {"name": "notify", "compensation": "not_needed", "message": null, "output": null},
        ]);
        let attempts = json!([
            {"step": "pay", "action": "undo", "attempt": 1, "fence": 4, "outcome": "succeeded", "error": null, "finishedAt": "2026-01-01T00:00:04Z"},
            {"step": "pay", "action": "do", "attempt": 1, "fence": 1, "outcome": "succeeded", "error": null, "finishedAt": "2026-01-01T00:00:01Z"},
            {"step": "notify", "action": "do", "attempt": 1, "fence": 2, "outcome": "unknown", "error": "timed out", "finishedAt": "2026-01-01T00:00:02Z"},
            {"step": "notify", "action": "do", "attempt": 2, "fence": 3, "outcome": "failed", "error": "HTTP 500", "finishedAt": "2026-01-01T00:00:03Z"},
        ]);
        assert_eq!(
            told(&record("failed", &steps, &attempts)),
            [
                "▶ x.v1                     START",
                "✓ pay                      raised",
                "✗ notify                   timed out (attempt 1 of 3)",
                "✗ notify                   HTTP 500 (attempt 2 of 3)",
                "↶ pay                      undone: put back",
                "✘ x.v1                     FAILED, rolled back (14.2 s)",
            ]
        );
    }

    #[test]
    fn a_call_under_way_is_no_line_yet() {
        let steps = json!([{"name": "pay", "compensation": "none", "message": null, "output": null}]);
        let attempts = json!([{"step": "pay", "action": "do", "attempt": 1, "fence": 1, "outcome": null, "error": null, "finishedAt": null}]);
        let record = record("running", &steps, &attempts);
        assert_eq!(told(&record).len(), 1);
        assert_eq!(record.calling().expect("a call").to_string(), "… pay");
        assert!(!record.is_over() && !record.needs_human());
    }

    #[test]
    fn an_undo_that_failed_for_good_needs_a_human() {
        let steps = json!([{"name": "pay", "compensation": "failed", "message": null, "output": null}]);
        let attempt = |number: u32| json!({"step": "pay", "action": "undo", "attempt": number, "fence": number, "outcome": "failed", "error": "HTTP 409", "finishedAt": number.to_string()});
        let record = record("comp_failed", &steps, &json!([attempt(1), attempt(2)]));
        assert_eq!(
            told(&record)[1..],
            ["✗ undo pay                 HTTP 409 (attempt 1 of 1)", "✘ pay                      cannot be undone: HTTP 409; waits for a human"]
        );
        assert!(record.needs_human());
    }
}
