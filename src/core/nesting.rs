//! Sagas that run sagas: no circle, and no chain that is too long.

use std::collections::{BTreeMap, BTreeSet};

/// Children of children of a saga, at most.
pub const NESTING_MAX: usize = 8;

/// Which sagas each saga runs as steps, by full ids. One that is not known is taken to run none.
pub type Families = BTreeMap<String, Vec<String>>;

/// The longest chain below a saga: how many follow, and the first of them.
type Below<'s> = BTreeMap<&'s str, (usize, Option<&'s str>)>;

/// Checks all chains of children.
///
/// # Errors
/// Names the first chain that is a circle or too long.
pub fn check(sagas: &Families) -> Result<(), String> {
    // What is below a saga is found once, however many run it.
    let mut below = Below::new();
    for id in sagas.keys() {
        descend(sagas, id, &mut below)?;
    }
    match below.iter().max_by_key(|(_, (length, _))| *length) {
        Some((id, (length, _))) if *length > NESTING_MAX => {
            let chain = std::iter::successors(Some(*id), |id| below.get(id).and_then(|(_, next)| *next));
            // The names of a long chain help nobody.
            let names: Vec<_> = chain.take(NESTING_MAX + 2).collect();
            Err(format!(
                "sagas run sagas {length} deep, at most {NESTING_MAX} are allowed: {}; let one of them do the work of its child itself",
                names.join(" > ")
            ))
        }
        _ => Ok(()),
    }
}

/// Walks down with a stack of its own: a chain may be as long as there are sagas.
fn descend<'s>(sagas: &'s Families, root: &'s str, below: &mut Below<'s>) -> Result<(), String> {
    let mut open: Vec<(&str, bool)> = vec![(root, false)];
    let (mut way, mut on_the_way) = (Vec::new(), BTreeSet::new());
    while let Some((id, is_done)) = open.pop() {
        let children = sagas.get(id).map_or(&[][..], Vec::as_slice);
        if is_done {
            way.pop();
            on_the_way.remove(id);
            let length = |child: &&String| below.get(child.as_str()).map_or(0, |(length, _)| *length);
            let deepest = children.iter().max_by_key(length);
            below.insert(id, (deepest.map_or(0, |child| length(&child) + 1), deepest.map(String::as_str)));
        } else if on_the_way.contains(id) {
            let circle: Vec<_> = way.iter().copied().skip_while(|other| *other != id).chain([id]).collect();
            return Err(format!("sagas run each other in a circle: {}; no saga would ever end", circle.join(" > ")));
        } else if !below.contains_key(id) {
            way.push(id);
            on_the_way.insert(id);
            open.push((id, true));
            open.extend(children.iter().map(|child| (child.as_str(), false)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sagas(pairs: &[(&str, &[&str])]) -> Families {
        pairs.iter().map(|(id, children)| ((*id).to_owned(), children.iter().map(|child| (*child).to_owned()).collect())).collect()
    }

    fn chain(length: usize) -> Families {
        (0..length).map(|n| (format!("s{n}"), vec![format!("s{}", n + 1)])).collect()
    }

    #[test]
    fn a_circle_is_named() {
        let error = check(&sagas(&[("a", &["b", "d"]), ("b", &["c"]), ("c", &["d", "b"]), ("d", &[])])).expect_err("a circle");
        assert_eq!(error, "sagas run each other in a circle: b > c > b; no saga would ever end");
        assert!(check(&sagas(&[("a", &["a"])])).is_err());
        assert_eq!(check(&sagas(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"])])), Ok(()), "two ways to one child are no circle");
    }

    #[test]
    fn eight_children_deep_is_allowed_and_nine_are_not() {
        assert_eq!(check(&chain(8)), Ok(()));
        let error = check(&chain(9)).expect_err("too deep");
        assert!(error.starts_with("sagas run sagas 9 deep, at most 8 are allowed: s0 > s1 > s2") && error.contains("s8 > s9;"), "{error}");
        assert_eq!(check(&Families::new()), Ok(()));
    }

    #[test]
    fn many_sagas_are_checked_quickly() {
        let wide: Families = (0..400).map(|n| (format!("s{n:03}"), (n + 1..400).map(|m| format!("s{m:03}")).collect())).collect();
        assert!(check(&wide).expect_err("too deep").contains("399 deep"));
        assert!(check(&chain(20_000)).is_err());
    }
}
