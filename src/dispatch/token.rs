//! Step tokens: who calls which service for which attempt, signed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::key_file;
use crate::core::call::StepCall;

/// The longest life of a token.
const LIFE_MAX_SECS: i64 = 60;
/// A token outlives its attempt by this much, for the way there and clocks that differ.
const LIFE_SLACK_SECS: i64 = 5;

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key file or its folder cannot be read or written.
    #[error("signing key file {}: {source}", path.display())]
    File {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner can read the key file.
    #[error("the signing key file {} can be used by others (mode {mode:o}): run `chmod 600` on it, or remove it so that a new key is made", path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold a private key that we can use.
    #[error("the file {} holds no PKCS#8 private key in PEM form for EdDSA or ES256", path.display())]
    NoKey {
        /// The key file.
        path: PathBuf,
    },
    /// The key is for another algorithm than asked for.
    #[error("the key in {} is for {found}, not {wanted}: set HMS_JWT_ALG={found}, or name another file in HMS_SIGNING_KEY_FILE", path.display())]
    OtherAlgorithm {
        /// The key file.
        path: PathBuf,
        /// What the key is for.
        found: Algorithm,
        /// What was asked for.
        wanted: Algorithm,
    },
    /// The cryptographic library refused.
    #[error("the cryptographic library refused to {0}")]
    Crypto(&'static str),
}

/// How tokens are signed: `HMS_JWT_ALG`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519, the default.
    #[default]
    EdDsa,
    /// ECDSA on P-256, for installations bound to FIPS 140.
    Es256,
}

impl Algorithm {
    /// The name in token headers and in `HMS_JWT_ALG`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::EdDsa, Self::Es256]
            .into_iter()
            .find(|known| known.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no algorithm: write EdDSA or ES256"))
    }
}

/// Signs step tokens with this worker's private key.
pub struct Signer {
    key: Key,
    key_id: String,
    jwk: Value,
    /// `Bearer <encoded header>.`: the same for every token.
    opening: String,
}

enum Key {
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("algorithm", &self.algorithm()).field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads the PKCS#8 PEM key of `path`; makes file (0600) and folder (0700) if there is none.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read or made, [`Error::Exposed`] if others can use it, [`Error::NoKey`] and
    /// [`Error::OtherAlgorithm`] for what is in it.
    pub fn load_or_create(path: &Path, algorithm: Algorithm) -> Result<Self, Error> {
        let der = key_file::read_or_create(path, || Key::generate(algorithm))?;
        let Some(key) = Key::read(&der, Algorithm::EdDsa).or_else(|| Key::read(&der, Algorithm::Es256)) else {
            return Err(Error::NoKey { path: path.to_owned() });
        };
        if key.algorithm() != algorithm {
            return Err(Error::OtherAlgorithm { path: path.to_owned(), found: key.algorithm(), wanted: algorithm });
        }
        Ok(Self::new(key))
    }

    /// A key that lives as long as the process: for demos and tests.
    ///
    /// # Errors
    /// [`Error::Crypto`] if no key can be made.
    pub fn ephemeral(algorithm: Algorithm) -> Result<Self, Error> {
        let der = Key::generate(algorithm)?;
        Key::read(&der, algorithm).map(Self::new).ok_or(Error::Crypto("read its own key"))
    }

    fn new(key: Key) -> Self {
        let (mut jwk, canonical) = key.public();
        // RFC 7638: the hash of the required members in alphabetical order.
        let key_id = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        jwk["kid"] = json!(key_id);
        jwk["alg"] = json!(key.algorithm().as_str());
        jwk["use"] = json!("sig");
        let header = json!({"typ": "hms-step+jwt", "alg": key.algorithm().as_str(), "kid": key_id}).to_string();
        let opening = format!("Bearer {}.", URL_SAFE_NO_PAD.encode(header));
        Self { key, key_id, jwk, opening }
    }

    /// The algorithm of the key.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// The public key's RFC 7638 thumbprint: `kid`.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key as a JWK: what `syncor.signing_keys` keeps.
    #[must_use]
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// The `Authorization` value of one attempt: `Bearer <token>`.
    ///
    /// # Errors
    /// [`Error::Crypto`] if the library refuses to sign.
    pub(super) fn authorization(&self, issuer: &str, audience: &str, call: &StepCall, now_unix_secs: i64) -> Result<String, Error> {
        let timeout_secs = i64::try_from(call.timeout.saturating_add(Duration::from_millis(999)).as_secs()).unwrap_or(LIFE_MAX_SECS);
        let mut hash = [0; 43];
        let hashed = URL_SAFE_NO_PAD.encode_slice(digest(&SHA256, &call.body), &mut hash);
        let claims = Claims {
            iss: issuer,
            aud: audience,
            sub: call.saga_id,
            step: &call.step,
            action: call.action.as_str(),
            attempt: call.attempt,
            fence: call.fence,
            jti: TokenId(call),
            iat: now_unix_secs,
            nbf: now_unix_secs,
            exp: now_unix_secs.saturating_add(timeout_secs.saturating_add(LIFE_SLACK_SECS).min(LIFE_MAX_SECS)),
            bh: hashed.ok().and_then(|_| std::str::from_utf8(&hash).ok()).ok_or(Error::Crypto("hash the body"))?,
        };
        let claims = serde_json::to_vec(&claims).map_err(|_| Error::Crypto("write the claims"))?;
        let mut token = String::with_capacity(self.opening.len() + claims.len() * 4 / 3 + 96);
        token.push_str(&self.opening);
        URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
        let signature = self.key.sign(&token.as_bytes()["Bearer ".len()..])?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The document of `/.well-known/jwks.json` for these public keys.
#[must_use]
pub fn jwks(keys: &[Value]) -> Value {
    json!({"keys": keys})
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: Uuid,
    step: &'a str,
    action: &'static str,
    attempt: u32,
    fence: i64,
    jti: TokenId<'a>,
    iat: i64,
    nbf: i64,
    exp: i64,
    bh: &'a str,
}

struct TokenId<'a>(&'a StepCall);

impl Serialize for TokenId<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let StepCall { saga_id, step, action, attempt, fence, .. } = self.0;
        serializer.collect_str(&format_args!("{saga_id}.{step}.{}.{attempt}.{fence}", action.as_str()))
    }
}

impl Key {
    fn generate(algorithm: Algorithm) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        // Version 1, which every tool reads: OpenSSL refuses the longer form with the public key.
        let document = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::generate_pkcs8v1(&random),
            Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random),
        };
        Ok(document.map_err(|_| Error::Crypto("make a key"))?.as_ref().to_vec())
    }

    fn read(der: &[u8], algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Self::EdDsa),
            Algorithm::Es256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok().map(Self::Es256),
        }
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            Self::EdDsa(_) => Algorithm::EdDsa,
            Self::Es256(_) => Algorithm::Es256,
        }
    }

    /// The public JWK, and its required members as the thumbprint wants them.
    fn public(&self) -> (Value, String) {
        match self {
            Self::EdDsa(pair) => {
                let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
                (json!({"kty": "OKP", "crv": "Ed25519", "x": x}), format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#))
            }
            Self::Es256(pair) => {
                // An uncompressed point: 0x04, 32 bytes of x, 32 bytes of y.
                let point = pair.public_key().as_ref();
                let half = |range| URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default());
                let (x, y) = (half(1..33), half(33..65));
                (json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}), format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#))
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Result<aws_lc_rs::signature::Signature, Error> {
        match self {
            Self::EdDsa(pair) => pair.try_sign(message),
            Self::Es256(pair) => pair.sign(&SystemRandom::new(), message),
        }
        .map_err(|_| Error::Crypto("sign"))
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
