//! Conversion of limits from a client's request to the stored form.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{BreakerPolicy, Limits, RateLimit};
use crate::types::bounds::Bounds;
use crate::types::field_error::{FieldError, ValidationErrors};

/// Start rate and concurrency of tasks. An omitted limit does not apply.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LimitsSubmission {
    /// Maximum number of starts in any `period`. From 1 to 100,000.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 100_000))]
    pub rate: Option<f64>,
    /// Length of the period in seconds. Default 1. From 0.1 to 86,400. Requires `rate`.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.1, maximum = 86_400))]
    pub period: Option<f64>,
    /// Maximum number of starts at once after a pause. Default 1. From 1 to 100,000. The period that begins
    /// with a burst can have `burst - 1` starts more than `rate`. Requires `rate`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 100_000))]
    pub burst: Option<f64>,
    /// Maximum number of tasks that run at the same time. From 1 to 100,000.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 100_000))]
    pub concurrency: Option<f64>,
}

/// Circuit breaker of an endpoint: it holds tasks when too many attempts fail. Omitted fields have their
/// defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerSubmission {
    /// True if the endpoint has a circuit breaker. Default `true`.
    pub enabled: Option<bool>,
    /// Share of failed attempts at which the circuit breaker opens, above 0 and up to 1. Default 0.5.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 1))]
    pub failure_rate: Option<f64>,
    /// Time over which attempts are counted, in seconds. Default 60. From 1 to 3,600.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3_600))]
    pub window: Option<f64>,
    /// Minimum number of attempts in `window` before the circuit breaker opens. Default 10. From 1 to
    /// 100,000.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 100_000))]
    pub minimum_calls: Option<f64>,
    /// Time for which the circuit breaker stays open before one attempt probes the endpoint, in seconds.
    /// Default 30. From 1 to 900.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 900))]
    pub open_duration: Option<f64>,
}

/// Limits, as the API shows them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Limits))]
pub struct LimitsView {
    /// Maximum number of starts in any `period`. `null` if the rate is not limited.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, required))]
    pub rate: Option<NonZeroU32>,
    /// Length of the period in seconds. `null` if the rate is not limited.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub period: Option<f64>,
    /// Maximum number of starts at once after a pause. `null` if the rate is not limited.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, required))]
    pub burst: Option<NonZeroU32>,
    /// Maximum number of tasks that run at the same time. `null` if the concurrency is not limited.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, required))]
    pub concurrency: Option<NonZeroU32>,
}

/// Circuit breaker settings, as the API shows them.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = CircuitBreaker))]
pub struct BreakerView {
    /// True if the endpoint has a circuit breaker.
    pub enabled: bool,
    /// Share of failed attempts at which the circuit breaker opens.
    pub failure_rate: f64,
    /// Time over which attempts are counted, in seconds.
    pub window: f64,
    /// Minimum number of attempts in `window` before the circuit breaker opens.
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub minimum_calls: NonZeroU32,
    /// Time for which the circuit breaker stays open before one attempt probes the endpoint, in seconds.
    pub open_duration: f64,
}

/// Bounds of `rate`, `burst`, `concurrency` and `minimum_calls`.
const COUNTS: Bounds = Bounds::count(100_000);
/// Bounds of `period`, in seconds.
const PERIODS: Bounds = Bounds::times(Duration::from_millis(100), Duration::from_hours(24));
/// Bounds of `window`, in seconds.
const WINDOWS: Bounds = Bounds::times(Duration::from_secs(1), Duration::from_hours(1));
/// Bounds of `open_duration`, in seconds. The maximum is also the longest time until a held task tries again.
const OPEN: Bounds = Bounds::times(Duration::from_secs(1), crate::limits::MAX_RESERVATION_AHEAD);

impl LimitsSubmission {
    /// Returns the limits, or all errors. The JSON pointers of the errors begin with `pointer`.
    pub fn checked(&self, pointer: &str) -> Result<Limits, Vec<FieldError>> {
        let mut wrong = ValidationErrors::default();
        let limits = self.limits(pointer, &mut wrong);
        if wrong.0.is_empty() { Ok(limits) } else { Err(wrong.0) }
    }

    /// Returns the limits. Adds errors to `wrong`, with JSON pointers that begin with `pointer`.
    pub(crate) fn limits(&self, pointer: &str, wrong: &mut ValidationErrors) -> Limits {
        if self.rate.is_none() && (self.period.is_some() || self.burst.is_some()) {
            wrong.add(&format!("{pointer}/rate"), "`period` and `burst` require a `rate`");
        }
        let period = self.period.map_or(Some(Duration::from_secs(1)), |period| {
            wrong.take(&format!("{pointer}/period"), PERIODS.seconds(period))
        });
        let mut count =
            |field: &str, count: Option<f64>| wrong.take(&format!("{pointer}/{field}"), COUNTS.whole(count?));
        let (rate, burst) = (count("rate", self.rate), count("burst", self.burst));
        let concurrency = count("concurrency", self.concurrency);
        let rate_limit =
            |rate| Some(RateLimit { rate, period: period?, burst: burst.unwrap_or(NonZeroU32::MIN) });
        Limits { rate: rate.and_then(rate_limit), concurrency, breaker: None }
    }
}

impl BreakerSubmission {
    /// Returns the circuit breaker, or `None` if it is disabled. Adds errors to `wrong`, with JSON pointers
    /// that begin with `pointer`.
    pub(crate) fn policy(&self, pointer: &str, wrong: &mut ValidationErrors) -> Option<BreakerPolicy> {
        let usual = BreakerPolicy::default();
        let share = self.failure_rate.unwrap_or(usual.failure_rate);
        if !(share > 0.0 && share <= 1.0) {
            wrong.add(&format!("{pointer}/failure_rate"), "expected a number above 0 and up to 1");
        }
        let minimum = self
            .minimum_calls
            .and_then(|count| wrong.take(&format!("{pointer}/minimum_calls"), COUNTS.whole(count)));
        let mut time = |field: &str, seconds: Option<f64>, bounds: Bounds, usual| {
            seconds
                .and_then(|seconds| wrong.take(&format!("{pointer}/{field}"), bounds.seconds(seconds)))
                .unwrap_or(usual)
        };
        let policy = BreakerPolicy {
            failure_rate: share,
            window: time("window", self.window, WINDOWS, usual.window),
            minimum_calls: minimum.unwrap_or(usual.minimum_calls),
            open_duration: time("open_duration", self.open_duration, OPEN, usual.open_duration),
        };
        self.enabled.unwrap_or(true).then_some(policy)
    }
}

impl From<Limits> for LimitsView {
    fn from(limits: Limits) -> Self {
        let rate_limit = limits.rate;
        Self {
            rate: rate_limit.map(|rate_limit| rate_limit.rate),
            period: rate_limit.map(|rate_limit| rate_limit.period.as_secs_f64()),
            burst: rate_limit.map(|rate_limit| rate_limit.burst),
            concurrency: limits.concurrency,
        }
    }
}

impl From<Option<BreakerPolicy>> for BreakerView {
    fn from(policy: Option<BreakerPolicy>) -> Self {
        let BreakerPolicy { failure_rate, window, minimum_calls, open_duration } = policy.unwrap_or_default();
        Self {
            enabled: policy.is_some(),
            failure_rate,
            window: window.as_secs_f64(),
            minimum_calls,
            open_duration: open_duration.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::decode::read;

    fn limits(json: &str) -> Result<Limits, Vec<String>> {
        let checked = read::<LimitsSubmission>(json.as_bytes()).unwrap().checked("/limits");
        checked.map_err(|wrong| wrong.into_iter().map(|invalid| invalid.pointer).collect())
    }

    fn policy(json: &str) -> Result<Option<BreakerPolicy>, Vec<String>> {
        let mut wrong = ValidationErrors::default();
        let policy =
            read::<BreakerSubmission>(json.as_bytes()).unwrap().policy("/circuit_breaker", &mut wrong);
        if wrong.0.is_empty() {
            Ok(policy)
        } else {
            Err(wrong.0.into_iter().map(|invalid| invalid.pointer).collect())
        }
    }

    #[test]
    fn omitted_limits_do_not_apply() {
        assert_eq!(limits("{}"), Ok(Limits::default()));
        let count = |count| NonZeroU32::new(count).unwrap();
        let rate_limit = RateLimit { rate: count(10), period: Duration::from_secs(1), burst: count(1) };
        assert_eq!(limits(r#"{"rate": 10}"#), Ok(Limits { rate: Some(rate_limit), ..Limits::default() }));
        let rate_limit = RateLimit { period: Duration::from_millis(1_500), burst: count(3), ..rate_limit };
        assert_eq!(
            limits(r#"{"rate": 10, "period": 1.5, "burst": 3, "concurrency": 4}"#),
            Ok(Limits { rate: Some(rate_limit), concurrency: Some(count(4)), breaker: None })
        );
    }

    #[test]
    fn invalid_limits_are_named() {
        for (json, pointers) in [
            (r#"{"rate": 100001}"#, vec!["/limits/rate"]),
            (r#"{"burst": 2}"#, vec!["/limits/rate"]),
            (r#"{"period": 2}"#, vec!["/limits/rate"]),
            (r#"{"rate": 1, "period": 0.09}"#, vec!["/limits/period"]),
            (r#"{"rate": 1, "period": 86401}"#, vec!["/limits/period"]),
            (r#"{"concurrency": 100001}"#, vec!["/limits/concurrency"]),
        ] {
            assert_eq!(limits(json), Err(pointers.into_iter().map(str::to_owned).collect()), "{json}");
        }
        for (json, pointer) in [
            (r#"{"failure_rate": 0}"#, "/circuit_breaker/failure_rate"),
            (r#"{"failure_rate": 1.1}"#, "/circuit_breaker/failure_rate"),
            (r#"{"window": 0.5}"#, "/circuit_breaker/window"),
            (r#"{"window": 3601}"#, "/circuit_breaker/window"),
            (r#"{"open_duration": 901}"#, "/circuit_breaker/open_duration"),
            (r#"{"minimum_calls": 100001}"#, "/circuit_breaker/minimum_calls"),
        ] {
            assert_eq!(policy(json), Err(vec![pointer.to_owned()]), "{json}");
        }
    }

    #[test]
    fn breaker_is_enabled_by_default() {
        assert_eq!(policy("{}"), Ok(Some(BreakerPolicy::default())));
        assert_eq!(policy(r#"{"enabled": false}"#), Ok(None));
        let own = policy(r#"{"failure_rate": 0.2, "window": 7, "minimum_calls": 3, "open_duration": 900}"#)
            .unwrap()
            .unwrap();
        let minimum = NonZeroU32::new(3).unwrap();
        assert_eq!(
            own,
            BreakerPolicy {
                failure_rate: 0.2,
                window: Duration::from_secs(7),
                minimum_calls: minimum,
                open_duration: Duration::from_mins(15)
            }
        );
    }
}
