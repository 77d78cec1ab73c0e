//! Findings about what sagas do to each other, and to themselves, through events and shared objects.

use std::collections::BTreeMap;

use super::Finding;
use crate::core::definition::{Definition, Emit, Undo, Work};

/// Events that every saga publishes.
const LIFE: [&str; 8] = [
    "saga.started",
    "saga.completed",
    "saga.failed",
    "saga.cancelled",
    "saga.aborted",
    "saga.rejected",
    "saga.compensate",
    "saga.compensation.failed",
];

/// A saga that its own events start again.
pub(super) fn own_trigger(definition: &Definition) -> Vec<Finding> {
    let help = "let `topics` or `filter` tell its own events from others";
    let mut found = Vec::new();
    for (seq, emit) in emits(definition) {
        if starts(emit, definition) {
            let message = format!("`{}` publishes `{}`, which starts this saga again, and again", definition.steps[seq].name, emit.kind);
            found.push(Finding::about(definition, Some(seq), &["emit"], message, help));
        }
    }
    let life = definition.trigger.iter().find(|trigger| LIFE.contains(&trigger.as_str()));
    if let (Some(life), None) = (life, &definition.filter)
        && may_come_by("default", definition)
    {
        let message = format!("every saga publishes `{life}`, this one too: it starts itself again, and again");
        let help = "add a `filter`, such as `data.definition == \"the.other.v1\"`";
        found.push(Finding::about(definition, None, &["trigger"], message, help));
    }
    found
}

fn emits(definition: &Definition) -> impl Iterator<Item = (usize, &Emit)> {
    definition.steps.iter().enumerate().filter_map(|(seq, step)| if let Work::Emit(emit) = &step.work { Some((seq, emit)) } else { None })
}

/// Whether an event starts a saga, as far as it can be told without data.
fn starts(emit: &Emit, definition: &Definition) -> bool {
    // A filter that let the first event in lets the same data in again; of other data nothing is known.
    let filtered = definition.filter.is_some() && emit.data.is_some();
    let topic = emit.topic.as_ref().map_or("default", |topic| topic.source());
    definition.trigger.contains(&emit.kind) && !filtered && may_come_by(topic, definition)
}

/// Whether a saga listens to a topic; one with a template is no topic of anybody until it is filled in.
fn may_come_by(topic: &str, definition: &Definition) -> bool {
    definition.topics.is_empty() || definition.topics.iter().any(|known| known == topic)
}

/// Sagas that start each other in a circle, each circle once.
pub(super) fn loops(definitions: &[&Definition]) -> Vec<Finding> {
    let edges: Vec<Vec<(usize, usize)>> = definitions
        .iter()
        .map(|from| {
            let targets = |emit: &Emit| definitions.iter().enumerate().filter(|(_, to)| starts(emit, to)).map(|(at, _)| at).collect::<Vec<_>>();
            emits(from).flat_map(|(seq, emit)| targets(emit).into_iter().map(move |at| (seq, at))).collect()
        })
        .collect();
    let mut found = Vec::new();
    let mut is_done = vec![false; definitions.len()];
    for start in 0..definitions.len() {
        if let Some(circle) = circle(&edges, start, &is_done) {
            let ids: Vec<&str> = circle.iter().map(|(at, _)| definitions[*at].id.as_str()).chain([definitions[start].id.as_str()]).collect();
            let message = format!("these sagas start each other again, and again: {}", ids.join(" > "));
            let help = "let a `filter`, `topics` or the `data` of an event end it";
            found.push(Finding::about(definitions[start], Some(circle[0].1), &["emit"], message, help));
        }
        is_done[start] = true;
    }
    found
}

/// The shortest way from a saga back to it over others: sagas with the step that leads on.
fn circle(edges: &[Vec<(usize, usize)>], start: usize, is_done: &[bool]) -> Option<Vec<(usize, usize)>> {
    // Where each saga was reached from, and by which step.
    let mut from: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    let mut open = std::collections::VecDeque::from([start]);
    while let Some(at) = open.pop_front() {
        for (seq, next) in &edges[at] {
            if *next == start && at != start {
                let mut way = vec![(at, *seq)];
                while let Some((before, seq)) = from.get(&way[way.len() - 1].0).filter(|_| way[way.len() - 1].0 != start) {
                    way.push((*before, *seq));
                }
                way.reverse();
                return Some(way);
            }
            if *next != start && !is_done[*next] && !from.contains_key(next) {
                from.insert(*next, (at, *seq));
                open.push_back(*next);
            }
        }
    }
    None
}

/// Two sagas that change the same service, or call the same function, and undo it, without a lock between them.
pub(super) fn locks(definitions: &[&Definition]) -> Vec<Finding> {
    // Each service with the first saga that changes it.
    let mut first: BTreeMap<&str, &Definition> = BTreeMap::new();
    let mut found = Vec::new();
    for definition in definitions.iter().filter(|definition| definition.lock.is_none()) {
        let mut own: Vec<(&str, usize)> = Vec::new();
        for (seq, step) in definition.steps.iter().enumerate() {
            let undone = step.compensate.as_ref().is_some_and(|compensate| !matches!(compensate.undo, Undo::Event));
            let what = match &step.work {
                Work::Call(call) => call.service.as_str(),
                Work::Sql(sql) => sql.function.as_str(),
                _ => continue,
            };
            if undone && !own.iter().any(|(known, _)| *known == what) {
                own.push((what, seq));
            }
        }
        for (what, seq) in own {
            match first.get(what) {
                // Versions of one saga are the same thing.
                Some(other) if other.family != definition.family => {
                    let message = format!(
                        "`{}` and `{}` both change {what}, and neither has a `lock`: one may undo what the other relies on",
                        other.id, definition.id
                    );
                    let help = "give both the same `lock`, such as `lock: \"'policy:' + data.policyId\"`";
                    found.push(Finding::about(definition, Some(seq), &["call"], message, help));
                }
                Some(_) => {}
                None => {
                    first.insert(what, definition);
                }
            }
        }
    }
    found
}
