//! The virtual world of one scenario: a clock, a queue of what is to come, and the machine in between.
//!
//! Invariant: the same scenario always happens in the same way. What was planned first happens first among what happens at one
//! time, and what happens comes before what is merely due.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::events::Arrived;
use super::record::{Finished, Made, Published, Record, shown};
use super::{Scenario, call_name};
use crate::core::call::{Reply, Sending};
use crate::core::definition::{Definition, Work};
use crate::core::machine::{self, Advance, Emission, Input};
use crate::core::matching::{Catalog, Deployed, Verdict};
use crate::core::order::{Answer, Order};
use crate::core::outcome::{Action, Class, Outcome};
use crate::core::reply::CallbackEnd;
use crate::core::saga::{Compensation, Locks, Saga, SagaState, Wait};
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

/// The state of a scenario that is being played.
pub(super) struct World<'a> {
    pub(super) definition: &'a Definition,
    pub(super) catalog: &'a Catalog,
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
    pub(super) waits: HashMap<usize, String>,
    /// Events that arrived.
    pub(super) arrived: Vec<Arrived>,
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
            finished: Vec::new(),
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
            self.record.elapsed = self.since_the_beginning();
        }
        let at = self.since_the_beginning();
        let finished = advance.attempts.iter().map(|attempt| Finished { seq: attempt.seq, action: attempt.action, number: attempt.number, at });
        self.record.finished.extend(finished);
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
        let (number, at) = (self.record.saga.steps[seq].attempt(action), self.since_the_beginning());
        self.record.calls.push(Made { seq, action, number, at, request });
    }

    pub(super) fn since_the_beginning(&self) -> Duration {
        self.now.since(self.scenario.event.created_at)
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

    /// An order that is deferred is given again after the next change.
    pub(super) fn defer(&mut self, order: Coming) {
        self.deferred.push(order);
    }

    fn finish(mut self) -> Record {
        if self.record.broken.is_none() && self.record.why_not.is_none() && !self.record.saga.state.is_terminal() {
            let what = self.record.saga.waiting_for().unwrap_or("nothing");
            self.tell("saga", format!("{}: waits for {what} for ever", self.record.saga.state.as_str()));
        }
        self.record
    }
}
