//! API keys and signing keys: shown once, stored hashed, gone when revoked or expired.

use chrono::{Duration, Utc};
use serde_json::json;
use syncor::store::dsn::Dsn;
use syncor::store::keys::{self, Role};
use syncor::store::{Error, Options, Store};

use crate::support::db::{self, connect};

fn store(url: &str) -> Store {
    Store::new(Options { dsn: Dsn::parse(url).unwrap(), pool_size: 4, application_name: "test".to_owned() })
}

#[tokio::test]
async fn a_key_says_who_presents_it_until_it_is_revoked() {
    let db = db::database().await;
    let store = store(&db.url);
    assert!(!keys::any(&store).await.unwrap());
    let secret = keys::create(&store, Role::Operator, "desk", "me", None).await.unwrap();
    let text = secret.expose().to_owned();
    assert!(text.starts_with("hms_") && text.len() == 4 + 16 + 1 + 43, "{text}");
    assert_eq!(format!("{secret:?}"), "Secret(..)");

    let principal = keys::verify(&store, &text).await.unwrap().unwrap();
    assert_eq!((principal.name.as_str(), principal.role), ("desk", Role::Operator));
    let (prefix, _) = text.split_at(text.len() - 1);
    for wrong in [prefix, "", "hms_", "hms_0000000000000000_x", &text.replace("hms_", "HMS_"), &format!("{text}x")] {
        assert_eq!(keys::verify(&store, wrong).await.unwrap(), None, "{wrong}");
    }
    let client = connect(&db.url).await;
    let kept: String = client
        .query_one("select string_agg(k::text, '') || (select string_agg(c::text, '') from syncor.command c) from syncor.api_key k", &[])
        .await
        .unwrap()
        .get(0);
    assert!(!kept.contains(&text[21..]), "the secret is nowhere in the database");

    assert!(keys::revoke(&store, &principal.id, "me").await.unwrap());
    assert!(!keys::revoke(&store, &principal.id, "me").await.unwrap());
    assert_eq!(keys::verify(&store, &text).await.unwrap(), None);
    let listed = keys::list(&store).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].revoked_at.is_some() && keys::any(&store).await.unwrap());
}

#[tokio::test]
async fn an_expired_key_is_nobodys() {
    let db = db::database().await;
    let store = store(&db.url);
    let gone = keys::create(&store, Role::Admin, "gone", "me", Some(Utc::now() - Duration::minutes(1))).await.unwrap();
    let good = keys::create(&store, Role::Viewer, "good", "me", Some(Utc::now() + Duration::minutes(10))).await.unwrap();
    assert_eq!(keys::verify(&store, gone.expose()).await.unwrap(), None);
    assert_eq!(keys::verify(&store, good.expose()).await.unwrap().map(|principal| principal.role), Some(Role::Viewer));
}

#[tokio::test]
async fn the_bootstrap_key_is_made_once_and_stays_revoked() {
    let db = db::database().await;
    let store = store(&db.url);
    for text in ["0123456789abcdef_0123456789abcdef", "hms_not-one-of-ours-but-long-enough-anyway"] {
        let first = keys::ensure_bootstrap(&store, &format!("{text}\n")).await.unwrap();
        assert_eq!(first.role, Role::Admin);
        assert_eq!(keys::ensure_bootstrap(&store, text).await.unwrap(), first);
        assert_eq!(keys::verify(&store, text).await.unwrap(), Some(first.clone()));
        keys::revoke(&store, &first.id, "me").await.unwrap();
        assert!(matches!(keys::ensure_bootstrap(&store, text).await, Err(Error::Refused(_))));
    }
    assert!(matches!(keys::ensure_bootstrap(&store, "short").await, Err(Error::Refused(_))));
    assert_eq!(keys::list(&store).await.unwrap().len(), 2);
}

#[tokio::test]
async fn signing_keys_live_for_a_day_after_they_were_last_seen() {
    let db = db::database().await;
    let store = store(&db.url);
    let jwk = json!({"kty": "OKP", "x": "a"});
    keys::publish_signing_key(&store, "k1", &jwk).await.unwrap();
    keys::publish_signing_key(&store, "k1", &jwk).await.unwrap();
    keys::publish_signing_key(&store, "k2", &json!({"x": "b"})).await.unwrap();
    let client = connect(&db.url).await;
    client.batch_execute("update syncor.signing_key set seen_at = now() - interval '25 hours' where kid = 'k2'").await.unwrap();
    assert_eq!(keys::live_jwks(&store).await.unwrap(), [jwk]);
    assert!(keys::touch(&store, "k2").await.unwrap() && !keys::touch(&store, "k3").await.unwrap());
    assert_eq!(keys::live_jwks(&store).await.unwrap().len(), 2);
}
