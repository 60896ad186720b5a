//! Hints as messages of Amazon SQS.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, Message, QueueAttributeName, SendMessageBatchRequestEntry,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use nobat_core::ports::{Delivery, Hint, Queue, Receipt, Settlement, StoreError};

use crate::client::{timeouts, within};
use crate::error::failed;
use crate::hint;
use crate::keys::LONGEST_DELAY;

/// One message queue of SQS, with its client.
pub(crate) struct Sqs {
    pub(crate) client: Client,
    pub(crate) url: String,
}

/// Maximum number of messages in one call to SQS.
const BATCH: usize = 10;
/// Maximum number of parallel calls that send messages.
const MAX_IN_FLIGHT: usize = 8;
/// Maximum duration of sending, since the submission of a task waits until its hint is sent. The sweeper
/// later sends the hints that were not sent.
const SEND: Duration = Duration::from_secs(2);
/// Maximum time that a receive waits for messages, the limit of SQS.
const WAIT: Duration = Duration::from_secs(20);

#[async_trait]
impl Queue for Sqs {
    async fn send(&self, hints: Vec<Hint>) -> Result<(), StoreError> {
        let hints: Vec<Hint> = hints.into_iter().filter(|hint| hint.delay <= LONGEST_DELAY).collect();
        let batches: Vec<Vec<Hint>> = hints.chunks(BATCH).map(<[Hint]>::to_vec).collect();
        stream::iter(batches)
            .map(|batch| self.send_batch(batch))
            .buffer_unordered(MAX_IN_FLIGHT)
            .try_collect()
            .await
    }

    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, StoreError> {
        let max = i32::try_from(max.min(BATCH)).unwrap_or(1);
        let receive = self.client.receive_message().queue_url(&self.url).max_number_of_messages(max);
        let receive = receive.wait_time_seconds(i32::try_from(WAIT.as_secs()).unwrap_or(0)).customize();
        let received = receive
            .config_override(aws_sdk_sqs::config::Config::builder().timeout_config(timeouts(WAIT)))
            .send()
            .await;
        let messages = received.map_err(failed)?.messages.unwrap_or_default();
        Ok(messages.into_iter().filter_map(delivery).collect())
    }

    /// Deletes acknowledged messages. Makes no call for returned messages: they become visible again after
    /// their visibility timeout. If they became visible at once while the store is unavailable, repeated
    /// receives would move them to the dead-letter queue.
    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<(), StoreError> {
        let settled =
            settlements.into_iter().filter(|(_, settlement)| *settlement == Settlement::Acknowledge);
        let receipts: Vec<Receipt> = settled.map(|(receipt, _)| receipt).collect();
        for batch in receipts.chunks(BATCH) {
            self.delete_batch(batch).await?;
        }
        Ok(())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let ask = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(QueueAttributeName::QueueArn);
        ask.send().await.map(drop).map_err(failed)
    }
}

impl Sqs {
    async fn send_batch(&self, hints: Vec<Hint>) -> Result<(), StoreError> {
        let entries = hints.iter().enumerate().map(|(place, hint)| {
            let entry =
                SendMessageBatchRequestEntry::builder().id(place.to_string()).message_body(hint::write(hint));
            // The group makes the message queue fair: SQS delivers messages of other tenants before the
            // backlog of a busy tenant.
            // https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
            entry.message_group_id(hint.name.tenant.as_str()).delay_seconds(whole_seconds(hint.delay)).build()
        });
        let entries =
            entries.collect::<Result<_, _>>().map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let call =
            self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries)).customize();
        let sent = call
            .config_override(aws_sdk_sqs::config::Config::builder().timeout_config(within(SEND)))
            .send()
            .await
            .map_err(failed)?;
        all_done(sent.failed.first().map(|failure| failure.code.as_str()))
    }

    async fn delete_batch(&self, receipts: &[Receipt]) -> Result<(), StoreError> {
        let entries = receipts.iter().enumerate().map(|(place, receipt)| {
            DeleteMessageBatchRequestEntry::builder().id(place.to_string()).receipt_handle(&receipt.0).build()
        });
        let entries =
            entries.collect::<Result<_, _>>().map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let deleted = self
            .client
            .delete_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(failed)?;
        all_done(deleted.failed.first().map(|failure| failure.code.as_str()))
    }
}

/// Returns an error if a message failed. The batch call itself succeeds even then.
fn all_done(failure: Option<&str>) -> Result<(), StoreError> {
    failure.map_or(Ok(()), |code| {
        Err(StoreError::Unavailable(format!("SQS refused a message of a batch: {code}")))
    })
}

/// Returns the delay in whole seconds, rounded up: a hint that arrives too early is useless.
fn whole_seconds(delay: Duration) -> i32 {
    i32::try_from(delay.as_millis().div_ceil(1_000)).unwrap_or(i32::MAX)
}

/// Returns `None` for a message that names no task. After several receives SQS moves such a message to the
/// dead-letter queue, where an operator sees it.
fn delivery(message: Message) -> Option<Delivery> {
    let Ok((name, _)) = hint::read(message.body.as_deref().unwrap_or_default()) else {
        tracing::error!(
            message = message.message_id,
            "a received message names no task; SQS moves the message to the dead-letter queue after the maximum number of receives"
        );
        return None;
    };
    Some(Delivery::Hint { name, receipt: Receipt(message.receipt_handle?) })
}
