//! Small questions of the command line: which id is meant, and why.

use uuid::Uuid;

use super::{Client, Error};

/// Ids that are looked at before a prefix counts as ambiguous.
const CANDIDATES: i64 = 5;

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sagas only.
    Saga,
    /// Sagas and events.
    SagaOrEvent,
    /// Human tasks.
    Task,
}

/// Ids that begin with these hexadecimal digits, at most five. `None` where the text cannot begin an id.
///
/// # Errors
/// `Postgres` when the database cannot be asked.
pub async fn by_prefix(client: &Client, prefix: &str, kind: Kind) -> Result<Option<Vec<Uuid>>, Error> {
    let Some((low, high)) = range(prefix) else { return Ok(None) };
    let sql = match kind {
        Kind::Saga => "select id from syncor.saga where id between $1 and $2 order by id limit $3",
        Kind::Task => "select id from syncor.human_tasks where id between $1 and $2 order by id limit $3",
        Kind::SagaOrEvent => {
            "select id from (select id from syncor.saga where id between $1 and $2
                             union select id from syncor.events where id between $1 and $2) found order by id limit $3"
        }
    };
    let rows = client.query(sql, &[&low, &high, &CANDIDATES]).await?;
    Ok(Some(rows.iter().map(|row| row.get(0)).collect()))
}

/// The first and the last id with this prefix.
fn range(prefix: &str) -> Option<(Uuid, Uuid)> {
    let digits: String = prefix.chars().filter(|c| *c != '-').collect();
    if digits.is_empty() || digits.len() > 32 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let fill = |with: &str| Uuid::parse_str(&format!("{digits}{}", with.repeat(32 - digits.len()))).ok();
    Some((fill("0")?, fill("f")?))
}

/// One sentence: why this saga waits, or why this event started nothing. `None` for an id that nothing has.
///
/// # Errors
/// `Postgres` when the database cannot be asked.
pub async fn why(client: &Client, id: Uuid) -> Result<Option<String>, Error> {
    let row = client
        .query_one(
            "select syncor.why($1), exists (select from syncor.saga where id = $1) or exists (select from syncor.events where id = $1)",
            &[&id],
        )
        .await?;
    Ok(row.get::<_, bool>(1).then(|| row.get(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_spans_the_ids_that_begin_with_it() {
        let (low, high) = range("0192ab-c").expect("hexadecimal");
        assert_eq!(low.to_string(), "0192abc0-0000-0000-0000-000000000000");
        assert_eq!(high.to_string(), "0192abcf-ffff-ffff-ffff-ffffffffffff");
        assert!(range("xyz").is_none() && range("").is_none());
    }
}
