//! What is allowed in a saga but probably not meant: findings with their place in words, which `definition_file` finds in the text.

use super::definition::{Definition, Node};

mod between;
mod steps;

/// Something that was probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Id of the saga.
    pub saga: String,
    /// The step that it is about; absent for the saga as a whole.
    pub step: Option<String>,
    /// The keys that lead to its place from there: `["wait", "timeoutMs"]`. As far as they exist.
    pub keys: &'static [&'static str],
    /// Whether it counts only where the last of the keys is written, in the step or else in the saga: a default is nobody's mistake.
    pub only_if_written: bool,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Finding {
    fn about(definition: &Definition, step: Option<usize>, keys: &'static [&'static str], message: String, help: &str) -> Self {
        let step = step.map(|seq| definition.steps[seq].name.clone());
        Self { saga: definition.id.clone(), step, keys, only_if_written: false, message, help: help.to_owned() }
    }
}

/// What one saga shows by itself.
#[must_use]
pub fn alone(definition: &Definition) -> Vec<Finding> {
    let mut found = steps::without_undo(definition);
    found.extend(steps::limits(definition));
    found.extend(steps::kinds(definition));
    found.extend(between::own_trigger(definition));
    found
}

/// What only several sagas together show.
#[must_use]
pub fn together(definitions: &[&Definition]) -> Vec<Finding> {
    let mut found = between::loops(definitions);
    found.extend(between::locks(definitions));
    found
}

/// Whether one step has always ended when the other begins.
fn comes_before(node: &Node, first: usize, second: usize) -> bool {
    match node {
        Node::Step(_) => false,
        Node::Sequence(parts) => {
            let place = |seq| parts.iter().position(|part| holds(part, seq));
            match (place(first), place(second)) {
                (Some(a), Some(b)) if a == b => comes_before(&parts[a], first, second),
                (Some(a), Some(b)) => a < b,
                _ => false,
            }
        }
        Node::Parallel(group) => {
            let shared = group.branches.iter().find(|branch| holds(branch, first) && holds(branch, second));
            shared.is_some_and(|branch| comes_before(branch, first, second))
        }
    }
}

fn holds(node: &Node, seq: usize) -> bool {
    match node {
        Node::Step(own) => *own == seq,
        Node::Sequence(parts) => parts.iter().any(|part| holds(part, seq)),
        Node::Parallel(group) => group.branches.iter().any(|branch| holds(branch, seq)),
    }
}

#[cfg(test)]
mod tests;
