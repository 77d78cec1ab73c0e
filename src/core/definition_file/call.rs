//! A call: `[METHOD ]service:/path`, or a map with `url`, `method`, `headers` and `body`.

use super::super::call::is_reserved_header;
use super::super::definition::{Call, Undo, Verify};
use super::super::template::{Template, has_dot_segment};
use super::reader::{Keys, Reader, Sight, is_id};
use super::tree::{Kind, Node};
use super::work;

const METHODS: [(&str, &str); 5] = [("GET", "GET"), ("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH"), ("DELETE", "DELETE")];
pub(super) const CALL: Keys = Keys { of: "`call`", known: &["url", "method", "headers", "body"], later: &[], extensible: false };
pub(super) const COMPENSATE: Keys =
    Keys { of: "`compensate`", known: &["url", "method", "headers", "body", "sql", "retry", "timeoutMs"], later: &[], extensible: false };
pub(super) const VERIFY: Keys = Keys { of: "`verify`", known: &["url", "method", "headers", "body", "outcome"], later: &[], extensible: false };

/// Reads a `call`.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, sight: Sight<'_>) -> Option<Call> {
    call(reader, node, "call", CALL, sight)
}

/// Reads a `compensate`: a call, a function, or the word `event`.
pub(super) fn undo(reader: &mut Reader<'_>, node: &Node, sight: Sight<'_>) -> Option<Undo> {
    if matches!(&node.kind, Kind::Text(word, _) if word == "event") {
        return Some(Undo::Event);
    }
    let Some(function) = node.get("sql") else {
        return Some(Undo::Call(call(reader, node, "compensate", COMPENSATE, sight)?));
    };
    let before = reader.problems.len();
    reader.map(node, COMPENSATE);
    if let Kind::Map(entries) = &node.kind
        && let Some((key, _)) = entries.iter().find(|(key, _)| CALL.known.contains(&key.name.as_str()))
    {
        reader.error(
            key.place,
            format!("an undo does one thing: it has `sql` and `{}`", key.name),
            Some("a function is always given the same standard body"),
        );
    }
    let sql = reader.given(node, "sql").filter(|_| !matches!(function.kind, Kind::Null)).and_then(|function| work::function(reader, function));
    if reader.problems.len() > before { None } else { Some(Undo::Sql(sql?)) }
}

/// Reads a `verify`: a call, and perhaps how to read its reply.
pub(super) fn verify(reader: &mut Reader<'_>, node: &Node, sight: Sight<'_>, reply: Sight<'_>) -> Option<Verify> {
    let call = call(reader, node, "verify", VERIFY, sight);
    let outcome = reader.given(node, "outcome").and_then(|outcome| reader.expression(outcome, "outcome", reply));
    Some(Verify { call: call?, outcome })
}

fn call(reader: &mut Reader<'_>, node: &Node, key: &str, keys: Keys, sight: Sight<'_>) -> Option<Call> {
    if !matches!(node.kind, Kind::Map(_)) {
        let (service, method, path) = address(reader, node, key, sight)?;
        return Some(Call { method: method.unwrap_or("POST").to_owned(), service, path, headers: Vec::new(), body: None });
    }
    let before = reader.problems.len();
    reader.map(node, keys);
    let url = reader.required(node, "url", keys.of);
    let target = url.and_then(|url| address(reader, url, "url", sight));
    let method = reader.given(node, "method").and_then(|method| reader.word(method, "method", &METHODS));
    let headers = reader.given(node, "headers").map(|headers| self::headers(reader, headers, sight)).unwrap_or_default();
    let body = reader.given(node, "body").map(|body| reader.body(body, sight));
    let (service, in_url, path) = target?;
    if let (Some(_), Some(url)) = (in_url, url) {
        reader.error(url.place, "`url` holds no method: write `method` beside it", None);
    }
    if reader.problems.len() > before {
        return None;
    }
    Some(Call { method: method.unwrap_or("POST").to_owned(), service, path, headers, body: body.flatten() })
}

/// The service, the method if one is said, and the path.
fn address(reader: &mut Reader<'_>, node: &Node, key: &str, sight: Sight<'_>) -> Option<(String, Option<&'static str>, Template)> {
    let text = reader.text(node, key)?;
    let shape = "write `service:/path`, with a service of the registry";
    let (method, target) = match text.split_once(' ') {
        Some((word, rest)) if !word.contains([':', '/', '$']) => {
            let Some((_, method)) = METHODS.iter().find(|(name, _)| *name == word) else {
                let help = METHODS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(name, _)| format!("write `{name}`"));
                reader.error(node.place, format!("`{word}` is no method: GET, POST, PUT, PATCH or DELETE"), help.as_deref());
                return None;
            };
            (Some(*method), rest.trim_start())
        }
        _ => (None, text),
    };
    let Some((service, path)) = target.split_once(':') else {
        reader.error(node.place, format!("`{text}` is no address of a call"), Some(shape));
        return None;
    };
    let problem = if path.starts_with("//") {
        Some("a call names a service of the registry, not a URL".to_owned())
    } else if service.contains("${") {
        Some("a template cannot name the service".to_owned())
    } else if service.chars().count() > 255 || !is_id(service) {
        Some(format!("`{service}` is no name of a service: letters, digits, `.`, `_` and `-`"))
    } else if !path.starts_with('/') {
        Some(format!("the path of `{text}` must start with `/`"))
    } else {
        None
    };
    if let Some(problem) = problem {
        reader.error(node.place, problem, Some(shape));
        return None;
    }
    // Parsed with what stands before it, so that errors keep their place; that part is cut off again.
    let path = reader.template_tail(node, key, text.len() - path.len(), sight)?;
    let plain = path.with_values_as("x");
    let problem = if has_dot_segment(&plain) {
        "a path must not hold `.` or `..` segments"
    } else if plain.contains('#') {
        "a path has no fragment (`#`)"
    } else if plain.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')) {
        "a path holds only the characters of a URL: percent-encode the others"
    } else {
        return Some((service.to_owned(), method, path));
    };
    reader.error(node.place, problem, None);
    None
}

fn headers(reader: &mut Reader<'_>, node: &Node, sight: Sight<'_>) -> Vec<(String, Template)> {
    let Kind::Map(entries) = &node.kind else {
        reader.error(node.place, format!("`headers` must be a map, not {}", node.what()), None);
        return Vec::new();
    };
    let mut headers: Vec<(String, Template)> = Vec::new();
    for (key, value) in entries {
        if reader.is_full() {
            break;
        }
        if !is_header_name(&key.name) {
            reader.error(key.place, format!("`{}` is no name of a header", key.name), None);
        } else if is_reserved_header(&key.name) {
            reader.error(key.place, format!("the header `{}` is set by the worker", key.name), None);
        } else if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(&key.name)) {
            reader.error(key.place, format!("the header `{}` is here twice", key.name), None);
        } else if let Some(template) = reader.template(value, &key.name, sight) {
            if template.with_values_as("x").chars().any(char::is_control) {
                reader.error(value.place, "the value of a header must not hold control characters", None);
            } else {
                headers.push((key.name.clone(), template));
            }
        }
    }
    headers
}

/// Whether a text is a token of RFC 9110.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
