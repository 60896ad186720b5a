//! Conversion of limits from a client's request to the stored form.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bounds::Bounds;
use crate::flow::{BreakerPolicy, Limits, Pace};
use crate::submit::{Invalid, Wrong};

/// Start rate and concurrency of tasks. An omitted limit does not apply.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowSubmission {
    /// Maximum number of starts in any `period`. From 1 to 100,000.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 100_000))]
    pub rate: Option<f64>,
    /// Length of the period in seconds. Default 1. From 0.1 to 86,400. Requires `rate`.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.1, maximum = 86_400))]
    pub period: Option<f64>,
    /// Maximum number of starts at once after a pause. Default 1. From 1 to 100,000. The period that begins with a burst can have `burst -
    /// 1` more starts. Requires `rate`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 100_000))]
    pub burst: Option<f64>,
    /// Maximum number of tasks that run at the same time. From 1 to 100,000.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 100_000))]
    pub parallelism: Option<f64>,
}

/// Circuit breaker of an endpoint: it holds tasks when too many attempts fail. Omitted fields have their defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerSubmission {
    /// True if the endpoint has a circuit breaker. Default `true`.
    pub enabled: Option<bool>,
    /// Share of failed attempts at which it opens, above 0 and up to 1. Default 0.5.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 1))]
    pub failure_share: Option<f64>,
    /// Time over which attempts are counted, in seconds. Default 60. From 1 to 3,600.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3_600))]
    pub window: Option<f64>,
    /// Minimum number of attempts in `window` before it opens. Default 10. From 1 to 100,000.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 100_000))]
    pub minimum: Option<f64>,
    /// Time for which it stays open before one attempt probes the endpoint, in seconds. Default 30. From 1 to 900.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 900))]
    pub open: Option<f64>,
}

/// Limits, as the API shows them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Flow))]
pub struct FlowView {
    /// Maximum number of starts in any `period`. `null` if the rate is not limited.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, required))]
    pub rate: Option<NonZeroU32>,
    /// Length of the period in seconds. `null` if the rate is not limited.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub period: Option<f64>,
    /// Maximum number of starts at once after a pause. `null` if the rate is not limited.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, required))]
    pub burst: Option<NonZeroU32>,
    /// Maximum number of tasks that run at the same time. `null` if that is not limited.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, required))]
    pub parallelism: Option<NonZeroU32>,
}

/// Circuit breaker settings, as the API shows them.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Breaker))]
pub struct BreakerView {
    /// True if the endpoint has a circuit breaker.
    pub enabled: bool,
    /// Share of failed attempts at which it opens.
    pub failure_share: f64,
    /// Time over which attempts are counted, in seconds.
    pub window: f64,
    /// Minimum number of attempts in `window` before it opens.
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub minimum: NonZeroU32,
    /// Time for which it stays open before one attempt probes the endpoint, in seconds.
    pub open: f64,
}

/// Bounds of `rate`, `burst`, `parallelism` and `minimum`.
const COUNTS: Bounds = Bounds::count(100_000);
/// Bounds of `period`, in seconds.
const PERIODS: Bounds = Bounds::times(Duration::from_millis(100), Duration::from_hours(24));
/// Bounds of `window`, in seconds.
const WINDOWS: Bounds = Bounds::times(Duration::from_secs(1), Duration::from_hours(1));
/// Bounds of `open`, in seconds. No task waits for longer than the horizon before it asks again.
const OPEN: Bounds = Bounds::times(Duration::from_secs(1), crate::flow::HORIZON);

impl FlowSubmission {
    /// Returns the limits, or all errors, with their fields under `pointer`.
    pub fn checked(&self, pointer: &str) -> Result<Limits, Vec<Invalid>> {
        let mut wrong = Wrong::default();
        let limits = self.limits(pointer, &mut wrong);
        if wrong.0.is_empty() { Ok(limits) } else { Err(wrong.0) }
    }

    /// Returns the limits. Adds errors to `wrong`, with their fields under `pointer`.
    pub(crate) fn limits(&self, pointer: &str, wrong: &mut Wrong) -> Limits {
        if self.rate.is_none() && (self.period.is_some() || self.burst.is_some()) {
            wrong.add(&format!("{pointer}/rate"), "`period` and `burst` say nothing without a `rate`");
        }
        let period =
            self.period.map_or(Some(Duration::from_secs(1)), |period| wrong.take(&format!("{pointer}/period"), PERIODS.seconds(period)));
        let mut count = |field: &str, count: Option<f64>| wrong.take(&format!("{pointer}/{field}"), COUNTS.whole(count?));
        let (rate, burst) = (count("rate", self.rate), count("burst", self.burst));
        let parallelism = count("parallelism", self.parallelism);
        let pace = |rate| Some(Pace { rate, period: period?, burst: burst.unwrap_or(NonZeroU32::MIN) });
        Limits { pace: rate.and_then(pace), parallelism, breaker: None }
    }
}

impl BreakerSubmission {
    /// Returns the circuit breaker, or `None` if it is disabled. Adds errors to `wrong`, with their fields under `pointer`.
    pub(crate) fn policy(&self, pointer: &str, wrong: &mut Wrong) -> Option<BreakerPolicy> {
        let usual = BreakerPolicy::default();
        let share = self.failure_share.unwrap_or(usual.failure_share);
        if !(share > 0.0 && share <= 1.0) {
            wrong.add(&format!("{pointer}/failure_share"), "expected a number above 0 and up to 1");
        }
        let minimum = self.minimum.and_then(|count| wrong.take(&format!("{pointer}/minimum"), COUNTS.whole(count)));
        let mut time = |field: &str, seconds: Option<f64>, bounds: Bounds, usual| {
            seconds.and_then(|seconds| wrong.take(&format!("{pointer}/{field}"), bounds.seconds(seconds))).unwrap_or(usual)
        };
        let policy = BreakerPolicy {
            failure_share: share,
            window: time("window", self.window, WINDOWS, usual.window),
            minimum: minimum.unwrap_or(usual.minimum),
            open: time("open", self.open, OPEN, usual.open),
        };
        self.enabled.unwrap_or(true).then_some(policy)
    }
}

impl From<Limits> for FlowView {
    fn from(limits: Limits) -> Self {
        let pace = limits.pace;
        Self {
            rate: pace.map(|pace| pace.rate),
            period: pace.map(|pace| pace.period.as_secs_f64()),
            burst: pace.map(|pace| pace.burst),
            parallelism: limits.parallelism,
        }
    }
}

impl From<Option<BreakerPolicy>> for BreakerView {
    fn from(policy: Option<BreakerPolicy>) -> Self {
        let BreakerPolicy { failure_share, window, minimum, open } = policy.unwrap_or_default();
        Self { enabled: policy.is_some(), failure_share, window: window.as_secs_f64(), minimum, open: open.as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::read;

    fn limits(json: &str) -> Result<Limits, Vec<String>> {
        let checked = read::<FlowSubmission>(json.as_bytes()).unwrap().checked("/flow");
        checked.map_err(|wrong| wrong.into_iter().map(|invalid| invalid.pointer).collect())
    }

    fn policy(json: &str) -> Result<Option<BreakerPolicy>, Vec<String>> {
        let mut wrong = Wrong::default();
        let policy = read::<BreakerSubmission>(json.as_bytes()).unwrap().policy("/breaker", &mut wrong);
        if wrong.0.is_empty() { Ok(policy) } else { Err(wrong.0.into_iter().map(|invalid| invalid.pointer).collect()) }
    }

    #[test]
    fn what_is_not_said_is_not_limited() {
        assert_eq!(limits("{}"), Ok(Limits::default()));
        let count = |count| NonZeroU32::new(count).unwrap();
        let pace = Pace { rate: count(10), period: Duration::from_secs(1), burst: count(1) };
        assert_eq!(limits(r#"{"rate": 10}"#), Ok(Limits { pace: Some(pace), ..Limits::default() }));
        let pace = Pace { period: Duration::from_millis(1_500), burst: count(3), ..pace };
        assert_eq!(
            limits(r#"{"rate": 10, "period": 1.5, "burst": 3, "parallelism": 4}"#),
            Ok(Limits { pace: Some(pace), parallelism: Some(count(4)), breaker: None })
        );
    }

    #[test]
    fn what_cannot_be_kept_is_named() {
        for (json, pointers) in [
            (r#"{"rate": 100001}"#, vec!["/flow/rate"]),
            (r#"{"burst": 2}"#, vec!["/flow/rate"]),
            (r#"{"period": 2}"#, vec!["/flow/rate"]),
            (r#"{"rate": 1, "period": 0.09}"#, vec!["/flow/period"]),
            (r#"{"rate": 1, "period": 86401}"#, vec!["/flow/period"]),
            (r#"{"parallelism": 100001}"#, vec!["/flow/parallelism"]),
        ] {
            assert_eq!(limits(json), Err(pointers.into_iter().map(str::to_owned).collect()), "{json}");
        }
        for (json, pointer) in [
            (r#"{"failure_share": 0}"#, "/breaker/failure_share"),
            (r#"{"failure_share": 1.1}"#, "/breaker/failure_share"),
            (r#"{"window": 0.5}"#, "/breaker/window"),
            (r#"{"window": 3601}"#, "/breaker/window"),
            (r#"{"open": 901}"#, "/breaker/open"),
            (r#"{"minimum": 100001}"#, "/breaker/minimum"),
        ] {
            assert_eq!(policy(json), Err(vec![pointer.to_owned()]), "{json}");
        }
    }

    #[test]
    fn there_is_a_breaker_unless_somebody_wants_none() {
        assert_eq!(policy("{}"), Ok(Some(BreakerPolicy::default())));
        assert_eq!(policy(r#"{"enabled": false}"#), Ok(None));
        let own = policy(r#"{"failure_share": 0.2, "window": 7, "minimum": 3, "open": 900}"#).unwrap().unwrap();
        let minimum = NonZeroU32::new(3).unwrap();
        assert_eq!(own, BreakerPolicy { failure_share: 0.2, window: Duration::from_secs(7), minimum, open: Duration::from_mins(15) });
    }
}
