//! Which steps may begin: sequences and parallel groups.

use super::Turn;
use crate::core::definition::{Group, Node, OnBranchFailure};
use crate::core::saga::{StepStatus, Wait};

/// How far a part of the flow has come.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Progress {
    Done,
    Going,
    Failed,
}

impl Turn<'_> {
    /// How far it has come.
    pub(super) fn look(&self, node: &Node) -> Progress {
        match node {
            Node::Step(seq) => match self.saga.steps[*seq].status {
                StepStatus::Succeeded | StepStatus::Skipped => Progress::Done,
                StepStatus::Failed | StepStatus::Unknown if self.is_let_be(*seq) => Progress::Done,
                StepStatus::Failed | StepStatus::Unknown | StepStatus::Cancelled => Progress::Failed,
                _ => Progress::Going,
            },
            Node::Sequence(nodes) => nodes.iter().map(|node| self.look(node)).find(|progress| *progress != Progress::Done).unwrap_or(Progress::Done),
            Node::Parallel(group) => self.look_at_group(group),
        }
    }

    fn look_at_group(&self, group: &Group) -> Progress {
        let (mut failed, mut going, mut begun) = (false, false, false);
        for branch in &group.branches {
            match self.look(branch) {
                Progress::Failed => failed = true,
                Progress::Going => (going, begun) = (true, begun || self.is_begun(branch)),
                Progress::Done => {}
            }
        }
        match group.on_branch_failure {
            OnBranchFailure::Wait if failed && begun => Progress::Going,
            _ if failed => Progress::Failed,
            _ if going => Progress::Going,
            _ => Progress::Done,
        }
    }

    fn is_begun(&self, node: &Node) -> bool {
        match node {
            Node::Step(seq) => self.saga.steps[*seq].status != StepStatus::Pending,
            Node::Sequence(nodes) => nodes.iter().any(|node| self.is_begun(node)),
            Node::Parallel(group) => group.branches.iter().any(|node| self.is_begun(node)),
        }
    }

    /// The steps of a part that may begin, or be tried again, now.
    pub(super) fn reach(&self, node: &Node, found: &mut Vec<usize>) {
        match node {
            Node::Step(seq) => match self.saga.steps[*seq].status {
                StepStatus::Pending => found.push(*seq),
                StepStatus::Backoff if self.is_due(*seq) => found.push(*seq),
                StepStatus::Waiting if self.saga.steps[*seq].wait == Some(Wait::Service) && self.is_due(*seq) => found.push(*seq),
                _ => {}
            },
            Node::Sequence(nodes) => {
                if let Some(next) = nodes.iter().find(|node| self.look(node) != Progress::Done) {
                    self.reach(next, found);
                }
            }
            Node::Parallel(group) => {
                let going: Vec<_> = group.branches.iter().filter(|branch| self.look(branch) == Progress::Going).collect();
                let failed = group.branches.iter().any(|branch| self.look(branch) == Progress::Failed);
                let (begun, fresh): (Vec<_>, Vec<_>) = going.into_iter().partition(|branch| self.is_begun(branch));
                let room = if failed { 0 } else { group.max.saturating_sub(begun.len()) };
                for branch in begun.into_iter().chain(fresh.into_iter().take(room)) {
                    self.reach(branch, found);
                }
            }
        }
    }
}
