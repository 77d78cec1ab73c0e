//! Test vectors: what a stock verification accepts and refuses.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::core::outcome::Action;

const NOW: i64 = 4_000_000_000;

fn call(body: &'static str) -> StepCall {
    StepCall {
        service: "payment-svc".into(),
        method: "POST".into(),
        path: "/recalc".into(),
        headers: vec![],
        body: body.into(),
        saga_id: Uuid::from_u128(7),
        step: "recalc".into(),
        action: Action::Do,
        attempt: 2,
        fence: 41,
        idempotency_key: "k".into(),
        correlation_id: "c".into(),
        timeout: Duration::from_millis(1500),
        callback_token: None,
    }
}

fn signer(algorithm: Algorithm) -> Signer {
    Signer::ephemeral(algorithm).expect("key")
}

fn token(signer: &Signer, now: i64) -> String {
    let value = signer.authorization("hms-orch", "payment-svc", &call("{}"), now).expect("signed");
    value.strip_prefix("Bearer ").expect("bearer").to_owned()
}

/// What a service does: one algorithm, one audience, one issuer, the type, then the body's hash.
fn verify(jwk: &Value, token: &str, audience: &str, body: &str) -> Result<Value, String> {
    let jwk: Jwk = serde_json::from_value(jwk.clone()).expect("a JWK");
    let algorithm = if jwk.common.key_algorithm == Some(jsonwebtoken::jwk::KeyAlgorithm::ES256) {
        jsonwebtoken::Algorithm::ES256
    } else {
        jsonwebtoken::Algorithm::EdDSA
    };
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[audience]);
    validation.set_issuer(&["hms-orch"]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    validation.leeway = 0;
    let token = jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(&jwk).expect("key"), &validation).map_err(|error| error.to_string())?;
    if token.header.typ.as_deref() != Some("hms-step+jwt") || token.header.kid != jwk.common.key_id {
        return Err("another kind of token".to_owned());
    }
    if token.claims["bh"] != URL_SAFE_NO_PAD.encode(Sha256::digest(body)) {
        return Err("another body".to_owned());
    }
    Ok(token.claims)
}

#[test]
fn a_token_verifies_with_the_published_key() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let signer = signer(algorithm);
        let published = jwks(&[signer.jwk().clone()]);
        let claims = verify(&published["keys"][0], &token(&signer, NOW), "payment-svc", "{}").expect("verified");
        assert_eq!(claims["sub"], Uuid::from_u128(7).to_string());
        assert_eq!(
            (&claims["step"], &claims["action"], &claims["attempt"], &claims["fence"]),
            (&json!("recalc"), &json!("do"), &json!(2), &json!(41))
        );
        assert_eq!(claims["jti"], format!("{}.recalc.do.2.41", Uuid::from_u128(7)));
        assert_eq!((&claims["iat"], &claims["nbf"], &claims["exp"]), (&json!(NOW), &json!(NOW), &json!(NOW + 2 + LIFE_SLACK_SECS)));
    }
}

#[test]
fn a_token_never_lives_longer_than_a_minute() {
    let signer = signer(Algorithm::EdDsa);
    for timeout in [Duration::ZERO, Duration::from_secs(55), Duration::from_secs(3600), Duration::MAX] {
        let value = signer.authorization("hms-orch", "payment-svc", &StepCall { timeout, ..call("{}") }, NOW).expect("signed");
        let claims = verify(signer.jwk(), value.trim_start_matches("Bearer "), "payment-svc", "{}").expect("verified");
        let life = claims["exp"].as_i64().expect("exp") - NOW;
        assert!((LIFE_SLACK_SECS..=LIFE_MAX_SECS).contains(&life), "{timeout:?}: {life}");
    }
}

#[test]
fn the_key_id_is_the_thumbprint_of_the_public_key() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let signer = signer(algorithm);
        let jwk: Jwk = serde_json::from_value(signer.jwk().clone()).expect("a JWK");
        assert_eq!(signer.key_id(), jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).expect("thumbprint"));
        assert!(signer.jwk().get("d").is_none(), "nothing private is published");
    }
}

#[test]
fn another_service_body_or_time_is_refused() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let signer = signer(algorithm);
        let good = token(&signer, NOW);
        assert!(verify(signer.jwk(), &good, "notice-svc", "{}").is_err(), "wrong audience");
        assert!(verify(signer.jwk(), &good, "payment-svc", "{} ").is_err(), "changed body");
        assert!(verify(signer.jwk(), &token(&signer, 1_000_000_000), "payment-svc", "{}").is_err(), "expired");
        assert!(verify(super::Signer::ephemeral(algorithm).expect("key").jwk(), &good, "payment-svc", "{}").is_err(), "another key");
    }
}

#[test]
fn a_token_without_our_signature_is_refused() {
    let signer = signer(Algorithm::EdDsa);
    let good = token(&signer, NOW);
    let parts: Vec<&str> = good.split('.').collect();
    for algorithm in ["none", "nOnE", "HS256", "RS256", "ES256"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"typ": "hms-step+jwt", "alg": algorithm, "kid": signer.key_id()}).to_string());
        for signature in ["", parts[2]] {
            assert!(verify(signer.jwk(), &format!("{header}.{}.{signature}", parts[1]), "payment-svc", "{}").is_err(), "alg {algorithm}");
        }
    }
    // The classic: the public key as a shared secret.
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).expect("claims")).expect("claims");
    let public = signer.jwk()["x"].as_str().expect("x");
    let header = Header { typ: Some("hms-step+jwt".into()), kid: Some(signer.key_id().into()), ..Header::new(jsonwebtoken::Algorithm::HS256) };
    for secret in [public.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(public).expect("x"), signer.jwk().to_string().into_bytes()] {
        let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).expect("forged");
        assert!(verify(signer.jwk(), &forged, "payment-svc", "{}").is_err());
    }
    assert!(verify(signer.jwk(), &format!("{}.{}", parts[0], parts[1]), "payment-svc", "{}").is_err());
    assert!(verify(signer.jwk(), &format!("{good}.x"), "payment-svc", "{}").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_changed_character_is_refused(position in 0_usize..400, letter in proptest::char::range('A', 'Z')) {
        let signer = signer(Algorithm::EdDsa);
        let good = token(&signer, NOW);
        // The last character of a part may carry unused bits.
        let position = position % (good.len() - 1);
        let mut changed = good.clone();
        changed.replace_range(position..=position, &letter.to_string());
        prop_assume!(changed != good);
        prop_assert!(verify(signer.jwk(), &changed, "payment-svc", "{}").is_err(), "{}", changed);
    }
}

#[test]
fn debug_shows_no_key() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("key.pem");
    let signer = Signer::load_or_create(&path, Algorithm::EdDsa).expect("key");
    let text = format!("{signer:?}");
    let pem = std::fs::read_to_string(&path).expect("pem");
    let secret = pem.lines().nth(1).expect("base64");
    assert!(text.contains(signer.key_id()) && !text.contains(&secret[..16]) && text.len() < 200, "{text}");
}
