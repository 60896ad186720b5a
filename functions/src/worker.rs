//! The function that runs tasks, as many in parallel as the queue delivers.

use std::sync::Arc;

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use nobat_core::ports::Delivery;
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_core::types::time::Timestamp;
use nobat_worker::execution::runner::Runner;
use nobat_worker::handler::registry::Handlers;
use nobat_worker::system::{SystemClock, SystemRandom};

use crate::{log, records, settings};

/// Runs tasks. `handlers` are added to `http` and `noop`.
pub async fn run(handlers: Handlers) -> Result<(), Error> {
    log::start()?;
    let backend = settings::backend().await?;
    let handlers = settings::with_ours_signing(handlers, &backend).await?;
    let runner =
        Runner::new(backend, handlers, Arc::new(SystemClock), Arc::new(SystemRandom), ConfigEpoch::default());
    let runner = &runner;
    lambda_runtime::run(service_fn(move |event| async move { Ok::<_, Error>(handle(runner, event).await) }))
        .await
}

async fn handle(runner: &Runner, event: LambdaEvent<SqsEvent>) -> SqsBatchResponse {
    let deadline = Timestamp::from_millis(event.context.deadline.cast_signed());
    let (records, strangers) = records::read(event.payload);
    let deliveries =
        records.into_iter().map(|record| Delivery::Hint { name: record.name, receipt: record.receipt });
    let settled = runner.run_batch(deliveries.collect(), deadline).await;
    records::response(settled, strangers)
}
