//! Circuit breaker: stops starts when too many attempts fail.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::time::Timestamp;

/// Conditions under which a circuit breaker opens, and the time for which it stays open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerPolicy {
    /// Share of failed attempts at which the circuit breaker opens, above 0 and up to 1. Default 0.5.
    pub failure_rate: f64,
    /// Time over which attempts are counted. Default 60 seconds.
    pub window: Duration,
    /// Minimum number of attempts in `window` before the circuit breaker opens. Default 10.
    pub minimum_calls: NonZeroU32,
    /// Time for which the circuit breaker stays open before one probe may start. Default 30 seconds.
    pub open_duration: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failure_rate: 0.5,
            window: Duration::from_mins(1),
            minimum_calls: const { NonZeroU32::new(10).unwrap() },
            open_duration: Duration::from_secs(30),
        }
    }
}

/// Circuit breaker, with the data of its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Breaker {
    /// Lets all attempts start, and counts them.
    Closed(Window),
    /// Lets no attempt start before `until`.
    Open { since: Timestamp, until: Timestamp },
    /// Waits for the outcome of one probe. From `until` on, another probe may start.
    HalfOpen { since: Timestamp, until: Timestamp },
}

/// State of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// All tasks may start.
    Closed,
    /// No task may start.
    Open,
    /// One attempt probes the endpoint, and the other tasks wait for its outcome.
    HalfOpen,
}

/// Change of a circuit breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerChange {
    /// New state.
    pub to: BreakerState,
    /// Time of the change.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
}

/// Latest changes of a circuit breaker, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Changes(Vec<BreakerChange>);

/// Maximum number of changes that are kept for each circuit breaker. Five changes show the last outage, and
/// need little space in the stored state.
const KEPT_CHANGES: usize = 5;

/// Counts of attempts, one for each half of the window. When a new half begins, the older count is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Start of the newer half of the window.
    begun: Timestamp,
    newer: Tally,
    older: Tally,
}

/// Number of attempts, and number of failed attempts among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tally {
    all: u32,
    bad: u32,
}

/// Decision of a circuit breaker about one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BreakerDecision {
    /// The attempt may start.
    Free,
    /// The attempt may start as a probe. All other tasks wait for its outcome.
    Probe,
    /// No attempt may start before this time.
    Closed(Timestamp),
}

/// Health of the receiver, judged by one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallHealth {
    /// The receiver responds.
    Good,
    /// The receiver does not respond, or reports that it cannot serve the request.
    Bad,
    /// The attempt does not show the health: it was canceled or not made, or the receiver responded with 429.
    Unknown,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed(Window::default())
    }
}

impl BreakerState {
    /// Returns the name of the state, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Changes {
    /// Returns true if there are no changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns all changes that are kept.
    pub(crate) fn all(&self) -> &[BreakerChange] {
        &self.0
    }

    /// Records a change if the states differ. A failed probe is not recorded, because many failed probes
    /// would displace the change that began the outage.
    pub(crate) fn note(&mut self, from: BreakerState, to: BreakerState, at: Timestamp) {
        if from == to {
            return;
        }
        if (from, to) == (BreakerState::HalfOpen, BreakerState::Open) {
            return self.take_back_probe();
        }
        if self.0.len() == KEPT_CHANGES {
            self.0.remove(0);
        }
        self.0.push(BreakerChange { to, at });
    }

    /// Returns when the circuit breaker closed after an outage. Returns `None` if the circuit breaker is not
    /// closed, or never opened.
    pub(crate) fn closed_at(&self) -> Option<Timestamp> {
        self.0.last().filter(|last| last.to == BreakerState::Closed).map(|last| last.at)
    }

    /// Removes the latest change if it is a change to half-open, because the probe gave no result.
    pub(crate) fn take_back_probe(&mut self) {
        self.0.pop_if(|last| last.to == BreakerState::HalfOpen);
    }
}

impl Breaker {
    /// Returns the state.
    pub(crate) fn state(&self) -> BreakerState {
        match self {
            Self::Closed(_) => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Returns when the outage began and when the next probe may start. Returns `None` if the circuit breaker
    /// is closed.
    pub(crate) fn outage(&self) -> Option<(Timestamp, Timestamp)> {
        match *self {
            Self::Closed(_) => None,
            Self::Open { since, until } | Self::HalfOpen { since, until } => Some((since, until)),
        }
    }

    /// Decides whether one more attempt may start. If a probe reports no outcome within `patience`, another
    /// probe may start.
    pub(crate) fn permit(&mut self, patience: Duration, now: Timestamp) -> BreakerDecision {
        match *self {
            Self::Closed(_) => BreakerDecision::Free,
            Self::Open { until, .. } | Self::HalfOpen { until, .. } if now < until => {
                BreakerDecision::Closed(until)
            }
            Self::Open { since, .. } | Self::HalfOpen { since, .. } => {
                *self = Self::HalfOpen { since, until: now + patience };
                BreakerDecision::Probe
            }
        }
    }

    /// Lets one probe start at once, unless a probe is under way.
    pub(crate) fn probe_now(&mut self, now: Timestamp) {
        if let Self::Open { until, .. } = self {
            *until = now.min(*until);
        }
    }

    /// Cancels a probe that gave no result. The next attempt becomes the probe.
    pub(crate) fn cancel_probe(&mut self, now: Timestamp) {
        if let Self::HalfOpen { since, .. } = *self {
            *self = Self::Open { since, until: now };
        }
    }

    /// Records the outcome of an attempt.
    pub(crate) fn note(&mut self, policy: BreakerPolicy, is_probe: bool, health: CallHealth, now: Timestamp) {
        if let Self::Closed(window) = self {
            let is_too_much =
                health != CallHealth::Unknown && window.add(policy, health == CallHealth::Bad, now);
            if is_too_much {
                *self = Self::Open { since: now, until: now + policy.open_duration };
            }
            return;
        }
        match (&*self, health) {
            // Only a probe counts: every other attempt began before the circuit breaker opened.
            (Self::HalfOpen { .. }, CallHealth::Good) if is_probe => *self = Self::default(),
            (Self::HalfOpen { since, .. }, CallHealth::Bad) if is_probe => {
                *self = Self::Open { since: *since, until: now + policy.open_duration }
            }
            (Self::HalfOpen { .. }, CallHealth::Unknown) if is_probe => self.cancel_probe(now),
            _ => {}
        }
    }
}

impl Window {
    /// Counts an attempt. Returns true if too many attempts failed.
    fn add(&mut self, policy: BreakerPolicy, is_bad: bool, now: Timestamp) -> bool {
        let half = policy.window / 2;
        if now >= self.begun + half {
            let is_next = now < self.begun + policy.window;
            self.older = if is_next { self.newer } else { Tally::default() };
            self.newer = Tally::default();
            self.begun = if is_next { self.begun + half } else { now };
        }
        self.newer.all = self.newer.all.saturating_add(1);
        self.newer.bad = self.newer.bad.saturating_add(u32::from(is_bad));
        let (all, bad) =
            (self.newer.all.saturating_add(self.older.all), self.newer.bad.saturating_add(self.older.bad));
        is_bad && all >= policy.minimum_calls.get() && f64::from(bad) >= policy.failure_rate * f64::from(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000) + Duration::from_secs(seconds)
    }

    fn policy() -> BreakerPolicy {
        BreakerPolicy::default()
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        (0..10).for_each(|_| breaker.note(policy(), false, CallHealth::Bad, at(0)));
        breaker
    }

    #[test]
    fn breaker_opens_when_half_of_enough_attempts_failed() {
        let mut breaker = Breaker::default();
        (0..5).for_each(|_| breaker.note(policy(), false, CallHealth::Good, at(0)));
        (0..4).for_each(|_| breaker.note(policy(), false, CallHealth::Bad, at(1)));
        assert_eq!(breaker.permit(PATIENCE, at(1)), BreakerDecision::Free, "nine attempts are too few");
        breaker.note(policy(), false, CallHealth::Bad, at(1));
        assert_eq!(breaker.permit(PATIENCE, at(1)), BreakerDecision::Closed(at(31)));
    }

    #[test]
    fn attempts_older_than_the_window_are_forgotten() {
        let mut breaker = Breaker::default();
        (0..9).for_each(|_| breaker.note(policy(), false, CallHealth::Bad, at(0)));
        breaker.note(policy(), false, CallHealth::Bad, at(60));
        assert_eq!(breaker.permit(PATIENCE, at(60)), BreakerDecision::Free);
        let mut breaker = Breaker::default();
        (0..9).for_each(|_| breaker.note(policy(), false, CallHealth::Bad, at(0)));
        breaker.note(policy(), false, CallHealth::Bad, at(59));
        assert_ne!(breaker.permit(PATIENCE, at(59)), BreakerDecision::Free);
    }

    #[test]
    fn open_breaker_allows_one_probe_at_a_time() {
        let mut breaker = opened();
        assert_eq!(breaker.permit(PATIENCE, at(29)), BreakerDecision::Closed(at(30)));
        assert_eq!(breaker.permit(PATIENCE, at(30)), BreakerDecision::Probe);
        assert_eq!(breaker.permit(PATIENCE, at(31)), BreakerDecision::Closed(at(90)));
        breaker.note(policy(), false, CallHealth::Good, at(31));
        assert_eq!(
            breaker.permit(PATIENCE, at(31)),
            BreakerDecision::Closed(at(90)),
            "the outcome of an attempt from before is ignored"
        );
        breaker.note(policy(), true, CallHealth::Bad, at(32));
        assert_eq!(breaker.permit(PATIENCE, at(33)), BreakerDecision::Closed(at(62)));
        assert_eq!(breaker.permit(PATIENCE, at(62)), BreakerDecision::Probe);
        breaker.note(policy(), true, CallHealth::Good, at(63));
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn lost_or_withdrawn_probe_allows_another() {
        let mut breaker = opened();
        assert_eq!(breaker.permit(PATIENCE, at(30)), BreakerDecision::Probe);
        assert_eq!(breaker.permit(PATIENCE, at(90)), BreakerDecision::Probe);
        breaker.note(policy(), true, CallHealth::Unknown, at(91));
        assert_eq!(breaker.permit(PATIENCE, at(91)), BreakerDecision::Probe);
        breaker.cancel_probe(at(92));
        assert_eq!(breaker.permit(PATIENCE, at(92)), BreakerDecision::Probe);
    }

    #[test]
    fn open_breaker_can_be_probed_at_once() {
        let mut breaker = opened();
        breaker.probe_now(at(5));
        assert_eq!(
            (breaker.permit(PATIENCE, at(5)), breaker.state()),
            (BreakerDecision::Probe, BreakerState::HalfOpen)
        );
        breaker.probe_now(at(6));
        assert_eq!(breaker.permit(PATIENCE, at(6)), BreakerDecision::Closed(at(65)), "a probe is running");
        let mut closed = Breaker::default();
        closed.probe_now(at(6));
        assert_eq!(closed, Breaker::default());
    }
}
