//! The function that handles dead letters.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use futures_util::FutureExt;
use futures_util::future::join_all;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use nobat_core::ports::{Receipt, Settlement};
use nobat_worker::maintenance::dead_letters::DeadLetters;
use nobat_worker::system::{SystemClock, SystemRandom};

use crate::records::Record;
use crate::{log, records, settings};

/// Handles dead letters.
pub async fn run() -> Result<(), Error> {
    log::start()?;
    let dead_letters = DeadLetters {
        backend: settings::backend().await?,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    let dead_letters = &dead_letters;
    lambda_runtime::run(service_fn(
        move |event| async move { Ok::<_, Error>(handle(dead_letters, event).await) },
    ))
    .await
}

async fn handle(dead_letters: &DeadLetters, event: LambdaEvent<SqsEvent>) -> SqsBatchResponse {
    let (records, strangers) = records::read(event.payload);
    let settled = join_all(records.into_iter().map(|record| settle(dead_letters, record))).await;
    records::response(settled, strangers)
}

/// A panic concerns only its own record.
async fn settle(dead_letters: &DeadLetters, record: Record) -> (Receipt, Settlement) {
    let run = AssertUnwindSafe(dead_letters.run(&record.name, record.redrives)).catch_unwind();
    (record.receipt, run.await.unwrap_or(Settlement::Return))
}
