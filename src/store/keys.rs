//! Keys: those that HTTP clients show, and the public halves of those that sign step tokens.
//!
//! Invariant: the text of an API key exists once, in the answer to whoever made it; the database has its SHA-256.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_postgres::{Row, Transaction};

use super::{Error, Store};

/// What the holder of a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Looks, and nothing else.
    Viewer,
    /// Publishes events, and sees none.
    Publisher,
    /// Looks, publishes, and gives orders about sagas.
    Operator,
    /// All of that, and deploys.
    Admin,
}

impl Role {
    /// Its name in the database and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Viewer, Self::Publisher, Self::Operator, Self::Admin];
        let found = known.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("{text} is no role: viewer, publisher, operator and admin are"))
    }
}

/// The text of a key. Shown by [`Secret::expose`] only.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one who asked for it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Who a valid key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The public part of the key.
    pub id: String,
    /// Who or what uses it.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// A key as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Who it belongs to.
    pub principal: Principal,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Who made it.
    pub created_by: String,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was withdrawn.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A new key: `hms_<id>_<secret>`. This is the only time that its text can be had.
///
/// # Errors
/// `Unavailable` when the system has no random numbers; `Postgres` when the database refuses.
pub async fn create(store: &Store, role: Role, name: &str, by: &str, expires: Option<DateTime<Utc>>) -> Result<Secret, Error> {
    // 64 bits to find it by, without the separator in them; 256 bits that nobody can guess.
    let id = random::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = format!("hms_{id}_{}", URL_SAFE_NO_PAD.encode(random::<32>()?));
    let mut client = store.client().await?;
    let transaction = client.transaction().await?;
    transaction
        .execute(
            "insert into syncor.api_key (id, digest, role, name, created_by, expires_at) values ($1, $2, $3, $4, $5, $6)",
            &[&id, &digest(&text), &role.as_str(), &name, &by, &expires],
        )
        .await?;
    record(&transaction, &id, by, &format!("made for {name} as {role}")).await?;
    transaction.commit().await?;
    Ok(Secret(text))
}

/// Who presents a key; nobody if it is unknown, expired or revoked, which from outside looks the same.
///
/// # Errors
/// `Postgres` or `Unavailable` when the database cannot be asked; `Unreadable` for a role of a later version.
pub async fn verify(store: &Store, presented: &str) -> Result<Option<Principal>, Error> {
    let client = store.client().await?;
    let statement = client
        .prepare_cached(
            "select id, name, role, digest from syncor.api_key
              where id = $1 and revoked_at is null and (expires_at is null or expires_at > now())",
        )
        .await?;
    let row = client.query_opt(&statement, &[&id_of(presented)]).await?;
    let known: Vec<u8> = row.as_ref().map_or_else(|| vec![0; 32], |row| row.get(3));
    let equal: bool = digest(presented).ct_eq(&known).into();
    row.filter(|_| equal).map(|row| principal(&row)).transpose()
}

/// Withdraws a key; `false` if there is none with that id, or it was withdrawn already.
///
/// # Errors
/// `Postgres` when the database refuses.
pub async fn revoke(store: &Store, id: &str, by: &str) -> Result<bool, Error> {
    let mut client = store.client().await?;
    let transaction = client.transaction().await?;
    let changed = transaction.execute("update syncor.api_key set revoked_at = now() where id = $1 and revoked_at is null", &[&id]).await? > 0;
    if changed {
        record(&transaction, id, by, "revoked").await?;
    }
    transaction.commit().await?;
    Ok(changed)
}

/// All keys ever made, latest first.
///
/// # Errors
/// `Postgres` when the database cannot be asked; `Unreadable` for a role of a later version.
pub async fn list(store: &Store) -> Result<Vec<ApiKey>, Error> {
    let rows = store
        .client()
        .await?
        .query("select id, name, role, created_at, created_by, expires_at, revoked_at from syncor.api_key order by created_at desc, id", &[])
        .await?;
    let listed = rows.iter().map(|row| {
        Ok(ApiKey { principal: principal(row)?, created_at: row.get(3), created_by: row.get(4), expires_at: row.get(5), revoked_at: row.get(6) })
    });
    listed.collect()
}

/// Whether any key was ever made: without one there is no authentication.
///
/// # Errors
/// `Postgres` when the database cannot be asked.
pub async fn any(store: &Store) -> Result<bool, Error> {
    Ok(store.client().await?.query_one("select exists (select from syncor.api_key)", &[]).await?.get(0))
}

/// Makes the key that the operator brought along an admin's key; every start may repeat it. White space around it is not
/// part of it.
///
/// # Errors
/// `Refused` when it is shorter than 32 characters or was revoked; `Postgres` when the database refuses.
pub async fn ensure_bootstrap(store: &Store, key_text: &str) -> Result<Principal, Error> {
    let text = key_text.trim();
    if text.chars().count() < 32 {
        return Err(Error::Refused("the bootstrap key is shorter than 32 characters: make one with `openssl rand -hex 32`".to_owned()));
    }
    let id = id_of(text);
    let mut client = store.client().await?;
    let transaction = client.transaction().await?;
    let made = transaction
        .execute(
            "insert into syncor.api_key (id, digest, role, name, created_by) values ($1, $2, 'admin', 'bootstrap', 'bootstrap')
             on conflict do nothing",
            &[&id, &digest(text)],
        )
        .await?;
    if made > 0 {
        record(&transaction, &id, "bootstrap", "made for bootstrap as admin").await?;
    }
    transaction.commit().await?;
    drop(client);
    verify(store, text)
        .await?
        .ok_or_else(|| Error::Refused(format!("the bootstrap key {id} was revoked or has expired: put a new one into the file")))
}

/// Says that this process signs with a key, whose public half is `jwk`.
///
/// # Errors
/// `Postgres` when the database refuses.
pub async fn publish_signing_key(store: &Store, kid: &str, jwk: &Value) -> Result<(), Error> {
    store
        .client()
        .await?
        .execute(
            "insert into syncor.signing_key (kid, jwk) values ($1, $2)
             on conflict (kid) do update set jwk = excluded.jwk, seen_at = now()",
            &[&kid, jwk],
        )
        .await?;
    Ok(())
}

/// Says that a key is still signed with; `false` if it is not published (any more).
///
/// # Errors
/// `Postgres` when the database refuses.
pub async fn touch(store: &Store, kid: &str) -> Result<bool, Error> {
    Ok(store.client().await?.execute("update syncor.signing_key set seen_at = now() where kid = $1", &[&kid]).await? > 0)
}

/// Public keys that someone signed with within a day: tokens live a minute, workers touch theirs far more often.
///
/// # Errors
/// `Postgres` when the database cannot be asked.
pub async fn live_jwks(store: &Store) -> Result<Vec<Value>, Error> {
    let rows = store
        .client()
        .await?
        .query("select jwk from syncor.signing_key where seen_at > now() - interval '1 day' order by added_at, kid", &[])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The id in a key of ours; for a key that somebody brought along, one derived from it that says nothing about it.
fn id_of(text: &str) -> String {
    let mut parts = text.splitn(3, '_');
    if let (Some("hms"), Some(id), Some(_)) = (parts.next(), parts.next(), parts.next())
        && id.len() == 16
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return id.to_owned();
    }
    let hash = Sha256::digest(format!("hms-syncor bootstrap key id\n{text}"));
    hash.iter().take(8).fold("bootstrap-".to_owned(), |id, byte| id + &format!("{byte:02x}"))
}

fn digest(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| Error::Unavailable(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

fn principal(row: &Row) -> Result<Principal, Error> {
    let role: String = row.get(2);
    let role = role.parse().map_err(|_| Error::Unreadable(format!("the role {role}")))?;
    Ok(Principal { id: row.get(0), name: row.get(1), role })
}

async fn record(transaction: &Transaction<'_>, id: &str, by: &str, result: &str) -> Result<(), Error> {
    transaction
        .execute(
            "insert into syncor.command (kind, target, requested_by, status, result, settled_at) values ('token', $1, $2, 'applied', $3, now())",
            &[&id, &by, &result],
        )
        .await?;
    Ok(())
}
