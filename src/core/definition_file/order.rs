//! The point of no return: where it may stand, and what may follow it.

use super::flow::Leaf;
use super::reader::Reader;
use super::step::name_of;
use super::tree::Kind;

/// At most one pivot, in no parallel group, and after it only steps that are retriable.
pub(super) fn check(reader: &mut Reader<'_>, leaves: &[Leaf<'_>]) {
    let mut pivot: Option<(&str, usize)> = None;
    for leaf in leaves {
        let name = name_of(leaf.node).unwrap_or("…");
        let kind = leaf.node.get("kind");
        let word = kind.and_then(|kind| if let Kind::Text(word, _) = &kind.kind { Some(word.as_str()) } else { None });
        match (word, kind, pivot) {
            (Some("pivot"), Some(at), Some((first, line))) => {
                let help = format!("`{first}` on line {line} is the first: what follows it is `kind: retriable`");
                reader.error(at.place, "a saga has one point of no return, this is its second `kind: pivot`", Some(&help));
            }
            (Some("pivot"), Some(at), None) => {
                if leaf.in_parallel {
                    let help = "put it behind the group: what runs beside it could not be undone any more";
                    reader.error(at.place, "a pivot cannot stand in a parallel group", Some(help));
                }
                pivot = Some((name, leaf.node.place.line));
            }
            // A word that is none of them has its own error.
            (Some(word), _, _) if word != "retriable" => {}
            (None, _, Some((first, _))) => {
                let at = leaf.node.get("name").map_or(leaf.node.place, |name| name.place);
                let help = "add `kind: retriable`, or put it before the pivot";
                reader.error(at, format!("`{name}` comes after the pivot `{first}`, so nothing could undo it: it must be retriable"), Some(help));
            }
            _ => {}
        }
    }
}
