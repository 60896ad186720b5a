//! Points in time, to the millisecond, in UTC.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::Offset;

use crate::types::serde_as_text::serde_as_text;

/// Point in time, in milliseconds since the Unix epoch.
///
/// A separate type, so that code cannot compare seconds with milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// 9999-12-30T22:00:00Z, the last whole second that can be written with any offset.
const LATEST: i64 = 253_402_207_200_000;

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// Creates a time from milliseconds since the epoch, clamped to the range from 1970 to
    /// 9999-12-30T22:00:00Z.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(0, LATEST))
    }

    /// Returns the milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Returns the time that has passed since `earlier`. Zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_sub(millis))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = jiff::Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        let at = Offset::UTC.to_datetime(moment);
        // Every response shows several times. The printer of jiff needs three times as many instructions.
        let mut text = *b"0000-00-00T00:00:00.000Z";
        write_digits(&mut text[0..4], at.year());
        write_digits(&mut text[5..7], at.month().into());
        write_digits(&mut text[8..10], at.day().into());
        write_digits(&mut text[11..13], at.hour().into());
        write_digits(&mut text[14..16], at.minute().into());
        write_digits(&mut text[17..19], at.second().into());
        write_digits(&mut text[20..23], at.millisecond());
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Writes a number with leading zeros.
fn write_digits(places: &mut [u8], number: i16) {
    let mut rest = number.unsigned_abs();
    for place in places.iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// The text is not a point in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time as in RFC 3339, such as 2026-12-01T08:00:00Z")]
pub struct InvalidTimestamp;

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Reads RFC 3339 with any offset and any number of fractional digits. Digits beyond the millisecond are
    /// cut off. Times before 1970 and after 9999-12-30T22:00:00Z are clamped.
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        if !is_rfc3339(text.as_bytes()) {
            return Err(InvalidTimestamp);
        }
        let text = without_digits_beyond_nanoseconds(text);
        match text.parse::<jiff::Timestamp>() {
            Ok(moment) => Ok(Self::from_millis(moment.as_millisecond())),
            // Jiff's range ends a day before the year 9999 does, so that every time can be shown with every
            // offset.
            Err(_)
                if &text[..DATE_LENGTH] >= "9999-12-30"
                    && text[..DATE_TIME_LENGTH].parse::<jiff::civil::DateTime>().is_ok() =>
            {
                Ok(Self(LATEST))
            }
            Err(_) => Err(InvalidTimestamp),
        }
    }
}

const DATE_LENGTH: usize = "2026-12-01".len();
const DATE_TIME_LENGTH: usize = "2026-12-01T08:00:00".len();

/// Cuts off fractional digits that jiff does not read. The text must satisfy [`is_rfc3339`].
fn without_digits_beyond_nanoseconds(text: &str) -> Cow<'_, str> {
    const MAX_DIGITS: usize = 9;
    let start = DATE_TIME_LENGTH + ".".len();
    let digits = text.bytes().skip(start).take_while(u8::is_ascii_digit).count();
    if text.as_bytes()[DATE_TIME_LENGTH] != b'.' || digits <= MAX_DIGITS {
        return text.into();
    }
    format!("{}{}", &text[..start + MAX_DIGITS], &text[start + digits..]).into()
}

/// Returns true if the text is a `date-time` of RFC 3339, section 5.6. Jiff also reads short forms of ISO
/// 8601, offsets of more than a day or with seconds, and zones in brackets. Other programs do not read these
/// forms.
fn is_rfc3339(text: &[u8]) -> bool {
    let Some((moment, rest)) = text.split_at_checked(DATE_TIME_LENGTH) else { return false };
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let offset = match rest {
        [b'.', fraction @ ..] if digits(fraction) > 0 => &fraction[digits(fraction)..],
        other => other,
    };
    let is_offset = matches!(offset, b"Z" | b"z")
        || (has_shape(offset, b"+00:00") && offset[1..3] < b"24"[..] && offset[4..6] < b"60"[..]);
    has_shape(moment, b"0000-00-00T00:00:00") && is_offset
}

/// Returns true if the text has this shape. In `shape`, `0` stands for any digit, `T` for a separator of date
/// and time, `+` for either sign.
fn has_shape(text: &[u8], shape: &[u8]) -> bool {
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        b'+' => matches!(byte, b'+' | b'-'),
        other => byte == other,
    };
    text.len() == shape.len() && text.iter().zip(shape).all(fits)
}

serde_as_text!(Timestamp);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn time_is_shown_in_utc_to_the_millisecond() {
        let moment: Timestamp = "2026-12-01T10:00:00.5+02:00".parse().unwrap();
        assert_eq!(moment.to_string(), "2026-12-01T08:00:00.500Z");
    }

    #[test]
    fn only_rfc_3339_times_are_read() {
        for text in [
            "2026-12-01T08:00:00Z",
            "2026-12-01t08:00:00.123456789z",
            "2026-12-01 10:00:00+02:00",
            "2016-12-31T23:59:60-00:00",
        ] {
            assert!(text.parse::<Timestamp>().is_ok(), "{text}");
        }
        for text in [
            "",
            "2026-12-01",
            "2026-12-01T08Z",
            "2026-12-01T08:00Z",
            "20261201T080000Z",
            "2026-12-01T08:00:00",
            "2026-12-01T08:00:00.Z",
            "2026-12-01T08:00:00,5Z",
            "2026-12-01T08:00:00+02",
            "2026-12-01T08:00:00+0200",
            "2026-12-01T08:00:00+24:00",
            "2026-12-01T08:00:00-23:60",
            "9999-12-31T23:59:00-23:60",
            "2026-12-01T08:00:00+02:00:30",
            "2026-12-01T08:00:00+02:00[Europe/Berlin]",
            "+002026-12-01T08:00:00Z",
            "2026-13-01T08:00:00Z",
            "2026-12-01T08:00:00Zx",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTimestamp), "{text}");
        }
    }

    #[test]
    fn fractional_digits_beyond_the_ninth_are_cut_off() {
        for (text, shown) in [
            ("2026-12-01T08:00:00.1234567890Z", "2026-12-01T08:00:00.123Z"),
            ("2026-12-01T10:00:00.9999999999999999999999999999+02:00", "2026-12-01T08:00:00.999Z"),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn times_out_of_range_are_clamped() {
        for text in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:60.9999999999-23:59",
            "9999-12-30T22:00:01Z",
            "9999-12-30t23:00:00z",
        ] {
            assert_eq!(text.parse(), Ok(Timestamp(LATEST)), "{text}");
        }
        for text in ["0000-01-01T00:00:00+23:59", "1969-12-31T23:59:59Z"] {
            assert_eq!(text.parse(), Ok(Timestamp::EPOCH), "{text}");
        }
        for text in
            ["9999-12-32T00:00:00Z", "9999-13-30T00:00:00Z", "9999-12-31T24:00:00Z", "9999-12-31T23:60:00Z"]
        {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTimestamp), "{text}");
        }
    }

    #[test]
    fn time_arithmetic_stays_in_range() {
        assert_eq!(
            (Timestamp::from_millis(i64::MAX) + Duration::MAX).to_string(),
            "9999-12-30T22:00:00.000Z"
        );
        assert_eq!(Timestamp::EPOCH - Duration::MAX, Timestamp::EPOCH);
    }

    proptest! {
        #[test]
        fn time_is_shown_as_jiff_shows_it(millis in 0..=LATEST) {
            let moment = jiff::Timestamp::from_millisecond(millis).unwrap();
            prop_assert_eq!(Timestamp(millis).to_string(), format!("{moment:.3}"));
        }
    }
}
