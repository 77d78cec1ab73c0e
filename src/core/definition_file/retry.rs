//! Retries as written, and as they hold after defaults and precedence.

use std::time::Duration;

use super::super::definition::Retry;
use super::reader::{Keys, Reader};
use super::tree::Node;

pub(super) const RETRY: Keys =
    Keys { of: "`retry`", known: &["attempts", "backoffMs", "multiplier", "maxBackoffMs", "jitter"], later: &[], extensible: false };

/// A `retry` map: what is not said is taken from the one above.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RetryPart {
    attempts: Option<u32>,
    backoff: Option<Duration>,
    multiplier: Option<f64>,
    backoff_max: Option<Duration>,
    jitter: Option<f64>,
}

impl RetryPart {
    /// Defaults of a step.
    pub(super) const DO: Self = Self::defaults(3);
    /// Defaults of an undo: it should succeed in the end.
    pub(super) const UNDO: Self = Self::defaults(10);

    const fn defaults(attempts: u32) -> Self {
        Self { attempts: Some(attempts), backoff: Some(Duration::from_secs(1)), multiplier: Some(2.0), backoff_max: None, jitter: Some(0.1) }
    }

    /// Reads the `retry` of a map.
    pub(super) fn read(reader: &mut Reader<'_>, parent: &Node) -> Self {
        let Some(node) = reader.given(parent, "retry") else { return Self::default() };
        if !reader.map(node, RETRY) {
            return Self::default();
        }
        let part = Self {
            attempts: reader.given(node, "attempts").and_then(|n| reader.whole(n, "attempts", 1, 10_000)).and_then(|n| u32::try_from(n).ok()),
            backoff: reader.given(node, "backoffMs").and_then(|n| reader.millis(n, "backoffMs")),
            multiplier: reader.given(node, "multiplier").and_then(|n| reader.float(n, "multiplier", 1.0, 1000.0)),
            backoff_max: reader.given(node, "maxBackoffMs").and_then(|n| reader.millis(n, "maxBackoffMs")),
            jitter: reader.given(node, "jitter").and_then(|n| reader.float(n, "jitter", 0.0, 1.0)),
        };
        if let (Some(backoff), Some(most), Some(at)) = (part.backoff, part.backoff_max, node.get("maxBackoffMs"))
            && most < backoff
        {
            reader.error(at.place, "`maxBackoffMs` is below `backoffMs`", None);
        }
        part
    }

    /// This, and where it is silent `above`.
    pub(super) fn or(self, above: Self) -> Self {
        Self {
            attempts: self.attempts.or(above.attempts),
            backoff: self.backoff.or(above.backoff),
            multiplier: self.multiplier.or(above.multiplier),
            backoff_max: self.backoff_max.or(above.backoff_max),
            jitter: self.jitter.or(above.jitter),
        }
    }

    /// The policy. Without a cap of its own it is 60 s, or the first delay where that is longer.
    pub(super) fn policy(self) -> Retry {
        let backoff = self.backoff.unwrap_or(Duration::from_secs(1));
        Retry {
            attempts: self.attempts.unwrap_or(3),
            backoff,
            multiplier: self.multiplier.unwrap_or(2.0),
            backoff_max: self.backoff_max.unwrap_or(Duration::from_secs(60)).max(backoff),
            jitter: self.jitter.unwrap_or(0.1),
        }
    }
}
