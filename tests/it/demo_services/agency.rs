//! The services under test, small, and as much of an orchestrator as they see.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Json, Router, body::Bytes, http::Request, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use syncor::demo::{Options, Services};
use tokio::sync::RwLock;

/// The services with 2,000 people and 500 payments, and an orchestrator to ask them.
pub(super) struct Agency {
    pub(super) services: Services,
    pub(super) orchestrator: Orchestrator,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Agency {
    pub(super) async fn start(url: &str) -> Self {
        let orchestrator = Orchestrator::start().await;
        let services = Services::start(options(url, &orchestrator)).await.unwrap();
        Self { services, orchestrator, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(super) async fn total(&self) -> i64 {
        self.services.payments_total_cents().await.unwrap()
    }

    pub(super) async fn ask(&self, ask: &Ask) -> (u16, Value) {
        let (headers, body) = self.orchestrator.sign(ask);
        self.send(ask.service, ask.path, &headers, &body).await
    }

    pub(super) async fn send(&self, service: &str, path: &str, headers: &[(&str, String)], body: &str) -> (u16, Value) {
        let (_, address) = self.services.addresses().find(|(name, _)| *name == service).unwrap();
        let mut request = Request::post(format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        let response = self.client.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

pub(super) fn options(url: &str, orchestrator: &Orchestrator) -> Options {
    Options { claimants: 2000, payments: 500, ..Options::new(url, &orchestrator.jwks_url) }
}

/// One call of a step.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) service: &'static str,
    pub(super) path: &'static str,
    pub(super) step: &'static str,
    pub(super) action: &'static str,
    pub(super) saga: String,
    pub(super) context: Value,
    /// `None` takes the next one.
    pub(super) fence: Option<i64>,
}

impl Ask {
    pub(super) fn new(service: &'static str, path: &'static str, step: &'static str, action: &'static str, saga: &str) -> Self {
        Self { service, path, step, action, saga: saga.to_owned(), context: Value::Null, fence: None }
    }

    pub(super) fn recalc(saga: &str) -> Self {
        Self::new("payment-svc", "/recalc", "recalc_payments", "do", saga)
    }

    pub(super) fn revert(saga: &str) -> Self {
        Self::new("payment-svc", "/revert", "recalc_payments", "undo", saga)
    }

    pub(super) fn broadcast(saga: &str) -> Self {
        Self::new("notice-svc", "/broadcast", "send_notices", "do", saga)
    }
}

/// As much of the orchestrator as a service sees: public keys, and signed requests.
pub(super) struct Orchestrator {
    jwks_url: String,
    keys: Arc<RwLock<Vec<Jwk>>>,
    fence: AtomicI64,
}

impl Orchestrator {
    pub(super) async fn start() -> Self {
        let keys = Arc::new(RwLock::new(Vec::new()));
        let served = keys.clone();
        let jwks = get(async move || Json(json!({"keys": *served.read().await})));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/.well-known/jwks.json", jwks);
        tokio::spawn(axum::serve(listener, router).into_future());
        let orchestrator = Self { jwks_url: format!("http://{address}/.well-known/jwks.json"), keys, fence: AtomicI64::new(100) };
        orchestrator.publish("first", 7).await;
        orchestrator
    }

    pub(super) async fn publish(&self, kid: &str, seed: u8) {
        let mut jwk = Jwk::from_encoding_key(&key(seed), Algorithm::EdDSA).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        self.keys.write().await.push(jwk);
    }

    pub(super) fn sign(&self, ask: &Ask) -> (Vec<(&'static str, String)>, String) {
        self.signed_by("first", 7, ask)
    }

    /// Headers, the token first, and the body.
    pub(super) fn signed_by(&self, kid: &str, seed: u8, ask: &Ask) -> (Vec<(&'static str, String)>, String) {
        let Ask { saga, step, action, .. } = ask;
        let fence = ask.fence.unwrap_or_else(|| self.fence.fetch_add(1, Ordering::Relaxed));
        let do_key = (*action == "undo").then(|| format!("{saga}/{step}/do"));
        let body = json!({
            "sagaId": saga, "definition": "dol.benefit.increase.v1", "correlationId": "c",
            "step": {
                "name": step, "action": action, "attempt": 1, "context": ask.context,
                "doKey": do_key,
            },
            "data": {"policyId": "dol.unemployment.v3", "percent": 5}, "steps": {},
        })
        .to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({
            "iss": "hms-orch", "aud": ask.service, "sub": saga, "step": step, "action": action,
            "attempt": 1, "fence": fence, "jti": format!("{fence}"), "iat": now, "nbf": now,
            "exp": now + 60, "bh": URL_SAFE_NO_PAD.encode(Sha256::digest(&body)),
        });
        let header = Header { typ: Some("hms-step+jwt".to_owned()), kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, &claims, &key(seed)).unwrap();
        let headers = vec![
            ("Authorization", format!("Bearer {token}")),
            ("Content-Type", "application/json".to_owned()),
            ("Idempotency-Key", format!("{saga}/{step}/{action}")),
            ("Hms-Saga-Id", saga.clone()),
            ("Hms-Step", (*step).to_owned()),
            ("Hms-Attempt", "1".to_owned()),
            ("Hms-Fence", fence.to_string()),
        ];
        (headers, body)
    }
}

/// An Ed25519 key made of a seed: PKCS #8 is a fixed prefix and the 32 bytes.
fn key(seed: u8) -> EncodingKey {
    let mut der = vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    der.extend([seed; 32]);
    EncodingKey::from_ed_der(&der)
}
