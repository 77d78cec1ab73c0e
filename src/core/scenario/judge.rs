//! What was expected of a scenario and did not come true.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::compare::{has_parts, lists, parts, show};
use super::record::{Published, Record, Task};
use super::story::grouped;
use super::{At, Elapsed, Expect, Requests, Scenario, call_name};
use crate::core::definition::Definition;

/// An expectation that did not come true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where the expectation stands in the file.
    pub line: usize,
    /// Which it is: `state`, `calls`, ...
    pub what: String,
    /// What was expected and what was found, a line each.
    pub lines: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.what)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Compares what happened with what was expected, in the order of the file.
#[must_use]
pub fn judge(definition: &Definition, scenario: &Scenario, record: &Record) -> Vec<Difference> {
    let mut judge = Judge { definition, record, differences: Vec::new() };
    let expect = &scenario.expect;
    if let Some(problem) = &record.broken {
        judge.differ(scenario.line, "the scenario", vec![problem.clone()]);
    }
    if judge.start(scenario, expect) {
        judge.end(expect);
        judge.lists(expect);
        judge.requests(expect);
        judge.steps(expect);
        judge.commands(scenario);
    }
    judge.differences.sort_by_key(|difference| difference.line);
    judge.differences
}

struct Judge<'a> {
    definition: &'a Definition,
    record: &'a Record,
    differences: Vec<Difference>,
}

impl Judge<'_> {
    fn differ(&mut self, line: usize, what: impl Into<String>, lines: Vec<String>) {
        self.differences.push(Difference { line, what: what.into(), lines });
    }

    fn unlike(&mut self, line: usize, what: &str, expected: impl fmt::Display, found: impl fmt::Display) {
        self.differ(line, what, vec![format!("expected {expected}"), format!("found    {found}")]);
    }

    /// Whether a saga starts; false where the rest need not be looked at.
    fn start(&mut self, scenario: &Scenario, expect: &Expect) -> bool {
        let expected = expect.started.as_ref().is_none_or(|started| started.value);
        let line = expect.started.as_ref().map_or(scenario.line, |started| started.line);
        match &self.record.why_not {
            Some(why) if expected => self.unlike(line, "started", "a saga to start", format_args!("none: {why}")),
            None if !expected => self.unlike(line, "started", "no saga to start", format_args!("one: {}", self.record.saga.state.as_str())),
            _ => {}
        }
        if let (Some(At { line, value }), Some(why)) = (&expect.why, &self.record.why_not)
            && !why.contains(value.as_str())
        {
            self.unlike(*line, "why", format_args!("… {value} …"), why);
        }
        expected && self.record.why_not.is_none()
    }

    fn end(&mut self, expect: &Expect) {
        let saga = &self.record.saga;
        let waits = if saga.state.is_terminal() { None } else { saga.waiting_for() };
        let reason = saga.reason.as_deref();
        if let Some(At { line, value }) = &expect.state
            && *value != saga.state
        {
            let waits = waits.map(|what| format!(", waits for {what} for ever")).unwrap_or_default();
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            self.unlike(*line, "state", value.as_str(), format_args!("{}{waits}{reason}", saga.state.as_str()));
        }
        if let Some(At { line, value }) = &expect.clean
            && *value != saga.clean
        {
            self.unlike(*line, "clean", value, saga.clean);
        }
        if let Some(At { line, value }) = &expect.reason
            && !reason.is_some_and(|reason| reason.contains(value.as_str()))
        {
            self.unlike(*line, "reason", format_args!("… {value} …"), reason.unwrap_or("none"));
        }
        if let Some(At { line, value }) = &expect.waiting_for
            && waits != Some(value.as_str())
        {
            let found = waits.map_or_else(|| format!("nothing: it is {}", saga.state.as_str()), str::to_owned);
            self.unlike(*line, "waitingFor", value, found);
        }
        if let Some(At { line, value }) = &expect.elapsed {
            let found = self.record.elapsed;
            let fits = value.least.is_none_or(|least| found >= least) && value.most.is_none_or(|most| found <= most);
            if !fits {
                self.unlike(*line, "elapsedMs", limits(*value), millis(found));
            }
        }
    }

    fn lists(&mut self, expect: &Expect) {
        if let Some(At { line, value }) = &expect.calls {
            let found: Vec<_> = self.record.calls.iter().map(|made| call_name(self.definition, made.seq, made.action)).collect();
            let lines = lists(value, &found, |left, right| value[left] == found[right]);
            self.differ_if(*line, "calls", lines);
        }
        if let Some(At { line, value }) = &expect.undone {
            let found: Vec<_> = self.record.undone.iter().map(|seq| self.definition.steps[*seq].name.clone()).collect();
            let lines = lists(value, &found, |left, right| value[left] == found[right]);
            self.differ_if(*line, "undone", lines);
        }
        if let Some(At { line, value }) = &expect.emitted {
            // Of types that nobody names nothing is expected.
            let named = |event: &&Published| value.iter().any(|expected| expected["type"] == event.kind.as_str());
            let found: Vec<_> = self.record.published.iter().filter(named).map(Published::as_json).collect();
            self.documents(*line, "emitted", value, &found);
        }
        if let Some(At { line, value }) = &expect.tasks {
            let found: Vec<_> = self.record.tasks.iter().map(|task| Task::as_json(task, self.definition)).collect();
            self.documents(*line, "tasks", value, &found);
        }
    }

    fn differ_if(&mut self, line: usize, what: &str, lines: Vec<String>) {
        if !lines.is_empty() {
            self.differ(line, what, lines);
        }
    }

    /// Lists of documents of which only parts are expected. What was found is shown with the parts that anybody asks for.
    fn documents(&mut self, line: usize, what: &str, expected: &[Value], found: &[Value]) {
        let asked = |document: &Value| {
            let fields = document.as_object().into_iter().flatten();
            let asked = |name: &&String| expected.iter().any(|document| document.get(name).is_some());
            let shown: Map<_, _> = fields.filter(|(name, _)| asked(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
            show(&if shown.is_empty() { document.clone() } else { Value::Object(shown) })
        };
        let (left, right): (Vec<_>, Vec<_>) = (expected.iter().map(show).collect(), found.iter().map(asked).collect());
        let lines = lists(&left, &right, |left, right| has_parts(&expected[left], &found[right]));
        self.differ_if(line, what, lines);
    }

    fn requests(&mut self, expect: &Expect) {
        for At { line, value: (name, requests) } in &expect.requests {
            let made = self.record.calls.iter().filter(|made| call_name(self.definition, made.seq, made.action) == *name);
            let found: Vec<&Value> = made.map(|made| &made.request).collect();
            let mut differences = Vec::new();
            match requests {
                Requests::All(_) if found.is_empty() => differences.push("was never called".to_owned()),
                Requests::All(expected) => {
                    for (index, request) in found.iter().enumerate() {
                        parts(&format!("attempt {}", index + 1), expected, request, &mut differences);
                    }
                }
                Requests::Each(list) => {
                    for (index, expected) in list.iter().enumerate() {
                        match found.get(index) {
                            Some(request) => parts(&format!("attempt {}", index + 1), expected, request, &mut differences),
                            None => differences.push(format!("attempt {} was not made", index + 1)),
                        }
                    }
                }
            }
            self.differ_if(*line, &format!("requests.{name}"), differences);
        }
    }

    fn steps(&mut self, expect: &Expect) {
        for At { line, value: (name, expected) } in &expect.steps {
            let Some(seq) = self.definition.steps.iter().position(|step| step.name == *name) else { continue };
            let mut differences = Vec::new();
            parts("", expected, &self.record.step(seq), &mut differences);
            self.differ_if(*line, &format!("steps.{name}"), differences);
        }
    }

    /// An order or decision that is refused is a mistake of the scenario, unless it says so.
    fn commands(&mut self, scenario: &Scenario) {
        for (index, deed) in scenario.deeds.iter().enumerate() {
            let Some(command) = self.record.commands.iter().find(|command| command.deed == index) else { continue };
            match (&deed.refused, &command.refused) {
                (None, Some(why)) => self.unlike(deed.line, "at", "to be applied", format_args!("refused: {why}")),
                (Some(expected), None) => self.unlike(deed.line, "at", format_args!("to be refused: {expected}"), "applied"),
                (Some(expected), Some(why)) if !why.contains(expected.as_str()) => {
                    self.unlike(deed.line, "at", format_args!("to be refused: … {expected} …"), format_args!("refused: {why}"));
                }
                _ => {}
            }
        }
    }
}

fn millis(time: Duration) -> String {
    format!("{} ms", grouped(time.as_millis()))
}

fn limits(elapsed: Elapsed) -> String {
    match (elapsed.least, elapsed.most) {
        (Some(least), Some(most)) if least == most => millis(least),
        (Some(least), Some(most)) => format!("{} to {}", millis(least), millis(most)),
        (Some(least), None) => format!("at least {}", millis(least)),
        (None, Some(most)) => format!("at most {}", millis(most)),
        (None, None) => "any time".to_owned(),
    }
}
