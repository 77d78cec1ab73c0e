//! Callback tokens: what an asynchronous step's service shows when it reports the end.
//!
//! A token is 128 random bits, and whoever shows it may end the step: it is written into the request and nowhere else. The
//! database has its SHA-256, as `syncor.complete` computes it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;
use sha2::{Digest, Sha256};

/// 128 random bits, in the characters of a URL.
#[must_use]
pub fn new_token() -> String {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What is stored of a token.
#[must_use]
pub fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// Where a service reports the end, below the public address of the server.
#[must_use]
pub fn url(public_url: &str, token: &str) -> String {
    format!("{}/v1/callbacks/{token}", public_url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tokens_are_128_bits_that_need_no_escaping_and_never_come_twice() {
        let tokens: HashSet<String> = (0..10_000).map(|_| new_token()).collect();
        assert_eq!(tokens.len(), 10_000);
        for token in &tokens {
            assert_eq!(URL_SAFE_NO_PAD.decode(token).expect("base64url").len(), 16);
        }
        // Every bit is drawn: none is the same in all of them.
        let (mut all, mut any) = (u128::MAX, 0);
        for token in &tokens {
            let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(token).expect("base64url").try_into().expect("16 bytes");
            let bits = u128::from_be_bytes(bytes);
            (all, any) = (all & bits, any | bits);
        }
        assert_eq!((all, any), (0, u128::MAX));
    }

    #[test]
    fn only_the_digest_is_stored() {
        // As `select sha256('abc')` has it.
        let hex = digest("abc").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn the_url_lies_below_the_public_address() {
        assert_eq!(url("https://hms.example/base/", "t"), "https://hms.example/base/v1/callbacks/t");
        assert_eq!(url("http://127.0.0.1:7600", "t"), "http://127.0.0.1:7600/v1/callbacks/t");
    }
}
