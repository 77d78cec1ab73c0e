//! The equality in a `match` by which a waiting saga is found: `async.<path> == <expression>`.
//!
//! Invariant: where the condition holds, so does the equality; it is a link of the condition's outermost chain of `&&`.

use super::check::path;
use super::{Expression, ExpressionError, Root, scan};
use cel::common::ast::Expr;

/// The fields below `async`, and the expression that they must equal.
#[derive(Debug)]
pub struct Equality {
    /// `["data", "batch"]`
    pub path: Vec<String>,
    /// The other side, which does not look at the arriving event.
    pub value: Expression,
}

/// A part of a text, and where it begins.
type Part<'a> = (usize, &'a str);

impl Equality {
    /// Finds the equality in a condition that has been compiled with the same `roots` and `steps`.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn find(condition: &str, roots: &[Root], steps: Option<&[&str]>) -> Result<Self, ExpressionError> {
        let mut links = Vec::new();
        let mut open = vec![unwrapped((0, condition))];
        while let Some((from, text)) = open.pop() {
            if scan::top_level(text, &["||", "?"]).is_empty() {
                let ands = scan::top_level(text, &["&&"]);
                if ands.is_empty() {
                    links.push((from, text));
                } else {
                    let starts = std::iter::once(0).chain(ands.iter().map(|(at, word)| at + word.len()));
                    let ends = ands.iter().map(|(at, _)| *at).chain([text.len()]);
                    open.extend(starts.zip(ends).map(|(start, end)| unwrapped((from + start, &text[start..end]))));
                }
            }
        }
        links.sort_unstable_by_key(|(from, _)| *from);
        let mut found = links.iter().filter_map(|(from, text)| Some((*from, Self::of_link(text, roots, steps)?)));
        match (found.next(), found.next()) {
            (Some((_, equality)), None) => Ok(equality),
            (None, _) => Err(ExpressionError::at(condition, 0, "it must hold one equality of a field of `async` that is joined by `&&` to the rest")),
            (_, Some((second, _))) => Err(ExpressionError::at(condition, second, "it holds a second equality of a field of `async`")),
        }
    }

    fn of_link(text: &str, roots: &[Root], steps: Option<&[&str]>) -> Option<Self> {
        let compile = |text: &str| Expression::compile(unwrapped((0, text)).1, roots, steps).ok();
        // `a == b in c` is `(a == b) in c`: the tree tells.
        let link = compile(text)?;
        let is_equality = matches!(&link.program.expression().expr, Expr::Call(call) if call.func_name == "_==_");
        let operators = scan::top_level(text, &["=="]);
        let [(at, _)] = operators.as_slice() else { return None };
        if !is_equality {
            return None;
        }
        let (left, right) = (compile(&text[..*at])?, compile(&text[at + 2..])?);
        match (field(&left), field(&right)) {
            (Some(path), None) if !right.uses(Root::Async) => Some(Self { path, value: right }),
            (None, Some(path)) if !left.uses(Root::Async) => Some(Self { path, value: left }),
            _ => None,
        }
    }
}

/// The path of an expression that is only a field of `async`.
fn field(side: &Expression) -> Option<Vec<String>> {
    let (root, fields) = path(side.program.expression())?;
    let is_async = matches!(&root.expr, Expr::Ident(name) if name == Root::Async.name());
    (is_async && !fields.is_empty()).then(|| fields.into_iter().map(|(name, _)| name.to_owned()).collect())
}

/// Without space and brackets around the whole of it.
fn unwrapped((mut from, mut text): Part<'_>) -> Part<'_> {
    loop {
        let trimmed = text.trim_start();
        from += text.len() - trimmed.len();
        text = trimmed.trim_end();
        let Some(inner) = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) else { return (from, text) };
        // `(a) && (b)` begins and ends with brackets that are not a pair.
        if !closes_at_its_end(text) {
            return (from, text);
        }
        (from, text) = (from + 1, inner);
    }
}

fn closes_at_its_end(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => {
                at = scan::string_end(bytes, at).unwrap_or(bytes.len());
                continue;
            }
            b'(' => depth += 1,
            b')' if depth == 1 => return at + 1 == bytes.len(),
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOTS: &[Root] = &[Root::Data, Root::Event, Root::Async];

    fn found(condition: &str) -> Result<(String, String), String> {
        Expression::compile(condition, ROOTS, None).expect(condition);
        let found = Equality::find(condition, ROOTS, None);
        found
            .map(|equality| (equality.path.join("."), equality.value.source().to_owned()))
            .map_err(|error| format!("{} {}", error.column, error.message))
    }

    #[test]
    fn the_equality_is_found_on_either_side_and_in_any_link() {
        let check = |condition: &str, path: &str, value: &str| assert_eq!(found(condition), Ok((path.to_owned(), value.to_owned())), "{condition}");
        check("async.data.batch == data.batch", "data.batch", "data.batch");
        check("data.batch == async.data.batch", "data.batch", "data.batch");
        check("async.data.n > 5 && (async.data[\"a b\"] == 'x' + data.y) && data.z != 1", "data.a b", "'x' + data.y");
        check("((async.subject == (event.subject)))", "subject", "event.subject");
        check("(data.a == 1 || async.data.b > 2) && async.data.c == (data.d ? 1 : 2)", "data.c", "data.d ? 1 : 2");
        check("async.data.a == \"x == y && z\" && true", "data.a", "\"x == y && z\"");
        check("(async.data.a == data.a && data.b == 1) && async.data.c in [1, 2]", "data.a", "data.a");
        check("data.a == data.b && async.data.x == 1", "data.x", "1");
        check("async.data == data", "data", "data");
    }

    #[test]
    fn a_condition_without_an_equality_that_must_hold_is_refused() {
        for condition in [
            "async.data.a > data.a",
            "async.data.a == async.data.b",
            "async.data.a == data.a || data.b == 1",
            "data.b == 1 ? async.data.a == data.a : false",
            "!(async.data.a == data.a)",
            "async == data",
            "size(async.data.a) == 1",
            "async.data.list[0] == 1",
            "data.a == 1",
            "async.data.a == data.a == true",
            "async.data.a == 1\nin [true]",
            "async.data.a == 1 < 2",
        ] {
            let error = found(condition).expect_err(condition);
            assert!(error.starts_with("1 it must hold one equality"), "{condition}: {error}");
        }
        assert_eq!(found("async.data.a == 1 && async.data.b == 2"), Err("22 it holds a second equality of a field of `async`".to_owned()));
    }
}
