//! Kind `noop`: does nothing, or fails as it is told, to try out and to measure everything around it.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use nobat_core::submit::{Invalid, MAX_AHEAD};
use nobat_core::task::ErrorCode;
use serde::Deserialize;

use crate::context::TaskContext;
use crate::handler::{Failure, Handler};

/// Runs the tasks of kind `noop`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noop;

/// What to do instead of nothing. A payload of `null` is nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// How many seconds every attempt sleeps.
    pub sleep: f64,
    /// How many attempts fail, from the first on.
    pub fail: u32,
    /// How many attempts panic, from the first on.
    pub panic: u32,
}

impl Handler for Noop {
    const KIND: &'static str = "noop";
    type Input = Option<Script>;
    type Output = ();

    fn check(&self, script: &Option<Script>) -> Result<(), Vec<Invalid>> {
        match script.and_then(Script::pause) {
            None if script.is_some() => Err(vec![Invalid::new("/sleep", format!("expected seconds from 0 to {}", MAX_AHEAD.as_secs()))]),
            _ => Ok(()),
        }
    }

    async fn run(&self, script: Option<Script>, context: &TaskContext) -> Result<(), Failure> {
        let Some(script) = script else { return Ok(()) };
        let pause = script.pause().unwrap_or_default();
        // No timer is started for no time at all: this is what a benchmark of everything else runs.
        if !pause.is_zero() {
            sleep(pause, context).await?;
        }
        assert!(context.attempt > script.panic, "this attempt was told to panic");
        if context.attempt <= script.fail {
            return Err(Failure::retry("noop_failed", "this attempt was told to fail"));
        }
        Ok(())
    }
}

impl Script {
    fn pause(self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.sleep).ok().filter(|pause| *pause <= MAX_AHEAD)
    }
}

async fn sleep(pause: Duration, context: &TaskContext) -> Result<(), Failure> {
    match select(pin!(tokio::time::sleep(pause)), pin!(context.canceled())).await {
        Either::Left(_) => Ok(()),
        Either::Right(_) => Err(Failure::permanent(ErrorCode::CANCELED, "the task was called off in its sleep")),
    }
}
