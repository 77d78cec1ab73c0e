//! Keeps foreign web pages out of a server that listens on somebody's own machine.
//!
//! A page on another site can make a browser call us (CSRF), and can make its own host name point to 127.0.0.1 (DNS rebinding).
//! The first shows in `Sec-Fetch-Site` and `Origin`, the second in `Host`.

use std::net::SocketAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::Url;

use super::AppState;
use super::problem::Problem;

/// The names this server answers to.
#[derive(Clone, Debug)]
pub struct Names {
    /// Host names without a port; `None` lets every name pass.
    hosts: Option<Vec<String>>,
    /// The origin of the public address: pages from there are ours.
    public_origin: Option<String>,
}

impl Names {
    /// The names of a server at `listen` that is known as `public_url`. Only a loopback address needs the check of names:
    /// anything else asks for keys, which a foreign page does not have.
    #[must_use]
    pub fn new(listen: SocketAddr, public_url: Option<&Url>) -> Self {
        let hosts = listen.ip().to_canonical().is_loopback().then(|| {
            let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
            hosts.push(if listen.is_ipv6() { format!("[{}]", listen.ip()) } else { listen.ip().to_string() });
            hosts.extend(public_url.and_then(Url::host_str).map(str::to_ascii_lowercase));
            hosts
        });
        Self { hosts, public_origin: public_url.map(|url| url.origin().ascii_serialization()) }
    }

    fn refusal(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<&'static str> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or_else(|| uri.authority().map(|authority| authority.as_str()));
        if let Some(hosts) = &self.hosts {
            let name = host.map(name_of).unwrap_or_default();
            if !hosts.contains(&name) {
                return Some("the Host header is none of this server's names; set HMS_PUBLIC_URL to add one");
            }
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return None;
        }
        let is_ours = headers.get(header::ORIGIN).map(|origin| {
            origin.to_str().is_ok_and(|origin| {
                let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
                Some(origin) == self.public_origin.as_deref() || host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
            })
        });
        match is_ours {
            Some(false) => return Some("the Origin is another site"),
            Some(true) => return None,
            None => {}
        }
        // No Origin: programs, and browsers in the few cases where they leave it out.
        match headers.get("sec-fetch-site").map(|site| site.as_bytes()) {
            None | Some(b"same-origin" | b"none") => None,
            Some(_) => Some("Sec-Fetch-Site says that another site made this request"),
        }
    }
}

/// `Host` without its port, lower-case.
fn name_of(host: &str) -> String {
    let end = if host.starts_with('[') { host.find(']').map_or(host.len(), |end| end + 1) } else { host.find(':').unwrap_or(host.len()) };
    host.get(..end).unwrap_or_default().to_ascii_lowercase()
}

/// Refuses what a foreign page made a browser send.
pub async fn refuse_foreign(State(state): State<AppState>, request: Request, next: Next) -> Response {
    match state.names.refusal(request.method(), request.uri(), request.headers()) {
        Some(reason) => Problem::foreign(reason).into_response(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: &Method, headers: &[(&'static str, &str)]) -> bool {
        let public = Url::parse("https://syncor.agency.gov").expect("a URL");
        let names = Names::new("127.0.0.1:7600".parse().expect("an address"), Some(&public));
        let headers = headers.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect();
        names.refusal(method, &Uri::from_static("/v1/events"), &headers).is_some()
    }

    #[test]
    fn only_own_names_are_answered() {
        for host in ["localhost", "LOCALHOST:7600", "127.0.0.1:7600", "[::1]:7600", "syncor.agency.gov"] {
            assert!(!refused(&Method::GET, &[("host", host)]), "{host}");
        }
        for host in ["evil.example", "evil.example:7600", "localhost.evil.example", "127.0.0.1.nip.io", "", "[::1", "10.0.0.1"] {
            assert!(refused(&Method::GET, &[("host", host)]), "{host}");
        }
    }

    #[test]
    fn foreign_pages_cannot_write() {
        let host = ("host", "localhost:7600");
        assert!(!refused(&Method::POST, &[host]));
        assert!(!refused(&Method::POST, &[host, ("origin", "http://localhost:7600"), ("sec-fetch-site", "same-origin")]));
        assert!(!refused(&Method::POST, &[host, ("origin", "https://syncor.agency.gov")]));
        assert!(!refused(&Method::GET, &[host, ("origin", "https://evil.example")]), "reading is harmless without CORS");
        for foreign in [
            ("origin", "https://evil.example"),
            ("origin", "http://localhost:8080"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(refused(&Method::POST, &[host, foreign]), "{foreign:?}");
        }
    }
}
