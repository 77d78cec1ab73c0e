//! Expressions and templates of a file, with errors placed inside the text they stand in.

use super::super::definition::Match;
use super::super::expression::{Equality, Expression, ExpressionError};
use super::super::template::{BodyTemplate, Template};
use super::reader::{Reader, Sight};
use super::tree::{Kind, Node, Place, Style};

impl Reader<'_> {
    /// An expression.
    pub(super) fn expression(&mut self, node: &Node, key: &str, sight: Sight<'_>) -> Option<Expression> {
        let source = match &node.kind {
            Kind::Text(text, _) => text.trim_end().to_owned(),
            Kind::Bool(value) => value.to_string(),
            Kind::Number(number) => number.to_string(),
            Kind::List(_) | Kind::Map(_) => {
                let help = "quote the whole expression where it starts with `[` or `{` or holds `: `";
                self.error(node.place, format!("`{key}` must be an expression, not {}", node.what()), Some(help));
                return None;
            }
            Kind::Null => return None,
        };
        let plain = matches!(node.kind, Kind::Text(_, Style::Plain) | Kind::Bool(_) | Kind::Number(_));
        let behind = if plain { self.page.behind(node.place).trim_start() } else { "" };
        let cut = behind.starts_with('#') || (!behind.is_empty() && is_torn(&source));
        match Expression::compile(&source, sight.roots, sight.steps) {
            Ok(expression) => {
                if behind.starts_with('#') {
                    let message = format!("YAML takes what follows ` #` as a comment: the expression is `{source}`");
                    self.warn(
                        node.place,
                        message,
                        Some("if it belongs to the expression, quote the whole expression; else put the comment on a line of its own"),
                    );
                }
                Some(expression)
            }
            Err(error) => {
                let help = cut.then(|| {
                    format!("YAML ends the expression before `{}`: quote the whole expression", behind.chars().take(40).collect::<String>())
                });
                self.inner(node, &error, help.as_deref());
                None
            }
        }
    }

    /// A `match`; `sight` includes the arriving event.
    pub(super) fn matching(&mut self, node: &Node, sight: Sight<'_>) -> Option<Match> {
        let condition = self.expression(node, "match", sight)?;
        match Equality::find(condition.source(), sight.roots, sight.steps) {
            Ok(Equality { path, value }) => Some(Match { path, value, condition }),
            Err(error) => {
                let help = if error.offset == 0 {
                    "write `async.data.id == data.id`; the other side must not look at `async`"
                } else {
                    "keep the one that tells most, and write the other as `async.data.x in [data.x]`"
                };
                let error = ExpressionError { message: format!("`match`: {}", error.message), ..error };
                self.inner(node, &error, Some(help));
                None
            }
        }
    }

    /// A text with templates.
    pub(super) fn template(&mut self, node: &Node, key: &str, sight: Sight<'_>) -> Option<Template> {
        let text = match &node.kind {
            Kind::Text(text, _) => text.clone(),
            Kind::Bool(value) => value.to_string(),
            Kind::Number(number) => number.to_string(),
            _ => {
                self.error(node.place, format!("`{key}` must be text, not {}", node.what()), None);
                return None;
            }
        };
        self.parsed(node, Template::parse(&text, sight.roots, sight.steps))
    }

    /// The template that a text holds from byte `from` on.
    pub(super) fn template_tail(&mut self, node: &Node, key: &str, from: usize, sight: Sight<'_>) -> Option<Template> {
        let parsed = Template::parse_tail(self.text(node, key)?, from, sight.roots, sight.steps);
        self.parsed(node, parsed)
    }

    fn parsed(&mut self, node: &Node, parsed: Result<Template, ExpressionError>) -> Option<Template> {
        match parsed {
            Ok(template) => Some(template),
            Err(error) => {
                self.inner(node, &error, None);
                None
            }
        }
    }

    /// A document whose strings are templates.
    pub(super) fn body(&mut self, node: &Node, sight: Sight<'_>) -> Option<BodyTemplate> {
        if self.is_full() {
            return None;
        }
        Some(match &node.kind {
            Kind::Null => BodyTemplate::Plain(serde_json::Value::Null),
            Kind::Bool(value) => BodyTemplate::Plain((*value).into()),
            Kind::Number(number) => BodyTemplate::Plain(number.clone().into()),
            Kind::Text(..) => BodyTemplate::Text(self.template(node, "body", sight)?),
            Kind::List(items) => {
                let items: Vec<_> = items.iter().map(|item| self.body(item, sight)).collect();
                BodyTemplate::List(items.into_iter().collect::<Option<_>>()?)
            }
            Kind::Map(entries) => {
                let fields: Vec<_> = entries.iter().map(|(key, item)| Some((key.name.clone(), self.body(item, sight)?))).collect();
                BodyTemplate::Object(fields.into_iter().collect::<Option<_>>()?)
            }
        })
    }

    /// Reports an error inside a text, at its place in the file where that can be told.
    fn inner(&mut self, node: &Node, error: &ExpressionError, help: Option<&str>) {
        let line = self.page.line(node.place.line);
        let raw: String = line.chars().skip(node.place.column.saturating_sub(1)).take(node.place.width).collect();
        let exact = match &node.kind {
            Kind::Text(text, Style::Plain) if raw == *text => Some(0),
            Kind::Text(text, Style::Quoted) if raw.len() == text.len() + 2 && raw.get(1..=text.len()) == Some(text) => Some(1),
            _ => None,
        };
        let place = match exact {
            Some(quote) if error.line == 1 => {
                let shift = error.column - 1 + quote;
                Place { column: node.place.column + shift, width: word_width(&raw, shift), ..node.place }
            }
            _ => node.place,
        };
        self.error(place, error.message.clone(), help);
    }
}

/// Whether an expression looks as if its end were missing.
fn is_torn(source: &str) -> bool {
    let count = |chars: &[char]| source.matches(chars).count();
    count(&['(']) > count(&[')']) || count(&['"']) % 2 == 1 || count(&['\'']) % 2 == 1
}

/// How many characters the word has that starts there, at least one.
fn word_width(text: &str, skip: usize) -> usize {
    text.chars().skip(skip).take_while(|c| c.is_alphanumeric() || *c == '_').count().max(1)
}
