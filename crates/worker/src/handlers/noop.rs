//! Kind `noop`: does nothing, or fails as configured. For tests, and to measure nobat without the work of a
//! handler.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use nobat_core::task::ErrorCode;
use nobat_core::types::bounds::Bounds;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::intervals::MAX_SCHEDULE_AHEAD;
use serde::Deserialize;

use crate::handler::Handler;
use crate::handler::context::TaskContext;
use crate::handler::failure::Failure;

/// Runs the tasks of kind `noop`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noop;

/// Payload of kind `noop`. `null` does nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Duration of every attempt, in seconds. Default 0.
    pub sleep: f64,
    /// Number of attempts that fail, from the first on. Default 0.
    pub fail: u32,
    /// Number of attempts that panic, from the first on. Default 0.
    pub panic: u32,
}

impl Handler for Noop {
    const KIND: &'static str = "noop";
    type Input = Option<Script>;
    type Output = ();

    fn check(&self, script: &Option<Script>) -> Result<(), Vec<FieldError>> {
        match script.map(Script::pause) {
            Some(Err(detail)) => Err(vec![FieldError::new("/sleep", detail)]),
            _ => Ok(()),
        }
    }

    async fn run(&self, script: Option<Script>, context: &TaskContext) -> Result<(), Failure> {
        let Some(script) = script else { return Ok(()) };
        let pause = script.pause().unwrap_or_default();
        // Starts no timer for zero: benchmarks use this handler to measure the rest of nobat.
        if !pause.is_zero() {
            sleep(pause, context).await?;
        }
        assert!(context.attempt > script.panic, "this attempt was told to panic");
        if context.attempt <= script.fail {
            return Err(Failure::retry(ErrorCode::NOOP_FAILED, "this attempt was told to fail"));
        }
        Ok(())
    }
}

impl Script {
    fn pause(self) -> Result<Duration, String> {
        Bounds::delay(MAX_SCHEDULE_AHEAD).seconds(self.sleep)
    }
}

async fn sleep(pause: Duration, context: &TaskContext) -> Result<(), Failure> {
    match select(pin!(tokio::time::sleep(pause)), pin!(context.canceled())).await {
        Either::Left(_) => Ok(()),
        Either::Right(_) => {
            Err(Failure::permanent(ErrorCode::CANCELED, "the task was canceled during its sleep"))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use nobat_core::config::kind::{KindError, Target};
    use nobat_core::json::Json;
    use nobat_core::submission::{Submission, SubmissionContext};
    use nobat_core::task::Task;
    use nobat_core::types::id::TaskId;
    use nobat_core::types::name::Tenant;
    use nobat_core::types::time::Timestamp;
    use tokio::time::Instant;

    use super::*;
    use crate::admission::plan::AttemptPlan;
    use crate::handler::registry::{AnyHandler, Handlers};

    fn context(attempt: u32) -> TaskContext {
        let intake = SubmissionContext {
            tenant: &Tenant::default(),
            id: TaskId::new(Timestamp::EPOCH, 7),
            fingerprint: None,
            submitted_by: None,
            max_payload: None,
            max_timeout: Duration::from_secs(30),
            kinds: &Handlers::new().with(Noop),
            endpoint: None,
            then_endpoint: None,
            queue: None,
            hops: 0,
            now: Timestamp::EPOCH,
        };
        let task =
            Submission { kind: "noop".to_owned(), ..Submission::default() }.into_task(&intake).unwrap();
        TaskContext::new(&Task { attempt, ..task }, &AttemptPlan::default())
    }

    fn payload(text: &str) -> Json {
        Json::from_text(text.to_owned()).unwrap()
    }

    /// Runs the handler without a runtime: it must finish at once and start no timer.
    fn run_at_once(text: &str, attempt: u32) -> Result<String, String> {
        let outcome = AnyHandler::run(&Noop, &payload(text), &context(attempt)).now_or_never().unwrap();
        outcome.map(|json| json.get().to_owned()).map_err(|failure| failure.error.code.as_str().to_owned())
    }

    #[test]
    fn empty_payload_succeeds_at_once() {
        for text in ["null", "{}", r#"{"sleep": 0}"#, r#"{"sleep": 0.0, "fail": 0, "panic": 0}"#] {
            assert_eq!(run_at_once(text, 1), Ok("null".to_owned()), "{text}");
        }
    }

    #[test]
    fn first_attempts_fail_and_panic_as_configured() {
        let outcomes = |text| {
            (1..=4).map(|attempt| run_at_once(text, attempt).err().unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(outcomes(r#"{"fail": 2}"#), ["noop_failed", "noop_failed", "", ""]);
        assert_eq!(outcomes(r#"{"panic": 1, "fail": 3}"#), ["crashed", "noop_failed", "noop_failed", ""]);
    }

    #[test]
    fn invalid_payload_is_refused() {
        for (text, pointer) in [
            (r#"{"sleep": -1}"#, "/sleep"),
            (r#"{"sleep": 1e300}"#, "/sleep"),
            (r#"{"sleep": 31622401}"#, "/sleep"),
            (r#"{"sleep": null}"#, "/sleep"),
            (r#"{"fail": -1}"#, "/fail"),
            (r#"{"panic": 1.5}"#, "/panic"),
            (r#"{"slep": 1}"#, "/slep"),
            ("7", ""),
        ] {
            let wrong =
                AnyHandler::check(&Noop, &payload(text), Target::Payload).map_err(|unfit| match unfit {
                    KindError::Payload(wrong) => wrong[0].pointer.clone(),
                    other => panic!("{other:?}"),
                });
            assert_eq!(wrong, Err(pointer.to_owned()), "{text}");
        }
        assert!(AnyHandler::check(&Noop, &payload("null"), Target::Payload).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_lasts_the_configured_time() {
        let before = Instant::now();
        AnyHandler::run(&Noop, &payload(r#"{"sleep": 2.5}"#), &context(1)).await.unwrap();
        let slept = before.elapsed();
        assert!((2500..2510).contains(&slept.as_millis()), "{slept:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_ends_the_sleep() {
        let (context, before, text) = (context(1), Instant::now(), payload(r#"{"sleep": 3600}"#));
        let sleeping = AnyHandler::run(&Noop, &text, &context);
        let (outcome, ()) = tokio::join!(sleeping, async { context.cancel() });
        assert_eq!(
            (outcome.unwrap_err().error.code.as_str(), before.elapsed()),
            ("canceled", Duration::ZERO)
        );
    }
}
