//! The function of the sweeper, which a schedule invokes every minute.

use std::sync::Arc;
use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use nobat_core::ports::Clock;
use nobat_core::types::time::Timestamp;
use nobat_worker::maintenance::sweeper::Sweeper;
use nobat_worker::system::{SystemClock, SystemRandom};
use serde_json::Value;

use crate::{log, settings};

/// Time reserved before the function's deadline. A pass takes about a second, more if the table is slow.
const MARGIN: Duration = Duration::from_secs(15);

/// Runs the sweeper on each invocation.
pub async fn run() -> Result<(), Error> {
    log::start()?;
    let sweeper = Sweeper { backend: settings::backend().await?, random: Arc::new(SystemRandom) };
    let sweeper = &sweeper;
    lambda_runtime::run(service_fn(move |event| handle(sweeper, event))).await
}

/// Ignores the payload of the schedule's event.
async fn handle(sweeper: &Sweeper, event: LambdaEvent<Value>) -> Result<Value, Error> {
    let clock = SystemClock;
    let deadline = Timestamp::from_millis(event.context.deadline.cast_signed()) - MARGIN;
    let swept = sweeper.run_until(&clock, deadline.max(clock.now())).await?;
    tracing::info!(judged = swept.judged, hinted = swept.hinted, "the sweep is complete");
    Ok(Value::Null)
}
