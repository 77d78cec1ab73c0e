//! Definitions that start nothing any more, but still have sagas under way.

use serde_json::Value;

use super::{Client, Error};

/// A retired revision.
#[derive(Debug)]
pub struct Lingering {
    /// Its number.
    pub no: i32,
    /// The file as JSON.
    pub source: Value,
}

/// Retired saga definitions with sagas under way: what those wait for must still be noticed.
///
/// # Errors
/// When the database cannot be asked.
pub async fn retired(client: &Client) -> Result<Vec<Lingering>, Error> {
    let statement = client
        .prepare_cached(
            "select d.no, d.source::text from syncor.definition d
              where d.kind = 'saga' and d.state = 'retired'
                and d.no = any(array(select distinct s.definition_no from syncor.saga s where s.finished_at is null))",
        )
        .await?;
    let rows = client.query(&statement, &[]).await?;
    rows.iter()
        .map(|row| {
            let text: &str = row.get(1);
            let source = serde_json::from_str(text).map_err(|error| Error::Unreadable(format!("a definition: {error}")))?;
            Ok(Lingering { no: row.get(0), source })
        })
        .collect()
}
