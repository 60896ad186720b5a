//! When not at all: a breaker, that opens when too much fails.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerPolicy {
    /// The share of attempts that must have failed, above 0 and up to 1.
    pub failure_share: f64,
    /// Over how long a time they are counted.
    pub window: Duration,
    /// How many attempts there must have been in that time.
    pub minimum: NonZeroU32,
    /// For how long it stays open before one attempt tries again.
    pub open: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failure_share: 0.5,
            window: Duration::from_mins(1),
            minimum: const { NonZeroU32::new(10).unwrap() },
            open: Duration::from_secs(30),
        }
    }
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Breaker {
    /// Everything passes, and is counted.
    Closed(Window),
    /// Nothing passes until then.
    Open { since: Timestamp, until: Timestamp },
    /// One attempt is trying, until then at the latest.
    HalfOpen { since: Timestamp, until: Timestamp },
}

/// What a breaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// It lets everything pass.
    Closed,
    /// It lets nothing pass.
    Open,
    /// It waits for the one attempt that finds out how things are.
    HalfOpen,
}

/// That a breaker came to do something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerChange {
    /// What it did from then on.
    pub to: BreakerState,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
}

/// The last changes of a breaker, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Changes(Vec<BreakerChange>);

/// How many changes of a breaker are kept: enough to see how the last outage went, and few enough to be kept with every flow.
const KEPT_CHANGES: usize = 5;

/// What came of the attempts of the window, in two halves: what is older than both is forgotten a half at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// When the newer half began.
    begun: Timestamp,
    newer: Tally,
    older: Tally,
}

/// How many attempts there were, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tally {
    all: u32,
    bad: u32,
}

/// What a breaker says to one who wants to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Go on.
    Free,
    /// Go on, and say what came of it: everybody waits for that.
    Probe,
    /// Not before then.
    Closed(Timestamp),
}

/// What came of an attempt, as far as it says something of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Good,
    /// It does not, or says that it cannot.
    Bad,
    /// Nothing: the attempt was called off, or was not made.
    Unknown,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed(Window::default())
    }
}

impl BreakerState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Changes {
    /// Whether there was none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that are kept.
    pub(crate) fn all(&self) -> &[BreakerChange] {
        &self.0
    }

    /// Notes one, if it is one. Attempts that find out that nothing has changed leave no trace, so that it can be seen when an outage began.
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

    /// When it closed after an outage, if it is closed now and there was one.
    pub(crate) fn closed_at(&self) -> Option<Timestamp> {
        self.0.last().filter(|last| last.to == BreakerState::Closed).map(|last| last.at)
    }

    /// Forgets that somebody was to find out how things are, and did not.
    pub(crate) fn take_back_probe(&mut self) {
        self.0.pop_if(|last| last.to == BreakerState::HalfOpen);
    }
}

impl Breaker {
    /// What it does.
    pub(crate) fn state(&self) -> BreakerState {
        match self {
            Self::Closed(_) => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Since when it has not been closed, and when the next attempt finds out how things are, if it is not.
    pub(crate) fn outage(&self) -> Option<(Timestamp, Timestamp)> {
        match *self {
            Self::Closed(_) => None,
            Self::Open { since, until } | Self::HalfOpen { since, until } => Some((since, until)),
        }
    }

    /// Whether one more attempt may be made. A probe has until `patience` from now to come back.
    pub(crate) fn pass(&mut self, patience: Duration, now: Timestamp) -> Passage {
        match *self {
            Self::Closed(_) => Passage::Free,
            Self::Open { until, .. } | Self::HalfOpen { until, .. } if now < until => Passage::Closed(until),
            Self::Open { since, .. } | Self::HalfOpen { since, .. } => {
                *self = Self::HalfOpen { since, until: now + patience };
                Passage::Probe
            }
        }
    }

    /// Lets one attempt find out at once how things are, if that is not being found out.
    pub(crate) fn hurry(&mut self, now: Timestamp) {
        if let Self::Open { until, .. } = self {
            *until = now.min(*until);
        }
    }

    /// A probe that was let through will not be made after all.
    pub(crate) fn withdraw(&mut self, now: Timestamp) {
        if let Self::HalfOpen { since, .. } = *self {
            *self = Self::Open { since, until: now };
        }
    }

    /// Notes what came of an attempt.
    pub(crate) fn note(&mut self, policy: BreakerPolicy, is_probe: bool, verdict: Verdict, now: Timestamp) {
        if let Self::Closed(window) = self {
            let is_too_much = verdict != Verdict::Unknown && window.add(policy, verdict == Verdict::Bad, now);
            if is_too_much {
                *self = Self::Open { since: now, until: now + policy.open };
            }
            return;
        }
        match (&*self, verdict) {
            // What began before it opened, and ends now, says nothing new.
            (Self::HalfOpen { .. }, Verdict::Good) if is_probe => *self = Self::default(),
            (Self::HalfOpen { since, .. }, Verdict::Bad) if is_probe => *self = Self::Open { since: *since, until: now + policy.open },
            (Self::HalfOpen { .. }, Verdict::Unknown) if is_probe => self.withdraw(now),
            _ => {}
        }
    }
}

impl Window {
    /// Counts an attempt, and says whether too many failed.
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
        let (all, bad) = (self.newer.all.saturating_add(self.older.all), self.newer.bad.saturating_add(self.older.bad));
        is_bad && all >= policy.minimum.get() && f64::from(bad) >= policy.failure_share * f64::from(all)
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
        (0..10).for_each(|_| breaker.note(policy(), false, Verdict::Bad, at(0)));
        breaker
    }

    #[test]
    fn opens_when_half_of_enough_attempts_failed() {
        let mut breaker = Breaker::default();
        (0..5).for_each(|_| breaker.note(policy(), false, Verdict::Good, at(0)));
        (0..4).for_each(|_| breaker.note(policy(), false, Verdict::Bad, at(1)));
        assert_eq!(breaker.pass(PATIENCE, at(1)), Passage::Free, "nine are too few");
        breaker.note(policy(), false, Verdict::Bad, at(1));
        assert_eq!(breaker.pass(PATIENCE, at(1)), Passage::Closed(at(31)));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut breaker = Breaker::default();
        (0..9).for_each(|_| breaker.note(policy(), false, Verdict::Bad, at(0)));
        breaker.note(policy(), false, Verdict::Bad, at(60));
        assert_eq!(breaker.pass(PATIENCE, at(60)), Passage::Free);
        let mut breaker = Breaker::default();
        (0..9).for_each(|_| breaker.note(policy(), false, Verdict::Bad, at(0)));
        breaker.note(policy(), false, Verdict::Bad, at(59));
        assert_ne!(breaker.pass(PATIENCE, at(59)), Passage::Free);
    }

    #[test]
    fn one_probe_at_a_time_finds_the_recovery() {
        let mut breaker = opened();
        assert_eq!(breaker.pass(PATIENCE, at(29)), Passage::Closed(at(30)));
        assert_eq!(breaker.pass(PATIENCE, at(30)), Passage::Probe);
        assert_eq!(breaker.pass(PATIENCE, at(31)), Passage::Closed(at(90)));
        breaker.note(policy(), false, Verdict::Good, at(31));
        assert_eq!(breaker.pass(PATIENCE, at(31)), Passage::Closed(at(90)), "what began before says nothing");
        breaker.note(policy(), true, Verdict::Bad, at(32));
        assert_eq!(breaker.pass(PATIENCE, at(33)), Passage::Closed(at(62)));
        assert_eq!(breaker.pass(PATIENCE, at(62)), Passage::Probe);
        breaker.note(policy(), true, Verdict::Good, at(63));
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_probe_that_is_lost_or_called_off_makes_room_for_another() {
        let mut breaker = opened();
        assert_eq!(breaker.pass(PATIENCE, at(30)), Passage::Probe);
        assert_eq!(breaker.pass(PATIENCE, at(90)), Passage::Probe);
        breaker.note(policy(), true, Verdict::Unknown, at(91));
        assert_eq!(breaker.pass(PATIENCE, at(91)), Passage::Probe);
        breaker.withdraw(at(92));
        assert_eq!(breaker.pass(PATIENCE, at(92)), Passage::Probe);
    }

    #[test]
    fn can_be_told_to_find_out_at_once() {
        let mut breaker = opened();
        breaker.hurry(at(5));
        assert_eq!((breaker.pass(PATIENCE, at(5)), breaker.state()), (Passage::Probe, BreakerState::HalfOpen));
        breaker.hurry(at(6));
        assert_eq!(breaker.pass(PATIENCE, at(6)), Passage::Closed(at(65)), "that is being found out");
        let mut closed = Breaker::default();
        closed.hurry(at(6));
        assert_eq!(closed, Breaker::default());
    }
}
