//! Makes a scenario of what really happened to a saga.
//!
//! What the rows tell becomes answers, deeds and expectations. Times of deeds are told from the attempt or task before them, as
//! retries come a little earlier or later in reality. The scenario is then played: what does not come out as it did in reality
//! is not expected, and said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Record, Scenario, call_name, judge, run};
use crate::core::definition_file;
use crate::core::event::Event;
use crate::core::matching::Deployed;
use crate::core::outcome::Action;
use crate::core::payload::Payload;
use crate::core::saga::SagaState;
use crate::core::time::Timestamp;
use uuid::Uuid;

mod deeds;
mod flow;
mod replies;

/// What the database knows of a saga.
#[derive(Debug)]
pub struct Recording {
    /// The saga.
    pub saga: Uuid,
    /// The event that started it.
    pub event: Event,
    /// When it was made.
    pub started_at: Timestamp,
    /// When it began, its locks in hand.
    pub begun_at: Option<Timestamp>,
    /// Where it stands.
    pub state: SagaState,
    /// Whether everything was undone.
    pub clean: bool,
    /// Why it did not complete.
    pub reason: Option<String>,
    /// Status and compensation of the steps that were begun, by their place.
    pub steps: Vec<(usize, String, String)>,
    /// Attempts that ended.
    pub attempts: Vec<Attempted>,
    /// Ends of asynchronous steps.
    pub callbacks: Vec<CalledBack>,
    /// Orders of operators.
    pub orders: Vec<Ordered>,
    /// Human tasks in the order they were opened.
    pub tasks: Vec<Asked>,
    /// The event that cancelled it.
    pub cancelled_by: Option<Event>,
    /// Types of the events that it published, in order.
    pub published: Vec<String>,
}

/// An attempt.
#[derive(Debug)]
pub struct Attempted {
    /// Place of the step.
    pub seq: usize,
    /// Do, undo or verify.
    pub action: Action,
    /// Its number.
    pub number: u32,
    /// What it carried; 0 where no call was made.
    pub fence: i64,
    /// When it was committed to.
    pub started_at: Timestamp,
    /// When its outcome was recorded.
    pub finished_at: Timestamp,
    /// `succeeded`, `failed`, `unknown` or `lost`.
    pub outcome: String,
    /// HTTP status.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The reply's body.
    pub output: Option<Payload>,
    /// What the undo is given, where that is not the output.
    pub context: Option<Payload>,
}

/// The end that a callback told.
#[derive(Debug)]
pub struct CalledBack {
    /// Place of the step.
    pub seq: usize,
    /// Do or undo.
    pub action: Action,
    /// When it came.
    pub at: Timestamp,
    /// When the last heartbeat came.
    pub beat_at: Option<Timestamp>,
    /// What it said: `status`, `context`, `output`, `message`, `error`.
    pub end: Value,
}

/// An order.
#[derive(Debug)]
pub struct Ordered {
    /// `cancel`, `pause` ...
    pub order: String,
    /// The step that it was about.
    pub step: Option<String>,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
    /// Whether it was carried out.
    pub applied: bool,
}

/// A human task.
#[derive(Debug)]
pub struct Asked {
    /// Place of the step.
    pub seq: usize,
    /// Its kind.
    pub kind: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// What was decided, by whom, why, with what, and when.
    pub decided: Option<Decided>,
}

/// A decision.
#[derive(Debug)]
pub struct Decided {
    /// What.
    pub decision: String,
    /// Who.
    pub by: String,
    /// Why.
    pub note: Option<String>,
    /// What the form was filled in with.
    pub output: Option<Payload>,
    /// When.
    pub at: Timestamp,
}

/// A scenario file.
#[derive(Debug)]
pub struct Captured {
    /// Its text.
    pub text: String,
    /// What could not be captured, a line each; the file says it as well.
    pub left_out: Vec<String>,
}

/// Something that happens at a time of its own, as the file writes it, but for that time.
pub(super) struct Deed {
    pub(super) at: Timestamp,
    pub(super) fields: Map<String, Value>,
}

/// The scenario of a recording.
///
/// # Errors
/// In words, when the scenario cannot be written at all.
pub fn capture(deployed: &Arc<Deployed>, recording: &Recording) -> Result<Captured, String> {
    let mut draft =
        Draft { deployed, recording, left_out: Vec::new(), answers: BTreeMap::new(), at: Vec::new(), expect: Map::new(), drop: Vec::new() };
    draft.answers = replies::of(deployed, recording, &mut draft.left_out);
    for deed in deeds::of(deployed, recording, &mut draft.left_out) {
        let (_, record) = draft.play()?;
        let after = draft.virtual_time(&record, deed.at);
        let mut fields = Map::from_iter([("afterMs".to_owned(), Value::from(after))]);
        fields.extend(deed.fields);
        draft.at.push(Value::Object(fields));
    }
    draft.expect = draft.expectations();
    // What differs is dropped, and that may leave nothing of a map: twice is enough.
    for _ in 0..2 {
        let (scenario, record) = draft.play()?;
        for difference in judge(&deployed.definition, &scenario, &record) {
            let key = difference.what.split('.').next().unwrap_or_default().to_owned();
            draft.left_out.push(format!("{} does not come out as it did: {}", difference.what, difference.lines.join(", ").replace("  ", " ")));
            draft.drop.push(key);
        }
    }
    Ok(Captured { text: draft.text(), left_out: draft.left_out })
}

struct Draft<'a> {
    deployed: &'a Arc<Deployed>,
    recording: &'a Recording,
    left_out: Vec<String>,
    answers: BTreeMap<(usize, Action), Vec<Value>>,
    at: Vec<Value>,
    expect: Map<String, Value>,
    drop: Vec<String>,
}

impl Draft<'_> {
    /// Plays what is there so far.
    fn play(&self) -> Result<(Scenario, Record), String> {
        let text = self.text();
        let suite = definition_file::scenarios("the captured scenario", &text, &self.deployed.definition)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let scenario = suite.scenarios.into_iter().next().ok_or("there is no scenario")?;
        let record = run(self.deployed, &scenario);
        Ok((scenario, record))
    }

    /// When something happens in the scenario: as long as in reality after the last thing that both know.
    fn virtual_time(&self, record: &Record, at: Timestamp) -> u64 {
        let mut known = vec![(self.recording.started_at, Duration::ZERO, 0)];
        for attempt in &self.recording.attempts {
            let same = |seq, action, number| (seq, action, number) == (attempt.seq, attempt.action, attempt.number);
            known.extend(record.calls.iter().find(|made| same(made.seq, made.action, made.number)).map(|made| (attempt.started_at, made.at, 1)));
            // What ended at that time ended because of it: without it, it ends at another.
            let end = record.finished.iter().find(|end| attempt.finished_at < at && same(end.seq, end.action, end.number));
            known.extend(end.map(|end| (attempt.finished_at, end.at, 1)));
        }
        for task in &self.recording.tasks {
            let twin = record.tasks.iter().find(|twin| twin.task.seq == task.seq && twin.task.kind.as_str() == task.kind);
            known.extend(twin.map(|twin| (task.opened_at, twin.at, 1)));
        }
        let before = known.into_iter().filter(|(real, ..)| *real <= at).max_by_key(|(real, virtual_time, _)| (*real, *virtual_time));
        // What happens at one time happens in the order of the file, deeds first: a deed that followed must come later.
        let (real, virtual_time, least) = before.unwrap_or((at, Duration::ZERO, 0));
        millis(virtual_time) + millis(at.since(real)).max(least)
    }

    fn expectations(&self) -> Map<String, Value> {
        let (definition, recording) = (&self.deployed.definition, self.recording);
        let mut expect = Map::new();
        let mut add = |key: &str, value: Value| {
            expect.insert(key.to_owned(), value);
        };
        add("state", recording.state.as_str().into());
        add("clean", recording.clean.into());
        if let Some(reason) = &recording.reason {
            add("reason", reason.as_str().into());
        }
        let calls = self.calls();
        add("calls", calls.iter().map(|attempt| call_name(definition, attempt.seq, attempt.action)).collect());
        let mut undone: Vec<_> = recording.attempts.iter().filter(|attempt| attempt.action == Action::Undo && replies::is_undone(attempt)).collect();
        undone.sort_by_key(|attempt| attempt.finished_at);
        let compensated = recording.steps.iter().filter(|(_, _, compensation)| compensation == "compensated").count();
        if compensated == undone.len() {
            add("undone", undone.iter().map(|attempt| Value::from(definition.steps[attempt.seq].name.as_str())).collect());
        }
        let own = |kind: &&String| !kind.starts_with("human.");
        add("emitted", recording.published.iter().filter(own).map(|kind| Value::from(kind.as_str())).collect());
        let task = |task: &Asked| json!({"kind": task.kind, "step": definition.steps[task.seq].name});
        add("tasks", recording.tasks.iter().map(task).collect());
        let steps = recording.steps.iter().map(|(seq, status, _)| (definition.steps[*seq].name.clone(), Value::from(status.as_str())));
        add("steps", Value::Object(steps.collect()));
        expect
    }

    /// Calls in the order of their fences, which is that of their making whatever the clocks say; what has none stands where its time is.
    fn calls(&self) -> Vec<&Attempted> {
        let made = self.recording.attempts.iter().filter(|attempt| replies::is_call(&self.deployed.definition, attempt));
        let (mut calls, without): (Vec<_>, Vec<_>) = made.partition(|attempt| attempt.fence > 0);
        calls.sort_by_key(|attempt| attempt.fence);
        for attempt in without {
            let later = |call: &&Attempted| (call.started_at, call.seq) > (attempt.started_at, attempt.seq);
            let place = calls.iter().position(later).unwrap_or(calls.len());
            calls.insert(place, attempt);
        }
        calls
    }

    fn text(&self) -> String {
        let Recording { saga, event, .. } = self.recording;
        let definition = &self.deployed.definition;
        let mut text = format!("# Saga {saga} as it was, made by `hms-orch capture` on revision {}.\n", definition.revision);
        text.push_str("# The data of the event and of the replies are in here: look them over before you pass the file on.\n");
        for line in &self.left_out {
            text.push_str(&format!("# Not captured: {}\n", flow::comment(line)));
        }
        text.push_str(&format!("saga: {}\nscenarios:\n  - name: as it was on {}\n", flow::value(&Value::from(definition.id.as_str())), day(event)));
        text.push_str(&format!("    event: {}\n", flow::value(&deeds::event(event))));
        if self.is_queued() {
            text.push_str("    lock: busy\n");
        }
        if !self.answers.is_empty() {
            text.push_str("    calls:\n");
        }
        for ((seq, action), answers) in &self.answers {
            text.push_str(&format!("      {}:\n", call_name(definition, *seq, *action)));
            for answer in answers {
                text.push_str(&format!("        - {}\n", flow::value(answer)));
            }
        }
        if !self.at.is_empty() {
            text.push_str("    at:\n");
        }
        for deed in &self.at {
            text.push_str(&format!("      - {}\n", flow::value(deed)));
        }
        text.push_str("    expect:\n");
        let mut kept = self.expect.iter().filter(|(key, _)| !self.drop.contains(key)).collect::<Vec<_>>();
        kept.sort_by_key(|(key, _)| flow::rank(key));
        if kept.is_empty() {
            // A scenario expects something: that a saga starts is always true.
            text.push_str("      started: true\n");
        }
        for (key, value) in kept {
            text.push_str(&format!("      {key}: {}\n", flow::value(value)));
        }
        text
    }

    fn is_queued(&self) -> bool {
        deeds::waited_for_locks(self.deployed, self.recording)
    }
}

/// The day of an event.
fn day(event: &Event) -> String {
    deeds::time(event.created_at).chars().take(10).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
