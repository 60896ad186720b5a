//! Retry policy, as a client sends it.

use std::time::Duration;

use serde::Deserialize;

use crate::task::retry::{Exponential, Jitter, MAX_ATTEMPTS, RetryPolicy, Schedule};
use crate::types::bounds::Bounds;
use crate::types::field_error::ValidationErrors;
use crate::types::intervals::MAX_SCHEDULE_AHEAD;

/// Retry policy: either a list of `delays`, or a delay that grows with each retry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetrySubmission {
    /// Maximum number of attempts, including the first. Default 5.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 50))]
    pub max_attempts: Option<f64>,
    /// Delay before the first retry, in seconds. Default 10. With `jitter` `full`, this is the maximum.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_622_400))]
    pub initial_delay: Option<f64>,
    /// Factor by which the delay grows from one retry to the next. Default 2.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub multiplier: Option<f64>,
    /// Maximum delay before a retry, in seconds. Default 3600.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_622_400))]
    pub max_delay: Option<f64>,
    /// Randomness of delays. `full`: random between 0 and the computed delay. `none`: exactly the computed
    /// delay. Default `full`.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_word")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<JitterWord>, required = false))]
    pub jitter: Option<JitterWord>,
    /// Maximum time from acceptance or the last replay to a retry, in seconds. Default: no maximum.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.001, maximum = 31_622_400))]
    pub max_age: Option<f64>,
    /// Delays before the retries, in seconds. At most 49 delays. The task has one attempt more than delays.
    /// Only `max_age` can be sent with `delays`.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::task::retry_schema::delays, required = false))]
    pub delays: Option<Vec<f64>>,
}

/// Randomness of delays.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum JitterWord {
    /// Random between 0 and the computed delay.
    Full,
    /// Exactly the computed delay.
    None,
}

/// Bounds of every delay, in seconds.
pub(crate) const DELAYS: Bounds = Bounds::delay(MAX_SCHEDULE_AHEAD);

/// Bounds of `max_age`, in seconds.
pub(crate) const AGES: Bounds = Bounds::timeout(MAX_SCHEDULE_AHEAD);

/// Bounds of the factor by which delays grow.
pub(crate) const FACTORS: Bounds = Bounds::new(1.0, 100.0);

impl ValidationErrors {
    pub(crate) fn retry(&mut self, pointer: &str, retry: &RetrySubmission) -> RetryPolicy {
        let max_age =
            retry.max_age.and_then(|age| self.take(&format!("{pointer}/max_age"), AGES.seconds(age)));
        let grows = retry.max_attempts.is_some()
            || retry.initial_delay.is_some()
            || retry.multiplier.is_some()
            || retry.max_delay.is_some()
            || retry.jitter.is_some();
        let schedule = match &retry.delays {
            Some(_) if grows => {
                self.add(
                    &format!("{pointer}/delays"),
                    "expected `delays` without `max_attempts`, `initial_delay`, `multiplier`, `max_delay` and `jitter`",
                );
                Schedule::Delays(Vec::new())
            }
            Some(delays) => Schedule::Delays(self.delays(pointer, delays)),
            None => Schedule::Exponential(self.exponential(pointer, retry)),
        };
        RetryPolicy { schedule, max_age }
    }

    fn delays(&mut self, pointer: &str, delays: &[f64]) -> Vec<Duration> {
        if delays.len() >= MAX_ATTEMPTS as usize {
            self.add(&format!("{pointer}/delays"), format!("expected at most {} delays", MAX_ATTEMPTS - 1));
        }
        let read = |(place, delay): (usize, &f64)| {
            self.take(&format!("{pointer}/delays/{place}"), DELAYS.seconds(*delay))
        };
        delays.iter().enumerate().filter_map(read).collect()
    }

    fn exponential(&mut self, pointer: &str, retry: &RetrySubmission) -> Exponential {
        let default = Exponential::default();
        let at = |field: &str| format!("{pointer}/{field}");
        let max_attempts = retry
            .max_attempts
            .and_then(|count| self.take(&at("max_attempts"), Bounds::count(MAX_ATTEMPTS).whole(count)));
        let multiplier =
            retry.multiplier.and_then(|factor| self.take(&at("multiplier"), FACTORS.number(factor)));
        let mut delay = |field: &str, seconds: Option<f64>| self.take(&at(field), DELAYS.seconds(seconds?));
        Exponential {
            max_attempts: max_attempts.unwrap_or(default.max_attempts),
            initial_delay: delay("initial_delay", retry.initial_delay).unwrap_or(default.initial_delay),
            multiplier: multiplier.unwrap_or(default.multiplier),
            max_delay: delay("max_delay", retry.max_delay).unwrap_or(default.max_delay),
            jitter: match retry.jitter {
                Some(JitterWord::None) => Jitter::None,
                Some(JitterWord::Full) | None => Jitter::Full,
            },
        }
    }
}
