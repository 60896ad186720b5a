//! Grace periods of rotated keys and secrets.

use std::time::Duration;

use nobat_core::auth::api_key::MAX_GRACE_PERIOD;
use nobat_core::types::bounds::Bounds;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::intervals::CONFIG_TTL;

use crate::http::problem::Problem;

/// Checks the grace period of a replaced API key: 0 to 30 days.
pub(crate) fn overlap(seconds: f64) -> Result<Duration, Problem> {
    Bounds::delay(MAX_GRACE_PERIOD)
        .seconds(seconds)
        .map_err(|detail| vec![FieldError::new("/grace_period", detail)].into())
}

/// Checks the grace period of a signing secret: 0 for none, or 10 seconds to 30 days. Other processes learn
/// of a new secret within [`CONFIG_TTL`]. A shorter grace period would end before every process signs with
/// the new secret.
pub(crate) fn grace_period(seconds: f64) -> Result<Duration, Problem> {
    let (least, most) = (CONFIG_TTL.as_secs(), MAX_GRACE_PERIOD.as_secs());
    let expected = || {
        format!(
            "expected 0, or seconds from {least} to {most}: a shorter grace period would end before all processes sign with the new secret"
        )
    };
    if seconds == 0.0 {
        return Ok(Duration::ZERO);
    }
    Bounds::times(CONFIG_TTL, MAX_GRACE_PERIOD)
        .seconds(seconds)
        .map_err(|_| vec![FieldError::new("/grace_period", expected())].into())
}

/// Error text for a rotation with an `Idempotency-Key`.
pub(crate) const ROTATE_INSTEAD: &str = "a secret is shown only once; send the request without the header Idempotency-Key; if the response is lost, \
    rotate again, or send a `secret` of your own";
