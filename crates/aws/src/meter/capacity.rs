//! Consumption of one try. For a write, the response reports the consumption. For a read or a write with a
//! failed condition, the meter calculates the consumption by AWS's rules.
//!
//! Responses also report the consumption of reads, but the responses of emulators are wrong. On AWS, report
//! and calculation agree, with two exceptions: a query that reads several of DynamoDB's partitions, and the
//! reads of a failed query.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>

use std::ops::Add;

use aws_sdk_dynamodb::operation::batch_get_item::{BatchGetItemInput, BatchGetItemOutput};
use aws_sdk_dynamodb::operation::get_item::{GetItemInput, GetItemOutput};
use aws_sdk_dynamodb::operation::put_item::{PutItemError, PutItemInput, PutItemOutput};
use aws_sdk_dynamodb::operation::query::{QueryInput, QueryOutput};
use aws_sdk_dynamodb::operation::transact_write_items::{TransactWriteItemsInput, TransactWriteItemsOutput};
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemInput, UpdateItemOutput};
use aws_sdk_dynamodb::types::{ConsumedCapacity, KeysAndAttributes, ReturnConsumedCapacity};
use aws_smithy_runtime_api::client::interceptors::context::{Error, Input, Output};
use aws_smithy_types::config_bag::{Storable, StoreReplace};

use crate::item::size;

/// Size of a write unit, in bytes.
const WRITTEN: usize = 1_024;
/// Size of a read unit, in bytes.
const READ: usize = 4_096;
/// Cost of an eventually consistent read, relative to a consistent one.
const EVENTUAL: f64 = 0.5;

/// Request units of an on-demand table, including its indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Units {
    /// Write units.
    pub write: f64,
    /// Read units.
    pub read: f64,
}

impl Add for Units {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { write: self.write + other.write, read: self.read + other.read }
    }
}

/// Properties of a request that determine its cost.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// The request writes.
    Write,
    /// The request reads items.
    Read {
        /// Request units for each 4 KiB: 1 for a consistent read, 0.5 for an eventually consistent read.
        rate: f64,
        /// Number of requested keys.
        keys: usize,
    },
}

impl Storable for Asked {
    type Storer = StoreReplace<Self>;
}

/// Changes a write request so that its response reports the consumption. Returns the properties of the
/// request that determine its cost, or `None` for other operations.
pub(super) fn ask(input: &mut Input) -> Option<Asked> {
    let wanted = Some(ReturnConsumedCapacity::Indexes);
    if let Some(put) = input.downcast_mut::<PutItemInput>() {
        put.return_consumed_capacity = wanted;
        return Some(Asked::Write);
    }
    if let Some(update) = input.downcast_mut::<UpdateItemInput>() {
        update.return_consumed_capacity = wanted;
        return Some(Asked::Write);
    }
    if let Some(transaction) = input.downcast_mut::<TransactWriteItemsInput>() {
        transaction.return_consumed_capacity = wanted;
        return Some(Asked::Write);
    }
    if let Some(get) = input.downcast_ref::<GetItemInput>() {
        return Some(Asked::Read { rate: rate(get.consistent_read), keys: 1 });
    }
    if let Some(query) = input.downcast_ref::<QueryInput>() {
        return Some(Asked::Read { rate: rate(query.consistent_read), keys: 0 });
    }
    // This backend has one table.
    let batch = input.downcast_ref::<BatchGetItemInput>()?.request_items()?.values().next()?;
    Some(Asked::Read { rate: rate(batch.consistent_read), keys: batch.keys().len() })
}

fn rate(is_consistent: Option<bool>) -> f64 {
    if is_consistent == Some(true) { 1.0 } else { EVENTUAL }
}

/// Returns the consumption of a successful try, if known.
pub(super) fn consumed(output: &Output, asked: Asked) -> Option<Units> {
    match asked {
        Asked::Write => written(output),
        Asked::Read { rate, keys } => {
            let sizes = read(output, keys)?;
            Some(Units {
                read: rate * sizes.into_iter().map(|size| units(size, READ)).sum::<f64>(),
                write: 0.0,
            })
        }
    }
}

/// Returns the consumption of a write with a failed condition: the size of the existing item, or one unit
/// without an item.
pub(super) fn refused(error: &Error) -> Option<Units> {
    let refused = if let Some(PutItemError::ConditionalCheckFailedException(refused)) = error.downcast_ref() {
        refused
    } else if let Some(UpdateItemError::ConditionalCheckFailedException(refused)) = error.downcast_ref() {
        refused
    } else {
        return None;
    };
    Some(Units { write: units(refused.item().map_or(0, size), WRITTEN), read: 0.0 })
}

/// Returns the consumption that the response reports.
fn written(output: &Output) -> Option<Units> {
    let reports: Vec<&ConsumedCapacity> = if let Some(put) = output.downcast_ref::<PutItemOutput>() {
        put.consumed_capacity().into_iter().collect()
    } else if let Some(update) = output.downcast_ref::<UpdateItemOutput>() {
        update.consumed_capacity().into_iter().collect()
    } else {
        output.downcast_ref::<TransactWriteItemsOutput>()?.consumed_capacity().iter().collect()
    };
    let all: Option<Vec<Units>> = reports.into_iter().map(reported).collect();
    all?.into_iter().reduce(Units::add)
}

/// Separates reads from writes: DynamoDB bills a repeated transaction as reads.
fn reported(report: &ConsumedCapacity) -> Option<Units> {
    let read = report.read_capacity_units().unwrap_or_default();
    Some(Units { write: report.capacity_units()? - read, read })
}

/// Returns sizes in bytes. The caller rounds each size up to whole units. A missing item has size 0 and
/// counts as one unit.
fn read(output: &Output, keys: usize) -> Option<Vec<usize>> {
    if let Some(get) = output.downcast_ref::<GetItemOutput>() {
        return Some(vec![get.item().map_or(0, size)]);
    }
    if let Some(query) = output.downcast_ref::<QueryOutput>() {
        return Some(vec![query.items().iter().map(size).sum()]);
    }
    let batch = output.downcast_ref::<BatchGetItemOutput>()?;
    let mut sizes: Vec<usize> =
        batch.responses().into_iter().flat_map(|tables| tables.values().flatten()).map(size).collect();
    let left = batch
        .unprocessed_keys()
        .into_iter()
        .flat_map(|tables| tables.values().flat_map(KeysAndAttributes::keys))
        .count();
    sizes.resize(keys.saturating_sub(left).max(sizes.len()), 0);
    Some(sizes)
}

/// Returns the number of units for that many bytes, at least one.
fn units(bytes: usize, unit: usize) -> f64 {
    f64::from(u32::try_from(bytes.div_ceil(unit).max(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;
    use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;

    use super::*;
    use crate::item::Item;

    /// Returns an item of that many bytes.
    fn item(bytes: usize) -> Item {
        [("body".to_owned(), AttributeValue::S("x".repeat(bytes - "body".len())))].into()
    }

    fn read_units(output: &Output, rate: f64, keys: usize) -> Option<Units> {
        consumed(output, Asked::Read { rate, keys })
    }

    #[test]
    fn read_rounds_up_to_4_kib_and_eventual_read_costs_half() {
        for (bytes, read) in [(10, 1.0), (4_096, 1.0), (4_097, 2.0)] {
            let output = Output::erase(GetItemOutput::builder().set_item(Some(item(bytes))).build());
            assert_eq!(read_units(&output, 1.0, 1), Some(Units { read, write: 0.0 }), "{bytes}");
            assert_eq!(
                read_units(&output, EVENTUAL, 1),
                Some(Units { read: read / 2.0, write: 0.0 }),
                "{bytes}"
            );
        }
        let nothing = Output::erase(GetItemOutput::builder().build());
        assert_eq!(read_units(&nothing, 1.0, 1), Some(Units { read: 1.0, write: 0.0 }));
    }

    #[test]
    fn query_rounds_up_as_a_whole_and_batch_per_item() {
        let items = vec![item(1_536), item(6_656)];
        let query = Output::erase(QueryOutput::builder().set_items(Some(items.clone())).build());
        assert_eq!(read_units(&query, 1.0, 0), Some(Units { read: 2.0, write: 0.0 }));
        let batch = BatchGetItemOutput::builder().responses("tasks", items);
        assert_eq!(
            read_units(&Output::erase(batch.clone().build()), 1.0, 2),
            Some(Units { read: 3.0, write: 0.0 })
        );
        assert_eq!(
            read_units(&Output::erase(batch.clone().build()), 1.0, 4),
            Some(Units { read: 5.0, write: 0.0 }),
            "each missing item costs one unit"
        );
        let left = KeysAndAttributes::builder().keys(item(10)).build().unwrap();
        assert_eq!(
            read_units(&Output::erase(batch.unprocessed_keys("tasks", left).build()), 1.0, 3),
            Some(Units { read: 3.0, write: 0.0 })
        );
    }

    #[test]
    fn refused_write_costs_as_much_as_the_existing_item() {
        for (found, write) in [(None, 1.0), (Some(item(1_024)), 1.0), (Some(item(1_025)), 2.0)] {
            let refused = ConditionalCheckFailedException::builder().set_item(found).build();
            let put = Error::erase(PutItemError::ConditionalCheckFailedException(refused.clone()));
            let update = Error::erase(UpdateItemError::ConditionalCheckFailedException(refused));
            for error in [put, update] {
                assert_eq!(super::refused(&error), Some(Units { write, read: 0.0 }));
            }
        }
        assert_eq!(super::refused(&Error::erase(PutItemError::unhandled("away"))), None);
    }

    #[test]
    fn write_costs_as_reported_and_repeated_transaction_is_read() {
        let report = || ConsumedCapacity::builder();
        let put = Output::erase(
            PutItemOutput::builder().consumed_capacity(report().capacity_units(3.0).build()).build(),
        );
        assert_eq!(consumed(&put, Asked::Write), Some(Units { write: 3.0, read: 0.0 }));
        let repeated = report().capacity_units(2.0).read_capacity_units(2.0).build();
        let repeated = Output::erase(TransactWriteItemsOutput::builder().consumed_capacity(repeated).build());
        assert_eq!(consumed(&repeated, Asked::Write), Some(Units { write: 0.0, read: 2.0 }));
        assert_eq!(
            consumed(&Output::erase(UpdateItemOutput::builder().build()), Asked::Write),
            None,
            "an output without consumption is unknown"
        );
    }
}
