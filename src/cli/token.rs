//! `token`: API keys.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use clap::{Args, Subcommand};
use serde_json::json;

use super::code::Code;
use super::database::{self, Place};
use super::output;
use crate::config;
use crate::store::keys::{self, Role};

/// Arguments of `token`.
#[derive(Args, Debug)]
pub(super) struct Token {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key and print it: it is shown this once
    Create {
        /// What it may do: viewer, publisher, operator or admin
        #[arg(long)]
        role: Role,
        /// Who or what will use it
        #[arg(long)]
        name: String,
        /// How long it works, such as 90d
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
    },
    /// List the keys, without their secrets
    List,
    /// Make a key worthless
    Revoke {
        /// Its id, as `token list` shows it
        id: String,
    },
}

/// Makes, lists or revokes keys.
pub(super) async fn token(arguments: &Token, given: &config::Database, as_json: bool) -> Result<Code> {
    let place = Place::find(given).await?;
    let store = place.checked_store().await?;
    let by = database::who(&place.dsn);
    match &arguments.verb {
        Verb::Create { role, name, expires_in } => {
            let expires = expires_in.map(|time| chrono::Duration::from_std(time).map(|time| Utc::now() + time)).transpose();
            let expires = expires.context("that time is too long")?;
            let is_first = !keys::any(&store).await?;
            let secret = keys::create(&store, *role, name, &by, expires).await?;
            if as_json {
                output::json(&json!({"key": secret.expose(), "role": role.as_str(), "name": name, "expiresAt": expires}))?;
            } else {
                output::line(secret.expose())?;
                output::talk("keep it: it is shown this once. Clients send it as `Authorization: Bearer <key>`, our own take HMS_API_KEY");
            }
            if is_first {
                output::talk("this is the first key: servers ask for keys from their next start on");
            }
        }
        Verb::List => {
            let keys = keys::list(&store).await?;
            let when = |time: chrono::DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%SZ").to_string();
            if as_json {
                let list: Vec<_> = keys
                    .iter()
                    .map(|key| {
                        json!({"id": key.principal.id, "name": key.principal.name, "role": key.principal.role.as_str(), "createdAt": key.created_at,
                               "createdBy": key.created_by, "expiresAt": key.expires_at, "revokedAt": key.revoked_at})
                    })
                    .collect();
                output::json(&list)?;
                return Ok(Code::Ok);
            }
            let rows: Vec<_> = keys
                .iter()
                .map(|key| {
                    let state = match (key.revoked_at, key.expires_at) {
                        (Some(at), _) => format!("revoked {}", when(at)),
                        (None, Some(at)) if at <= Utc::now() => format!("expired {}", when(at)),
                        (None, Some(at)) => format!("until {}", when(at)),
                        (None, None) => "valid".to_owned(),
                    };
                    let principal = &key.principal;
                    [principal.id.clone(), principal.role.as_str().to_owned(), principal.name.clone(), when(key.created_at), state]
                })
                .collect();
            output::table(["ID", "ROLE", "NAME", "CREATED", "STATE"], &rows)?;
        }
        Verb::Revoke { id } => {
            if !keys::revoke(&store, id, &by).await? {
                return Err(output::not_found(format!("no key that works has the id {id}: see `hms-orch token list`")));
            }
            output::talk(format_args!("revoked {id}: servers refuse it within 5 seconds"));
        }
    }
    Ok(Code::Ok)
}
