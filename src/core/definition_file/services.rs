//! A services file, lowered into a registry.

use url::Url;

use super::super::call::is_reserved_header;
use super::super::service::{HeaderSource, Network, Service, ServiceRegistry};
use super::call::is_header_name;
use super::reader::{Keys, Reader, is_id};
use super::tree::{Kind, Node, Place};
use super::work::function;

pub(super) const SERVICES: Keys = Keys { of: "a services file", known: &["id", "services", "functions"], later: &[], extensible: true };
pub(super) const SERVICE: Keys =
    Keys { of: "a service", known: &["url", "audience", "maxConcurrent", "ratePerSecond", "allow", "headers"], later: &[], extensible: false };
/// Parts of names of headers that carry secrets.
const SECRET_WORDS: &[&str] = &["authorization", "cookie", "key", "token", "secret", "password"];

/// Reads a registry; `None` when something is wrong, which the reader knows.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, id: String, revision: String) -> Option<ServiceRegistry> {
    let before = reader.problems.len();
    if !reader.map(node, SERVICES) {
        return None;
    }
    let mut services = Vec::new();
    if let Some(list) = reader.required(node, "services", "a services file") {
        if let Kind::Map(entries) = &list.kind {
            for (key, value) in entries {
                if reader.is_full() {
                    break;
                }
                if !is_id(&key.name) || key.name.len() > 255 {
                    reader.error(key.place, format!("`{}` is no name of a service: letters, digits, `.`, `_` and `-`", key.name), None);
                }
                services.extend(service(reader, &key.name, value));
            }
        } else {
            reader.error(list.place, format!("`services` must be a map of names to services, not {}", list.what()), None);
        }
    }
    let functions = reader.given(node, "functions").map(|list| functions(reader, list)).unwrap_or_default();
    (reader.problems.len() == before).then_some(ServiceRegistry { id, revision, services, functions })
}

/// The only functions that `sql` steps may name.
fn functions(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    let Kind::List(items) = &node.kind else {
        reader.error(node.place, format!("`functions` must be a list of names such as `benefits.book`, not {}", node.what()), None);
        return Vec::new();
    };
    let mut functions: Vec<String> = Vec::new();
    for item in items {
        if reader.is_full() {
            break;
        }
        let Some(sql) = function(reader, item) else { continue };
        if functions.contains(&sql.function) {
            reader.error(item.place, format!("`{}` is here twice", sql.function), None);
        } else {
            functions.push(sql.function);
        }
    }
    functions
}

fn service(reader: &mut Reader<'_>, name: &str, node: &Node) -> Option<Service> {
    if !reader.map(node, SERVICE) {
        return None;
    }
    let url = reader.required(node, "url", "a service").and_then(|url| address(reader, url));
    let audience = reader.given(node, "audience").and_then(|audience| reader.name(audience, "audience")).unwrap_or(name).to_owned();
    for key in ["maxConcurrent", "ratePerSecond"] {
        let Some(value) = reader.given(node, key) else { continue };
        if reader.whole(value, key, 1, 1_000_000).is_some() {
            reader.warn(value.place, format!("`{key}` is not enforced yet"), None);
        }
    }
    let allow = reader.given(node, "allow").map(|allow| networks(reader, allow)).unwrap_or_default();
    let headers = reader.given(node, "headers").map(|headers| self::headers(reader, headers)).unwrap_or_default();
    Some(Service { name: name.to_owned(), url: url?, audience, allow, headers })
}

fn address(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node, "url")?;
    let (problem, help) = match Url::parse(text) {
        Err(error) => (format!("`{text}` is no URL: {error}"), Some("write http://host:port or https://host")),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            (format!("`{}` is no scheme of a service", url.scheme()), Some("write http or https"))
        }
        // A parser of URLs forgives what an editor's schema does not: `https:/host`, `https:///host`, `HTTPS://host`.
        Ok(_) if host_of(text).is_none_or(str::is_empty) => {
            (format!("`{text}` is no URL of a service"), Some("write http://host:port or https://host"))
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() || host_of(text).is_some_and(|host| host.contains('@')) => {
            ("a URL must not hold a user or password".to_owned(), Some("send a header with `secret://env/NAME`"))
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => ("the URL of a service has no query and no fragment".to_owned(), None),
        Ok(url) => return Some(url.as_str().trim_end_matches('/').to_owned()),
    };
    reader.error(node.place, problem, help);
    None
}

/// What stands between the slashes: host and port, perhaps with a user.
fn host_of(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    rest.split(['/', '\\', '?', '#']).next()
}

fn networks(reader: &mut Reader<'_>, node: &Node) -> Vec<Network> {
    let items = match &node.kind {
        Kind::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut networks = Vec::new();
    for item in items {
        match reader.text(item, "allow").map(str::parse) {
            Some(Ok(network)) => networks.push(network),
            Some(Err(message)) => reader.error(item.place, message, None),
            None => {}
        }
        if reader.is_full() {
            break;
        }
    }
    networks
}

fn headers(reader: &mut Reader<'_>, node: &Node) -> Vec<(String, HeaderSource)> {
    let Kind::Map(entries) = &node.kind else {
        reader.error(node.place, format!("`headers` must be a map, not {}", node.what()), None);
        return Vec::new();
    };
    let mut headers: Vec<(String, HeaderSource)> = Vec::new();
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
        } else if let Some(source) = source(reader, &key.name, value) {
            headers.push((key.name.clone(), source));
        }
    }
    headers
}

fn source(reader: &mut Reader<'_>, name: &str, node: &Node) -> Option<HeaderSource> {
    let text = reader.text(node, name)?;
    if let Some(reference) = text.strip_prefix("secret://") {
        let found = match reference.split_once('/') {
            Some(("env", variable)) if is_variable(variable) => Some(HeaderSource::Env(variable.to_owned())),
            Some(("file", path)) if !path.is_empty() && !path.contains('\0') => {
                Some(HeaderSource::File(format!("/{}", path.trim_start_matches('/'))))
            }
            _ => None,
        };
        if found.is_none() {
            reader.error(node.place, "a secret is `secret://env/NAME` or `secret://file/absolute/path`", None);
        }
        return found;
    }
    let lower = name.to_ascii_lowercase();
    if SECRET_WORDS.iter().any(|word| lower.contains(word)) {
        // The line is not shown: it holds the secret.
        let message = format!("the header `{name}` looks like a secret: its value does not belong into a file");
        let mut problem = reader.page.error(Place { width: 1, ..node.place }, message, Some("write `secret://env/NAME` or `secret://file/path`"));
        problem.excerpt = problem.excerpt.chars().take(problem.column - 1).chain("…".chars()).collect();
        reader.problems.push(problem);
        return None;
    }
    if text.chars().any(char::is_control) {
        reader.error(node.place, "the value of a header must not hold control characters", None);
        return None;
    }
    Some(HeaderSource::Plain(text.to_owned()))
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
