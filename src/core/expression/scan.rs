//! A look at the text of an expression before the parser sees it: strings, brackets, depth.
//!
//! The CEL parser is a recursive one and has a bug open about stack overflows: what nests too deeply must not reach it.

/// Brackets may nest this deeply.
pub const DEPTH_MAX: usize = 64;

/// The end of the string literal that starts at `at` (a quote), or `None` when it does not end.
#[must_use]
pub fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let quote = *text.get(at)?;
    let raw = at > 0 && matches!(text[at - 1], b'r' | b'R');
    let triple = text.get(at + 1) == Some(&quote) && text.get(at + 2) == Some(&quote);
    let mut next = at + if triple { 3 } else { 1 };
    while let Some(byte) = text.get(next) {
        match byte {
            b'\\' if !raw => next += 2,
            byte if *byte == quote && !triple => return Some(next + 1),
            byte if *byte == quote && text.get(next + 1) == Some(&quote) && text.get(next + 2) == Some(&quote) => return Some(next + 3),
            _ => next += 1,
        }
    }
    None
}

/// Operators, fields and indexes in one expression: the parser's time grows with the square of a chain of them.
pub const OPERATORS_MAX: usize = 600;

/// The byte where brackets nest more than [`DEPTH_MAX`] deep or the operators are more than [`OPERATORS_MAX`], if they are.
#[must_use]
pub fn too_deep(source: &str) -> Option<usize> {
    let text = source.as_bytes();
    let (mut depth, mut operators, mut at) = (0_usize, 0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            // An unfinished string is the parser's to report.
            b'"' | b'\'' => {
                at = string_end(text, at)?;
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'?' | b'!' => operators += 1,
            _ => {}
        }
        operators += usize::from(*byte == b'[');
        if depth > DEPTH_MAX || operators > OPERATORS_MAX {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// The byte of the `}` that closes an expression which starts at `from`, or `None` when nothing closes it.
#[must_use]
pub fn closing_brace(source: &str, from: usize) -> Option<usize> {
    let text = source.as_bytes();
    let (mut depth, mut at) = (0_usize, from);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' | b'\'' => {
                at = string_end(text, at)?;
                continue;
            }
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the words of `wanted` stand outside strings, brackets and comments, in order: byte and word.
///
/// Of several words that begin at one place the first one listed counts.
#[must_use]
pub fn top_level<'w>(source: &str, wanted: &[&'w str]) -> Vec<(usize, &'w str)> {
    let text = source.as_bytes();
    let (mut depth, mut at, mut found) = (0_usize, 0, Vec::new());
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' | b'\'' => {
                at = string_end(text, at).unwrap_or(text.len());
                continue;
            }
            b'/' if text.get(at + 1) == Some(&b'/') => {
                at = source[at..].find('\n').map_or(text.len(), |end| at + end);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ if depth == 0 => {
                if let Some(word) = wanted.iter().find(|word| text[at..].starts_with(word.as_bytes())) {
                    found.push((at, *word));
                    at += word.len();
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_inside_strings_brackets_and_comments_do_not_count() {
        let source = "a == '&&' && (b && c) && d[\"==\"] == e // && f";
        assert_eq!(top_level(source, &["&&", "=="]), [(2, "=="), (10, "&&"), (22, "&&"), (33, "==")]);
        assert_eq!(top_level("'never && a", &["&&"]), []);
    }

    #[test]
    fn brackets_inside_strings_do_not_count() {
        assert_eq!(too_deep(&format!("'{}'", "(".repeat(500))), None);
        assert_eq!(too_deep(&"(".repeat(500)), Some(DEPTH_MAX));
        assert_eq!(closing_brace("a == '}' }", 0), Some(9));
        assert_eq!(closing_brace("{'a': '\\'}'}['a']} tail", 0), Some(17));
        assert_eq!(closing_brace("'never", 0), None);
        assert_eq!(closing_brace("r'\\'}", 0), Some(4), "a raw string has no escapes");
    }
}
