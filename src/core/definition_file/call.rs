//! A call: `[METHOD ]service:/path`, or a map with `url`, `method`, `headers` and `body`.

use super::super::call::is_reserved_header;
use super::super::definition::Call;
use super::super::template::{Template, has_dot_segment};
use super::reader::{Keys, Reader, Sight, is_id};
use super::tree::{Kind, Node};

const METHODS: [(&str, &str); 5] = [("GET", "GET"), ("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH"), ("DELETE", "DELETE")];
pub(super) const CALL: Keys = Keys { of: "`call`", known: &["url", "method", "headers", "body"], later: &[], extensible: false };
pub(super) const COMPENSATE: Keys = Keys {
    of: "`compensate`",
    known: &["url", "method", "headers", "body", "retry", "timeoutMs"],
    later: &["sql", "emit", "async", "verify", "heartbeatTimeoutMs", "onExhausted"],
    extensible: false,
};

/// Reads a `call` or a `compensate`.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, key: &str, sight: Sight<'_>) -> Option<Call> {
    let keys = if key == "call" { CALL } else { COMPENSATE };
    if !matches!(node.kind, Kind::Map(_)) {
        let text = reader.text(node, key)?;
        if key == "compensate" && text == "event" {
            reader.error(node.place, "`compensate: event` is not yet supported", None);
            return None;
        }
        let (service, method, path) = address(reader, node, key, sight)?;
        return Some(Call { method: method.unwrap_or("POST").to_owned(), service, path, headers: Vec::new(), body: None });
    }
    let before = reader.problems.len();
    reader.map(node, keys);
    // One that is all later keys has been answered.
    let later = keys.later.iter().any(|key| node.get(key).is_some());
    let url = if later { reader.given(node, "url") } else { reader.required(node, "url", keys.of) };
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
