//! Lists of the database or of a server, page by page.

use anyhow::Result;
use chrono::SecondsFormat;
use serde::Serialize;
use serde_json::Value;
use url::form_urlencoded;

use super::remote::Remote;
use super::source::Source;
use crate::store::read::{LIMIT, Page, locks, sagas, tasks};

/// Rows, and whether there are more.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// The rows, as the interface shows them.
    pub items: Vec<Value>,
    /// Whether more match.
    pub more: bool,
}

impl Listed {
    /// Rows still wanted, at most one page of them.
    fn next_page(&self, limit: usize) -> u32 {
        LIMIT.min(u32::try_from(limit.saturating_sub(self.items.len())).unwrap_or(LIMIT))
    }

    /// Takes a page of the database over; true if another one is wanted.
    fn take<T: Serialize>(&mut self, page: &Page<T>, limit: usize) -> Result<bool> {
        for item in &page.items {
            self.items.push(serde_json::to_value(item)?);
        }
        self.more = page.has_more;
        Ok(self.more && self.items.len() < limit)
    }
}

impl Source {
    /// Sagas, newest first.
    pub async fn sagas(&self, mut filter: sagas::Filter, limit: usize) -> Result<Listed> {
        let mut listed = Listed::default();
        match self {
            Self::Database { read, .. } => loop {
                let page = read.sagas(&filter, listed.next_page(limit)).await?;
                filter.after = page.items.last().map(|saga| saga.id);
                if !listed.take(&page, limit)? {
                    return Ok(listed);
                }
            },
            Self::Server(remote) => {
                let time = |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
                let query = [
                    ("state", (!filter.states.is_empty()).then(|| filter.states.join(","))),
                    ("waitingFor", filter.waiting_for),
                    ("definition", filter.definition),
                    ("correlationId", filter.correlation_id),
                    ("eventId", filter.event_id.map(|id| id.to_string())),
                    ("lockKey", filter.lock_key),
                    ("since", filter.since.map(time)),
                    ("until", filter.until.map(time)),
                ];
                pages(remote, "/v1/sagas", &query, limit).await
            }
        }
    }

    /// Human tasks, newest first.
    pub async fn tasks(&self, mut filter: tasks::Filter, limit: usize) -> Result<Listed> {
        let mut listed = Listed::default();
        match self {
            Self::Database { read, .. } => loop {
                let page = read.tasks(&filter, listed.next_page(limit)).await?;
                filter.after = page.items.last().map(|task| task.id);
                if !listed.take(&page, limit)? {
                    return Ok(listed);
                }
            },
            Self::Server(remote) => {
                let query = [
                    ("status", filter.status),
                    ("queue", filter.queue),
                    ("kind", filter.kind),
                    ("saga", filter.saga.map(|id| id.to_string())),
                    ("assignee", filter.assignee),
                ];
                pages(remote, "/v1/human-tasks", &query, limit).await
            }
        }
    }

    /// Object locks, by key and in the order of each queue.
    pub async fn locks(&self, mut filter: locks::Filter, limit: usize) -> Result<Listed> {
        let mut listed = Listed::default();
        match self {
            Self::Database { read, .. } => loop {
                let page = read.locks(&filter, listed.next_page(limit)).await?;
                filter.after = page.items.last().map(|lock| (lock.key.clone(), lock.no));
                if !listed.take(&page, limit)? {
                    return Ok(listed);
                }
            },
            Self::Server(remote) => {
                let query = [("key", filter.key), ("saga", filter.saga.map(|id| id.to_string())), ("state", filter.state)];
                pages(remote, "/v1/locks", &query, limit).await
            }
        }
    }
}

/// Follows the pages of a server.
async fn pages(remote: &Remote, path: &str, query: &[(&str, Option<String>)], limit: usize) -> Result<Listed> {
    let mut listed = Listed::default();
    let mut after: Option<String> = None;
    loop {
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.append_pair("limit", &listed.next_page(limit).max(1).to_string());
        for (name, value) in query {
            if let Some(value) = value {
                text.append_pair(name, value);
            }
        }
        if let Some(after) = &after {
            text.append_pair("after", after);
        }
        let mut page = remote.get(&format!("{path}?{}", text.finish())).await?.unwrap_or_default();
        if let Some(items) = page["items"].as_array_mut() {
            listed.items.append(items);
        }
        after = page["next"].as_str().map(str::to_owned);
        listed.more = after.is_some();
        if !listed.more || listed.items.len() >= limit {
            return Ok(listed);
        }
    }
}
