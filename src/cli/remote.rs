//! A client of our own HTTP interface.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::code::{Code, Stop};
use super::output;
use crate::config;

/// Largest answer that is read.
const ANSWER_MAX: usize = 16 << 20;
/// Longest wait for an answer.
const TIME: Duration = Duration::from_secs(30);

/// A server, and the key for it.
#[derive(Debug)]
pub(super) struct Remote {
    base: String,
    key: Option<config::Secret>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Remote {
    /// The server at this address.
    pub fn new(url: &str, key: Option<config::Secret>) -> Result<Self> {
        let parsed = url::Url::parse(url).map_err(|error| output::usage(format!("HMS_URL {url:?}: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(output::usage(format!("HMS_URL {url:?} must begin with http:// or https://")));
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let connector = match tls.clone().with_native_roots() {
            Ok(tls) => tls.with_no_client_auth(),
            // Without any root certificate plain HTTP still works.
            Err(_) => tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(connector).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base: parsed.as_str().trim_end_matches('/').to_owned(), key, client })
    }

    /// `GET`; `None` where there is no such thing.
    pub async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.send(Method::GET, path, Bytes::new()).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) if status.is_success() => Ok(Some(body)),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    /// `POST` of a document.
    pub async fn post(&self, path: &str, document: &Value) -> Result<Value> {
        match self.send(Method::POST, path, serde_json::to_vec(document)?.into()).await? {
            (status, body) if status.is_success() => Ok(body),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    /// `POST` of an order: its receipt, or the reason of a refusal.
    pub async fn order(&self, path: &str, document: &Value) -> Result<Result<Value, String>> {
        match self.send(Method::POST, path, serde_json::to_vec(document)?.into()).await? {
            (status, body) if status.is_success() => Ok(Ok(body)),
            (StatusCode::CONFLICT, body) => Ok(Err(body["detail"].as_str().unwrap_or("no reason given").to_owned())),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Value)> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            let mut value = header::HeaderValue::from_str(&format!("Bearer {}", key.expose().trim())).context("HMS_API_KEY is no key")?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(body))?;
        let unavailable = |reason: String| Stop::new(Code::Unavailable, format!("{}: {reason}", self.base));
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| unavailable(causes(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|error| unavailable(error.to_string()))?.to_bytes();
            Ok::<_, anyhow::Error>((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
        };
        tokio::time::timeout(TIME, exchange).await.map_err(|_| unavailable("no answer within 30 seconds".to_owned()))?
    }
}

/// The last cause of a failed exchange says most.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// What a problem document means here.
fn refusal(status: StatusCode, body: &Value) -> anyhow::Error {
    let detail = body["detail"].as_str().or_else(|| body["title"].as_str()).unwrap_or("no reason given");
    // A thing that is missing is said as it is without a server in between.
    if status == StatusCode::NOT_FOUND {
        return output::not_found(detail);
    }
    let code = match status.as_u16() {
        400 | 413 | 415 | 422 => Code::Invalid,
        409 | 412 => Code::Conflict,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Failed,
    };
    Stop::new(code, format!("the server refused ({}): {detail}", status.as_u16())).into()
}
