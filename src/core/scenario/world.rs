//! The virtual world of one scenario: a clock, a queue of what is to come, and the machine in between.
//!
//! Invariant: the same scenario always happens in the same way. What was planned first happens first among what happens at one
//! time, and what happens comes before what is merely due.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::record::{Made, Published, Record, Task, TaskStatus};
use super::story::Moment;
use super::{Scenario, call_name};
use crate::core::call::{Reply, Sending};
use crate::core::definition::{Definition, Work};
use crate::core::event::Event;
use crate::core::expression::Scope;
use crate::core::human::{NewTask, TaskKind};
use crate::core::machine::{self, Advance, Emission, Input, TaskChange};
use crate::core::matching::{Catalog, Deployed, Verdict, wait_key};
use crate::core::order::{Answer, Order};
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::reply::CallbackEnd;
use crate::core::request::{scope, steps_scope};
use crate::core::saga::{Compensation, Locks, Saga, SagaState, StepStatus, Wait};
use crate::core::time::Timestamp;
use crate::core::{emission, ending, reply, request};

/// Decides within the jitter of a retry: the delay as it is written.
const CHANCE: f64 = 0.5;
/// More happenings than this are a loop.
const TURNS_MAX: usize = 200_000;
/// Whatever is due later than this never comes: fifty years.
pub(super) const FOR_EVER: Duration = Duration::from_secs(50 * 365 * 24 * 3600);

/// Plays a scenario to its end: until nothing is to come and nothing is due.
#[must_use]
pub fn run(deployed: &Arc<Deployed>, scenario: &Scenario) -> Record {
    let catalog = Catalog::new(0, vec![Arc::clone(deployed)], &[]);
    // The router asks in the same way.
    let verdict = catalog.ask(&scenario.event).next().map(|(_, verdict)| verdict);
    let mut world = World::new(&deployed.definition, &catalog, scenario);
    match verdict {
        Some(Verdict::Start(_, keys)) => {
            world.record.saga.locks = match keys {
                None => Locks::None,
                Some(_) if scenario.lock_busy => Locks::Queued,
                Some(_) => Locks::Held,
            };
            world.play();
        }
        Some(Verdict::Reject(reason)) => world.reject(reason),
        Some(Verdict::Pass(reason) | Verdict::Error(reason)) => world.record.why_not = Some(reason),
        None => {
            let Definition { id, trigger, .. } = &deployed.definition;
            world.record.why_not = Some(format!("{id} is started by {}, not by {}", trigger.join(" or "), scenario.event.kind));
        }
    }
    world.finish()
}

/// What is to come.
#[derive(Debug)]
pub(super) enum Coming {
    /// A reply to an attempt.
    Reply { seq: usize, action: Action, attempt: u32, reply: Reply },
    /// An attempt that ended without a call.
    Judged { seq: usize, action: Action, attempt: u32, outcome: Outcome },
    /// The end of what a step waits for.
    Ended { seq: usize, action: Action, wait: Wait, outcome: Outcome },
    /// A callback.
    Callback { seq: usize, action: Action, end: CallbackEnd },
    /// A heartbeat, and when the next ones are.
    Heartbeat { seq: usize, every: Duration, until: Timestamp },
    /// One of the scenario's deeds.
    Deed(usize),
    /// An order: a deed's, or an event's.
    Order { deed: Option<usize>, order: Order, reason: String },
}

/// An event that arrived.
struct Arrived {
    event: Event,
    /// What it is found by.
    keys: Vec<String>,
    /// Steps that took it.
    taken: HashSet<usize>,
}

/// The state of a scenario that is being played.
pub(super) struct World<'a> {
    pub(super) definition: &'a Definition,
    catalog: &'a Catalog,
    pub(super) scenario: &'a Scenario,
    pub(super) record: Record,
    pub(super) now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Coming>,
    planned: u64,
    fence: i64,
    /// Answers given so far.
    pub(super) answered: HashMap<(usize, Action), usize>,
    /// Undos by event that were asked for, by their attempt.
    acknowledging: HashMap<usize, u32>,
    /// What waiting steps look for.
    waits: HashMap<usize, String>,
    /// Events that arrived.
    arrived: Vec<Arrived>,
    /// Services that take no calls.
    pub(super) parked: HashSet<String>,
    /// Orders to be given again after each change.
    deferred: Vec<Coming>,
}

impl<'a> World<'a> {
    fn new(definition: &'a Definition, catalog: &'a Catalog, scenario: &'a Scenario) -> Self {
        let saga = Saga::new(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001), definition.steps.len());
        let record = Record {
            why_not: None,
            saga,
            calls: Vec::new(),
            undone: Vec::new(),
            published: Vec::new(),
            tasks: Vec::new(),
            commands: Vec::new(),
            story: Vec::new(),
            elapsed: Duration::ZERO,
            broken: None,
        };
        Self {
            definition,
            catalog,
            scenario,
            record,
            now: scenario.event.created_at,
            queue: BTreeMap::new(),
            planned: 0,
            fence: 0,
            answered: HashMap::new(),
            acknowledging: HashMap::new(),
            waits: HashMap::new(),
            arrived: Vec::new(),
            parked: HashSet::new(),
            deferred: Vec::new(),
        }
    }

    fn reject(&mut self, reason: String) {
        self.record.saga.state = SagaState::Rejected;
        self.record.saga.reason = Some(reason);
        self.publish(&Emission::Ended(SagaState::Rejected));
        self.tell_state();
    }

    fn play(&mut self) {
        let begin = self.now;
        for (index, deed) in self.scenario.deeds.iter().enumerate() {
            self.plan(begin.plus(deed.after), Coming::Deed(index));
        }
        self.apply(Input::Start);
        for _ in 0..TURNS_MAX {
            let due = if self.record.saga.state.is_terminal() { None } else { self.record.saga.next_due() };
            let due = due.map(|due| due.max(self.now)).filter(|due| due.since(begin) < FOR_EVER);
            match (self.queue.first_key_value().map(|((at, _), _)| *at), due) {
                (Some(at), due) if due.is_none_or(|due| at <= due) => {
                    let Some((_, coming)) = self.queue.pop_first() else { return };
                    self.now = at;
                    self.happen(coming);
                }
                (_, Some(due)) => {
                    self.now = due;
                    let before = self.record.saga.clone();
                    self.apply(Input::Due);
                    if before == self.record.saga {
                        self.record.broken = Some("the machine asks for a time at which it has nothing to do: please report this".to_owned());
                        return;
                    }
                }
                (_, None) => return,
            }
        }
        self.record.broken = Some(format!("does not come to rest after {TURNS_MAX} happenings"));
    }

    /// Plans something; nothing lies in the past.
    pub(super) fn plan(&mut self, at: Timestamp, coming: Coming) {
        self.planned += 1;
        self.queue.insert((at.max(self.now), self.planned), coming);
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Reply { seq, action, attempt, reply } => {
                let outcome = reply::judge(self.definition, &self.record.saga, &self.scenario.event, seq, action, reply);
                self.apply(Input::Reply { seq, action, attempt, outcome: Box::new(outcome) });
            }
            Coming::Judged { seq, action, attempt, outcome } => {
                self.apply(Input::Reply { seq, action, attempt, outcome: Box::new(outcome) });
            }
            Coming::Ended { seq, action, wait, outcome } => {
                self.apply(Input::Ended { seq, action, wait, outcome: Box::new(outcome) });
            }
            Coming::Callback { seq, action, end } => {
                self.tell(&call_name(self.definition, seq, action), if end.ok { "callback: ok" } else { "callback: error" });
                if self.record.saga.state.is_terminal() {
                    self.tell_of_late_effect(seq, action, end.ok);
                    return;
                }
                let outcome = reply::callback(self.definition, &self.record.saga, &self.scenario.event, seq, action, end);
                self.apply(Input::Ended { seq, action, wait: Wait::Callback, outcome: Box::new(outcome) });
            }
            Coming::Heartbeat { seq, every, until } => {
                let step = &mut self.record.saga.steps[seq];
                if step.waits_for() == Some(Wait::Callback) {
                    step.beat_at = Some(self.now);
                    let next = self.now.plus(every);
                    if next <= until {
                        self.plan(next, Coming::Heartbeat { seq, every, until });
                    }
                }
            }
            Coming::Deed(index) => self.do_deed(index),
            Coming::Order { deed, order, reason } => self.order(deed, order, reason),
        }
    }

    /// Asks the machine, and does what follows from its answer.
    pub(super) fn apply(&mut self, input: Input) -> Option<Answer> {
        let state = self.record.saga.state;
        let advance = machine::advance(self.definition, &self.scenario.event, &mut self.record.saga, input, self.now, CHANCE);
        let answer = advance.answer.clone();
        if advance.stale {
            return answer;
        }
        let changed = state != self.record.saga.state || !advance.steps.is_empty() || !advance.emissions.is_empty();
        if changed {
            self.record.elapsed = self.now.since(self.scenario.event.created_at);
        }
        self.tell_attempts(&advance);
        if state != self.record.saga.state {
            self.tell_state();
        }
        if changed {
            // Before anything that follows: what is asked again finds the saga as this change left it.
            for order in std::mem::take(&mut self.deferred) {
                self.plan(self.now, order);
            }
        }
        self.follow(advance);
        answer
    }

    fn follow(&mut self, advance: Advance) {
        for seq in advance.steps {
            let step = &self.record.saga.steps[seq];
            if step.compensation == Compensation::Compensated && !self.record.undone.contains(&seq) {
                self.record.undone.push(seq);
            }
            if step.undo_waits_for() == Some(Wait::Event) && self.acknowledging.insert(seq, step.undo_attempts) != Some(step.undo_attempts) {
                self.made(seq, Action::Undo, Value::Null);
                self.answer(seq, Action::Undo, None);
            }
        }
        for emission in &advance.emissions {
            self.publish(emission);
        }
        for change in advance.tasks {
            self.change_task(change);
        }
        for (seq, order) in advance.child_orders {
            self.order_child(seq, order);
        }
        let calls = advance.calls.into_iter().map(|(seq, action)| (seq, action, false));
        let mut begun: Vec<_> = calls.chain(advance.children.into_iter().map(|(seq, action)| (seq, action, true))).collect();
        // What begins at once begins in the order of the definition.
        begun.sort_by_key(|(seq, ..)| self.record.saga.steps[*seq].order);
        for (seq, action, is_child) in begun {
            if is_child {
                self.tell(&call_name(self.definition, seq, action), "starts a child saga");
                self.made(seq, action, Value::Null);
                self.answer(seq, action, None);
            } else {
                self.call(seq, action);
            }
        }
        self.look_at_waits();
    }

    /// Makes a call: the request is really built, so every template in it is evaluated.
    fn call(&mut self, seq: usize, action: Action) {
        self.fence += 1;
        self.record.saga.steps[seq].fence = self.fence;
        let attempt = self.record.saga.steps[seq].attempt(action);
        let name = call_name(self.definition, seq, action);
        match request::build(self.definition, &self.record.saga, &self.scenario.event, seq, action) {
            Ok(None) => {}
            Ok(Some(Sending::Call(call))) if self.parked.contains(&call.service) => {
                self.tell(&name, format!("waits for {}, which is parked", call.service));
                self.plan(self.now, Coming::Reply { seq, action, attempt, reply: Reply::Parked(FOR_EVER) });
            }
            Ok(Some(sending)) => {
                let (request, line, timeout) = shown(&sending);
                self.tell(&name, format!("{line} (attempt {attempt})"));
                self.made(seq, action, request);
                self.answer(seq, action, Some((attempt, timeout)));
            }
            Err(problem) => {
                let outcome = Outcome::without_reply(Class::Refused, format!("the call could not be made: {problem}"));
                self.plan(self.now, Coming::Judged { seq, action, attempt, outcome });
            }
        }
    }

    fn made(&mut self, seq: usize, action: Action, request: Value) {
        self.record.calls.push(Made { seq, action, request });
    }

    /// A child does as it is told, at once.
    fn order_child(&mut self, seq: usize, order: Order) {
        self.queue.retain(|_, coming| !matches!(coming, Coming::Ended { seq: other, wait: Wait::Child, .. } if *other == seq));
        let Work::Saga(child) = &self.definition.steps[seq].work else { return };
        let state = if order == Order::Abort { SagaState::Aborted } else { SagaState::Cancelled };
        let reason = self.record.saga.reason.clone().unwrap_or_else(|| "its parent ends".to_owned());
        let end = ending::ChildEnd { saga: Uuid::from_u128(2), state, clean: order != Order::Abort, reason: Some(reason) };
        let outcome = ending::of_child(child, Action::Do, &end);
        self.plan(self.now, Coming::Ended { seq, action: Action::Do, wait: Wait::Child, outcome });
    }

    fn publish(&mut self, emission: &Emission) {
        let data = emission::data(self.definition, &self.record.saga, emission);
        let topic = if let Emission::Published(publication) = emission { Some(publication.topic.clone()) } else { None };
        let kind = emission::kind(emission).into_owned();
        self.tell("event", &kind);
        self.record.published.push(Published { kind, topic, data: serde_json::from_str(&data).unwrap_or(Value::Null) });
    }

    /// What people are told of a task goes into the ledger as well.
    pub(super) fn publish_task(&mut self, kind: &str, seq: usize, reason: &str, task: &Value) {
        let step = json!({"name": self.definition.steps[seq].name, "context": null});
        let data = json!({"sagaId": self.record.saga.id, "definition": self.definition.id, "reason": reason, "step": step, "task": task});
        self.record.published.push(Published { kind: kind.to_owned(), topic: None, data });
    }

    fn change_task(&mut self, change: TaskChange) {
        match change {
            TaskChange::Open(task) => {
                let told = json!({"kind": task.kind.as_str(), "queue": task.queue, "prompt": task.prompt, "assignee": task.assignee});
                self.publish_task("human.task.opened", task.seq, &task.reason, &told);
                let asks = task.prompt.as_deref().unwrap_or(&task.reason);
                let line = format!("opens a human task: {} ({asks})", task.kind.as_str());
                self.tell(&self.definition.steps[task.seq].name, line);
                self.record.tasks.push(Task { task: *task, status: TaskStatus::Open, decided: None });
            }
            TaskChange::Withdraw { seq, kind } => {
                if let Some(index) = self.open_task(seq, |open| open == kind) {
                    self.record.tasks[index].status = TaskStatus::Withdrawn;
                    self.tell(&self.definition.steps[seq].name, format!("the task {} is withdrawn", kind.as_str()));
                }
            }
        }
    }

    /// A success that comes when the saga has ended is a question to people, as the database asks it.
    fn tell_of_late_effect(&mut self, seq: usize, action: Action, ok: bool) {
        let done = self.record.saga.steps[seq].status == StepStatus::Succeeded;
        if !ok || action != Action::Do || done || self.open_task(seq, |kind| kind == TaskKind::LateEffect).is_some() {
            return;
        }
        let (name, state) = (&self.definition.steps[seq].name, self.record.saga.state.as_str());
        let task = NewTask {
            kind: TaskKind::LateEffect,
            seq,
            queue: self.definition.hitl.queue.clone(),
            reason: format!("{name} reported success after it had been given up, and the saga is {state}"),
            prompt: None,
            form: None,
            assignee: None,
            four_eyes: false,
            due_at: None,
        };
        self.change_task(TaskChange::Open(Box::new(task)));
    }

    /// The open task of a step, of a kind that will do.
    pub(super) fn open_task(&self, seq: usize, fits: impl Fn(TaskKind) -> bool) -> Option<usize> {
        self.record.tasks.iter().rposition(|task| task.status == TaskStatus::Open && task.task.seq == seq && fits(task.task.kind))
    }

    /// An order that is deferred is given again after the next change.
    pub(super) fn defer(&mut self, order: Coming) {
        self.deferred.push(order);
    }

    /// Steps that begin to wait for an event look back to the one that started the saga.
    fn look_at_waits(&mut self) {
        for (seq, step) in self.definition.steps.iter().enumerate() {
            let Work::Wait(wait) = &step.work else { continue };
            if self.record.saga.steps[seq].waits_for() != Some(Wait::Event) {
                self.waits.remove(&seq);
            } else if !self.waits.contains_key(&seq) {
                let views = steps_scope(self.definition, &self.record.saga);
                let scope = scope(self.definition, &self.record.saga, &self.scenario.event, &views);
                let key = wait_key(wait.matching.as_ref(), &scope);
                match key {
                    Ok(key) => {
                        self.waits.insert(seq, key);
                        (0..self.arrived.len()).any(|index| self.offer(seq, index));
                    }
                    Err(error) => {
                        self.waits.insert(seq, String::new());
                        self.plan_end(seq, ending::of_broken_match(&error.to_string()));
                    }
                }
            }
        }
    }

    fn plan_end(&mut self, seq: usize, outcome: Outcome) {
        self.plan(self.now, Coming::Ended { seq, action: Action::Do, wait: Wait::Event, outcome });
    }

    /// Offers an event that has arrived to a waiting step; true if it was taken.
    fn offer(&mut self, seq: usize, index: usize) -> bool {
        let Work::Wait(wait) = &self.definition.steps[seq].work else { return false };
        let (Some(key), arrived) = (self.waits.get(&seq), &mut self.arrived[index]) else { return false };
        if arrived.event.kind != wait.event || arrived.taken.contains(&seq) || !key.is_empty() && !arrived.keys.contains(key) {
            return false;
        }
        let matching = wait.matching.as_ref();
        let outcome = ending::of_event(self.definition, &self.record.saga, &self.scenario.event, matching, &arrived.event);
        let Some(outcome) = outcome else { return false };
        arrived.taken.insert(seq);
        self.plan_end(seq, outcome);
        true
    }

    /// An event arrives: whoever waits for it takes it, and it may cancel the saga.
    pub(super) fn arrive(&mut self, event: &Event) {
        let event = Event { created_at: self.now, ..event.clone() };
        self.tell("event", format!("{} arrives", event.kind));
        let keys = self.catalog.keys_of(&event).unwrap_or_default();
        if self.cancels(&event, &keys) {
            self.order(None, Order::Cancel, format!("cancelled by the event {} {}", event.kind, event.id));
        }
        self.arrived.push(Arrived { event, keys, taken: HashSet::new() });
        for seq in 0..self.definition.steps.len() {
            self.offer(seq, self.arrived.len() - 1);
        }
    }

    /// Whether `cancelOn` means this event. What cannot be evaluated cancels nothing.
    fn cancels(&self, event: &Event, keys: &[String]) -> bool {
        let scope = Scope::of_event(&self.scenario.event);
        self.definition.cancel_on.iter().filter(|cancel| cancel.event == event.kind).any(|cancel| {
            let matching = cancel.matching.as_ref();
            let found = wait_key(matching, &scope).is_ok_and(|key| key.is_empty() || keys.contains(&key));
            found && ending::fits(self.definition, &self.record.saga, &self.scenario.event, matching, event).unwrap_or(false)
        })
    }

    fn finish(mut self) -> Record {
        if self.record.broken.is_none() && self.record.why_not.is_none() && !self.record.saga.state.is_terminal() {
            let what = self.record.saga.waiting_for().unwrap_or("nothing");
            self.tell("saga", format!("{}: waits for {what} for ever", self.record.saga.state.as_str()));
        }
        self.record
    }

    /// Adds a line to the story.
    pub(super) fn tell(&mut self, who: &str, what: impl Into<String>) {
        let at = self.now.since(self.scenario.event.created_at);
        self.record.story.push(Moment { at, who: who.to_owned(), what: what.into() });
    }

    fn tell_attempts(&mut self, advance: &Advance) {
        for attempt in &advance.attempts {
            let (outcome, said) = (&attempt.outcome, attempt.outcome.error.as_ref().or(attempt.outcome.message.as_ref()));
            let said = said.map(|said| format!(": {said}")).unwrap_or_default();
            self.tell(&call_name(self.definition, attempt.seq, attempt.action), format!("{}{said}", outcome.as_str()));
        }
    }

    fn tell_state(&mut self) {
        let saga = &self.record.saga;
        let reason = saga.reason.as_ref().filter(|_| saga.state != SagaState::Compensating).map(|reason| format!(": {reason}")).unwrap_or_default();
        self.tell("saga", format!("{}{reason}", saga.state.as_str()));
    }
}

/// A request as scenarios write it, the line that tells of it, and the limit of the attempt.
fn shown(sending: &Sending) -> (Value, String, Duration) {
    let document = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes)));
    match sending {
        Sending::Call(call) => {
            let headers: serde_json::Map<_, _> = call.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
            let request = json!({
                "service": call.service, "method": call.method, "path": call.path, "headers": headers, "body": document(&call.body),
            });
            (request, format!("{} {}:{}", call.method, call.service, call.path), call.timeout)
        }
        Sending::Function(call) => {
            let request = json!({"function": call.function, "body": document(call.argument.as_bytes())});
            (request, call.function.clone(), call.timeout)
        }
    }
}
