//! The same order to all sagas that match a filter.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Store;
use super::orders::{self, By, OrderError, Receipt, Verb};
use super::read::ReadStore;
use super::read::sagas::Filter;

/// Most sagas of one order.
pub const LIMIT: u32 = 5000;
/// Counting further would scan the table.
const COUNT_MAX: u32 = 100_000;

/// An order to many.
#[derive(Debug)]
pub struct Bulk<'a> {
    /// What is ordered.
    pub verb: Verb,
    /// Of which sagas.
    pub filter: Filter,
    /// The step to retry or to skip.
    pub step: Option<&'a str>,
    /// Why.
    pub reason: &'a str,
    /// Only says which sagas match.
    pub dry_run: bool,
    /// Sagas at most, oldest first.
    pub limit: u32,
}

/// What became of an order to many.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Whether nothing was ordered.
    pub dry_run: bool,
    /// How many sagas match, counted up to 100000.
    pub count: i64,
    /// Those that the order was for, oldest first.
    pub ids: Vec<Uuid>,
    /// Whether more match than that: ask again.
    pub more: bool,
    /// Orders that were carried out.
    pub applied: usize,
    /// Orders that were refused.
    pub refused: usize,
    /// Orders that no worker has come to yet.
    pub pending: usize,
    /// Each of them; empty in a dry run.
    pub items: Vec<Receipt>,
}

/// Gives the order and waits for what comes of it, `patience` at most.
///
/// # Errors
/// `Invalid` for a step where there can be none; when the database fails, with none of the orders of a batch given.
pub async fn order(store: &Store, read: &ReadStore, by: By<'_>, bulk: Bulk<'_>, patience: Duration) -> Result<Outcome, OrderError> {
    let Bulk { verb, filter, step, reason, dry_run, limit } = bulk;
    let filter = Filter { unfinished: true, ..filter };
    let count = read.count_sagas(&filter, COUNT_MAX).await?;
    let ids = read.saga_ids(&filter, limit.min(LIMIT)).await?;
    let mut items = Vec::new();
    if !dry_run {
        let commands = orders::order(store, by, verb, &ids, step, reason).await?;
        items = orders::settled(store, &commands, patience).await?;
    }
    let with = |status: &str| items.iter().filter(|receipt| receipt.status == status).count();
    let (applied, refused, pending) = (with("applied"), with("refused"), with("pending"));
    let more = usize::try_from(count).unwrap_or(usize::MAX) > ids.len();
    Ok(Outcome { dry_run, count, ids, more, applied, refused, pending, items })
}
