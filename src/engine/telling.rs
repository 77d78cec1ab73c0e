//! What a worker tells of its sagas: the lines of the console story, and the events about human tasks.

use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::live::{Live, event_row};
use crate::core::definition::Work;
use crate::core::human::NewTask;
use crate::core::machine::{Advance, Emission, TaskChange};
use crate::core::outcome::{Action, Class};
use crate::core::saga::{Compensation, SagaState, StepStatus, Wait};
use crate::core::story::{Happening, StoryLine};
use crate::core::time::Timestamp;
use crate::store::commit::EventRow;
use crate::store::inputs::InputRow;

impl Live {
    /// The lines that the decision adds to the story.
    #[must_use]
    pub fn story(&self, advance: &Advance, before: SagaState, now: Timestamp) -> Vec<StoryLine> {
        let mut lines = Vec::new();
        for attempt in advance.attempts.iter().filter(|attempt| attempt.action != Action::Verify) {
            let step = &self.definition().steps[attempt.seq];
            let progress = &self.saga.steps[attempt.seq];
            let error = || attempt.outcome.error.clone().unwrap_or_else(|| "no reason given".to_owned());
            lines.push(match (attempt.action, attempt.outcome.class) {
                (Action::Do, Class::Succeeded) if progress.status != StepStatus::Running => {
                    Happening::Done { step: step.name.clone(), message: attempt.outcome.message.clone() }
                }
                (Action::Do | Action::Verify, _) => Happening::AttemptFailed {
                    step: step.name.clone(),
                    error: error(),
                    attempt: attempt.number,
                    of: step.retry.attempts.max(attempt.number),
                },
                (Action::Undo, _) if progress.compensation == Compensation::Compensated => {
                    Happening::Undone { step: step.name.clone(), message: attempt.outcome.message.clone() }
                }
                (Action::Undo, _) if progress.compensation == Compensation::Failed => {
                    Happening::UndoFailed { step: step.name.clone(), error: error() }
                }
                (Action::Undo, _) => Happening::AttemptFailed {
                    step: format!("undo {}", step.name),
                    error: error(),
                    attempt: attempt.number,
                    of: step.compensate.as_ref().map_or(attempt.number, |undo| undo.retry.attempts.max(attempt.number)),
                },
            });
        }
        for (seq, action) in &advance.calls {
            lines.push(Happening::Calling { step: self.definition().steps[*seq].name.clone(), undo: *action == Action::Undo });
        }
        for &seq in &advance.steps {
            let name = || self.definition().steps[seq].name.clone();
            let step = &self.saga.steps[seq];
            match step.waits_for().or(step.undo_waits_for()) {
                // Said when it begins, not whenever the step is written.
                Some(wait) if step.called_at == Some(now) || matches!(wait, Wait::Callback | Wait::Service) => {
                    lines.push(Happening::Waits { step: name(), what: self.awaited(seq, wait) });
                }
                None if step.status == StepStatus::Skipped && step.finished_at == Some(now) => lines.push(Happening::Skipped { step: name() }),
                _ => {}
            }
        }
        for change in &advance.tasks {
            if let TaskChange::Open(task) = change {
                let reason = task.prompt.clone().unwrap_or_else(|| task.reason.clone());
                lines.push(Happening::Asks { reason, queue: task.queue.clone() });
            }
        }
        if before != self.saga.state {
            lines.extend(match self.saga.state {
                SagaState::LockWait => Some(Happening::Stands { what: "waits for its lock".to_owned() }),
                SagaState::Paused => Some(Happening::Stands { what: "is paused".to_owned() }),
                _ if before == SagaState::Paused => Some(Happening::Stands { what: "goes on".to_owned() }),
                _ => None,
            });
        }
        if self.saga.state.is_terminal() {
            lines.push(Happening::Ended { state: self.saga.state, clean: self.saga.clean, took: now.since(self.started_at) });
        }
        lines.into_iter().map(|what| StoryLine { definition: self.definition().id.clone(), what }).collect()
    }

    /// What a step waits for, in a few words.
    fn awaited(&self, seq: usize, wait: Wait) -> String {
        match (wait, &self.definition().steps[seq].work) {
            (Wait::Event, Work::Wait(wait)) => format!("the event {}", wait.event),
            (Wait::Event, _) => "the acknowledgement of its undo".to_owned(),
            (Wait::Child, Work::Saga(child)) => format!("the saga {child}"),
            (Wait::Service, work) => format!("its service{}", if let Work::Call(call) = work { format!(" {}", call.service) } else { String::new() }),
            (Wait::Callback, _) => "its callback".to_owned(),
            (Wait::Human, _) => "a decision".to_owned(),
            (Wait::Timer, _) => "its time".to_owned(),
            (Wait::Child, _) => "a saga".to_owned(),
        }
    }
}

/// What an event about a human task says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskData<'a> {
    saga_id: Uuid,
    definition: &'a str,
    reason: &'a str,
    step: serde_json::Value,
    task: serde_json::Value,
}

/// `human.task.opened`
#[must_use]
pub fn task_event(live: &Live, kind: &'static str, id: Uuid, task: &NewTask) -> EventRow {
    let step = &live.definition().steps[task.seq].name;
    let told = json!({"id": id, "kind": task.kind.as_str(), "queue": task.queue, "prompt": task.prompt, "assignee": task.assignee});
    told_event(live, kind, &task.reason, step, told)
}

/// `human.task.decided`
#[must_use]
pub fn decided_event(live: &Live, task: Uuid, said: &InputRow) -> EventRow {
    let seq = said.seq.and_then(|seq| usize::try_from(seq).ok()).unwrap_or_default();
    let step = live.definition().steps.get(seq).map(|step| step.name.as_str()).unwrap_or_default();
    let get = |name: &str| said.payload.get(name).cloned().unwrap_or_default();
    let told = json!({"id": task, "kind": get("kind"), "decision": get("decision"), "by": get("by"), "note": get("note")});
    told_event(live, "human.task.decided", get("note").as_str().unwrap_or_default(), step, told)
}

fn told_event(live: &Live, kind: &'static str, reason: &str, step: &str, task: serde_json::Value) -> EventRow {
    let data = TaskData { saga_id: live.saga.id, definition: &live.definition().id, reason, step: json!({"name": step, "context": null}), task };
    // Strings and ids: serialising them has no way to fail.
    let data = serde_json::to_string(&data).unwrap_or_default();
    EventRow { data, ..event_row(live.definition(), &live.saga, &live.event, &Emission::Started) }.of_kind(kind)
}
