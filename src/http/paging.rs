//! Pages of lists: `?limit=&after=`, with a `Link` to the next one.

use axum::Json;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::store::read::{LIMIT, Page};

/// Rows of a page unless said.
const DEFAULT: u32 = 50;

/// A page as it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T: ToSchema> {
    /// The rows.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; null on the last one.
    pub next: Option<String>,
}

/// How many rows were asked for.
///
/// # Errors
/// 400 when it is not within 1 and 200.
pub fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked {
        None => Ok(DEFAULT),
        Some(limit) if (1..=LIMIT).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::malformed(format!("limit is 1 to {LIMIT}"))),
    }
}

/// The page as an answer to a request for `uri`; `key` gives what the next page starts after.
pub fn answer<T: Serialize + ToSchema>(uri: &Uri, page: Page<T>, key: impl Fn(&T) -> String) -> Response {
    let next = page.items.last().filter(|_| page.has_more).map(key);
    let link = next.as_deref().map(|next| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let asked = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        query.extend_pairs(asked.filter(|(name, _)| name != "after")).append_pair("after", next);
        format!("<{}?{}>; rel=\"next\"", uri.path(), query.finish())
    });
    let mut response = Json(List { items: page.items, next }).into_response();
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}
