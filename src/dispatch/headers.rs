//! The head of a request: exactly the headers that the contract promises.

use std::fmt::Write;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Uri};

use super::services::Target;
use crate::core::call::{StepCall, is_reserved_header};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const SAGA_ID: HeaderName = HeaderName::from_static("hms-saga-id");
const STEP: HeaderName = HeaderName::from_static("hms-step");
const ATTEMPT: HeaderName = HeaderName::from_static("hms-attempt");
const FENCE: HeaderName = HeaderName::from_static("hms-fence");
const CALLBACK_URL: HeaderName = HeaderName::from_static("hms-callback-url");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The longest correlation id that is sent, bytes: the body holds it whole.
const CORRELATION_ID_MAX: usize = 512;

/// Writes the request of one attempt.
///
/// # Errors
/// What about the call cannot be sent, without repeating values.
pub(super) fn request(
    target: &Target,
    user_agent: &HeaderValue,
    authorization: String,
    call: &StepCall,
    callback_url: Option<&str>,
) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = method(&call.method)?;
    *request.uri_mut() = path(&target.base_path, &call.path)?;
    let headers = request.headers_mut();
    headers.reserve(16 + call.headers.len() + target.headers.len());
    headers.insert(header::HOST, target.host.clone());
    headers.insert(header::USER_AGENT, user_agent.clone());
    if !call.body.is_empty() {
        headers.insert(header::CONTENT_TYPE, JSON);
    }
    for (name, text) in &call.headers {
        headers.insert(further_name(name)?, value(name, text)?);
    }
    // The operator's headers come after the definition's, and win.
    for (name, value) in &target.headers {
        headers.insert(name.clone(), value.clone());
    }
    headers.insert(header::ACCEPT_ENCODING, IDENTITY);
    let mut bearer = built(authorization)?;
    bearer.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, bearer);
    identify(headers, call)?;
    if let Some(url) = callback_url {
        let mut url = value("Hms-Callback-Url", url)?;
        url.set_sensitive(true);
        headers.insert(CALLBACK_URL, url);
    }
    Ok(request)
}

fn identify(headers: &mut HeaderMap, call: &StepCall) -> Result<(), String> {
    headers.insert(IDEMPOTENCY_KEY, built(visible(&call.idempotency_key, usize::MAX))?);
    let mut saga = [0; uuid::fmt::Hyphenated::LENGTH];
    let saga = call.saga_id.hyphenated().encode_lower(&mut saga);
    headers.insert(SAGA_ID, value("Hms-Saga-Id", saga)?);
    headers.insert(STEP, built(visible(&call.step, usize::MAX))?);
    headers.insert(ATTEMPT, HeaderValue::from(call.attempt));
    headers.insert(FENCE, HeaderValue::from(call.fence));
    headers.insert(TRACEPARENT, built(traceparent(call))?);
    headers.insert(CORRELATION_ID, built(visible(&call.correlation_id, CORRELATION_ID_MAX))?);
    Ok(())
}

/// W3C trace context: the saga is the trace, the attempt (its fence is unique) the span.
fn traceparent(call: &StepCall) -> String {
    // All zeros mean "invalid" in both places.
    let trace = call.saga_id.as_u128().max(1);
    let span = match call.fence {
        0 => u64::from(call.attempt) | 1 << 63,
        fence => fence.cast_unsigned(),
    };
    let mut text = String::with_capacity(55);
    // Writing to a String cannot fail.
    let _written = write!(text, "00-{trace:032x}-{span:016x}-01");
    text
}

/// The text with every byte that is not visible ASCII percent-encoded, cut at `max`. What is already safe stays as it is.
fn visible(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for byte in text.bytes() {
        let width = if byte.is_ascii_graphic() { 1 } else { 3 };
        if out.len() + width > max {
            break;
        }
        if width == 1 {
            out.push(char::from(byte));
        } else {
            let _written = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A value that was built from visible characters, taken over without a copy.
fn built(text: String) -> Result<HeaderValue, String> {
    HeaderValue::from_maybe_shared(Bytes::from(text)).map_err(|_| "a header of the call cannot be written".to_owned())
}

/// The name of a further header, from a definition or a services file.
///
/// # Errors
/// The name is no header name, or is written by the orchestrator alone.
pub(super) fn further_name(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header name"))?;
    if is_reserved_header(parsed.as_str()) {
        return Err(format!("the header {name} is set by the orchestrator: remove it from `headers`"));
    }
    Ok(parsed)
}

/// The value of a further header. The text is not repeated in the error: it may be a secret.
///
/// # Errors
/// The value holds a line break or another control character.
pub(super) fn value(name: &str, text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("the value of the header {name:?} holds a line break or a character that is not plain ASCII"))
}

fn method(text: &str) -> Result<Method, String> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if method != Method::CONNECT && method != Method::TRACE && !text.bytes().any(|byte| byte.is_ascii_lowercase()) => Ok(method),
        _ => Err(format!("{text:?} is no method that a step can use: write GET, POST, PUT, PATCH or DELETE")),
    }
}

fn path(base: &str, path: &str) -> Result<Uri, String> {
    if !path.starts_with('/') {
        return Err("the path of the call must start with `/`".to_owned());
    }
    check_path(path)?;
    let whole = if base.is_empty() {
        PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_bytes()))
    } else {
        PathAndQuery::from_maybe_shared(Bytes::from(format!("{base}{path}")))
    };
    whole.map(Uri::from).map_err(|_| "the path of the call is no path and query".to_owned())
}

/// Refuses what could make a server see another path than the one that was registered.
///
/// # Errors
/// What is wrong, without repeating the path: it may hold personal data.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    if path.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'\\' | b'#')) {
        return Err("the path holds a space, a backslash, a `#` or a character that must be percent-encoded".to_owned());
    }
    let route = path.split('?').next().unwrap_or_default();
    if !route.contains("..") && !route.contains('%') {
        return Ok(());
    }
    let decoded = percent_decoded(route);
    let climbs = |segment: &[u8]| segment.split(|byte| *byte == b';').next() == Some(b"..");
    if decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(climbs) {
        return Err("the path holds a `..` segment".to_owned());
    }
    if decoded.iter().any(u8::is_ascii_control) {
        return Err("the path holds an encoded control character".to_owned());
    }
    Ok(())
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |index: usize| tail.get(index).and_then(|digit| char::from(*digit).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.extend(u8::try_from(high * 16 + low));
                rest = &tail[2..];
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_climb_or_hide_something_are_refused() {
        for hostile in [
            "/a/../b",
            "/..",
            "/a/%2e%2e/b",
            "/a/%2E./b",
            "/..;/admin",
            "/a/..;x=1/b",
            "/%2f..",
            "/a%2f..%2fb",
            "/a%5c..%5cb",
            "/a\\..\\b",
            "/a b",
            "/a#b",
            "/a%00b",
            "/a%0d%0aX: y",
            "/ä",
        ] {
            assert!(check_path(hostile).is_err(), "{hostile}");
        }
        for fine in ["", "/", "/recalc", "/a..b/c", "/v1/x%2Fy?from=../z&q=%20", "/100%", "/a;b/c"] {
            assert_eq!(check_path(fine), Ok(()), "{fine}");
        }
    }

    #[test]
    fn the_call_stays_below_its_base() {
        assert_eq!(path("/api", "/x?y=1").expect("path").to_string(), "/api/x?y=1");
        assert_eq!(path("", "//evil.example/x").expect("path").to_string(), "//evil.example/x", "a path, never a host");
        assert!(path("", "http://evil.example/").is_err());
        assert!(path("", "@evil.example/").is_err());
        assert!(path("", "*").is_err());
    }

    #[test]
    fn only_the_orchestrator_identifies_calls() {
        for name in [
            "Authorization",
            "Idempotency-Key",
            "HOST",
            "Content-Length",
            "Hms-Fence",
            "hms-anything",
            "Transfer-Encoding",
            "Connection",
            "Proxy-Authorization",
            "Accept-Encoding",
            "traceparent",
        ] {
            assert!(further_name(name).is_err(), "{name}");
        }
        assert!(further_name("X-Tenant").is_ok() && further_name("Content-Type").is_ok());
        for name in ["", "a b", "x:y", "x\r\ny", "é"] {
            assert!(further_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn files_are_refused_for_exactly_the_headers_that_calls_are() {
        let names = [
            "Accept-Encoding",
            "Authorization",
            "Connection",
            "Content-Encoding",
            "Content-Length",
            "Expect",
            "Host",
            "Idempotency-Key",
            "Keep-Alive",
            "TE",
            "traceparent",
            "tracestate",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "X-Correlation-Id",
            "Hms-Fence",
            "hms-anything",
            "Proxy-Connection",
            "proxy-x",
            "Accept",
            "Content-Type",
            "User-Agent",
            "X-Tenant",
            "baggage",
            "hms",
            "Prefer",
            "Proxy",
            "a b",
            "x:y",
        ];
        for name in names {
            let header = format!("headers: {{{name:?}: x}}");
            let saga = format!("id: a.v1\ntrigger: t\nsteps:\n  - {{name: s, call: {{url: 'svc:/s', {header}}}}}\n");
            let services = format!("id: a\nservices:\n  svc: {{url: 'https://a.example', {header}}}\n");
            let refused = further_name(name).is_err();
            for file in [saga, services] {
                let read = crate::core::definition_file::read("a.yaml", &file);
                assert_eq!(read.is_err(), refused, "{name}: {:?}", read.err());
            }
        }
    }

    #[test]
    fn ids_are_made_safe_for_headers() {
        assert_eq!(visible("order 7\r\nX: ü", usize::MAX), "order%207%0D%0AX:%20%C3%BC");
        assert_eq!(visible("a%20b", usize::MAX), "a%20b");
        assert_eq!(visible("ab\u{e9}", 4), "ab", "never cut inside an escape");
    }

    #[test]
    fn methods_are_plain() {
        assert!(method("POST").is_ok() && method("PURGE").is_ok());
        for hostile in ["CONNECT", "TRACE", "post", "", "GET /", "GET\r\n"] {
            assert!(method(hostile).is_err(), "{hostile:?}");
        }
    }
}
