//! State of a limiter, as the API shows it.

use serde::Serialize;

use crate::limits::state::LimiterState;
use crate::limits::{BreakerChange, BreakerState, Limits};
use crate::types::time::Timestamp;

/// Current state of a limiter. The fields of a limit that is not set are `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LimiterStatus {
    /// Number of tasks without a reservation that could start now under the rate. `null` if there is no rate.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub tokens: Option<u32>,
    /// Number of tasks that wait for the rate and hold a reservation, at most 15 minutes ahead. `null` if
    /// there is no rate. A task that ends, or waits for something else, holds no reservation.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub reserved_starts: Option<u32>,
    /// Number of tasks that run. `null` if there is no concurrency limit.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub running: Option<u32>,
    /// End of the pause that the endpoint asked for. No task starts before this time. `null` if there is no
    /// pause.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub paused_until: Option<Timestamp>,
    /// State of the circuit breaker. `null` if there is none.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub circuit_breaker: Option<BreakerStatus>,
}

/// State of a circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerStatus {
    /// `closed`: all tasks may start. `open`: no task may start. `half_open`: one attempt probes the
    /// endpoint, and the other tasks wait for its outcome.
    pub state: BreakerState,
    /// If `closed`: time at which the circuit breaker closed, or `null` if it has never opened. Otherwise:
    /// start of the outage.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub since: Option<Timestamp>,
    /// Time from which the next probe may start. If `half_open`, the next probe starts only if the current
    /// probe has not reported its outcome by then. `null` if `closed`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub next_probe: Option<Timestamp>,
    /// Latest changes of the state, at most five, oldest first.
    pub changes: Vec<BreakerChange>,
}

impl LimiterState {
    /// Returns the state at `now` under these limits.
    pub fn state(&self, limits: &Limits, now: Timestamp) -> LimiterStatus {
        let paused_until = self.paused_until.filter(|until| now < *until);
        let from = paused_until.unwrap_or(now);
        LimiterStatus {
            tokens: limits
                .rate
                .map(|rate_limit| if paused_until.is_some() { 0 } else { self.gcra.free(rate_limit, now) }),
            reserved_starts: limits.rate.map(|rate_limit| self.gcra.reserved(rate_limit, from, now)),
            running: limits.concurrency.map(|_| self.running(now)),
            paused_until,
            circuit_breaker: limits.breaker.map(|_| self.breaker_status()),
        }
    }

    /// Returns the changes of the circuit breaker that are in `self` but not in `before`.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a BreakerChange> {
        self.changes.all().iter().filter(|change| !before.changes.all().contains(change))
    }

    fn breaker_status(&self) -> BreakerStatus {
        let (state, changes) = (self.breaker.state(), self.changes.all());
        let closed_at = || changes.last().filter(|last| last.to == BreakerState::Closed).map(|last| last.at);
        let (since, next_probe) = self.breaker.outage().unzip();
        BreakerStatus { state, since: since.or_else(closed_at), next_probe, changes: changes.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::limits::state::{AcquireRequest, AcquireResult, CallReport, Permit};
    use crate::limits::{BreakerPolicy, CallHealth, HolderId, RateLimit};
    use crate::types::jitter_sample::JitterSample;

    const ME: HolderId = HolderId(1);

    fn request() -> AcquireRequest {
        AcquireRequest {
            holder: ME,
            reservation: None,
            has_due_reservation_elsewhere: false,
            holds: 0,
            jitter: JitterSample::from_bits(0),
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000) + Duration::from_secs(seconds)
    }

    fn limits() -> Limits {
        let count = |count| NonZeroU32::new(count).unwrap();
        let rate_limit = RateLimit { rate: count(1), period: Duration::from_secs(1), burst: count(2) };
        Limits {
            rate: Some(rate_limit),
            concurrency: Some(count(2)),
            breaker: Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() }),
        }
    }

    fn go(limiter: &mut LimiterState, now: Timestamp) -> Permit {
        match limiter.acquire(&limits(), &request(), now) {
            AcquireResult::Granted(permit) => permit,
            AcquireResult::Denied(wait) => panic!("{wait:?}"),
        }
    }

    fn leave(limiter: &mut LimiterState, permit: Permit, health: CallHealth, now: Timestamp) {
        let report = CallReport { health, took: Duration::from_millis(50), pause_until: None };
        limiter.complete(&limits(), permit, ME, &report, now);
    }

    fn breaker(limiter: &LimiterState, now: Timestamp) -> BreakerStatus {
        limiter.state(&limits(), now).circuit_breaker.unwrap()
    }

    #[test]
    fn status_without_limits_has_no_counts() {
        assert_eq!(LimiterState::default().state(&Limits::default(), at(0)), LimiterStatus::default());
        let state = LimiterState::default().state(&limits(), at(0));
        let closed =
            BreakerStatus { state: BreakerState::Closed, since: None, next_probe: None, changes: Vec::new() };
        let free = LimiterStatus {
            tokens: Some(2),
            reserved_starts: Some(0),
            running: Some(0),
            paused_until: None,
            circuit_breaker: Some(closed),
        };
        assert_eq!(state, free);
    }

    #[test]
    fn status_counts_running_and_reserved_tasks() {
        let mut limiter = LimiterState::default();
        go(&mut limiter, at(0));
        go(&mut limiter, at(0));
        (0..3).for_each(|_| {
            assert!(matches!(limiter.acquire(&limits(), &request(), at(0)), AcquireResult::Denied(_)));
        });
        let state = limiter.state(&limits(), at(0));
        assert_eq!((state.tokens, state.reserved_starts, state.running), (Some(0), Some(3), Some(2)));
        assert_eq!(limiter.state(&limits(), at(2)).reserved_starts, Some(2));
    }

    #[test]
    fn status_during_a_pause_has_no_free_starts() {
        let mut limiter = LimiterState::default();
        let permit = go(&mut limiter, at(0));
        let asked =
            CallReport { health: CallHealth::Unknown, took: Duration::ZERO, pause_until: Some(at(60)) };
        limiter.complete(&limits(), permit, ME, &asked, at(0));
        assert!(matches!(limiter.acquire(&limits(), &request(), at(1)), AcquireResult::Denied(_)));
        let state = limiter.state(&limits(), at(1));
        assert_eq!(
            (state.tokens, state.reserved_starts, state.paused_until),
            (Some(0), Some(1), Some(at(60)))
        );
        assert_eq!(limiter.state(&limits(), at(60)).paused_until, None);
    }

    #[test]
    fn breaker_status_lists_its_changes() {
        let mut limiter = LimiterState::default();
        let permit = go(&mut limiter, at(0));
        assert_eq!(limiter.to_text().find("changes"), None, "without changes, none are stored");
        leave(&mut limiter, permit, CallHealth::Bad, at(1));
        let change = |to, seconds| BreakerChange { to, at: at(seconds) };
        let opened = change(BreakerState::Open, 1);
        let open = BreakerStatus {
            state: BreakerState::Open,
            since: Some(at(1)),
            next_probe: Some(at(31)),
            changes: vec![opened],
        };
        assert_eq!(breaker(&limiter, at(2)), open);
        let before = limiter.clone();
        let probe = go(&mut limiter, at(40));
        let half_open = breaker(&limiter, at(40));
        assert_eq!(
            (half_open.state, half_open.since, half_open.next_probe),
            (BreakerState::HalfOpen, Some(at(1)), Some(at(100)))
        );
        assert_eq!(limiter.changes_since(&before).collect::<Vec<_>>(), [&change(BreakerState::HalfOpen, 40)]);
        leave(&mut limiter, probe, CallHealth::Good, at(41));
        let closed = breaker(&limiter, at(50));
        assert_eq!(
            (closed.state, closed.since, closed.next_probe),
            (BreakerState::Closed, Some(at(41)), None)
        );
        assert_eq!(closed.changes.len(), 3);
        assert_eq!(LimiterState::from_text(&limiter.to_text()).unwrap(), limiter);
    }

    #[test]
    fn breaker_status_keeps_the_last_five_changes() {
        let mut limiter = LimiterState::default();
        let permit = go(&mut limiter, at(0));
        leave(&mut limiter, permit, CallHealth::Bad, at(0));
        for round in 1..5 {
            let probe = go(&mut limiter, at(round * 100));
            leave(&mut limiter, probe, CallHealth::Bad, at(round * 100 + 1));
        }
        let standing = breaker(&limiter, at(450));
        let opened = BreakerChange { to: BreakerState::Open, at: at(0) };
        assert_eq!(
            (standing.since, standing.changes),
            (Some(at(0)), vec![opened]),
            "a failed probe adds no change"
        );
        for round in 5..9 {
            let probe = go(&mut limiter, at(round * 100));
            leave(&mut limiter, probe, CallHealth::Good, at(round * 100 + 1));
            let permit = go(&mut limiter, at(round * 100 + 2));
            leave(&mut limiter, permit, CallHealth::Bad, at(round * 100 + 3));
        }
        let standing = breaker(&limiter, at(850));
        assert_eq!((standing.since, standing.changes.len()), (Some(at(803)), 5));
        assert_eq!(standing.changes.last().unwrap(), &BreakerChange { to: BreakerState::Open, at: at(803) });
    }

    #[test]
    fn returned_probe_leaves_no_breaker_change() {
        let mut limiter = LimiterState::default();
        let permit = go(&mut limiter, at(0));
        leave(&mut limiter, permit, CallHealth::Bad, at(0));
        let changes = breaker(&limiter, at(0)).changes;
        let probe = go(&mut limiter, at(50));
        let half_open = limiter.clone();
        limiter.cancel(probe, ME, at(50));
        assert_eq!(breaker(&limiter, at(50)).changes, changes);
        assert_eq!(limiter.changes_since(&half_open).count(), 0);
        // The other process holds the only slot: the task passes the circuit breaker, finds no slot, and
        // gives the probe back.
        let narrow = Limits { concurrency: Some(NonZeroU32::MIN), ..limits() };
        limiter.recount(HolderId(2), 1, at(51));
        assert!(matches!(limiter.acquire(&narrow, &request(), at(51)), AcquireResult::Denied(_)));
        assert_eq!(breaker(&limiter, at(51)).changes, changes);
    }

    #[test]
    fn state_of_an_earlier_version_is_read() {
        let rate =
            RateLimit { rate: NonZeroU32::MIN, period: Duration::from_mins(1), burst: NonZeroU32::MIN };
        let with_rate = Limits { rate: Some(rate), ..limits() };
        let mut now = LimiterState::default();
        for _ in 0..3 {
            now.acquire(&with_rate, &request(), at(0));
        }
        let mut earlier: serde_json::Value = serde_json::from_str(&now.to_text()).unwrap();
        assert!(
            earlier["gcra"].as_object_mut().unwrap().remove("due").is_some(),
            "a field of later versions"
        );
        earlier.as_object_mut().unwrap().remove("changes");
        earlier["breaker"] =
            serde_json::json!({"open": {"since": "2027-01-15T08:00:00Z", "until": "2027-01-15T08:00:30Z"}});
        let limiter = LimiterState::from_text(&earlier.to_string()).unwrap();
        assert_eq!(
            limiter.state(&with_rate, at(0)).reserved_starts,
            Some(2),
            "the state of the rate is read"
        );
        let standing = breaker(&limiter, at(0));
        assert_eq!(
            (standing.state, standing.since, standing.changes.len()),
            (BreakerState::Open, Some(at(0)), 0)
        );
    }
}
