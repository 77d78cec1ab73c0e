//! Templates: text with `${ CEL }` parts, and JSON whose strings are such texts.
//!
//! Invariant: a value can never change the structure of a path; it fills the place where it stands.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::expression::{EvaluationError, Expression, ExpressionError, Root, Scope, scan};

/// Text with `${ CEL }` parts. `$${` stands for `${`.
#[derive(Debug)]
pub struct Template {
    source: Box<str>,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Value(Expression),
}

impl Template {
    /// Reads a template whose expressions may see `roots` and `steps`.
    ///
    /// # Errors
    /// When a `${` has no `}`, or an expression is refused; the place is that in `text`.
    pub fn parse(text: &str, roots: &[Root], steps: Option<&[&str]>) -> Result<Self, ExpressionError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find("${").map(|found| at + found) {
            if found > at && text.as_bytes()[found - 1] == b'$' {
                plain.push_str(&text[at..found - 1]);
                plain.push_str("${");
                at = found + 2;
                continue;
            }
            plain.push_str(&text[at..found]);
            let start = found + 2;
            let end = scan::closing_brace(text, start)
                .ok_or_else(|| ExpressionError::at(text, found, "`${` has no closing `}`; write `$${` for the two characters"))?;
            let inner = &text[start..end];
            let source = inner.trim();
            let offset = start + (inner.len() - inner.trim_start().len());
            let expression =
                Expression::compile(source, roots, steps).map_err(|error| ExpressionError::at(text, offset + error.offset, error.message))?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Value(expression));
            at = end + 1;
        }
        plain.push_str(&text[at..]);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { source: text.into(), parts })
    }

    /// The template as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// As [`Self::parse`], for the part of a text from byte `from` on; places are those in the whole text.
    pub(super) fn parse_tail(text: &str, from: usize, roots: &[Root], steps: Option<&[&str]>) -> Result<Self, ExpressionError> {
        let tail = text.get(from..).unwrap_or_default();
        Self::parse(tail, roots, steps).map_err(|error| ExpressionError::at(text, from + error.offset, error.message))
    }

    /// The text with `stand_in` for every value.
    #[must_use]
    pub fn with_values_as(&self, stand_in: &str) -> String {
        self.parts.iter().map(|part| if let Part::Text(plain) = part { plain } else { stand_in }).collect()
    }

    /// Whether it holds no expression.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// Whether an expression in it looks at the variable.
    #[must_use]
    pub fn uses(&self, root: Root) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value(expression) if expression.uses(root)))
    }

    /// The value: a template that is one expression keeps its JSON type, any other is text.
    ///
    /// # Errors
    /// When an expression fails for another reason than a missing value, which is null.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, EvaluationError> {
        match self.parts.as_slice() {
            [Part::Value(expression)] => value_or_null(expression, scope),
            _ => Ok(Value::String(self.render_text(scope)?)),
        }
    }

    /// The text: null is empty, lists and objects are JSON.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_text(&self, scope: &Scope<'_>) -> Result<String, EvaluationError> {
        self.parts.iter().try_fold(String::new(), |mut text, part| {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Value(expression) => text.push_str(&text_of(&value_or_null(expression, scope)?)),
            }
            Ok(text)
        })
    }

    /// The path and query of an address: every value is percent-encoded, so that it stays inside its segment or parameter.
    ///
    /// # Errors
    /// As [`Self::render`], and when a value makes a segment `.` or `..`: encoding does not help there, since URL parsers read `%2e%2e` as `..`.
    pub fn render_path(&self, scope: &Scope<'_>) -> Result<String, EvaluationError> {
        let path = self.parts.iter().try_fold(String::new(), |mut path, part| {
            match part {
                Part::Text(plain) => path.push_str(plain),
                Part::Value(expression) => push_encoded(&mut path, &text_of(&value_or_null(expression, scope)?)),
            }
            Ok(path)
        })?;
        if has_dot_segment(&path) {
            return Err(EvaluationError::new("a segment of the path would be `.` or `..`"));
        }
        Ok(path)
    }
}

/// Whether a segment of the path climbs: `.`, `..`, or the same percent-encoded.
#[must_use]
pub fn has_dot_segment(path: &str) -> bool {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    path[..end].split(['/', '\\']).any(|segment| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."))
}

fn value_or_null(expression: &Expression, scope: &Scope<'_>) -> Result<Value, EvaluationError> {
    match expression.evaluate(scope) {
        Err(error) if error.missing => Ok(Value::Null),
        other => other,
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Only RFC 3986's unreserved characters stay as they are.
fn push_encoded(path: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            path.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
}

/// A JSON document whose strings are templates. Keys are not.
#[derive(Debug)]
pub enum BodyTemplate {
    /// Null, a bool, a number.
    Plain(Value),
    /// A string.
    Text(Template),
    /// A list.
    List(Vec<Self>),
    /// An object.
    Object(Vec<(String, Self)>),
}

impl BodyTemplate {
    /// Reads a document; the place of an error is that in the string it is about.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn parse(document: &Value, roots: &[Root], steps: Option<&[&str]>) -> Result<Self, ExpressionError> {
        Ok(match document {
            Value::String(text) => Self::Text(Template::parse(text, roots, steps)?),
            Value::Array(items) => Self::List(items.iter().map(|item| Self::parse(item, roots, steps)).collect::<Result<_, _>>()?),
            Value::Object(fields) => {
                let parse = |(name, item): (&String, &Value)| Ok((name.clone(), Self::parse(item, roots, steps)?));
                Self::Object(fields.iter().map(parse).collect::<Result<_, ExpressionError>>()?)
            }
            other => Self::Plain(other.clone()),
        })
    }

    /// The document with every template filled in.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, EvaluationError> {
        match self {
            Self::Plain(value) => Ok(value.clone()),
            Self::Text(template) => template.render(scope),
            Self::List(items) => items.iter().map(|item| item.render(scope)).collect::<Result<_, _>>().map(Value::Array),
            Self::Object(fields) => {
                let render = |(name, item): &(String, Self)| Ok((name.clone(), item.render(scope)?));
                fields.iter().map(render).collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
        }
    }

    /// Whether an expression in it looks at the variable.
    #[must_use]
    pub fn uses(&self, root: Root) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Text(template) => template.uses(root),
            Self::List(items) => items.iter().any(|item| item.uses(root)),
            Self::Object(fields) => fields.iter().any(|(_, item)| item.uses(root)),
        }
    }
}

#[cfg(test)]
mod tests;
