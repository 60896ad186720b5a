//! Calls to the table. Reads are consistent, writes have a condition, and a retry recognizes a write whose
//! response was lost.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    CancellationReason, Delete, KeysAndAttributes, Put, ReturnValue,
    ReturnValuesOnConditionCheckFailure as OnFailure, TransactWriteItem, Update,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use nobat_core::collections::recent::Recent;
use nobat_core::limits::token_bucket::TokenBucket;
use nobat_core::ports::StoreError;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use parking_lot::Mutex;

use crate::error::{failed, unsure};
use crate::expression::Expression;
use crate::item::{self, Item, Key, moment, op};
use crate::keys;
use crate::list_turns::ListTurns;

/// Maximum number of token buckets in memory. A bucket that is no longer in memory is read again at its next
/// use.
pub(crate) const MAX_BUCKETS: usize = 10_000;

/// One table with its client.
pub(crate) struct Table {
    pub(crate) client: Client,
    pub(crate) name: String,
    /// Retention of ended tasks.
    pub(crate) retention: Duration,
    /// Token buckets of tenants, as this process last read them, so that most requests need no extra read.
    pub(crate) buckets: Mutex<Recent<Tenant, TokenBucket>>,
    /// Time of the last write by the readiness check, in milliseconds since the epoch.
    pub(crate) write_proved_at: AtomicI64,
    /// Limits on the parallel lists of each tenant.
    pub(crate) list_turns: ListTurns,
}

/// Result of a conditional write.
pub(crate) enum WriteOutcome {
    /// Written, by this call or by an earlier try whose response was lost. Contains the new item.
    Done(Item),
    /// The condition does not hold. Contains the existing item, empty if there is none.
    Refused(Item),
}

/// Time for which a successful write counts as proof of readiness.
const PROVED: Duration = Duration::from_secs(10);
/// Maximum number of items per `BatchGetItem`.
const BATCH: usize = 100;
/// Maximum number of parallel `BatchGetItem` calls.
const MAX_IN_FLIGHT: usize = 8;
/// Maximum number of calls for keys that DynamoDB left unprocessed for lack of capacity.
const MAX_ROUNDS: u32 = 5;
/// Maximum number of tries of a write that conflicts with a running transaction.
const MAX_CONFLICTS: u32 = 5;
/// Pause before the second try. The pause grows by the same amount with each further try.
const CONFLICT_PAUSE: Duration = Duration::from_millis(20);

impl Table {
    /// Reads an item consistently: the item contains every write that was confirmed before.
    pub(crate) async fn read(&self, key: Key) -> Result<Option<Item>, StoreError> {
        let get =
            self.client.get_item().table_name(&self.name).set_key(Some(key.into())).consistent_read(true);
        get.send().await.map(|output| output.item).map_err(failed)
    }

    /// Reads items, in any order. Missing items are left out.
    pub(crate) async fn read_many(&self, keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let batches: Vec<Vec<Item>> = keys.chunks(BATCH).map(<[Item]>::to_vec).collect();
        let read = stream::iter(batches).map(|batch| self.read_batch(batch)).buffer_unordered(MAX_IN_FLIGHT);
        read.try_concat().await
    }

    async fn read_batch(&self, keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let (mut items, mut left) = (Vec::new(), keys);
        for round in 1..=MAX_ROUNDS {
            let asked = KeysAndAttributes::builder().set_keys(Some(left)).consistent_read(true).build();
            let asked = asked.map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let output =
                self.client.batch_get_item().request_items(&self.name, asked).send().await.map_err(failed)?;
            items.extend(output.responses.unwrap_or_default().remove(&self.name).unwrap_or_default());
            left = output
                .unprocessed_keys
                .unwrap_or_default()
                .remove(&self.name)
                .map(|asked| asked.keys)
                .unwrap_or_default();
            if left.is_empty() {
                return Ok(items);
            }
            pause(round).await;
        }
        Err(StoreError::Overloaded)
    }

    /// Writes a whole item if the condition holds.
    pub(crate) async fn put(&self, item: Item, condition: Expression) -> Result<WriteOutcome, StoreError> {
        for attempt in 1.. {
            let put = self.client.put_item().table_name(&self.name).set_item(Some(item.clone()));
            let put = put.set_condition_expression(condition.condition());
            let put = put
                .set_expression_attribute_names(condition.names())
                .set_expression_attribute_values(condition.values());
            let on_failure = condition.condition().map(|_| OnFailure::AllOld);
            let Err(error) = put.set_return_values_on_condition_check_failure(on_failure).send().await else {
                return Ok(WriteOutcome::Done(item));
            };
            match error {
                SdkError::ServiceError(refused) if refused.err().is_conditional_check_failed_exception() => {
                    let PutItemError::ConditionalCheckFailedException(refused) = refused.into_err() else {
                        break;
                    };
                    return Ok(judged(refused.item, op(&item)));
                }
                error if attempt < MAX_CONFLICTS && is_conflict(&error) => pause(attempt).await,
                error => return Err(unsure(error)),
            }
        }
        Err(StoreError::Unavailable("DynamoDB refused a write and gave no reason".to_owned()))
    }

    /// Updates an item if the condition holds. `op` is the id that the update writes to the attribute `op`,
    /// if any.
    pub(crate) async fn update(
        &self,
        key: Key,
        change: Expression,
        op: Option<&str>,
    ) -> Result<WriteOutcome, StoreError> {
        let key: Item = key.into();
        for attempt in 1.. {
            let update = self.client.update_item().table_name(&self.name).set_key(Some(key.clone()));
            let update =
                update.update_expression(change.update()).set_condition_expression(change.condition());
            let update = update
                .set_expression_attribute_names(change.names())
                .set_expression_attribute_values(change.values());
            let update = update
                .return_values(ReturnValue::AllNew)
                .return_values_on_condition_check_failure(OnFailure::AllOld);
            match update.send().await {
                Ok(output) => return Ok(WriteOutcome::Done(output.attributes.unwrap_or_default())),
                Err(SdkError::ServiceError(refused))
                    if refused.err().is_conditional_check_failed_exception() =>
                {
                    let UpdateItemError::ConditionalCheckFailedException(refused) = refused.into_err() else {
                        break;
                    };
                    return Ok(judged(refused.item, op));
                }
                Err(error) if attempt < MAX_CONFLICTS && is_conflict(&error) => pause(attempt).await,
                Err(error) => return Err(unsure(error)),
            }
        }
        Err(StoreError::Unavailable("DynamoDB refused a write and gave no reason".to_owned()))
    }

    /// Makes all writes or none. If a condition fails, returns the items that did not meet their condition.
    ///
    /// DynamoDB treats a repetition of the same writes with the same `token` within ten minutes as one
    /// transaction.
    pub(crate) async fn transact(
        &self,
        writes: Vec<TransactWriteItem>,
        token: &str,
    ) -> Result<Result<(), Vec<Item>>, StoreError> {
        for attempt in 1.. {
            let transaction = self
                .client
                .transact_write_items()
                .set_transact_items(Some(writes.clone()))
                .client_request_token(token);
            let Err(error) = transaction.send().await else { return Ok(Ok(())) };
            match canceled(&error) {
                Some(Canceled::Refused) => return Ok(Err(refusals(&error))),
                Some(Canceled::Contention) if attempt < MAX_CONFLICTS => pause(attempt).await,
                Some(Canceled::Contention) => return Err(StoreError::Overloaded),
                None if attempt < MAX_CONFLICTS && is_conflict(&error) => pause(attempt).await,
                None => return Err(unsure(error)),
            }
        }
        unreachable!("the last try returns")
    }

    /// Returns the part of a transaction that writes a whole item.
    pub(crate) fn put_write(
        &self,
        item: Item,
        condition: &Expression,
    ) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder().table_name(&self.name).set_item(Some(item));
        let put = put.set_condition_expression(condition.condition());
        let put = put
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values());
        let put = put.return_values_on_condition_check_failure(OnFailure::AllOld).build();
        Ok(TransactWriteItem::builder()
            .put(put.map_err(|error| StoreError::Corrupt(error.to_string()))?)
            .build())
    }

    /// Returns the part of a transaction that updates an item.
    pub(crate) fn update_write(
        &self,
        key: Key,
        change: &Expression,
    ) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder().table_name(&self.name).set_key(Some(key.into()));
        let update = update.update_expression(change.update()).set_condition_expression(change.condition());
        let update = update
            .set_expression_attribute_names(change.names())
            .set_expression_attribute_values(change.values());
        let update = update.return_values_on_condition_check_failure(OnFailure::AllOld).build();
        Ok(TransactWriteItem::builder()
            .update(update.map_err(|error| StoreError::Corrupt(error.to_string()))?)
            .build())
    }

    /// Returns the part of a transaction that deletes an item.
    pub(crate) fn delete_write(
        &self,
        key: Key,
        condition: &Expression,
    ) -> Result<TransactWriteItem, StoreError> {
        let delete = Delete::builder().table_name(&self.name).set_key(Some(key.into()));
        let delete = delete.set_condition_expression(condition.condition());
        let delete = delete
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values());
        let delete = delete.return_values_on_condition_check_failure(OnFailure::AllOld).build();
        Ok(TransactWriteItem::builder()
            .delete(delete.map_err(|error| StoreError::Corrupt(error.to_string()))?)
            .build())
    }

    /// Checks that writes work: writes the time into one item.
    ///
    /// A successful write proves readiness for [`PROVED`], so frequent checks write at most 8,640 units a day
    /// (half a US cent). In between, the caller's own read detects an unavailable table.
    pub(crate) async fn ready(&self, now: Timestamp) -> Result<(), StoreError> {
        let proved_at = Timestamp::from_millis(self.write_proved_at.load(Ordering::Relaxed));
        if proved_at <= now && now < proved_at + PROVED {
            return Ok(());
        }
        let write = Expression::default()
            .set("at", moment(now))
            .when("attribute_not_exists(#at) OR #at <= :now")
            .value("now", moment(now));
        // A refused write is also a proof: another process, whose clock is ahead, has written.
        self.update(item::at(keys::READY, keys::READY), write, None).await?;
        self.write_proved_at.store(now.millis(), Ordering::Relaxed);
        Ok(())
    }
}

/// Recognizes this call's own write. The SDK repeats a write whose response was lost. If the first try
/// succeeded, the condition of the second try fails, but the write counts as done.
fn judged(found: Option<Item>, own: Option<&str>) -> WriteOutcome {
    let found = found.unwrap_or_default();
    if own.is_some() && op(&found) == own { WriteOutcome::Done(found) } else { WriteOutcome::Refused(found) }
}

/// Reason of a canceled transaction. Nothing was written.
enum Canceled {
    /// Some items did not meet their condition, and there was no other problem.
    Refused,
    /// Another transaction was running on some of the items, or capacity was lacking. Only another try shows
    /// if the conditions hold.
    Contention,
}

fn canceled(error: &SdkError<TransactWriteItemsError>) -> Option<Canceled> {
    let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) = error.as_service_error()
    else {
        return None;
    };
    let mut codes = canceled
        .cancellation_reasons()
        .iter()
        .filter_map(CancellationReason::code)
        .filter(|code| *code != "None")
        .peekable();
    codes.peek()?;
    let mut is_refused = true;
    for code in codes {
        match code {
            "ConditionalCheckFailed" => {}
            "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded" => is_refused = false,
            // The request itself is invalid.
            _ => return None,
        }
    }
    Some(if is_refused { Canceled::Refused } else { Canceled::Contention })
}

/// Returns the items that did not meet their condition.
fn refusals(error: &SdkError<TransactWriteItemsError>) -> Vec<Item> {
    let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) = error.as_service_error()
    else {
        return Vec::new();
    };
    let refused = canceled
        .cancellation_reasons()
        .iter()
        .filter(|reason| reason.code() == Some("ConditionalCheckFailed"));
    refused.map(|reason| reason.item.clone().unwrap_or_default()).collect()
}

/// Returns true if another transaction is running on the same item.
fn is_conflict<E: aws_sdk_dynamodb::error::ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let Some(error) = error.as_service_error() else { return false };
    matches!(error.code(), Some("TransactionConflictException" | "TransactionInProgressException"))
}

async fn pause(attempt: u32) {
    tokio::time::sleep(CONFLICT_PAUSE * attempt).await;
}
