//! When calls to a service are held back: the policy of the breakers, without clocks and without a database.
//!
//! ```text
//! closed ──5 failures in a row──► open ──pause is over──► probing ──it is alive──► closed
//!    ▲                             ▲                        │
//!    │                             └──────it is down────────┘   pause x2, 250 ms to 5 s
//!    └──resumed── paused by hand: no probes at all
//! ```
//! A service is down if it cannot be reached, breaks off, does not answer in time, or says 502, 503 or 504. Every other answer
//! shows that it is alive, also 500, 429 and 4xx: these say something about the request, and are judged with the step. A call
//! that never left because of what it says itself (a bad header, no such service) says nothing about anybody.
//!
//! A service that was just reopened has to prove itself: until it has shown life five times in a row, the next failure opens
//! its breaker at once and is not held against the step. So a service that comes and goes uses up no attempts.

use std::time::Duration;

use super::call::Reply;
use super::time::Timestamp;

/// Failures in a row that open a breaker.
pub const FAILURES: u32 = 5;
/// Signs of life in a row after which a reopened service is trusted again.
pub const PROVEN_AFTER: u32 = 5;
/// The pause before the first probe.
pub const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The longest pause between two probes.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A probe that is silent for so long counts as failed for the others: somebody else may probe.
pub const PROBE_LIMIT: Duration = Duration::from_secs(30);
/// How long a parked saga sleeps if nobody wakes it.
pub const REST: Duration = Duration::from_secs(300);
/// A saga that stands ready to probe looks at least so often whether somebody else's probe has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sagas whose service is asked for at the wrong moment need not come back sooner.
const REST_MIN: Duration = Duration::from_millis(50);

/// What a call says about its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It answered by itself.
    Alive,
    /// It did not, or something in front of it did.
    Down,
    /// Nothing: the call was not made because of what it says itself.
    Silent,
}

impl Sign {
    /// What a reply says about the service that was called.
    #[must_use]
    pub fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Answered { status: 502..=504, .. } | Reply::NotSent(_) | Reply::Broken(_) => Self::Down,
            Reply::Answered { .. } => Self::Alive,
            Reply::Probed(reply) => Self::of(reply),
            Reply::Parked(_) | Reply::Returned(_) | Reply::RolledBack(_) => Self::Silent,
        }
    }
}

/// The breaker of one service, as one worker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// Calls go.
    Closed {
        /// Failures in a row so far.
        failures: u32,
        /// Signs of life that are still missing since it was reopened.
        unproven: u32,
    },
    /// Calls are parked; one probe at a time tries the service again.
    Open {
        /// Probes that failed so far.
        probes: u32,
        /// When the next one may be made.
        probe_at: Timestamp,
    },
    /// Calls are parked until somebody says otherwise.
    Paused,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0, unproven: 0 }
    }
}

/// What a call may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Go,
    /// It may be the probe, if no other worker's is.
    Probe,
    /// It is not made.
    Park,
}

/// What follows from the end of an ordinary call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The breaker opens.
    pub opens: bool,
    /// The call is not held against its step.
    pub free: bool,
}

impl Breaker {
    /// A service that was just reopened.
    #[must_use]
    pub fn reopened() -> Self {
        Self::Closed { failures: 0, unproven: PROVEN_AFTER }
    }

    /// Whether calls go.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// Asks for a call.
    #[must_use]
    pub fn ask(&self, now: Timestamp) -> Verdict {
        match self {
            Self::Closed { .. } => Verdict::Go,
            Self::Open { probe_at, .. } if *probe_at <= now => Verdict::Probe,
            Self::Open { .. } | Self::Paused => Verdict::Park,
        }
    }

    /// An ordinary call ended. What calls say that went out before the breaker opened is not news.
    pub fn ended(&mut self, sign: Sign, now: Timestamp) -> Effect {
        let (failures, unproven) = match self {
            Self::Closed { failures, unproven } => (failures, unproven),
            Self::Open { .. } | Self::Paused => return Effect { opens: false, free: sign == Sign::Down },
        };
        match sign {
            Sign::Silent => {}
            Sign::Alive => (*failures, *unproven) = (0, unproven.saturating_sub(1)),
            Sign::Down => {
                *failures += 1;
                let proven = *unproven == 0;
                if !proven || *failures >= FAILURES {
                    *self = Self::Open { probes: 0, probe_at: now.plus(PAUSE_FIRST) };
                    return Effect { opens: true, free: !proven };
                }
            }
        }
        Effect { opens: false, free: false }
    }
}

/// The pause after so many probes that failed.
#[must_use]
pub fn pause(probes: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(probes)).min(PAUSE_MAX)
}

/// How long a parked saga sleeps. Whoever stands `ready` makes the next probe; the others are woken when the service is back
/// and sleep for `REST`, out of memory, unless there is `room` to keep them for a few pauses. `chance` in 0..1 spreads them.
#[must_use]
pub fn rest(breaker: &Breaker, ready: bool, room: bool, now: Timestamp, chance: f64) -> Duration {
    let spread = |rest: Duration| rest.mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0));
    match breaker {
        // It was reopened a moment ago.
        Breaker::Closed { .. } => REST_MIN,
        Breaker::Open { probe_at, .. } if ready => {
            let until = probe_at.since(now);
            // So far ahead only because a probe is under way, which may end at any time.
            if until > PAUSE_MAX { LOOK_EVERY } else { until.max(REST_MIN) }
        }
        Breaker::Open { probes, .. } if room => spread(pause(*probes) * 4),
        Breaker::Open { .. } | Breaker::Paused => spread(REST),
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
