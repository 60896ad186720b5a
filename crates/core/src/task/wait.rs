//! Wait for a completion: the receiver accepts a call and reports the outcome later.

use std::time::Duration;

use serde::Deserialize;

use crate::json::Json;
use crate::types::bounds::Bounds;
use crate::types::field_error::{FieldError, ValidationErrors};
use crate::types::intervals::MAX_SCHEDULE_AHEAD;

/// Wait for the completion by a receiver that has accepted a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// Maximum duration of the wait.
    pub timeout: Duration,
    /// Consequence of the time-out.
    pub then: Then,
}

/// Consequence of a wait that timed out.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Then {
    /// The task fails.
    #[default]
    Fail,
    /// The attempt counts as failed, and the retry policy decides.
    Retry,
    /// The task fails, and nobat creates another task from this submission.
    Task(Json),
}

/// Wait, as a client sends it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitSubmission {
    /// Maximum duration of the wait, in seconds: 1 to 31,622,400. The wait begins with the response.
    pub timeout: f64,
    /// Consequence of the time-out: `fail`, `retry`, or the submission of another task. Default `fail`.
    pub then: Option<Json>,
}

/// Bounds of the timeout, in seconds.
const TIMEOUTS: Bounds = Bounds::times(Duration::from_secs(1), MAX_SCHEDULE_AHEAD);

impl WaitSubmission {
    /// Returns the wait, or all errors. The pointers are relative to the wait. The submission of another task
    /// is not checked here.
    pub fn read(&self) -> Result<Wait, Vec<FieldError>> {
        let mut wrong = ValidationErrors::default();
        let timeout = wrong.take("/timeout", TIMEOUTS.seconds(self.timeout));
        let then = self.then.as_ref().map_or_else(|| Ok(Then::Fail), then);
        match (timeout, wrong.take("/then", then)) {
            (Some(timeout), Some(then)) => Ok(Wait { timeout, then }),
            _ => Err(wrong.0),
        }
    }
}

fn then(json: &Json) -> Result<Then, String> {
    match json.parse::<String>().as_deref() {
        Ok("fail") => Ok(Then::Fail),
        Ok("retry") => Ok(Then::Retry),
        Err(_) if json.get().starts_with('{') => Ok(Then::Task(json.clone())),
        _ => Err("expected `fail`, `retry`, or an object: the task to create".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Wait, Vec<String>> {
        let wait: WaitSubmission = serde_json::from_str(text).unwrap();
        wait.read().map_err(|errors| errors.into_iter().map(|error| error.pointer).collect())
    }

    #[test]
    fn wait_is_read_in_every_form() {
        let timeout = Duration::from_mins(1);
        assert_eq!(read(r#"{"timeout":60}"#), Ok(Wait { timeout, then: Then::Fail }));
        assert_eq!(read(r#"{"timeout":60,"then":null}"#), Ok(Wait { timeout, then: Then::Fail }));
        assert_eq!(read(r#"{"timeout":60,"then":"fail"}"#), Ok(Wait { timeout, then: Then::Fail }));
        assert_eq!(read(r#"{"timeout":60,"then":"retry"}"#), Ok(Wait { timeout, then: Then::Retry }));
        let task = Json::from_text(r#"{"kind":"noop"}"#.to_owned()).unwrap();
        let then = Then::Task(task);
        assert_eq!(read(r#"{"timeout":60,"then":{"kind":"noop"}}"#), Ok(Wait { timeout, then }));
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for seconds in ["0", "0.999", "31622400.001", "-1", "1e300"] {
            assert_eq!(read(&format!(r#"{{"timeout":{seconds}}}"#)), Err(vec!["/timeout".to_owned()]));
        }
        for then in [r#""succeed""#, "[]", "1", "true", r#""""#] {
            assert_eq!(read(&format!(r#"{{"timeout":1,"then":{then}}}"#)), Err(vec!["/then".to_owned()]));
        }
        assert_eq!(read(r#"{"timeout":0,"then":7}"#), Err(vec!["/timeout".to_owned(), "/then".to_owned()]));
    }
}
