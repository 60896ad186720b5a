//! API of a partner, to which tasks go. It is well, down or busy, in turns.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use nobat_core::config::endpoint::{Endpoint, EndpointStatus, ResponsePolicy};
use nobat_core::limits::{BatchPolicy, BreakerPolicy, Limits};
use nobat_core::secrets::secret_set::SecretSet;

use crate::sample;
use crate::simulation::rng::Dice;

/// Name of the partner's endpoint.
pub const PARTNER: &str = "partner";
/// Error code of an attempt while the partner is down.
pub const DOWN: &str = "http_503";
/// Error code of an attempt while the partner is busy.
pub const BUSY: &str = "http_429";

/// Behavior of the partner.
#[derive(Clone, Debug)]
pub struct Partner {
    /// Limits of the endpoint.
    pub limits: Limits,
    /// Batching of tasks for the endpoint, if any.
    pub batch: Option<BatchPolicy>,
    /// Length of a cycle of moods.
    round: Duration,
    /// Part of the cycle in which the partner is down.
    down: Duration,
    /// Following part of the cycle in which the partner is busy.
    busy: Duration,
    /// Pause that the partner asks for while it is busy.
    rest: Duration,
}

/// State of the partner at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// The partner accepts calls.
    Well,
    /// The partner fails all calls.
    Down,
    /// The partner asks for a pause of this length.
    Busy(Duration),
}

impl Partner {
    /// Draws a partner with these limits. It has a circuit breaker in 70 % of the runs.
    pub fn drawn(dice: &Dice, limits: Limits) -> Self {
        let count = |of: &[u32]| NonZeroU32::MIN.saturating_add(dice.pick(of).unwrap_or(1) - 1);
        let seconds = |of: &[u64]| Duration::from_secs(dice.pick(of).unwrap_or(1));
        let breaker = BreakerPolicy {
            failure_rate: dice.pick(&[0.2, 0.5, 1.0]).unwrap_or(0.5),
            window: seconds(&[10, 60, 600]),
            minimum_calls: count(&[1, 2, 5]),
            open_duration: seconds(&[5, 30, 300]),
        };
        let batch = BatchPolicy {
            max_items: count(&[1, 2, 3, 10]),
            max_wait: seconds(&[1, 5, 60]),
            per_item_results: false,
        };
        Self {
            limits: Limits { breaker: dice.per_mille(700).then_some(breaker), ..limits },
            batch: dice.per_mille(500).then_some(batch),
            round: seconds(&[120, 600, 3_600]),
            down: seconds(&[0, 20, 100, 400]),
            busy: seconds(&[0, 0, 15, 100]),
            rest: seconds(&[1, 30, 120]),
        }
    }

    /// Returns the configuration of the endpoint.
    pub fn endpoint(&self, status: EndpointStatus, version: u64) -> Endpoint {
        Endpoint {
            url: "https://partner.example".parse().expect("the URL is valid"),
            headers: BTreeMap::new(),
            secrets: SecretSet::default(),
            timeout: None,
            retry: None,
            answers: ResponsePolicy::default(),
            limits: self.limits,
            batch: self.batch,
            status,
            authority: None,
            created_at: sample::start(),
            version,
        }
    }

    /// Returns the mood at this time after the beginning.
    pub fn mood(&self, passed: Duration) -> Mood {
        match Duration::from_millis(u64::try_from(passed.as_millis() % self.round.as_millis()).unwrap_or(0)) {
            of_round if of_round < self.down => Mood::Down,
            of_round if of_round < self.down + self.busy => Mood::Busy(self.rest),
            _ => Mood::Well,
        }
    }
}
