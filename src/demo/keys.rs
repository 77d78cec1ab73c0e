//! The orchestrator's public keys, as its JWKS document gives them, cached.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use axum::{body::Bytes, http::Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk},
};
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};

use super::Error;

/// An unknown `kid` asks the orchestrator again, but never more often than this.
const REFETCH_EVERY: Duration = Duration::from_secs(1);
/// A key that the orchestrator withdrew is forgotten after this.
const CACHED_FOR: Duration = Duration::from_secs(300);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// A public key with the one algorithm it is good for.
///
/// The algorithm comes from the key, never from the token: else a token could ask for `HS256` and be
/// checked with the public key as its secret.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) decoding: DecodingKey,
    pub(super) algorithm: Algorithm,
}

/// The keys could not be asked for. Says nothing about the token: the caller may try again.
#[derive(Debug, thiserror::Error)]
#[error("the orchestrator's keys cannot be read from {url}: {reason}")]
pub(super) struct Unavailable {
    url: Uri,
    reason: String,
}

/// The cached document.
#[derive(Default)]
struct Cached {
    by_kid: HashMap<String, Key>,
    fetched_at: Option<Instant>,
}

/// Looks keys up by `kid`.
pub(super) struct Keys {
    url: Uri,
    client: Client<HttpConnector, Empty<Bytes>>,
    cached: RwLock<Cached>,
    /// Held while asking, so that one answer serves everybody who waits. Holds when it was last asked.
    asking: Mutex<Option<Instant>>,
}

impl Keys {
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        let unusable = || Error::JwksUrl { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| unusable())?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(unusable());
        }
        Ok(Self { url: uri, client: Client::builder(TokioExecutor::new()).build_http(), cached: RwLock::default(), asking: Mutex::default() })
    }

    /// The key with this `kid`, or `None` if a document younger than the question lacks it.
    pub(super) async fn find(&self, kid: &str) -> Result<Option<Key>, Unavailable> {
        let asked_at = Instant::now();
        let stale = match self.cached(kid) {
            Some((key, age)) if age < CACHED_FOR => return Ok(Some(key)),
            stale => stale.map(|(key, _)| key),
        };
        match self.refresh(asked_at).await {
            Ok(()) => Ok(self.cached(kid).map(|(key, _)| key)),
            // An orchestrator that is away for a moment has not withdrawn its keys.
            Err(unavailable) => stale.map(Some).ok_or(unavailable),
        }
    }

    fn cached(&self, kid: &str) -> Option<(Key, Duration)> {
        let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
        let age = cached.fetched_at?.elapsed();
        cached.by_kid.get(kid).map(|key| (key.clone(), age))
    }

    /// Makes the cache younger than `asked_at`.
    ///
    /// Those who ask together wait for one fetch: a flood of made-up `kid`s costs one GET a second.
    /// A token is not refused because the last fetch was a moment too early: a 401 would fail the
    /// step of a worker that has just started for good.
    async fn refresh(&self, asked_at: Instant) -> Result<(), Unavailable> {
        let mut last = self.asking.lock().await;
        if self.fetched_since(asked_at) {
            return Ok(());
        }
        if let Some(last) = *last {
            tokio::time::sleep_until(last + REFETCH_EVERY).await;
        }
        let now = Instant::now();
        *last = Some(now);
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch()).await;
        let by_kid = fetched
            .unwrap_or_else(|_| Err("no answer in time".into()))
            .map_err(|reason| Unavailable { url: self.url.clone(), reason: reason.to_string() })?;
        *self.cached.write().unwrap_or_else(PoisonError::into_inner) = Cached { by_kid, fetched_at: Some(now) };
        Ok(())
    }

    fn fetched_since(&self, asked_at: Instant) -> bool {
        let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
        cached.fetched_at.is_some_and(|at| at >= asked_at)
    }

    async fn fetch(&self) -> Result<HashMap<String, Key>, Box<dyn std::error::Error + Send + Sync>> {
        let response = self.client.get(self.url.clone()).await?;
        if !response.status().is_success() {
            return Err(response.status().to_string().into());
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX);
        let document = serde_json::from_slice(&body.collect().await?.to_bytes())?;
        Ok(read_document(&document))
    }

    /// Keys without an orchestrator behind them.
    #[cfg(test)]
    pub(super) fn of_document(document: &Value) -> Self {
        let keys = Self::new("http://127.0.0.1:9/jwks.json").unwrap();
        *keys.cached.write().unwrap() = Cached { by_kid: read_document(document), fetched_at: Some(Instant::now()) };
        keys
    }
}

/// Takes the keys it understands and leaves the others: one odd entry must not lock everybody out.
fn read_document(document: &Value) -> HashMap<String, Key> {
    let entries = document["keys"].as_array().map_or(&[][..], Vec::as_slice);
    entries
        .iter()
        .filter_map(|entry| {
            let jwk: Jwk = serde_json::from_value(entry.clone()).ok()?;
            let algorithm = match &jwk.algorithm {
                AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
                AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => Algorithm::ES256,
                _ => return None,
            };
            let decoding = DecodingKey::from_jwk(&jwk).ok()?;
            Some((jwk.common.key_id?, Key { decoding, algorithm }))
        })
        .collect()
}
