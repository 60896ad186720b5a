//! Counts the cost of a backend's calls. Only tests and the cost table use it.
//!
//! The meter counts each try of each operation by the SDK. The consumption is unknown for tries without a
//! response, for errors other than a failed condition, and for canceled transactions. Such tries are counted
//! as [`Usage::unknown`]. Calls that AWS makes itself are not counted, such as Lambda's receives and deletes.

mod capacity;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_dynamodb::config::interceptors::{
    AfterDeserializationInterceptorContextRef as Answered,
    BeforeSerializationInterceptorContextMut as Beginning, BeforeTransmitInterceptorContextRef as Sending,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use parking_lot::Mutex;

use crate::meter::capacity::Asked;
pub use crate::meter::capacity::Units;

/// Counts the calls of its clients. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Reading>>);

/// Usage of each operation, by the name of the operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Operations of `DynamoDB`, such as `PutItem`.
    pub dynamodb: BTreeMap<String, Usage>,
    /// Operations of SQS, such as `SendMessageBatch`, with the number of tries. Each try is a request, even
    /// if it fails.
    pub sqs: BTreeMap<String, u32>,
}

/// Total of the tries of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Number of tries.
    pub tries: u32,
    /// Units consumed, as far as known.
    pub units: Units,
    /// Number of tries with unknown consumption.
    pub unknown: u32,
}

impl Meter {
    /// Returns the counts since the last call and resets them.
    pub fn take(&self) -> Reading {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Reading {
    /// Returns the units of all operations.
    pub fn units(&self) -> Units {
        self.dynamodb.values().fold(Units::default(), |sum, usage| sum + usage.units)
    }

    /// Returns the number of requests to SQS.
    pub fn sqs_requests(&self) -> u32 {
        self.sqs.values().sum()
    }

    /// Returns the number of tries with unknown consumption.
    pub fn unknown(&self) -> u32 {
        self.dynamodb.values().map(|usage| usage.unknown).sum()
    }
}

impl Intercept for Meter {
    fn name(&self) -> &'static str {
        "Meter"
    }

    /// Stores the fields of the request that determine its cost. Later steps have only the serialized
    /// request.
    fn modify_before_serialization(
        &self,
        call: &mut Beginning<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(asked) = capacity::ask(call.input_mut()) {
            state.interceptor_state().store_put(asked);
        }
        Ok(())
    }

    /// Counts a try. Its consumption is unknown until the response arrives.
    fn read_before_transmit(
        &self,
        _: &Sending<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let call = state.load::<Metadata>().ok_or("the call has no operation name")?;
        let mut reading = self.0.lock();
        if call.service() == "SQS" {
            *reading.sqs.entry(call.name().to_owned()).or_default() += 1;
            return Ok(());
        }
        let usage = reading.dynamodb.entry(call.name().to_owned()).or_default();
        usage.tries += 1;
        usage.unknown += 1;
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        call: &Answered<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let (Some(operation), Some(asked)) = (state.load::<Metadata>(), state.load::<Asked>()) else {
            return Ok(());
        };
        let units = match call.output_or_error() {
            Ok(output) => capacity::consumed(output, *asked),
            Err(error) => error.as_operation_error().and_then(capacity::refused),
        };
        if let (Some(units), Some(usage)) = (units, self.0.lock().dynamodb.get_mut(operation.name())) {
            usage.units = usage.units + units;
            usage.unknown -= 1;
        }
        Ok(())
    }
}
