//! Every state that a small saga can reach, by every input in every order: laws in each, and a way to an end from each.
//!
//! The saga is that of `state_machine_check.py`: a step, a parallel pair, a step; one of the pair has no undo. Times are taken out
//! of a state but for what is due and what is not, and counters but for whether they are nought.

use std::collections::{HashMap, VecDeque};

use syncor::core::definition::Definition;
use syncor::core::human::Decided;
use syncor::core::machine::{Input, advance};
use syncor::core::order::Order;
use syncor::core::outcome::{Action, Class, Outcome};
use syncor::core::saga::{Saga, SagaState, Wait};
use syncor::core::time::Timestamp;
use uuid::Uuid;

use super::chance::Chance;
use super::laws;
use super::plan::{Plan, Road, StepPlan, Task, Tree, UndoBy, UsedUp, Wanted, event};

const NOW: Timestamp = Timestamp(1_000_000_000);
const LATER: Timestamp = Timestamp(2_000_000_000);

/// The saga of the check, with the pivot and `onExhausted` of choice.
pub fn plan(pivot: Option<usize>, used_up: UsedUp, task: Task) -> Plan {
    let template = Plan::draw(&mut Chance::of_list(&[])).steps.remove(0);
    let step = |seq: usize| StepPlan {
        task: if seq == 1 { task } else { Task::Call },
        wanted: Wanted::Always,
        road: match pivot {
            Some(pivot) if pivot == seq => Road::Pivot,
            Some(pivot) if seq > pivot => Road::After,
            _ => Road::Plain,
        },
        used_up,
        limit: None,
        silence: None,
        verify: false,
        undo: Some(super::plan::UndoPlan { how: UndoBy::Call, tries: 1, backoff: template.backoff, timeout: 1000 }).filter(|_| seq != 2),
        undone_if: [true, true, false],
        tries: 1,
        ..template.clone()
    };
    Plan {
        steps: (0..4).map(step).collect(),
        flow: Tree::Chain(vec![Tree::Leaf(0), Tree::Fan { branches: vec![Tree::Leaf(1), Tree::Leaf(2)], max: 2, waits: false }, Tree::Leaf(3)]),
        limit: None,
        undo_goes_on: false,
        hitl_after: 3,
        lock: None,
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub states: usize,
    pub edges: usize,
}

/// Explores one saga.
///
/// # Errors
/// The law that is broken, and the way there.
pub fn explore(plan: &Plan) -> Result<Found, String> {
    let (definition, event) = (plan.definition(), event());
    let first = Saga::new(Uuid::nil(), plan.steps.len());
    let mut known: HashMap<Vec<u8>, usize> = HashMap::from([(key(&first), 0)]);
    let mut states = vec![first];
    let mut came_from: Vec<Option<(usize, Input)>> = vec![None];
    let mut back: Vec<Vec<usize>> = vec![Vec::new()];
    let mut next = VecDeque::from([0]);
    let mut found = Found::default();
    let way = |came_from: &[Option<(usize, Input)>], mut at: usize| {
        let mut way = Vec::new();
        while let Some((from, told)) = &came_from[at] {
            way.push(format!("{told:?}"));
            at = *from;
        }
        way.reverse();
        way.join("\n  ")
    };
    while let Some(at) = next.pop_front() {
        for (input, now) in inputs(&definition, &states[at]) {
            let mut saga = states[at].clone();
            let result = advance(&definition, &event, &mut saga, input.clone(), now, 0.5);
            if result.stale {
                continue;
            }
            found.edges += 1;
            let judged = laws::of_state(&definition, &saga).and_then(|()| order_of_undo(&saga));
            judged.map_err(|error| format!("{error}\n  {}\n  {input:?}\n{saga:#?}", way(&came_from, at)))?;
            normalise(&mut saga, now);
            let key = key(&saga);
            let to = *known.entry(key).or_insert_with(|| {
                states.push(saga);
                came_from.push(Some((at, input)));
                back.push(Vec::new());
                next.push_back(states.len() - 1);
                states.len() - 1
            });
            back[to].push(at);
        }
    }
    found.states = states.len();
    let mut ends: VecDeque<usize> = (0..states.len()).filter(|at| states[*at].state.is_terminal()).collect();
    let mut reaches = vec![false; states.len()];
    ends.iter().for_each(|at| reaches[*at] = true);
    while let Some(at) = ends.pop_front() {
        for from in &back[at] {
            if !std::mem::replace(&mut reaches[*from], true) {
                ends.push_back(*from);
            }
        }
    }
    match reaches.iter().position(|reaches| !reaches) {
        None => Ok(found),
        Some(at) => Err(format!("no end can be reached from here:\n  {}\n{:#?}", way(&came_from, at), states[at])),
    }
}

/// Everything that may happen next.
fn inputs(definition: &Definition, saga: &Saga) -> Vec<(Input, Timestamp)> {
    if saga.state == SagaState::Pending {
        let order = |order| Input::Ordered { order, reason: String::new() };
        return vec![(Input::Start, NOW), (order(Order::Cancel), NOW), (order(Order::Abort), NOW)];
    }
    let mut all = vec![(Input::TakenOver, NOW), (Input::Due, LATER)];
    let ends = || {
        let of = |class| Outcome::without_reply(class, "so");
        [Outcome::success(None), of(Class::Refused), of(Class::Unknown)]
    };
    for (seq, action) in saga.in_flight() {
        let attempt = saga.steps[seq].attempt(action);
        let accepted = Outcome::without_reply(Class::Accepted, "wait");
        let more = (definition.steps[seq].asynchronous).then_some(accepted);
        for outcome in ends().into_iter().chain(more) {
            all.push((Input::Reply { seq, action, attempt, outcome: Box::new(outcome) }, NOW));
        }
    }
    for (seq, step) in saga.steps.iter().enumerate() {
        let waits = step.waits_for().map(|wait| (Action::Do, wait)).or_else(|| step.undo_waits_for().map(|wait| (Action::Undo, wait)));
        if let Some((action, wait)) = waits.filter(|(_, wait)| !matches!(wait, Wait::Human | Wait::Service)) {
            for outcome in ends() {
                all.push((Input::Ended { seq, action, wait, outcome: Box::new(outcome) }, NOW));
            }
        }
        if let Some(kind) = step.task {
            for decision in kind.decisions() {
                let decided =
                    Decided { task: Uuid::nil(), kind, seq: Some(seq), decision: *decision, by: String::new(), note: String::new(), output: None };
                all.push((Input::Decided(decided), NOW));
            }
        }
        for order in [Order::Retry(Some(seq)), Order::Skip(Some(seq))] {
            all.push((Input::Ordered { order, reason: String::new() }, NOW));
        }
    }
    for order in [Order::Cancel, Order::Pause, Order::Resume, Order::Abort, Order::Retry(None)] {
        all.push((Input::Ordered { order, reason: String::new() }, NOW));
    }
    all
}

/// One undo at a time, and none before those that began later.
fn order_of_undo(saga: &Saga) -> Result<(), String> {
    use syncor::core::saga::Compensation::{Backoff, Compensating, Failed, Pending, Waiting};
    let busy = |step: &&syncor::core::saga::StepProgress| matches!(step.compensation, Compensating | Waiting | Backoff);
    let mut under_way = saga.steps.iter().filter(busy);
    let Some(step) = under_way.next() else { return Ok(()) };
    if under_way.next().is_some() {
        return Err("two undos at a time".to_owned());
    }
    let later = saga.steps.iter().any(|other| other.order > step.order && matches!(other.compensation, Pending | Failed));
    if later { Err("an undo before that of a later step".to_owned()) } else { Ok(()) }
}

/// Takes out of a state what has no influence on what follows.
fn normalise(saga: &mut Saga, now: Timestamp) {
    let time = |time: &mut Option<Timestamp>| {
        if let Some(time) = time {
            *time = if *time <= now { Timestamp(0) } else { LATER };
        }
    };
    saga.reason = saga.reason.take().map(|_| String::new());
    saga.looked_at = None;
    if let Some(paused) = &mut saga.paused {
        paused.at = NOW;
    }
    for step in &mut saga.steps {
        [&mut step.due_at, &mut step.wait_until, &mut step.called_at, &mut step.started_at, &mut step.finished_at].into_iter().for_each(time);
        (step.attempts, step.undo_attempts, step.fence) = (step.attempts.min(1), step.undo_attempts.min(1), 0);
        // What was spent is of no interest once it is over: another attempt begins with none.
        step.spent = if step.status.is_final() { 0 } else { step.spent.min(1) };
        step.undo_spent = if step.compensation.is_under_way() { step.undo_spent.min(1) } else { 0 };
        (step.message, step.error, step.output) = (None, step.error.take().map(|_| String::new()), None);
        step.context = None;
    }
    let mut order: Vec<usize> = (0..saga.steps.len()).filter(|seq| saga.steps[*seq].order > 0).collect();
    order.sort_by_key(|seq| saga.steps[*seq].order);
    for (place, seq) in order.into_iter().enumerate() {
        saga.steps[seq].order = u32::try_from(place + 1).expect("few");
    }
}

/// Everything of a normalised state, in few bytes.
fn key(saga: &Saga) -> Vec<u8> {
    let time = |time: Option<Timestamp>| time.map_or(0, |time| 1 + u8::from(time == LATER));
    let mut key = vec![saga.state as u8, saga.target.map_or(0, |target| 1 + target as u8), u8::from(saga.clean)];
    key.push(saga.paused.map_or(0, |paused| 1 + paused.resume_to as u8));
    for step in &saga.steps {
        key.extend([step.status as u8, step.compensation as u8, step.wait.map_or(0, |wait| 1 + wait as u8)]);
        key.push(u8::from(step.ambiguous) | u8::from(step.for_human) << 1);
        key.extend([step.attempts, step.undo_attempts, step.spent, step.undo_spent, step.order].map(|count| u8::try_from(count).expect("few")));
        key.extend([step.task.map_or(0, |task| 1 + task as u8), time(step.due_at), time(step.wait_until)]);
    }
    key
}
