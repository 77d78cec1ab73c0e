//! How the steps of a saga follow each other: three spellings of a parallel group, lowered into one tree.

use super::super::definition::{Group, Node as Flow, OnBranchFailure};
use super::reader::{Keys, Reader, is_misspelt};
use super::tree::{Kind, Node, Place};

/// Keys of a list's marker item, and those that stand beside the top `steps`.
pub(super) const MARKER: Keys =
    Keys { of: "the marker of a parallel group", known: &["parallel", "maxParallel", "onBranchFailure"], later: &[], extensible: false };
pub(super) const GROUP: Keys =
    Keys { of: "a group of steps", known: &["parallel", "steps", "maxParallel", "onBranchFailure"], later: &["forEach"], extensible: false };

/// A step as it is written, and whether it stands anywhere inside a parallel group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf<'n> {
    pub(super) node: &'n Node,
    pub(super) in_parallel: bool,
}

/// The leaves in the order they are written, and the tree over their places; `top` is the saga that holds the list.
pub(super) fn lay_out<'n>(reader: &mut Reader<'_>, top: &'n Node, list: &'n Node) -> Option<(Vec<Leaf<'n>>, Flow)> {
    let items = items(reader, list)?;
    if items.is_empty() {
        reader.error(list.place, "a saga needs at least one step", None);
        return None;
    }
    let mut layout = Layout { reader, leaves: Vec::new() };
    let flow = layout.list(list.place, items, Some(top), false);
    Some((layout.leaves, flow?))
}

fn items<'n>(reader: &mut Reader<'_>, list: &'n Node) -> Option<&'n [Node]> {
    if let Kind::List(items) = &list.kind {
        return Some(items);
    }
    reader.error(list.place, format!("`steps` must be a list, not {}", list.what()), Some("start each step with `- name:`"));
    None
}

struct Layout<'r, 'a, 'n> {
    reader: &'r mut Reader<'a>,
    leaves: Vec<Leaf<'n>>,
}

impl<'n> Layout<'_, '_, 'n> {
    fn branch(&mut self, item: &'n Node, in_parallel: bool) -> Option<Flow> {
        match &item.kind {
            Kind::List(items) => self.list(item.place, items, None, in_parallel),
            Kind::Map(entries) if item.get("name").is_some() && item.get("steps").is_none() && item.get("parallel").is_some() => {
                if let Some((key, _)) = entries.iter().find(|(key, _)| key.name == "parallel") {
                    let help = Some("write `{parallel: true, steps: [...]}`");
                    self.reader.error(key.place, "`parallel` makes a group of steps, not a step", help);
                }
                None
            }
            Kind::Map(_) if ["steps", "parallel"].iter().any(|key| item.get(key).is_some()) => self.group(item, in_parallel),
            _ => {
                self.leaves.push(Leaf { node: item, in_parallel });
                Some(Flow::Step(self.leaves.len() - 1))
            }
        }
    }

    /// `{parallel: true, steps: [...]}`
    fn group(&mut self, node: &'n Node, in_parallel: bool) -> Option<Flow> {
        self.reader.map(node, GROUP);
        let says = node.get("parallel").is_some();
        if !says && !is_misspelt(node, "parallel") {
            let help = "a list inside the list of steps is a group whose steps follow each other";
            self.reader.error(start_of(node), "a group of steps needs `parallel: true`", Some(help));
        }
        let steps = self.reader.required(node, "steps", "a group of steps")?;
        let items = items(self.reader, steps)?;
        self.list(steps.place, items, Some(node).filter(|_| says), in_parallel)
    }

    /// A list of steps and groups; whether it is parallel is said by its holder or by a marker among its items.
    fn list(&mut self, place: Place, items: &'n [Node], holder: Option<&'n Node>, in_parallel: bool) -> Option<Flow> {
        let holder = holder.filter(|holder| MARKER.known.iter().any(|key| holder.get(key).is_some()));
        let mut said = holder.into_iter().chain(items.iter().filter(|item| is_marker(item)));
        let setting = said.next().map(|node| self.setting(node)).unwrap_or_default();
        if let Some(second) = said.next() {
            self.reader.error(start_of(second), "whether these steps are parallel is said twice", Some("say it once"));
        }
        let mut nodes = Vec::new();
        let mut steps = items.iter().filter(|item| !is_marker(item)).peekable();
        if steps.peek().is_none() {
            self.reader.error(place, "a group needs at least one step", None);
            return None;
        }
        for item in steps {
            if self.reader.is_full() {
                return None;
            }
            nodes.extend(self.branch(item, in_parallel || setting.parallel));
        }
        if !setting.parallel {
            return Some(Flow::Sequence(nodes));
        }
        let max = setting.max.unwrap_or(nodes.len()).max(1);
        Some(Flow::Parallel(Group { branches: nodes, max, on_branch_failure: setting.on_branch_failure.unwrap_or(OnBranchFailure::Drain) }))
    }

    fn setting(&mut self, node: &'n Node) -> Setting {
        let reader = &mut *self.reader;
        if is_marker(node) {
            reader.map(node, MARKER);
        }
        let parallel = reader.given(node, "parallel").map(|node| reader.flag(node, "parallel"));
        let words = [("drain", OnBranchFailure::Drain), ("wait", OnBranchFailure::Wait)];
        let max = reader.given(node, "maxParallel").and_then(|most| reader.whole(most, "maxParallel", 1, 200));
        let on_branch_failure = reader.given(node, "onBranchFailure").and_then(|node| reader.word(node, "onBranchFailure", &words));
        for key in ["maxParallel", "onBranchFailure"] {
            // A `parallel` that is no boolean has been reported.
            if let (Some(value), None | Some(Some(false))) = (reader.given(node, key), parallel) {
                reader.error(value.place, format!("`{key}` is about parallel steps only"), Some("write `parallel: true` beside it"));
            }
        }
        Setting { parallel: parallel.flatten() == Some(true), max: max.and_then(|most| usize::try_from(most).ok()), on_branch_failure }
    }
}

/// How the steps of one list go.
#[derive(Default)]
struct Setting {
    parallel: bool,
    max: Option<usize>,
    on_branch_failure: Option<OnBranchFailure>,
}

fn is_marker(item: &Node) -> bool {
    matches!(&item.kind, Kind::Map(entries) if !entries.is_empty() && entries.iter().all(|(key, _)| MARKER.known.contains(&key.name.as_str())))
}

/// The place of a node's first character: the whole of a map is too much to be marked.
fn start_of(node: &Node) -> Place {
    Place { width: 1, ..node.place }
}
