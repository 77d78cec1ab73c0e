//! What somebody probably meant: the known word that lies nearest to a misspelt one.

/// Words longer than this are no typing mistakes, and the table below is quadratic in their length.
const WORD_CHARS_MAX: usize = 48;

/// The candidate with the fewest typing mistakes between it and `word`; `None` when none is near.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(WORD_CHARS_MAX + 1).flat_map(char::to_lowercase).collect();
    if word.is_empty() || word.len() > WORD_CHARS_MAX {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= WORD_CHARS_MAX)
        .map(|candidate| (distance(&word, &candidate.chars().flat_map(char::to_lowercase).collect::<Vec<_>>()), candidate))
        .filter(|(mistakes, candidate)| *mistakes <= (word.len().max(candidate.len()) / 3).max(1))
        .min_by_key(|(mistakes, _)| *mistakes)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before = vec![0; right.len() + 1];
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(a != b);
            let mut least = replaced.min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b {
                least = least.min(before[column - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found() {
        let keys = ["call", "compensate", "name", "timeoutMs"];
        assert_eq!(nearest("cal", keys), Some("call"));
        assert_eq!(nearest("cmopensate", keys), Some("compensate"));
        assert_eq!(nearest("timeoutms", keys), Some("timeoutMs"));
        assert_eq!(nearest("zebra", keys), None);
        assert_eq!(nearest(&"x".repeat(100_000), keys), None);
    }
}
