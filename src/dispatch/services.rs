//! The services registry with its addresses parsed and its secrets read: where a call can go.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use rustls::ClientConfig;

use super::address;
use super::connection::Pool;
use super::headers;
use crate::core::service::{HeaderSource, Network, Service};

/// All services by name. An unusable one keeps the sentence that its calls are answered with.
#[derive(Default)]
pub(super) struct Registry(HashMap<String, Entry>);

type Entry = Result<Arc<Target>, String>;

/// A service that can be called.
pub(super) struct Target {
    /// Who the tokens are for.
    pub audience: String,
    /// The `Host` header.
    pub host: HeaderValue,
    /// Put before the path of a call; empty, or `/base`.
    pub base_path: String,
    /// The service's own headers, secrets filled in and marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its connections, shared with nobody.
    pub pool: Arc<Pool>,
    url: String,
    allow: Vec<Network>,
}

impl Registry {
    /// Resolves the services. Those that did not move keep the connections they have in `before`.
    pub fn resolve(services: Vec<Service>, tls: &Tls, before: &Self) -> Self {
        Self(services.into_iter().map(|service| (service.name.clone(), Target::resolve(service, tls, before))).collect())
    }

    /// The service of that name.
    pub fn get(&self, name: &str) -> Result<Arc<Target>, String> {
        match self.0.get(name) {
            Some(entry) => entry.clone(),
            None => Err(format!("service {name:?} is not registered: add it to a services file and deploy that")),
        }
    }
}

impl Target {
    fn resolve(service: Service, tls: &Tls, before: &Registry) -> Entry {
        let Service { name, url, audience, allow, headers } = service;
        let reason = |what: String| format!("service {name:?} cannot be used: {what}");
        let base = Base::parse(&url).map_err(reason)?;
        if let Some(literal) = base.literal {
            address::check(literal, &allow).map_err(reason)?;
        }
        let config = if base.encrypted { Some(tls.clone().map_err(reason)?) } else { None };
        let headers = headers.into_iter().map(|(header, source)| own_header(&header, &source)).collect::<Result<_, _>>().map_err(reason)?;
        let pool = match before.0.get(&name) {
            Some(Ok(old)) if old.url == url && old.allow == allow => old.pool.clone(),
            _ => Arc::new(Pool::new(base.origin, &allow, config)),
        };
        Ok(Arc::new(Self { audience, host: base.host, base_path: base.path, headers, pool, url, allow }))
    }
}

/// The TLS settings, or why there are none.
pub(super) type Tls = Result<Arc<ClientConfig>, String>;

/// TLS as this host trusts it: its own root certificates (`SSL_CERT_FILE` honoured), aws-lc-rs, TLS 1.2 and 1.3.
pub(super) fn native_tls() -> Tls {
    use hyper_rustls::ConfigBuilderExt;
    let builder = tls_builder()?.with_native_roots();
    let builder =
        builder.map_err(|error| format!("no root certificates for https on this host ({error}): install ca-certificates or set SSL_CERT_FILE"))?;
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// A builder with its provider named: the process-wide default belongs to nobody.
pub(super) fn tls_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| format!("TLS cannot be set up: {error}"))
}

struct Base {
    origin: Uri,
    host: HeaderValue,
    path: String,
    literal: Option<IpAddr>,
    encrypted: bool,
}

impl Base {
    /// Reads a base address. Stricter than any URL parser, so that no two parsers can disagree about the host.
    /// The text is never repeated in an error: somebody may have written a password into it.
    fn parse(url: &str) -> Result<Self, String> {
        let want = |what: &str| format!("its url must be http(s)://host[:port][/path]: {what}");
        let (scheme, rest) = url.split_once("://").ok_or_else(|| want("`://` is missing"))?;
        let encrypted = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(want("the scheme must be http or https, in lower case")),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err(want("no user and password: send them as a header with a secret:// value"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| want("the port must be a number from 1 to 65535"))?;
        let literal = parse_host(host).map_err(want)?;
        let path = path.trim_end_matches('/');
        headers::check_path(path).map_err(|reason| want(&reason))?;
        if path.contains('?') {
            return Err(want("no query"));
        }
        let standard = if encrypted { 443 } else { 80 };
        let authority = match port {
            Some(port) if port != standard => format!("{host}:{port}"),
            _ => host.to_owned(),
        };
        let origin = format!("{scheme}://{authority}/").parse().map_err(|_| want("the host cannot be read"))?;
        let host = HeaderValue::from_str(&authority).map_err(|_| want("the host cannot be read"))?;
        Ok(Self { origin, host, path: path.to_owned(), literal, encrypted })
    }
}

fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    // The colons of an IPv6 address are inside its brackets.
    let host_end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority.get(host_end..)?.find(':') {
        None => Some((authority, None)),
        Some(colon) => {
            let (host, port) = authority.split_at(host_end + colon);
            let digits = port.get(1..).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            let port: u16 = digits.parse().ok().filter(|port| *port != 0)?;
            Some((host, Some(port)))
        }
    }
}

fn parse_host(host: &str) -> Result<Option<IpAddr>, &'static str> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("the bracket of the IPv6 address is not closed")?;
        return inner.parse::<Ipv6Addr>().map(|address| Some(address.into())).map_err(|_| "the IPv6 address cannot be read");
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Some(address.into()));
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if host.len() > 253 || labels.split('.').any(|label| label.is_empty() || label.len() > 63 || !label.bytes().all(plain)) {
        return Err("the host may hold letters, digits, `-`, `_` and dots; write other alphabets as xn--...");
    }
    // The system's resolver reads 127.1, 2130706433, 0177.0.0.1 and 0x7f.1 as addresses.
    let last = labels.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X") {
        return Err("write an IPv4 address as four plain decimal numbers");
    }
    Ok(None)
}

fn own_header(header: &str, source: &HeaderSource) -> Result<(HeaderName, HeaderValue), String> {
    let name = headers::further_name(header)?;
    let (text, secret) = match source {
        HeaderSource::Plain(text) => (text.clone(), false),
        HeaderSource::Env(variable) => {
            let text = std::env::var(variable).map_err(|_| format!("set the environment variable {variable} of the worker (header {header})"))?;
            (text, true)
        }
        HeaderSource::File(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("the worker cannot read the secret file {path} (header {header}): {error}"))?;
            (text, true)
        }
    };
    // Files end in a line break; a secret with one inside is refused like any other value.
    let mut value = headers::value(header, text.trim_end_matches(['\r', '\n']))?;
    value.set_sensitive(secret);
    Ok((name, value))
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
