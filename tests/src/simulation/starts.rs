//! Checks of starts per limit scope: not too often, and not too many at once.
//!
//! A start is permitted between its claim and its start, by the clock of the process that asks. So only
//! starts that were both claimed and started within a period certainly break its rate, and clock differences
//! allow some more.
//!
//! A slot is a lease. A process that froze or could not reach the limiter may have lost it, which only the
//! passed time tells. From then on its attempts do not count.
//!
//! While a circuit breaker is not closed, only as many tasks start as probes were granted. While an endpoint
//! asks for a pause, none start.

use std::collections::BTreeMap;
use std::time::Duration;

use nobat_core::limits::{BreakerState, LimiterKey, LimiterStatus, Limits, RateLimit};
use nobat_core::types::intervals::LEASE;
use nobat_core::types::time::Timestamp;

/// All starts of limited tasks.
#[derive(Default)]
pub struct Starts {
    of: BTreeMap<LimiterKey, Vec<Start>>,
    heard: BTreeMap<(String, LimiterKey), Heard>,
    /// Contacts before the last read of a limiter state.
    read: BTreeMap<(String, LimiterKey), Heard>,
    /// Limiter states as last written.
    stands: BTreeMap<LimiterKey, Stand>,
}

/// Relevant part of a limiter state.
#[derive(Default)]
struct Stand {
    /// Pause of starts: the time since when it holds, and its end by some clock.
    rest: Option<(Timestamp, Timestamp)>,
    outage: Option<Outage>,
}

/// Probes and starts while a circuit breaker is not closed.
struct Outage {
    since: Timestamp,
    probe_until: Option<Timestamp>,
    probes: usize,
    starts: usize,
}

/// One start.
struct Start {
    actor: String,
    claimed_at: Timestamp,
    is_over: bool,
    has_lapsed: bool,
}

/// Last contact of a process with a limiter state.
#[derive(Clone, Copy, Default)]
struct Heard {
    at: Timestamp,
    /// Time until which its slots are certainly its own, by every clock.
    until: Timestamp,
    /// Time of the contact before a lapse. Tasks claimed up to then have lost their slots.
    lapsed: Option<Timestamp>,
}

/// Permit that a start uses.
#[derive(Clone)]
pub struct Right {
    /// Process that uses it.
    pub actor: String,
    /// Time when its task was claimed.
    pub claimed_at: Timestamp,
    /// Maximum difference between clocks.
    pub apart: Duration,
}

/// Time for which a process trusts the limiter state that it has read.
const BELIEVED: Duration = Duration::from_secs(1);
/// Time after a contact in which a process need not renew its slots: half a lease.
const HEARD: Duration = Duration::from_secs(LEASE.as_secs() / 2);

impl Starts {
    /// Records that a process has read a limiter state when its clock showed `asked_at`. If it does not write
    /// then, its slots, if any, need no renewal.
    pub fn reads(
        &mut self,
        actor: &str,
        limiter: &LimiterKey,
        asked_at: Timestamp,
        now: Timestamp,
        apart: Duration,
    ) {
        let before = self.heard.get(&(actor.to_owned(), limiter.clone())).copied().unwrap_or_default();
        self.has_written(actor, limiter, asked_at, now, apart);
        self.read.insert((actor.to_owned(), limiter.clone()), before);
    }

    /// Records that a process is about to write a limiter state. Its read no longer proves that its slots
    /// need no renewal.
    pub fn writes(&mut self, actor: &str, limiter: &LimiterKey) {
        let place = (actor.to_owned(), limiter.clone());
        if let Some(before) = self.read.remove(&place) {
            self.heard.insert(place, before);
        }
    }

    /// Records that a process has written a limiter state when its clock showed `told_at`. This renews its
    /// slots, if any.
    pub fn has_written(
        &mut self,
        actor: &str,
        limiter: &LimiterKey,
        told_at: Timestamp,
        now: Timestamp,
        apart: Duration,
    ) {
        let heard = self.heard.entry((actor.to_owned(), limiter.clone())).or_default();
        heard.lapse(now);
        *heard = Heard { at: now, until: told_at + HEARD - apart, ..*heard };
    }

    /// Records the limiter state that was written.
    pub fn stands(&mut self, limiter: &LimiterKey, state: &LimiterStatus, now: Timestamp) {
        let stand = self.stands.entry(limiter.clone()).or_default();
        stand.rest = match (stand.rest, state.paused_until) {
            (Some((since, before)), Some(until)) if before == until => Some((since, until)),
            (_, until) => until.map(|until| (now, until)),
        };
        let Some(breaker) =
            state.circuit_breaker.as_ref().filter(|breaker| breaker.state != BreakerState::Closed)
        else {
            stand.outage = None;
            return;
        };
        let outage =
            stand.outage.get_or_insert(Outage { since: now, probe_until: None, probes: 0, starts: 0 });
        let probe_until = breaker.next_probe.filter(|_| breaker.state == BreakerState::HalfOpen);
        if probe_until.is_some() && probe_until != outage.probe_until {
            outage.probes += 1;
        }
        outage.probe_until = probe_until;
    }

    /// Records the start of an attempt. Returns its number, or the promise that the start breaks.
    pub fn begins(
        &mut self,
        limiter: &LimiterKey,
        limits: &Limits,
        right: &Right,
        now: Timestamp,
    ) -> Result<usize, String> {
        if let Some(stand) = self.stands.get_mut(limiter) {
            stand.begins(right, now).map_err(|what| format!("{}: {what}", limiter.scope))?;
        }
        let starts = self.of.entry(limiter.clone()).or_default();
        starts.push(Start {
            actor: right.actor.clone(),
            claimed_at: right.claimed_at,
            is_over: false,
            has_lapsed: false,
        });
        if let Some(rate_limit) = limits.rate {
            let within = starts.iter().filter(|start| start.claimed_at > now - rate_limit.period).count();
            let most = most_within(rate_limit, right.apart);
            if within as u128 > most {
                return Err(format!(
                    "{within} tasks of {} have started within {:?}; at most {most} may start",
                    limiter.scope, rate_limit.period
                ));
            }
        }
        if let Some(most) = limits.concurrency {
            for start in starts.iter_mut().filter(|start| !start.is_over) {
                let heard = self.heard.entry((start.actor.clone(), limiter.clone())).or_default();
                heard.lapse(now);
                start.has_lapsed |= heard.lapsed.is_some_and(|lapsed| start.claimed_at <= lapsed);
            }
            let running = starts.iter().filter(|start| !start.is_over && !start.has_lapsed).count();
            if running > most.get() as usize {
                return Err(format!(
                    "{running} tasks of {} run at once; at most {most} may run",
                    limiter.scope
                ));
            }
        }
        Ok(starts.len() - 1)
    }

    /// Records the end of an attempt.
    pub fn ends(&mut self, limiter: &LimiterKey, place: usize) {
        if let Some(start) = self.of.get_mut(limiter).and_then(|starts| starts.get_mut(place)) {
            start.is_over = true;
        }
    }
}

impl Stand {
    /// Checks a start against pause and circuit breaker. A task that was claimed after a change also asked
    /// for its permit after it.
    fn begins(&mut self, right: &Right, now: Timestamp) -> Result<(), String> {
        let is_after = |since: Timestamp| since + BELIEVED + right.apart < right.claimed_at;
        if let Some((since, until)) = self.rest
            && is_after(since)
            && now + right.apart < until
        {
            return Err(format!("a task has started during a pause until {until}"));
        }
        if let Some(outage) = self.outage.as_mut().filter(|outage| is_after(outage.since)) {
            outage.starts += 1;
            if outage.starts > outage.probes {
                let Outage { starts, probes, .. } = outage;
                return Err(format!(
                    "{starts} tasks have started since the circuit breaker opened, with {probes} probes"
                ));
            }
        }
        Ok(())
    }
}

impl Heard {
    /// Records a lapse if the slots may have passed to another process.
    fn lapse(&mut self, now: Timestamp) {
        if self.until <= now {
            self.lapsed = Some(self.at);
        }
    }
}

/// Returns the maximum number of starts in a period, if clocks differ by `apart`: the burst, and as many as
/// fit between the first and the last. Each may be early by a fiftieth of the period.
fn most_within(rate_limit: RateLimit, apart: Duration) -> u128 {
    let lateness = rate_limit.period / 50;
    let interval = (rate_limit.period + lateness).as_micros().div_ceil(u128::from(rate_limit.rate.get()));
    let longest = rate_limit.period.saturating_sub(Duration::from_millis(1)) + lateness + apart;
    u128::from(rate_limit.burst.get()) + longest.as_micros() / interval
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn exact_clocks_allow_rate_plus_burst_minus_one() {
        let count = |count| NonZeroU32::new(count).unwrap();
        for (rate, burst, seconds) in [(1, 1, 1), (2, 3, 10), (50, 1, 60), (5, 2, 1)] {
            let rate_limit =
                RateLimit { rate: count(rate), period: Duration::from_secs(seconds), burst: count(burst) };
            assert_eq!(most_within(rate_limit, Duration::ZERO), u128::from(rate + burst - 1));
        }
    }
}
