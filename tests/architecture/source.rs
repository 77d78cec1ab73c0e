//! Sources, read as far as the house rules need: what is code, what is a string, which names it uses.

use std::collections::BTreeSet;

/// A source without tests, comments and strings, and the strings apart.
pub struct Source {
    pub code: String,
    pub strings: Vec<String>,
}

pub fn source(text: &str) -> Source {
    let text = without_tests(text);
    let (mut code, mut strings, mut rest) = (String::new(), Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let hashes = rest.strip_prefix('r').map_or(0, |raw| raw.bytes().take_while(|byte| *byte == b'#').count());
        let is_raw = first == 'r' && rest[1 + hashes..].starts_with('"') && !code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if is_raw {
            let (start, close) = (hashes + 2, format!("\"{}", "#".repeat(hashes)));
            let length = rest[start..].find(&close).unwrap_or(rest.len() - start);
            strings.push(rest[start..start + length].to_owned());
            (start + length + close.len()).min(rest.len())
        } else if first == '"' {
            let (mut end, bytes) = (1, rest.as_bytes());
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            strings.push(rest[1..end.min(rest.len())].to_owned());
            (end + 1).min(rest.len())
        } else if let Some(length) = char_literal(rest) {
            length
        } else {
            code.push(first);
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    Source { code, strings }
}

/// The length of a character literal at the start, which a lifetime is not.
fn char_literal(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    let length = if first == '\\' { 1 + inner[2..].find('\'')? + 1 } else { first.len_utf8() };
    inner[length..].starts_with('\'').then_some(length + 2)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `code` as a word of its own.
pub fn places<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(word).filter_map(move |(at, _)| {
        let after = &code[at + word.len()..];
        let longer = code[..at].ends_with(is_word) || word.ends_with(is_word) && after.starts_with(is_word);
        (!longer).then_some(after)
    })
}

/// The first names of what stands behind a path: `a`, or `{a::b, c}`.
pub fn heads(after: &str) -> Vec<&str> {
    let Some(group) = after.strip_prefix('{') else { return vec![after.split(|c| !is_word(c)).next().unwrap_or_default()] };
    let (mut depth, mut start, mut heads) = (0_u32, 0, Vec::new());
    for (at, c) in group.char_indices() {
        let ends = depth == 0 && matches!(c, ',' | '}');
        if ends {
            heads.push(group[start..at].trim_start().split(|c| !is_word(c)).next().unwrap_or_default());
            start = at + 1;
        }
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads
}

/// Rooms that a file imports, by `crate::`, by `syncor::` or by climbing out with `super::`.
pub fn imports<'a>(path: &str, code: &'a str) -> BTreeSet<&'a str> {
    let depth = path.trim_end_matches("/mod.rs").split('/').count() - 1;
    let mut found: BTreeSet<_> =
        ["crate::", "syncor::"].into_iter().flat_map(|root| places(code, root).flat_map(heads).collect::<Vec<_>>()).collect();
    for mut after in places(code, "super::").collect::<Vec<_>>() {
        let mut climbed = 1;
        while let Some(rest) = after.strip_prefix("super::") {
            (after, climbed) = (rest, climbed + 1);
        }
        if climbed >= depth {
            found.extend(heads(after));
        }
    }
    found
}

/// What comes before the unit tests.
pub fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}
