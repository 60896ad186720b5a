//! The records of an event from Amazon SQS, and the answer that says which of them to deliver again.
//!
//! The answer is typed and never empty-handed: to Lambda, a missing or empty answer means that every record may be deleted, and
//! one that names a record which is not there means that none may.

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use nobat_core::ports::{Receipt, Settlement, TaskName};

/// A record that names a task.
pub(crate) struct Record {
    /// What Lambda knows it by.
    pub(crate) receipt: Receipt,
    /// The task.
    pub(crate) name: TaskName,
    /// How often the task was hinted in vain before.
    pub(crate) redrives: u32,
}

/// The records that name a task, and those that do not.
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
        tracing::error!(messages = ?strangers, "messages that do not name a task");
    }
    (records, strangers)
}

fn record(message: &SqsMessage, receipt: &Receipt) -> Option<Record> {
    let (name, redrives) = nobat_aws::hint::read(message.body.as_deref()?).ok()?;
    Some(Record { receipt: receipt.clone(), name, redrives })
}

/// Which records are to be delivered again: those whose outcome could not be stored, and those that name no task.
pub(crate) fn response(settled: Vec<(Receipt, Settlement)>, strangers: Vec<Receipt>) -> SqsBatchResponse {
    let failed = settled.into_iter().filter(|(_, settlement)| *settlement == Settlement::Return).map(|(receipt, _)| receipt);
    let mut response = SqsBatchResponse::default();
    failed.chain(strangers).for_each(|receipt| response.add_failure(receipt.0));
    response
}
