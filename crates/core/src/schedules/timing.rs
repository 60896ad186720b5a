//! Planned times of a schedule.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Zoned;
use jiff::tz::TimeZone;

use crate::types::time::Timestamp;

/// Rule that gives the planned times of a schedule.
#[derive(Clone, Debug)]
pub enum Timing {
    /// Cron expression in a time zone.
    Cron(CronTiming),
    /// Multiples of this duration, counted from the Unix epoch.
    Every(Duration),
    /// List of planned times, sorted.
    At(Vec<Timestamp>),
}

/// Cron expression in a time zone.
///
/// A clock change leaves out an hour or repeats an hour. A fixed time of day in the hour that is left out
/// gives the first time after that hour. A fixed time of day in the repeated hour gives only the first of the
/// two times. An expression with `*` or a step in its hours, minutes or seconds follows the clock: such an
/// expression gives no time in the hour that is left out, and each time of the repeated hour twice.
#[derive(Clone, Debug)]
pub struct CronTiming {
    cron: Box<Cron>,
    expression: String,
    zone: Zone,
}

/// Time zone of the IANA database.
#[derive(Clone, Debug)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

/// The text is not a time zone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time zone of the IANA database, such as `Asia/Ashgabat` or `UTC`")]
pub struct InvalidZone;

impl FromStr for Zone {
    type Err = InvalidZone;

    fn from_str(name: &str) -> Result<Self, InvalidZone> {
        let zone = TimeZone::get(name).map_err(|_| InvalidZone)?;
        // The database ignores case. The canonical spelling is stored.
        let name = zone.iana_name().ok_or(InvalidZone)?.to_owned();
        Ok(Self { name, zone })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Maximum length of a cron expression, in bytes.
const MAX_EXPRESSION: usize = 256;

impl CronTiming {
    /// Reads a cron expression: five fields (minute, hour, day of month, month, day of week), six fields with
    /// the seconds first, or a word such as `@daily`. `L` is the last day of the month. If the expression is
    /// not valid, the error is a text that describes the expected format.
    pub fn new(expression: &str, zone: Zone) -> Result<Self, String> {
        const EXPECTED: &str = "expected a cron expression: five fields such as `5 * * * *`, six with seconds, or a word such as `@daily`";
        if expression.len() > MAX_EXPRESSION || !expression.is_ascii() {
            return Err(EXPECTED.to_owned());
        }
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| format!("{EXPECTED}; {error}"))?;
        Ok(Self { cron: Box::new(cron), expression: fields.join(" "), zone })
    }

    /// Returns the expression, as the client sent it.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Returns the time zone.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    fn zoned(&self, time: Timestamp) -> Option<Zoned> {
        let time = jiff::Timestamp::from_millisecond(time.millis()).ok()?;
        Some(time.to_zoned(self.zone.zone.clone()))
    }
}

fn timestamp(zoned: &Zoned) -> Timestamp {
    Timestamp::from_millis(zoned.timestamp().as_millisecond())
}

impl PartialEq for Timing {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cron(one), Self::Cron(other)) => {
                (&one.expression, &one.zone.name) == (&other.expression, &other.zone.name)
            }
            (Self::Every(one), Self::Every(other)) => one == other,
            (Self::At(one), Self::At(other)) => one == other,
            _ => false,
        }
    }
}

impl Timing {
    /// Returns the first planned time after `after`. `None` if there is no later planned time.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => {
                let next = cron.cron.find_next_occurrence(&cron.zoned(after)?, false).ok()?;
                Some(timestamp(&next))
            }
            Self::Every(every) => {
                let every = i64::try_from(every.as_millis()).ok()?;
                let next = after.millis().div_euclid(every).checked_add(1)?.checked_mul(every)?;
                Some(Timestamp::from_millis(next))
            }
            Self::At(times) => times.iter().copied().find(|time| *time > after),
        }
    }

    /// Returns the last planned time at or before `until`. `None` if there is no such planned time.
    pub fn last_until(&self, until: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => {
                let last = cron.cron.find_previous_occurrence(&cron.zoned(until)?, true).ok()?;
                Some(timestamp(&last))
            }
            Self::Every(every) => {
                let every = i64::try_from(every.as_millis()).ok()?;
                Some(Timestamp::from_millis(until.millis().div_euclid(every).checked_mul(every)?))
            }
            Self::At(times) => times.iter().copied().rfind(|time| *time <= until),
        }
    }
}

#[cfg(test)]
mod tests;
