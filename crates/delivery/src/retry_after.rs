//! `Retry-After`: the pause that a receiver asks for (RFC 9110, section 10.2.3), in all the forms that
//! receivers send.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Smallest number that means seconds since 1970 instead of a pause. As a pause, this number would be 31
/// years.
const FIRST_EPOCH_SECOND: u64 = 1_000_000_000;
/// Smallest number that means milliseconds since 1970.
const FIRST_EPOCH_MILLISECOND: u64 = 1_000_000_000_000;

/// Returns the longest pause that the headers ask for, or `None`. The caller limits the pause.
///
/// Values that are unreadable, negative or in the past are ignored.
pub fn pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    headers.get_all(RETRY_AFTER).iter().filter_map(|value| read(value.as_bytes(), now)).max()
}

/// Returns the longest pause in one field value. Its parts are separated by commas.
///
/// A part has one of these forms:
/// - a number of seconds, whose fraction is rounded up
/// - an HTTP date (IMF-fixdate, RFC 850, asctime)
/// - an RFC 5322 date with any time zone
/// - an RFC 3339 or ISO 8601 date, in UTC if it names no time zone
/// - a large number: seconds or milliseconds since 1970
pub fn read(value: &[u8], now: SystemTime) -> Option<Duration> {
    let parts: Vec<&str> = std::str::from_utf8(value).ok()?.split(',').map(str::trim).collect();
    let mut longest = None;
    let mut rest = &parts[..];
    while let [part, after @ ..] = rest {
        // Most date formats contain a comma, after the day of the week.
        let dated = after.first().and_then(|date| moment(&format!("{part}, {date}")));
        rest = if dated.is_some() { &after[1..] } else { after };
        let pause = dated.map_or_else(|| one(part, now), |moment| until(moment, now));
        longest = longest.max(pause);
    }
    longest
}

fn one(part: &str, now: SystemTime) -> Option<Duration> {
    if part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        number(part, now)
    } else {
        until(moment(part)?, now)
    }
}

/// Reads digits, with or without a decimal point. A number that overflows becomes the longest pause.
fn number(text: &str, now: SystemTime) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let is_rounded_up = u64::from(fraction.bytes().any(|digit| digit != b'0'));
    let number = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u64::MAX) };
    let since_1970 = match number {
        FIRST_EPOCH_MILLISECOND.. => Duration::from_millis(number),
        FIRST_EPOCH_SECOND.. => Duration::from_secs(number.saturating_add(is_rounded_up)),
        _ => return Some(Duration::from_secs(number + is_rounded_up)),
    };
    match SystemTime::UNIX_EPOCH.checked_add(since_1970) {
        Some(moment) => until(moment, now),
        None => Some(since_1970),
    }
}

fn moment(text: &str) -> Option<SystemTime> {
    const RFC_5322: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let of_http = || httpdate::parse_http_date(text).ok();
    let of_mail = || RFC_5322.parse_timestamp(text).ok().map(SystemTime::from);
    let of_iso = || text.parse::<Timestamp>().ok().map(SystemTime::from);
    let without_zone = || {
        text.parse::<DateTime>()
            .ok()?
            .to_zoned(TimeZone::UTC)
            .ok()
            .map(|zoned: Zoned| zoned.timestamp().into())
    };
    of_http().or_else(of_mail).or_else(of_iso).or_else(without_zone)
}

/// Returns the time from `now` until `moment`, or `None` if `moment` has passed.
fn until(moment: SystemTime, now: SystemTime) -> Option<Duration> {
    moment.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn seconds(value: &str) -> Option<u64> {
        read(value.as_bytes(), now()).map(|pause| pause.as_secs())
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (value, expected) in [
            ("120", 120),
            ("0", 0),
            (" 5 ", 5),
            ("2.0", 2),
            ("0.5", 1),
            ("0.000001", 1),
            (".5", 1),
            ("3.", 3),
        ] {
            assert_eq!(seconds(value), Some(expected), "{value}");
        }
        assert_eq!(seconds("999999999"), Some(999_999_999));
        assert!(seconds("99999999999999999999999999") > Some(999_999_999));
    }

    #[test]
    fn dates_in_common_formats_are_parsed() {
        for value in [
            "Sun, 06 Nov 1994 08:50:37 GMT",
            "Sunday, 06-Nov-94 08:50:37 GMT",
            "Sun Nov  6 08:50:37 1994",
            "Sun, 06 Nov 1994 08:50:37 -0000",
            "Sun, 06 Nov 1994 08:50:37 +0000",
            "Sun, 06 Nov 1994 10:50:37 +0200",
            "Sun, 6 Nov 1994 08:50:37 UT",
            "Tue, 06 Nov 1994 08:50:37 +0000",
            "06 Nov 1994 03:50:37 -0500",
            "1994-11-06T08:50:37Z",
            "1994-11-06T08:50:37.000Z",
            "1994-11-06 08:50:37Z",
            "1994-11-06T10:50:37+02:00",
            "1994-11-06T10:50:37+0200",
            "1994-11-06T08:50:37",
        ] {
            assert_eq!(seconds(value), Some(60), "{value}");
        }
        assert_eq!(seconds("Sun Nov  6 08:49:37 1994"), Some(0));
        assert!(seconds("Fri, 31 Dec 9999 23:59:59 GMT").is_some());
    }

    #[test]
    fn large_numbers_are_unix_times() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_932_700);
        let seconds = |value: &str| read(value.as_bytes(), now).map(|pause| pause.as_secs());
        assert_eq!(["1795932749", "1795932748.5", "1795932749000"].map(seconds), [Some(49); 3]);
        assert_eq!(seconds("1795932699"), None, "a time in the past gives no pause");
    }

    #[test]
    fn invalid_values_are_ignored() {
        for value in [
            "-1",
            "+1",
            "",
            " ",
            ".",
            "1.5.2",
            "soon",
            "5s",
            "1e3",
            "0x10",
            "NaN",
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "-",
            "\u{663}",
        ] {
            assert_eq!(seconds(value), None, "{value:?}");
        }
        assert_eq!(read(b"\xff5", now()), None);
    }

    #[test]
    fn longest_of_several_values_counts() {
        for value in [
            "10, 60, 5",
            "soon, 60",
            "60,",
            "Sun, 06 Nov 1994 08:50:37 GMT, 7",
            "7,Sunday, 06-Nov-94 08:50:37 GMT, soon",
        ] {
            assert_eq!(seconds(value), Some(60), "{value}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(pause(&headers, now()), None);
        for value in ["5", "60", "-7"] {
            headers.append(RETRY_AFTER, HeaderValue::from_static(value));
        }
        assert_eq!(pause(&headers, now()), Some(Duration::from_mins(1)));
    }
}
