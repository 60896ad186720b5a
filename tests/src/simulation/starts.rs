//! Who started, when, and of which flow: whether it was too often, or too many at once.
//!
//! A right to start is granted somewhere between the claim and the start, by the clock of the process that asks for it. So a period is
//! broken for certain by those that were both claimed and started in it; and as many as clocks differ by may be too many for a right one.
//!
//! A slot is a lease. That a process which stood still, or could not reach the flow, has lost it, nobody can know but by the time that
//! passed: its attempt does not count from then on, however long it goes on.
//!
//! While a breaker is not closed, as many start as probes were granted; and while the other side wants to be left alone, nothing does.

use std::collections::BTreeMap;
use std::time::Duration;

use nobat_core::flow::{BreakerState, FlowName, FlowState, Limits, Pace};
use nobat_core::ports::LEASE;
use nobat_core::time::Timestamp;

/// All starts of tasks that are limited.
#[derive(Default)]
pub struct Starts {
    of: BTreeMap<FlowName, Vec<Start>>,
    heard: BTreeMap<(String, FlowName), Heard>,
    /// What was known before a flow was read.
    read: BTreeMap<(String, FlowName), Heard>,
    /// How flows stood when they were last written.
    stands: BTreeMap<FlowName, Stand>,
}

/// How a flow stands.
#[derive(Default)]
struct Stand {
    /// Since when nothing may start, and until when by some clock or other.
    rest: Option<(Timestamp, Timestamp)>,
    outage: Option<Outage>,
}

/// What a breaker lets through while it is not closed.
struct Outage {
    since: Timestamp,
    probe_until: Option<Timestamp>,
    probes: usize,
    starts: usize,
}

/// One of them.
struct Start {
    actor: String,
    claimed_at: Timestamp,
    is_over: bool,
    has_lapsed: bool,
}

/// That a process was heard of in a flow.
#[derive(Clone, Copy, Default)]
struct Heard {
    at: Timestamp,
    /// Until when its slots are its own, by every clock there is.
    until: Timestamp,
    /// What was claimed by then has lost its slot since.
    lapsed: Option<Timestamp>,
}

/// A right that is used.
#[derive(Clone)]
pub struct Right {
    /// Of which process.
    pub actor: String,
    /// When the task was claimed that it is for.
    pub claimed_at: Timestamp,
    /// By how much clocks differ at most.
    pub apart: Duration,
}

/// For how long a process believes what it has seen of a flow.
const BELIEVED: Duration = Duration::from_secs(1);
/// For how long a holder that was heard of is not heard of again.
const HEARD: Duration = Duration::from_secs(LEASE.as_secs() / 2);

impl Starts {
    /// A process has read a flow, which it asked for when its clock showed `asked_at`: if it writes nothing then, its slots, if it has any,
    /// need not be renewed.
    pub fn reads(&mut self, actor: &str, flow: &FlowName, asked_at: Timestamp, now: Timestamp, apart: Duration) {
        let before = self.heard.get(&(actor.to_owned(), flow.clone())).copied().unwrap_or_default();
        self.has_written(actor, flow, asked_at, now, apart);
        self.read.insert((actor.to_owned(), flow.clone()), before);
    }

    /// A process is about to write a flow: whether its slots are renewed is not known by what it read.
    pub fn writes(&mut self, actor: &str, flow: &FlowName) {
        let place = (actor.to_owned(), flow.clone());
        if let Some(before) = self.read.remove(&place) {
            self.heard.insert(place, before);
        }
    }

    /// A process has written a flow, by what its clock showed as `told_at`: its slots, if it has any, are renewed.
    pub fn has_written(&mut self, actor: &str, flow: &FlowName, told_at: Timestamp, now: Timestamp, apart: Duration) {
        let heard = self.heard.entry((actor.to_owned(), flow.clone())).or_default();
        heard.lapse(now);
        *heard = Heard { at: now, until: told_at + HEARD - apart, ..*heard };
    }

    /// A flow was written, and stands like that.
    pub fn stands(&mut self, flow: &FlowName, state: &FlowState, now: Timestamp) {
        let stand = self.stands.entry(flow.clone()).or_default();
        stand.rest = match (stand.rest, state.held_until) {
            (Some((since, before)), Some(until)) if before == until => Some((since, until)),
            (_, until) => until.map(|until| (now, until)),
        };
        let Some(breaker) = state.breaker.as_ref().filter(|breaker| breaker.state != BreakerState::Closed) else {
            stand.outage = None;
            return;
        };
        let outage = stand.outage.get_or_insert(Outage { since: now, probe_until: None, probes: 0, starts: 0 });
        let probe_until = breaker.next_probe.filter(|_| breaker.state == BreakerState::HalfOpen);
        if probe_until.is_some() && probe_until != outage.probe_until {
            outage.probes += 1;
        }
        outage.probe_until = probe_until;
    }

    /// An attempt begins. Says which promise that breaks, if it does.
    pub fn begins(&mut self, flow: &FlowName, limits: &Limits, right: &Right, now: Timestamp) -> Result<usize, String> {
        if let Some(stand) = self.stands.get_mut(flow) {
            stand.begins(right, now).map_err(|what| format!("{}: {what}", flow.of))?;
        }
        let starts = self.of.entry(flow.clone()).or_default();
        starts.push(Start { actor: right.actor.clone(), claimed_at: right.claimed_at, is_over: false, has_lapsed: false });
        if let Some(pace) = limits.pace {
            let within = starts.iter().filter(|start| start.claimed_at > now - pace.period).count();
            let most = most_within(pace, right.apart);
            if within as u128 > most {
                return Err(format!("{within} of {} have started within {:?}, where {most} may", flow.of, pace.period));
            }
        }
        if let Some(most) = limits.parallelism {
            for start in starts.iter_mut().filter(|start| !start.is_over) {
                let heard = self.heard.entry((start.actor.clone(), flow.clone())).or_default();
                heard.lapse(now);
                start.has_lapsed |= heard.lapsed.is_some_and(|lapsed| start.claimed_at <= lapsed);
            }
            let running = starts.iter().filter(|start| !start.is_over && !start.has_lapsed).count();
            if running > most.get() as usize {
                return Err(format!("{running} of {} run at once, where {most} may", flow.of));
            }
        }
        Ok(starts.len() - 1)
    }

    /// An attempt is over.
    pub fn ends(&mut self, flow: &FlowName, place: usize) {
        if let Some(start) = self.of.get_mut(flow).and_then(|starts| starts.get_mut(place)) {
            start.is_over = true;
        }
    }
}

impl Stand {
    /// Something starts. What was claimed after a change has asked for its right after that as well.
    fn begins(&mut self, right: &Right, now: Timestamp) -> Result<(), String> {
        let is_after = |since: Timestamp| since + BELIEVED + right.apart < right.claimed_at;
        if let Some((since, until)) = self.rest
            && is_after(since)
            && now + right.apart < until
        {
            return Err(format!("something has started, though it is to be left alone until {until}"));
        }
        if let Some(outage) = self.outage.as_mut().filter(|outage| is_after(outage.since)) {
            outage.starts += 1;
            if outage.starts > outage.probes {
                let Outage { starts, probes, .. } = outage;
                return Err(format!("{starts} have started since its breaker opened, with {probes} probes"));
            }
        }
        Ok(())
    }
}

impl Heard {
    /// Notes that it was not heard of for so long that its slots may be another's.
    fn lapse(&mut self, now: Timestamp) {
        if self.until <= now {
            self.lapsed = Some(self.at);
        }
    }
}

/// How many may start in a period, if the clocks of those who start differ by so much: so many as fit between the first of them and the
/// last, a fiftieth of the period early, and those of a burst besides.
fn most_within(pace: Pace, apart: Duration) -> u128 {
    let lateness = pace.period / 50;
    let interval = (pace.period + lateness).as_micros().div_ceil(u128::from(pace.rate.get()));
    let longest = pace.period.saturating_sub(Duration::from_millis(1)) + lateness + apart;
    u128::from(pace.burst.get()) + longest.as_micros() / interval
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn with_right_clocks_it_is_what_was_asked_for() {
        let count = |count| NonZeroU32::new(count).unwrap();
        for (rate, burst, seconds) in [(1, 1, 1), (2, 3, 10), (50, 1, 60), (5, 2, 1)] {
            let pace = Pace { rate: count(rate), period: Duration::from_secs(seconds), burst: count(burst) };
            assert_eq!(most_within(pace, Duration::ZERO), u128::from(rate + burst - 1));
        }
    }
}
