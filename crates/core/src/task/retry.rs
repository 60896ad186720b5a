//! Retry policy: delays between attempts, and their limits.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::types::jitter_sample::JitterSample;
use crate::types::time::Timestamp;

/// Retry policy of a task. Retries end when `schedule` or `max_age` allows no further retry.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Delays between attempts. They also limit the number of attempts.
    pub schedule: Schedule,
    /// Maximum time from the start of the generation to a retry.
    pub max_age: Option<Duration>,
}

/// The delays between attempts.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Delays that grow by a factor, up to a maximum.
    Exponential(Exponential),
    /// List of delays. There is one attempt more than delays.
    Delays(Vec<Duration>),
}

/// Delay before the retry after attempt `n`: `initial_delay × multiplier^(n-1)`, at most `max_delay`.
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    /// Maximum number of attempts of one generation, including the first. Default 5.
    pub max_attempts: NonZeroU32,
    /// Delay before the first retry. Default 10 s.
    pub initial_delay: Duration,
    /// Factor by which the delay grows from one retry to the next. Default 2.
    pub multiplier: f64,
    /// Maximum delay. Default 1 h.
    pub max_delay: Duration,
    /// Randomness of delays. Default [`Jitter::Full`].
    pub jitter: Jitter,
}

/// Randomness of delays, so that tasks that failed together do not retry together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Random between 0 and the computed delay.
    Full,
    /// Exactly the computed delay.
    None,
}

impl Default for Exponential {
    fn default() -> Self {
        Self {
            max_attempts: const { NonZeroU32::new(5).unwrap() },
            initial_delay: Duration::from_secs(10),
            multiplier: 2.0,
            max_delay: Duration::from_hours(1),
            jitter: Jitter::Full,
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { schedule: Schedule::Exponential(Exponential::default()), max_age: None }
    }
}

/// Maximum pause that a receiver can ask for by `Retry-After`.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

impl RetryPolicy {
    /// Returns the maximum number of attempts of one generation, including the first.
    pub fn max_attempts(&self) -> u32 {
        match &self.schedule {
            Schedule::Exponential(policy) => policy.max_attempts.get(),
            Schedule::Delays(delays) => {
                u32::try_from(delays.len()).map_or(u32::MAX, |delays| delays.saturating_add(1))
            }
        }
    }

    /// Returns the time at which attempt number `spent + 1` is due, or `None` if there is none.
    ///
    /// `since` is the start of the generation. `asked` is the pause that the receiver asked for. If the pause
    /// is longer than the delay, the pause replaces the delay, up to [`MAX_RETRY_AFTER`].
    pub fn next(
        &self,
        spent: u32,
        since: Timestamp,
        asked: Option<Duration>,
        spread: JitterSample,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if spent >= self.max_attempts() {
            return None;
        }
        let own = self.delay(spent, spread);
        let delay = asked.map_or(own, |asked| own.max(asked.min(MAX_RETRY_AFTER)));
        let due = now + delay;
        match self.max_age {
            Some(max_age) if due > since + max_age => None,
            _ => Some(due),
        }
    }

    fn delay(&self, spent: u32, spread: JitterSample) -> Duration {
        match &self.schedule {
            Schedule::Delays(delays) => {
                delays.get(spent.saturating_sub(1) as usize).copied().unwrap_or_default()
            }
            Schedule::Exponential(policy) => {
                let exponent = f64::from(spent.saturating_sub(1));
                let seconds = (policy.initial_delay.as_secs_f64() * policy.multiplier.powf(exponent))
                    .min(policy.max_delay.as_secs_f64());
                match policy.jitter {
                    Jitter::Full => Duration::from_secs_f64(seconds * spread.0),
                    Jitter::None => Duration::from_secs_f64(seconds),
                }
            }
        }
    }
}

pub(crate) const MAX_ATTEMPTS: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::EPOCH;

    fn delays(policy: &RetryPolicy) -> Vec<u128> {
        let spread = JitterSample::from_bits(u64::MAX);
        (1..)
            .map_while(|spent| policy.next(spent, NOW, None, spread, NOW))
            .map(|due| due.since(NOW).as_millis())
            .collect()
    }

    #[test]
    fn delay_doubles_up_to_the_maximum() {
        let mut policy = Exponential { jitter: Jitter::None, ..Exponential::default() };
        assert_eq!(
            delays(&RetryPolicy { schedule: Schedule::Exponential(policy.clone()), max_age: None }),
            [10_000, 20_000, 40_000, 80_000]
        );
        policy.max_delay = Duration::from_secs(30);
        assert_eq!(
            delays(&RetryPolicy { schedule: Schedule::Exponential(policy), max_age: None }),
            [10_000, 20_000, 30_000, 30_000]
        );
    }

    #[test]
    fn a_list_of_delays_is_followed_to_its_end() {
        let schedule = Schedule::Delays([5, 60, 600].map(Duration::from_secs).to_vec());
        assert_eq!(delays(&RetryPolicy { schedule, max_age: None }), [5_000, 60_000, 600_000]);
    }

    #[test]
    fn max_age_ends_retries_before_the_count() {
        let schedule = Schedule::Delays([5, 60, 600].map(Duration::from_secs).to_vec());
        assert_eq!(delays(&RetryPolicy { schedule, max_age: Some(Duration::from_mins(1)) }), [5_000, 60_000]);
    }

    #[test]
    fn a_longer_pause_is_granted_up_to_a_day() {
        let ask = |seconds| {
            let asked = Some(Duration::from_secs(seconds));
            RetryPolicy::default()
                .next(1, NOW, asked, JitterSample::from_bits(0), NOW)
                .unwrap()
                .since(NOW)
                .as_secs()
        };
        assert_eq!((ask(0), ask(120), ask(999_999_999)), (0, 120, 86_400));
    }

    proptest! {
        #[test]
        fn full_jitter_stays_between_zero_and_the_delay(spent in 1_u32..5, random: u64) {
            let due = RetryPolicy::default().next(spent, NOW, None, JitterSample::from_bits(random), NOW).unwrap();
            prop_assert!(due.since(NOW) <= Duration::from_secs(10 * 2_u64.pow(spent - 1)));
        }
    }
}
