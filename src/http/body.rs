//! Bodies that are one JSON document of a known shape.

use axum::extract::Request;
use axum::http::header;
use serde::de::DeserializeOwned;

use super::cloudevent::media_type;
use super::limits;
use super::problem::Problem;

/// Reads the document; an empty body is an empty object, so that what is missing from it is said by name.
///
/// # Errors
/// 400 with what is wrong; 408, 413 and 415 as for every body.
pub async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = limits::read_body(&parts.headers, body).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return parse(b"{}");
    }
    // Without a content type people mean what the route takes.
    let content_type = parts.headers.get(header::CONTENT_TYPE).map(|value| media_type(value.to_str().unwrap_or_default()));
    if content_type.is_some_and(|kind| kind != "application/json" && !kind.ends_with("+json")) {
        return Err(Problem::not_json("send the body as application/json"));
    }
    parse(&bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| Problem::malformed(format!("the body cannot be used: {error}")))
}

/// A text that must say something.
///
/// # Errors
/// 400 naming the key.
pub fn required(key: &str, text: Option<String>) -> Result<String, Problem> {
    text.filter(|text| !text.trim().is_empty()).ok_or_else(|| Problem::malformed(format!("say why: `{key}` is required")).at(format!("/{key}")))
}
