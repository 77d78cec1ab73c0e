//! Random sagas of the whole language.

use std::time::Duration;

use syncor::core::definition::{
    Call, Compensate, CompensateOn, Dedupe, DedupeAfter, Definition, Emit, Group, Hitl, Human, Lock, LockMode, Node, OnBranchFailure,
    OnCompensationFailure, OnExhausted, Otherwise, Retry, Sql, Step, StepKind, Undo, Verify, Wait, Work,
};
use syncor::core::event::Event;
use syncor::core::expression::{Expression, Root};
use syncor::core::payload::Payload;
use syncor::core::template::Template;
use syncor::core::time::Timestamp;
use uuid::Uuid;

use super::chance::Chance;

/// What the call of a step may name.
const CALL_ROOTS: [Root; 4] = [Root::Data, Root::Event, Root::Saga, Root::Steps];

/// A saga, before it is a definition. Times are milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub steps: Vec<StepPlan>,
    pub flow: Tree,
    pub limit: Option<u32>,
    /// `compensation.onFailure: continue`
    pub undo_goes_on: bool,
    pub hitl_after: u32,
    pub lock: Option<LockPlan>,
}

#[derive(Clone, Copy, Debug)]
pub struct LockPlan {
    pub aborts: bool,
    pub limit: Option<u32>,
}

#[derive(Clone, Debug)]
pub enum Tree {
    Leaf(usize),
    Chain(Vec<Self>),
    Fan { branches: Vec<Self>, max: usize, waits: bool },
}

impl Default for Tree {
    fn default() -> Self {
        Self::Chain(Vec::new())
    }
}

#[derive(Clone, Debug)]
pub struct StepPlan {
    pub task: Task,
    pub wanted: Wanted,
    pub road: Road,
    pub tries: u32,
    pub backoff: Backoff,
    pub timeout: u32,
    pub limit: Option<u32>,
    pub silence: Option<u32>,
    pub verify: bool,
    pub used_up: UsedUp,
    pub undo: Option<UndoPlan>,
    /// Succeeded, unknown, failed.
    pub undone_if: [bool; 3],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Task {
    Call,
    Callback,
    Function,
    Emit { broken: bool },
    Event { limit: Option<u32>, then: Else },
    Delay(u32),
    Until { at: u32, broken: bool },
    Human { limit: Option<u32>, then: Else, rejected: Else, broken: bool },
    Child,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Else {
    Fail,
    Ask,
    LeaveOut,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    Always,
    Yes,
    No,
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Road {
    Plain,
    Pivot,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UsedUp {
    GoBack,
    Ask,
    GoOn,
}

#[derive(Clone, Copy, Debug)]
pub struct UndoPlan {
    pub how: UndoBy,
    pub tries: u32,
    pub backoff: Backoff,
    pub timeout: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UndoBy {
    Call,
    Function,
    Event,
}

#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub base: u32,
    pub multiplier: f64,
    pub cap: u32,
    pub jitter: f64,
}

impl Backoff {
    fn draw(chance: &mut Chance) -> Self {
        let base = chance.one_of(&[100, 1, 1999]);
        let multiplier = chance.one_of(&[1.0, 2.0, 3.0]);
        Self { base, multiplier, cap: base * (1 + chance.below(4)), jitter: chance.one_of(&[0.0, 0.1, 0.9]) }
    }

    fn retry(self, attempts: u32) -> Retry {
        Retry { attempts, backoff: ms(self.base), multiplier: self.multiplier, backoff_max: ms(self.cap), jitter: self.jitter }
    }
}

fn ms(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

const LIMITS: [u32; 4] = [500, 5, 4000, 20_000];

fn limit(chance: &mut Chance, percent: u32) -> Option<u32> {
    chance.happens(percent).then(|| chance.one_of(&LIMITS))
}

impl Plan {
    pub fn draw(chance: &mut Chance) -> Self {
        let mut steps = Vec::new();
        let most = if chance.happens(10) { 9 } else { 5 };
        let size = 1 + chance.place(most);
        let mut pivot = None;
        let flow = tree(chance, size, 0, &mut steps, &mut pivot);
        Self {
            steps,
            flow,
            limit: limit(chance, 20),
            undo_goes_on: chance.happens(50),
            hitl_after: 1 + chance.below(4),
            lock: chance.happens(25).then(|| LockPlan { aborts: chance.happens(30), limit: limit(chance, 60) }),
        }
    }

    pub fn definition(&self) -> Definition {
        Definition {
            id: "random.saga.v1".to_owned(),
            family: "random.saga".to_owned(),
            version: 1,
            revision: String::new(),
            trigger: vec!["begun".to_owned()],
            topics: Vec::new(),
            filter: None,
            dedupe: Dedupe { key: None, after: DedupeAfter::Never },
            lock: self.lock.map(|lock| Lock {
                keys: Vec::new(),
                mode: if lock.aborts { LockMode::Abort } else { LockMode::Wait },
                timeout: lock.limit.map(ms),
            }),
            cancel_on: Vec::new(),
            hitl: Hitl { after: self.hitl_after, queue: "default".to_owned() },
            steps: self.steps.iter().enumerate().map(|(seq, step)| step.step(seq)).collect(),
            flow: self.flow.node(),
            deadline: self.limit.map(ms),
            on_compensation_failure: if self.undo_goes_on { OnCompensationFailure::Continue } else { OnCompensationFailure::Stop },
        }
    }
}

/// `size` steps, one after the other, side by side, or nested.
fn tree(chance: &mut Chance, size: usize, depth: usize, steps: &mut Vec<StepPlan>, pivot: &mut Option<usize>) -> Tree {
    if size == 1 {
        let step = StepPlan::draw(chance, pivot.is_some());
        if step.road == Road::Pivot {
            *pivot = Some(steps.len());
        }
        steps.push(step);
        return Tree::Leaf(steps.len() - 1);
    }
    let is_fan = chance.happens(if depth == 0 { 35 } else { 50 });
    let (max, waits) = (1 + chance.place(size), chance.happens(50));
    let mut parts = Vec::new();
    let mut left = size;
    while left > 0 {
        let part = if chance.happens(60) { 1 } else { 1 + chance.place(left) }.min(if parts.is_empty() { size - 1 } else { left });
        parts.push(tree(chance, part, depth + 1, steps, pivot));
        left -= part;
    }
    if is_fan { Tree::Fan { branches: parts, max, waits } } else { Tree::Chain(parts) }
}

impl Tree {
    /// Changes `max` and `waits` of every group.
    pub fn each_fan(&mut self, change: fn(&mut usize, &mut bool)) {
        match self {
            Self::Leaf(_) => {}
            Self::Chain(parts) => parts.iter_mut().for_each(|part| part.each_fan(change)),
            Self::Fan { branches, max, waits } => {
                change(max, waits);
                branches.iter_mut().for_each(|branch| branch.each_fan(change));
            }
        }
    }

    fn node(&self) -> Node {
        let nodes = |parts: &[Self]| parts.iter().map(Self::node).collect();
        match self {
            Self::Leaf(seq) => Node::Step(*seq),
            Self::Chain(parts) => Node::Sequence(nodes(parts)),
            Self::Fan { branches, max, waits } => Node::Parallel(Group {
                branches: nodes(branches),
                max: *max,
                on_branch_failure: if *waits { OnBranchFailure::Wait } else { OnBranchFailure::Drain },
            }),
        }
    }
}

impl StepPlan {
    fn draw(chance: &mut Chance, past_pivot: bool) -> Self {
        let otherwise = |chance: &mut Chance| chance.one_of(&[Else::Fail, Else::Ask, Else::LeaveOut]);
        let task = match chance.below(24) {
            0..10 => Task::Call,
            10..15 => Task::Callback,
            15..17 => Task::Function,
            17 => Task::Emit { broken: chance.happens(20) },
            18 => Task::Event { limit: limit(chance, 60), then: otherwise(chance) },
            19 => Task::Delay(chance.one_of(&LIMITS)),
            20 => Task::Until { at: chance.below(3), broken: chance.happens(20) },
            21 | 22 => Task::Human { limit: limit(chance, 60), then: otherwise(chance), rejected: otherwise(chance), broken: chance.happens(10) },
            _ => Task::Child,
        };
        let undo = chance.happens(75).then(|| UndoPlan {
            how: chance.one_of(&[UndoBy::Call, UndoBy::Call, UndoBy::Function, UndoBy::Event]),
            tries: 1 + chance.below(3),
            backoff: Backoff::draw(chance),
            timeout: chance.one_of(&LIMITS),
        });
        Self {
            task,
            wanted: if chance.happens(85) { Wanted::Always } else { chance.one_of(&[Wanted::Yes, Wanted::No, Wanted::Broken]) },
            road: match past_pivot {
                false if chance.happens(20) => Road::Pivot,
                true if chance.happens(60) => Road::After,
                _ => Road::Plain,
            },
            tries: 1 + chance.below(4),
            backoff: Backoff::draw(chance),
            timeout: chance.one_of(&LIMITS),
            limit: limit(chance, 25),
            silence: (task == Task::Callback).then(|| limit(chance, 50)).flatten(),
            verify: matches!(task, Task::Call | Task::Callback) && chance.happens(40),
            used_up: if chance.happens(50) { chance.one_of(&[UsedUp::Ask, UsedUp::GoOn]) } else { UsedUp::GoBack },
            undo: undo.filter(|_| task != Task::Child),
            undone_if: if chance.happens(20) { [chance.happens(50), chance.happens(50), chance.happens(50)] } else { [true, true, false] },
        }
    }

    fn step(&self, seq: usize) -> Step {
        let when = match self.wanted {
            Wanted::Always => None,
            Wanted::Yes => Some("data.yes"),
            Wanted::No => Some("!data.yes"),
            Wanted::Broken => Some("data.nothing.there"),
        };
        Step {
            name: format!("s{seq}"),
            work: self.work(seq),
            when: when.map(expression),
            kind: match self.road {
                Road::Plain => StepKind::Plain,
                Road::Pivot => StepKind::Pivot,
                Road::After => StepKind::Retriable,
            },
            context: None,
            retry: self.backoff.retry(self.tries),
            timeout: ms(self.timeout),
            deadline: self.limit.map(ms),
            asynchronous: self.task == Task::Callback,
            heartbeat_timeout: self.silence.map(ms),
            verify: self.verify.then(|| Verify { call: call("svc", "/verify"), outcome: None }),
            on_exhausted: match self.used_up {
                UsedUp::GoBack => OnExhausted::Compensate,
                UsedUp::Ask => OnExhausted::Hitl,
                UsedUp::GoOn => OnExhausted::Continue,
            },
            compensate: self.undo.map(|undo| Compensate {
                undo: match undo.how {
                    UndoBy::Call => Undo::Call(call("svc", "/undo")),
                    UndoBy::Function => Undo::Sql(Sql { function: "book.undo".to_owned() }),
                    UndoBy::Event => Undo::Event,
                },
                retry: undo.backoff.retry(undo.tries),
                timeout: ms(undo.timeout),
            }),
            compensate_on: CompensateOn { succeeded: self.undone_if[0], unknown: self.undone_if[1], failed: self.undone_if[2] },
        }
    }

    fn work(&self, seq: usize) -> Work {
        let otherwise = |otherwise| match otherwise {
            Else::Fail => Otherwise::Fail,
            Else::Ask => Otherwise::Hitl,
            Else::LeaveOut => Otherwise::Continue,
        };
        match self.task {
            Task::Call | Task::Callback => Work::Call(call("svc", "/do")),
            Task::Function => Work::Sql(Sql { function: "book.do".to_owned() }),
            Task::Emit { broken } => {
                Work::Emit(Emit { kind: format!("emit.{seq}"), topic: broken.then(|| template("${ data.nothing }")), data: None })
            }
            Task::Event { limit, then } => {
                Work::Wait(Wait { event: "came".to_owned(), matching: None, timeout: limit.map(ms), on_timeout: otherwise(then) })
            }
            Task::Delay(delay) => Work::Delay(ms(delay)),
            Task::Until { at, broken } => Work::Until(expression(if broken { "data.text" } else { ["data.t0", "data.t1", "data.t2"][at as usize] })),
            Task::Human { limit, then, rejected, broken } => Work::Human(Human {
                prompt: template(if broken { "${ data.yes + 1 }" } else { "Really?" }),
                queue: None,
                form: None,
                assignee: None,
                four_eyes: false,
                on_reject: otherwise(rejected),
                timeout: limit.map(ms),
                on_timeout: otherwise(then),
            }),
            Task::Child => Work::Saga("child.v1".to_owned()),
        }
    }
}

/// When `until` steps end, seconds since 1970.
pub const UNTIL: [i64; 3] = [0, 3, 30];

fn call(service: &str, path: &str) -> Call {
    Call { method: "POST".to_owned(), service: service.to_owned(), path: template(path), headers: Vec::new(), body: None }
}

fn expression(source: &str) -> Expression {
    Expression::compile(source, &CALL_ROOTS, None).expect("an expression")
}

fn template(text: &str) -> Template {
    Template::parse(text, &CALL_ROOTS, None).expect("a template")
}

pub fn event() -> Event {
    let data = r#"{"yes": true, "text": "soon", "t0": "1970-01-01T00:00:00Z", "t1": "1970-01-01T00:00:03Z", "t2": "1970-01-01T00:00:30Z"}"#;
    Event {
        id: Uuid::nil(),
        kind: "begun".to_owned(),
        topic: "default".to_owned(),
        source: "tests".to_owned(),
        subject: None,
        data: Payload::parse(data).expect("JSON"),
        correlation_id: "c".to_owned(),
        causation_id: None,
        dedupe_key: None,
        depth: 0,
        created_at: Timestamp(0),
    }
}
