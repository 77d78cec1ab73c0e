use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::AlgorithmParameters, jwk::Jwk};
use serde_json::{Value, json};

use super::*;

const BODY: &[u8] = br#"{"data": {"percent": 5}, "step": {"doKey": null}}"#;

/// An Ed25519 key made of a seed: PKCS #8 is a fixed prefix and the 32 bytes.
fn key(seed: u8) -> EncodingKey {
    let mut der = vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    der.extend([seed; 32]);
    EncodingKey::from_ed_der(&der)
}

fn jwk(seed: u8) -> Jwk {
    let mut jwk = Jwk::from_encoding_key(&key(seed), Algorithm::EdDSA).unwrap();
    jwk.common.key_id = Some("k1".to_owned());
    jwk
}

fn verifier() -> Verifier {
    let document = json!({"keys": [{"kty": "later"}, jwk(7)]});
    Verifier::new("payment-svc", Keys::of_document(&document))
}

fn header() -> Header {
    Header { typ: Some("hms-step+jwt".to_owned()), kid: Some("k1".to_owned()), ..Header::new(Algorithm::EdDSA) }
}

fn claims() -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({
        "iss": "hms-orch", "aud": "payment-svc", "sub": "s1", "step": "recalc", "action": "do",
        "attempt": 2, "fence": 41, "jti": "j", "iat": now, "nbf": now, "exp": now + 60,
        "bh": body_hash(BODY),
    })
}

/// The claims with one of them changed.
fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

fn headers(token: &str) -> HeaderMap {
    let authorization = format!("Bearer {token}");
    [
        ("authorization", authorization.as_str()),
        ("hms-saga-id", "s1"),
        ("hms-step", "recalc"),
        ("hms-attempt", "2"),
        ("hms-fence", "41"),
        ("idempotency-key", "s1/recalc/do"),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
    .collect::<HeaderMap>()
}

fn sign(claims: &Value) -> String {
    jsonwebtoken::encode(&header(), claims, &key(7)).unwrap()
}

async fn refused(token: &str) -> String {
    let problem = verifier().verify(&headers(token), BODY).await.unwrap_err();
    assert_eq!(problem.status, StatusCode::UNAUTHORIZED);
    problem.detail
}

#[tokio::test]
async fn a_token_for_this_service_and_body_is_accepted() {
    let headers = headers(&sign(&claims()));
    let call = verifier().verify(&headers, BODY).await.unwrap();
    assert_eq!(call.key, "s1/recalc/do");
    assert_eq!((call.action, call.fence), (Action::Do, 41));
    assert_eq!(call.data("percent"), 5);
    assert_eq!(call.do_key().unwrap(), "s1/recalc/do");
}

#[tokio::test]
async fn each_wrong_claim_is_refused() {
    for (claims, reason) in [
        (with("aud", "notice-svc"), "the token is for another service"),
        (with("aud", json!(["payment-svc", "notice-svc"])), "the token cannot be read"),
        (with("sub", "s2"), "the token is for another saga"),
        (with("exp", 1_000_000), "the token has expired"),
        (with("nbf", 9_000_000_000_u64), "the token is not valid yet"),
        (with("exp", Value::Null), "the token lacks exp"),
        (with("step", "other"), "header hms-step is not what the token says"),
        (with("attempt", 3), "header hms-attempt is not what the token says"),
        (with("fence", 40), "header hms-fence is not what the token says"),
        (with("action", "undo"), "header idempotency-key is not what the token says"),
        (with("bh", body_hash(b"{}")), "the body is not what the token says"),
    ] {
        assert_eq!(refused(&sign(&claims)).await, reason, "{claims}");
    }
}

#[tokio::test]
async fn a_changed_body_is_refused() {
    let changed = BODY.to_ascii_uppercase();
    let problem = verifier().verify(&headers(&sign(&claims())), &changed).await.unwrap_err();
    assert_eq!(problem.detail, "the body is not what the token says");
}

#[tokio::test]
async fn another_typ_is_refused() {
    let header = Header { typ: Some("JWT".to_owned()), ..header() };
    let token = jsonwebtoken::encode(&header, &claims(), &key(7)).unwrap();
    assert_eq!(refused(&token).await, "the token is not of typ hms-step+jwt");
}

#[tokio::test]
async fn alg_none_is_refused() {
    let header = json!({"alg": "none", "typ": "hms-step+jwt", "kid": "k1"});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let token = format!("{}.{}.", part(&header), part(&claims()));
    assert_eq!(refused(&token).await, "the token's header cannot be read");
}

#[tokio::test]
async fn a_mac_made_with_the_public_key_is_refused() {
    let AlgorithmParameters::OctetKeyPair(public) = jwk(7).algorithm else {
        panic!("an Ed25519 key is an octet key pair");
    };
    let header = Header { alg: Algorithm::HS256, ..header() };
    let secret = URL_SAFE_NO_PAD.decode(public.x).unwrap();
    let token = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&secret));
    assert_eq!(refused(&token.unwrap()).await, "the token is not signed by the orchestrator");
}

#[tokio::test]
async fn another_private_key_is_refused() {
    let token = jsonwebtoken::encode(&header(), &claims(), &key(8)).unwrap();
    assert_eq!(refused(&token).await, "the token is not signed by the orchestrator");
}

#[tokio::test]
async fn a_header_given_twice_is_refused() {
    let mut headers = headers(&sign(&claims()));
    headers.append("hms-step", HeaderValue::from_static("other"));
    assert!(verifier().verify(&headers, BODY).await.is_err());
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_no_refusal() {
    let header = Header { kid: Some("k2".to_owned()), ..header() };
    let token = jsonwebtoken::encode(&header, &claims(), &key(7)).unwrap();
    let problem = verifier().verify(&headers(&token), BODY).await.unwrap_err();
    assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_undo_cannot_name_another_sagas_key() {
    let body = br#"{"step": {"doKey": "s10/recalc/do"}}"#;
    let headers = headers(&sign(&with("bh", body_hash(body))));
    let call = verifier().verify(&headers, body).await.unwrap();
    assert!(call.do_key().is_err());
}
