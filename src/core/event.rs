//! An event: an immutable fact that somebody published.

use uuid::Uuid;

use super::payload::Payload;
use super::time::Timestamp;

/// A fact in the ledger. Field names are those of `syncor.events`.
#[derive(Clone, Debug)]
pub struct Event {
    /// Identity in the ledger.
    pub id: Uuid,
    /// What happened: `policy.changed`.
    pub kind: String,
    /// Where it was published; `default` unless said.
    pub topic: String,
    /// Who published it: the database role, or a `CloudEvents` source.
    pub source: String,
    /// The business object it is about.
    pub subject: Option<String>,
    /// What there is to know.
    pub data: Payload,
    /// The thread that ties everything one fact caused.
    pub correlation_id: String,
    /// The event that caused this one.
    pub causation_id: Option<Uuid>,
    /// The publisher's own key: one event per (source, key).
    pub dedupe_key: Option<String>,
    /// How many events stand between this one and the outside world, 0 for a published one.
    pub depth: u16,
    /// When it was published, by the database's clock.
    pub created_at: Timestamp,
}
