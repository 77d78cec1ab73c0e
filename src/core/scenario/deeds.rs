//! What people, operators and events do in a scenario, at times of their own.

use serde_json::json;
use uuid::Uuid;

use super::record::{Command, TaskStatus};
use super::world::{Coming, World};
use super::{Deed, Doing};
use crate::core::definition::Work;
use crate::core::failure;
use crate::core::form;
use crate::core::human::{Decided, Decision, TaskKind};
use crate::core::machine::Input;
use crate::core::order::{Answer, Order};
use crate::core::payload::Payload;
use crate::core::reply::line;

impl World<'_> {
    /// Does one deed. What became of an order or decision is recorded.
    pub(super) fn do_deed(&mut self, index: usize) {
        let Deed { what, .. } = &self.scenario.deeds[index];
        match what {
            Doing::Event(event) => self.arrive(event),
            Doing::LockGranted => {
                self.tell("saga", "holds its locks");
                self.apply(Input::Locked);
            }
            Doing::WorkerDies => {
                self.tell("worker", "dies; another one takes the saga over");
                self.apply(Input::TakenOver);
            }
            Doing::Park(service) => {
                self.tell(service, "is parked");
                self.parked.insert(service.clone());
            }
            Doing::Unpark(service) => {
                self.tell(service, "takes calls again");
                self.parked.remove(service);
                self.apply(Input::Reopened(service.clone()));
            }
            Doing::Order { order, by, reason } => {
                let reason = line(&failure::ordered(*order, by, reason));
                self.tell("operator", reason.clone());
                self.order(Some(index), *order, reason);
            }
            Doing::Decide { seq, kind, decision, by, note, output } => {
                let answer = self.decide(*seq, *kind, *decision, by, note, output.as_ref());
                self.answered(Some(index), answer);
            }
        }
    }

    /// Gives an order; one that is deferred is given again when something has changed.
    pub(super) fn order(&mut self, deed: Option<usize>, order: Order, reason: String) {
        match self.apply(Input::Ordered { order, reason: reason.clone() }) {
            Some(Answer::Deferred) => self.defer(Coming::Order { deed, order, reason }),
            answer => self.answered(deed, answer),
        }
    }

    fn answered(&mut self, deed: Option<usize>, answer: Option<Answer>) {
        let refused = if let Some(Answer::Refused(why)) = answer { Some(why) } else { None };
        if let Some(why) = &refused {
            self.tell("", format!("refused: {why}"));
        }
        self.record.commands.extend(deed.map(|deed| Command { deed, refused }));
    }

    fn decide(&mut self, seq: usize, kind: Option<TaskKind>, decision: Decision, by: &str, note: &str, output: Option<&Payload>) -> Option<Answer> {
        let name = &self.definition.steps[seq].name;
        self.tell(name, format!("{by} decides: {}", decision.as_str()));
        let fits = |open: TaskKind| kind.is_none_or(|kind| kind == open) && open.decisions().contains(&decision);
        let Some(index) = self.open_task(seq, fits) else {
            return Some(Answer::Refused(self.why_no_task(seq, decision)));
        };
        let task = &self.record.tasks[index].task;
        let kind = task.kind;
        if task.four_eyes && self.scenario.event.source == by {
            return Some(Answer::Refused(format!("whoever published the event may not decide: {by} did")));
        }
        let form = task.form.as_ref().filter(|_| decision == Decision::Approve);
        if let Some(Err(findings)) = form.map(|form| form::validate(form, output.map(Payload::value))) {
            return Some(Answer::Refused(format!("the form is not filled in as it asks: {}", findings.join("; "))));
        }
        let seen = matches!(kind, TaskKind::LateEffect | TaskKind::ConsecutiveFailures)
            || self.record.saga.state.is_terminal() && decision == Decision::Compensate;
        let answer = if seen {
            Answer::Applied("seen".to_owned())
        } else {
            let decided =
                Decided { task: Uuid::nil(), kind, seq: Some(seq), decision, by: by.to_owned(), note: note.to_owned(), output: output.cloned() };
            self.record.tasks[index].status = TaskStatus::Decided;
            self.apply(Input::Decided(decided)).unwrap_or(Answer::Applied(String::new()))
        };
        let task = &mut self.record.tasks[index];
        if matches!(answer, Answer::Applied(_)) {
            (task.status, task.decided) = (TaskStatus::Decided, Some((by.to_owned(), decision.as_str())));
            let told = json!({"kind": kind.as_str(), "decision": decision.as_str(), "by": by, "note": note});
            self.publish_task("human.task.decided", seq, note, &told);
        } else {
            task.status = TaskStatus::Open;
        }
        Some(answer)
    }

    fn why_no_task(&self, seq: usize, decision: Decision) -> String {
        let name = &self.definition.steps[seq].name;
        let Some(task) = self.record.tasks.iter().rev().find(|task| task.task.seq == seq) else {
            let hint = if matches!(self.definition.steps[seq].work, Work::Human(_)) { " yet" } else { "" };
            return format!("{name} has asked nobody{hint}");
        };
        let kind = task.task.kind;
        match (task.status, &task.decided) {
            (TaskStatus::Open, _) => {
                let words: Vec<_> = kind.decisions().iter().map(|decision| decision.as_str()).collect();
                format!("a task of kind {} takes {}, not {}", kind.as_str(), words.join(", "), decision.as_str())
            }
            (_, Some((by, _))) => format!("the task of {name} is decided already, by {by}"),
            _ => format!("the task of {name} is withdrawn"),
        }
    }
}
