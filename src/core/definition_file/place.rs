//! The place of a finding in the text it is about.

use super::super::lint::Finding;
use super::page::Page;
use super::problem::Problem;
use super::tree::{Kind, Node, Place};

/// A finding as a warning at its place; `None` if it counts only where something is written that is not.
pub(super) fn problem(page: &Page<'_>, saga: &Node, finding: &Finding) -> Option<Problem> {
    let step = finding.step.as_deref().map(|name| step(saga.get("steps")?, name));
    let start = match step {
        Some(found) => found?,
        None => saga,
    };
    let (place, is_whole) = follow(start, finding.keys);
    let place = if is_whole || !finding.only_if_written {
        place
    } else {
        // What a step does not say it has from its saga.
        match follow(saga, &finding.keys[finding.keys.len().saturating_sub(1)..]) {
            (place, true) if finding.keys.len() == 1 => place,
            _ => return None,
        }
    };
    Some(page.warning(place.unwrap_or(start_of(start)), finding.message.as_str(), Some(&finding.help)))
}

fn start_of(node: &Node) -> Place {
    match &node.kind {
        Kind::Map(entries) => entries.iter().find(|(key, _)| key.name == "name").or(entries.first()).map_or(node.place, |(key, _)| key.place),
        _ => node.place,
    }
}

/// The key at the end of a way, as far as the way goes, and whether that is all of it.
fn follow(start: &Node, keys: &[&str]) -> (Option<Place>, bool) {
    let (mut node, mut place) = (start, None);
    for key in keys {
        let Kind::Map(entries) = &node.kind else { return (place, false) };
        let Some((found, value)) = entries.iter().find(|(entry, _)| entry.name == *key) else { return (place, false) };
        (node, place) = (value, Some(found.place));
    }
    (place, true)
}

/// The step of that name, in whatever group it stands.
fn step<'n>(list: &'n Node, name: &str) -> Option<&'n Node> {
    let Kind::List(items) = &list.kind else { return None };
    items.iter().find_map(|item| match (&item.kind, item.get("steps"), item.get("name")) {
        (Kind::List(_), _, _) => step(item, name),
        (_, Some(inner), _) => step(inner, name),
        (_, _, Some(Node { kind: Kind::Text(own, _), .. })) if own == name => Some(item),
        _ => None,
    })
}
