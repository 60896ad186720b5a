//! Rate limit: a token bucket.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::types::time::Timestamp;

/// Refill rate and size of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRate {
    /// Tokens added per second.
    pub per_second: NonZeroU32,
    /// Maximum number of tokens in the bucket.
    pub burst: NonZeroU32,
}

/// Fill level of a bucket, stored as the time at which the bucket will be full. The default is a full bucket,
/// so a bucket without a record is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBucket {
    /// Microseconds since the Unix epoch.
    pub full_at: i64,
}

/// Outcome of a request for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeResult {
    /// Number of tokens granted: at least one, at most as many as requested.
    Granted(NonZeroU32),
    /// No token was left. The next token is available after this time.
    Wait(Duration),
}

const MICROS: i64 = 1_000_000;

impl TokenRate {
    /// Returns the microseconds between two tokens, rounded up. At more than some thousand tokens per second,
    /// the rounding loses a few tokens.
    fn interval(self) -> i64 {
        let per_second = i64::from(self.per_second.get());
        ((MICROS + per_second - 1) / per_second).max(1)
    }

    /// Returns the microseconds that an empty bucket needs to become full.
    pub fn room(self) -> i64 {
        self.interval() * i64::from(self.burst.get())
    }

    /// Takes up to `wanted` tokens. Returns the outcome and the changed bucket.
    pub fn take(self, bucket: TokenBucket, wanted: NonZeroU32, now: Timestamp) -> (TakeResult, TokenBucket) {
        let now = now.millis().saturating_mul(1_000);
        let interval = self.interval();
        let room = self.room();
        // Without the clamp, a bucket left by a larger burst, or by a process whose clock is ahead, would
        // block for too long.
        let full_at = bucket.full_at.clamp(now, now + room);
        let there = (room - (full_at - now)) / interval;
        let granted = there.min(i64::from(wanted.get()));
        if let Some(count) = u32::try_from(granted).ok().and_then(NonZeroU32::new) {
            return (TakeResult::Granted(count), TokenBucket { full_at: full_at + interval * granted });
        }
        let short = interval - (room - (full_at - now));
        (
            TakeResult::Wait(Duration::from_micros(u64::try_from(short).unwrap_or(1).max(1))),
            TokenBucket { full_at },
        )
    }

    /// Returns the number of tokens in the bucket.
    pub fn left(self, bucket: TokenBucket, now: Timestamp) -> u32 {
        match self.take(bucket, self.burst, now).0 {
            TakeResult::Granted(count) => count.get(),
            TakeResult::Wait(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    fn rate(per_second: u32, burst: u32) -> TokenRate {
        TokenRate { per_second: count(per_second), burst: count(burst) }
    }

    #[test]
    fn bucket_grants_a_burst_then_the_rate() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let rate = rate(10, 3);
        let (taken, bucket) = rate.take(TokenBucket::default(), count(5), now);
        assert_eq!(taken, TakeResult::Granted(count(3)));
        let (taken, bucket) = rate.take(bucket, count(1), now);
        assert_eq!(taken, TakeResult::Wait(Duration::from_millis(100)));
        let (taken, bucket) = rate.take(bucket, count(1), now + Duration::from_millis(99));
        assert_eq!(taken, TakeResult::Wait(Duration::from_millis(1)));
        let (taken, bucket) = rate.take(bucket, count(1), now + Duration::from_millis(100));
        assert_eq!(
            (taken, rate.left(bucket, now + Duration::from_millis(100))),
            (TakeResult::Granted(count(1)), 0)
        );
        assert_eq!(rate.left(bucket, now + Duration::from_secs(9)), 3, "the bucket never exceeds the burst");
    }

    #[test]
    fn clock_set_back_costs_at_most_an_empty_bucket() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let (_, bucket) = rate(1, 2).take(TokenBucket::default(), count(2), now + Duration::from_hours(1));
        assert_eq!(rate(1, 2).take(bucket, count(1), now).0, TakeResult::Wait(Duration::from_secs(1)));
    }

    proptest! {
        #[test]
        fn grants_never_exceed_rate_and_burst(
            per_second in 1_u32..2_000, burst in 1_u32..100, pauses in proptest::collection::vec((0_u64..500, 1_u32..50), 1..100)
        ) {
            let rate = rate(per_second, burst);
            let begun = Timestamp::from_millis(1_800_000_000_000);
            let (mut now, mut bucket, mut granted) = (begun, TokenBucket::default(), 0_u64);
            for (pause, wanted) in pauses {
                now = now + Duration::from_millis(pause);
                let (taken, left) = rate.take(bucket, count(wanted), now);
                bucket = left;
                if let TakeResult::Granted(count) = taken {
                    granted += u64::from(count.get());
                }
                let elapsed = u64::try_from(now.since(begun).as_micros()).unwrap();
                let interval = 1_000_000_u64.div_ceil(u64::from(per_second));
                prop_assert!(granted <= u64::from(burst) + elapsed / interval);
            }
        }
    }
}
