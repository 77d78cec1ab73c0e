//! Makes the ledger's partitions ahead of time.

use super::{Client, Error};

/// Months that have their partition before they begin.
const MONTHS_AHEAD: i32 = 2;

/// Adds the partitions that are missing for this month and the next ones.
///
/// A foreign transaction that holds the table makes this give up at once: an insert must never wait behind it. The next sweep
/// tries again, and until then the default partition takes the rows.
///
/// # Errors
/// When the database cannot be asked, or the table was busy.
pub async fn ensure(client: &mut Client) -> Result<u32, Error> {
    let mut added = 0;
    for month in 0..=MONTHS_AHEAD {
        let name = "select to_regclass('syncor.events_' || to_char(now() + make_interval(months => $1), 'YYYY_MM')) is null";
        if !client.query_one(name, &[&month]).await?.get::<_, bool>(0) {
            continue;
        }
        let transaction = client.transaction().await?;
        transaction.batch_execute("set local lock_timeout = '100ms'").await?;
        // One worker at a time; the others find the partition made.
        let ours: bool = transaction.query_one("select pg_try_advisory_xact_lock(1399152195, 3)", &[]).await?.get(0);
        if ours {
            let made = "select syncor.add_event_partition((now() + make_interval(months => $1))::date)";
            added += u32::from(transaction.query_one(made, &[&month]).await?.get::<_, bool>(0));
        }
        transaction.commit().await?;
    }
    Ok(added)
}
