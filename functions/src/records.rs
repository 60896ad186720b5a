//! Records of an event from Amazon SQS, and the response that names those to deliver again.
//!
//! The response is typed and always present. To Lambda, a missing or empty response means that every record
//! is deleted. A response with an unknown record means that none is.

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use nobat_core::ports::{Receipt, Settlement};
use nobat_core::task::TaskKey;

/// A record that names a task.
pub(crate) struct Record {
    /// Lambda's id of the record.
    pub(crate) receipt: Receipt,
    /// Name of the task.
    pub(crate) name: TaskKey,
    /// Number of earlier dead letters of the task.
    pub(crate) redrives: u32,
}

/// Returns the records that name a task, and the receipts of those that do not.
pub(crate) fn read(event: SqsEvent) -> (Vec<Record>, Vec<Receipt>) {
    let (mut records, mut strangers) = (Vec::new(), Vec::new());
    for message in event.records {
        let receipt = Receipt(message.message_id.clone().unwrap_or_default());
        match record(&message, &receipt) {
            Some(record) => records.push(record),
            None => strangers.push(receipt),
        }
    }
    if !strangers.is_empty() {
        tracing::error!(messages = ?strangers, "messages do not name a task; Lambda returns them to the queue");
    }
    (records, strangers)
}

fn record(message: &SqsMessage, receipt: &Receipt) -> Option<Record> {
    let (name, redrives) = nobat_aws::hint::read(message.body.as_deref()?).ok()?;
    Some(Record { receipt: receipt.clone(), name, redrives })
}

/// Returns the response. It names the records to deliver again: those whose outcome could not be stored, and
/// those that name no task.
pub(crate) fn response(settled: Vec<(Receipt, Settlement)>, strangers: Vec<Receipt>) -> SqsBatchResponse {
    let failed = settled
        .into_iter()
        .filter(|(_, settlement)| *settlement == Settlement::Return)
        .map(|(receipt, _)| receipt);
    let mut response = SqsBatchResponse::default();
    failed.chain(strangers).for_each(|receipt| response.add_failure(receipt.0));
    response
}
