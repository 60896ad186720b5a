//! Somebody else's API, which tasks go to: it is well, or down, or has too much to do, in turns.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use nobat_core::endpoint::{Answers, Batch, Endpoint, Standing};
use nobat_core::flow::{BreakerPolicy, Limits};
use nobat_core::secrets::Secrets;

use super::dice::Dice;
use crate::sample;

/// Its name as an endpoint.
pub const PARTNER: &str = "partner";
/// The code of an attempt while it is down.
pub const DOWN: &str = "http_503";
/// The code of an attempt while it has too much to do.
pub const BUSY: &str = "http_429";

/// What it is like.
#[derive(Clone, Debug)]
pub struct Partner {
    /// What it can take.
    pub limits: Limits,
    /// How tasks are gathered for it, if they are.
    pub batch: Option<Batch>,
    /// How long it takes until everything begins again.
    round: Duration,
    /// How much of that it is down.
    down: Duration,
    /// How much of that it then has too much to do.
    busy: Duration,
    /// What it asks for meanwhile.
    rest: Duration,
}

/// How it is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It does its work.
    Well,
    /// It does nothing.
    Down,
    /// It asks to be left alone for so long.
    Busy(Duration),
}

impl Partner {
    /// One that takes what `limits` say, and has a breaker before it more often than not.
    pub fn drawn(dice: &Dice, limits: Limits) -> Self {
        let count = |of: &[u32]| NonZeroU32::MIN.saturating_add(dice.pick(of).unwrap_or(1) - 1);
        let seconds = |of: &[u64]| Duration::from_secs(dice.pick(of).unwrap_or(1));
        let breaker = BreakerPolicy {
            failure_share: dice.pick(&[0.2, 0.5, 1.0]).unwrap_or(0.5),
            window: seconds(&[10, 60, 600]),
            minimum: count(&[1, 2, 5]),
            open: seconds(&[5, 30, 300]),
        };
        let batch = Batch { max_items: count(&[1, 2, 3, 10]), max_wait: seconds(&[1, 5, 60]), results: false };
        Self {
            limits: Limits { breaker: dice.per_mille(700).then_some(breaker), ..limits },
            batch: dice.per_mille(500).then_some(batch),
            round: seconds(&[120, 600, 3_600]),
            down: seconds(&[0, 20, 100, 400]),
            busy: seconds(&[0, 0, 15, 100]),
            rest: seconds(&[1, 30, 120]),
        }
    }

    /// Its record as an endpoint.
    pub fn endpoint(&self, standing: Standing, version: u64) -> Endpoint {
        Endpoint {
            url: "https://partner.example".parse().expect("a URL"),
            headers: BTreeMap::new(),
            secrets: Secrets::default(),
            timeout: None,
            retry: None,
            answers: Answers::default(),
            limits: self.limits,
            batch: self.batch,
            standing,
            authority: None,
            created_at: sample::start(),
            version,
        }
    }

    /// How it is, so long after the beginning.
    pub fn mood(&self, passed: Duration) -> Mood {
        match Duration::from_millis(u64::try_from(passed.as_millis() % self.round.as_millis()).unwrap_or(0)) {
            of_round if of_round < self.down => Mood::Down,
            of_round if of_round < self.down + self.busy => Mood::Busy(self.rest),
            _ => Mood::Well,
        }
    }
}
