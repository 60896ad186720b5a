//! Bounds of the numbers that clients send.

use std::num::NonZeroU32;
use std::time::Duration;

/// Smallest and largest number that a field accepts, both included.
///
/// The check and the error text use the same bounds. A test of the API compares the bounds with `minimum` and
/// `maximum` in the OpenAPI document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    from: f64,
    to: f64,
}

/// Shortest time other than zero that a client can set, in seconds. Times are stored in whole milliseconds.
const MILLISECOND: f64 = 0.001;

impl Bounds {
    /// Numbers from `from` to `to`.
    pub const fn new(from: f64, to: f64) -> Self {
        Self { from, to }
    }

    /// Whole numbers from 1 to `most`.
    pub const fn count(most: u32) -> Self {
        Self { from: 1.0, to: most as f64 }
    }

    /// Seconds from `shortest` to `longest`.
    pub const fn times(shortest: Duration, longest: Duration) -> Self {
        Self { from: shortest.as_secs_f64(), to: longest.as_secs_f64() }
    }

    /// Seconds from 0 to `longest`.
    pub const fn delay(longest: Duration) -> Self {
        Self::times(Duration::ZERO, longest)
    }

    /// Seconds from 0.001 to `longest`, for times that must not be zero.
    pub const fn timeout(longest: Duration) -> Self {
        Self { from: MILLISECOND, to: longest.as_secs_f64() }
    }

    /// Returns the number, or the text of the error if it is out of bounds.
    pub fn number(self, number: f64) -> Result<f64, String> {
        let Self { from, to } = self;
        if self.contains(number) { Ok(number) } else { Err(format!("expected a number from {from} to {to}")) }
    }

    /// Returns the whole number, or the text of the error if it has a fraction or is out of bounds. The
    /// bounds must be between 1 and 4294967295.
    ///
    /// `25.0` is a whole number: JSON does not distinguish it from `25`.
    pub fn whole(self, number: f64) -> Result<NonZeroU32, String> {
        let Self { from, to } = self;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the cast saturates, and the bounds were checked"
        )]
        let whole = NonZeroU32::new(number as u32).filter(|_| number.fract() == 0.0 && self.contains(number));
        whole.ok_or_else(|| format!("expected a whole number from {from} to {to}"))
    }

    /// Returns the seconds as a duration in whole milliseconds, or the text of the error if they are out of
    /// bounds.
    pub fn seconds(self, seconds: f64) -> Result<Duration, String> {
        let Self { from, to } = self;
        if !self.contains(seconds) {
            return Err(format!("expected seconds from {from} to {to}"));
        }
        let millis = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_millis();
        Ok(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    fn contains(self, number: f64) -> bool {
        (self.from..=self.to).contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_bound_is_accepted_and_the_next_number_is_not() {
        let timeout = Bounds::timeout(Duration::from_hours(12));
        assert_eq!(timeout.seconds(0.001), Ok(Duration::from_millis(1)));
        assert_eq!(timeout.seconds(43_200.0), Ok(Duration::from_hours(12)));
        for refused in [0.0, 0.000_9, 43_200.1, -1.0, 1e308, f64::NAN, f64::INFINITY] {
            assert_eq!(
                timeout.seconds(refused),
                Err("expected seconds from 0.001 to 43200".to_owned()),
                "{refused}"
            );
        }
        assert_eq!(Bounds::new(1.0, 100.0).number(100.1), Err("expected a number from 1 to 100".to_owned()));
        assert_eq!(Bounds::new(1.0, 100.0).number(1.5), Ok(1.5));
    }

    #[test]
    fn whole_number_with_a_fraction_is_refused() {
        let count = Bounds::count(u32::MAX);
        for (number, whole) in [(1.0, 1), (25.0, 25), (2.5e1, 25), (4_294_967_295.0, u32::MAX)] {
            assert_eq!(count.whole(number).map(NonZeroU32::get), Ok(whole), "{number}");
        }
        for refused in [0.0, -0.0, 0.5, 2.5, -1.0, 4_294_967_296.0, 1e300, f64::NAN] {
            assert_eq!(
                count.whole(refused),
                Err("expected a whole number from 1 to 4294967295".to_owned()),
                "{refused}"
            );
        }
    }
}
