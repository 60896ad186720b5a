//! Counts what the calls of a backend cost. Nothing hangs a meter on the clients of a program; tests and the cost table do.
//!
//! It sees what the SDK sees: each try of each operation, and the answer. It cannot know what a try consumed to which there was no
//! answer, or one that does not say: an error other than a condition that does not hold, a transaction that was cancelled. Those are
//! counted as [`Usage::unknown`]. It does not see what others are asked for, such as Lambda's own receiving and deleting.

mod capacity;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::config::interceptors::{
    AfterDeserializationInterceptorContextRef as Answered, BeforeSerializationInterceptorContextMut as Beginning,
    BeforeTransmitInterceptorContextRef as Sending,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;

use self::capacity::Asked;
pub use self::capacity::Units;

/// Counts the calls of the clients that it hangs on. Its clones are one meter.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Reading>>);

/// What was counted, by operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Operations of `DynamoDB`, such as `PutItem`.
    pub dynamodb: BTreeMap<String, Usage>,
    /// Operations of SQS, such as `SendMessageBatch`, and how often each was tried. A try is a request, whatever comes of it.
    pub sqs: BTreeMap<String, u32>,
}

/// What the tries of one operation came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// How many there were.
    pub tries: u32,
    /// What they consumed, as far as that is known.
    pub units: Units,
    /// Of how many of them it is not known.
    pub unknown: u32,
}

impl Meter {
    /// What was counted since the last time somebody took it.
    pub fn take(&self) -> Reading {
        std::mem::take(&mut *self.reading())
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    /// The units of all operations together.
    pub fn units(&self) -> Units {
        self.dynamodb.values().fold(Units::default(), |sum, usage| sum + usage.units)
    }

    /// The requests to SQS.
    pub fn sqs_requests(&self) -> u32 {
        self.sqs.values().sum()
    }

    /// Of how many tries it is not known what they consumed.
    pub fn unknown(&self) -> u32 {
        self.dynamodb.values().map(|usage| usage.unknown).sum()
    }
}

impl Intercept for Meter {
    fn name(&self) -> &'static str {
        "Meter"
    }

    /// The last moment at which the question is there as such. What its answer depends on is kept.
    fn modify_before_serialization(&self, call: &mut Beginning<'_>, _: &RuntimeComponents, state: &mut ConfigBag) -> Result<(), BoxError> {
        if let Some(asked) = capacity::ask(call.input_mut()) {
            state.interceptor_state().store_put(asked);
        }
        Ok(())
    }

    /// Comes once for every try. Until it is answered, nobody knows what it consumes.
    fn read_before_transmit(&self, _: &Sending<'_>, _: &RuntimeComponents, state: &mut ConfigBag) -> Result<(), BoxError> {
        let call = state.load::<Metadata>().ok_or("a call without a name")?;
        let mut reading = self.reading();
        if call.service() == "SQS" {
            *reading.sqs.entry(call.name().to_owned()).or_default() += 1;
            return Ok(());
        }
        let usage = reading.dynamodb.entry(call.name().to_owned()).or_default();
        usage.tries += 1;
        usage.unknown += 1;
        Ok(())
    }

    fn read_after_deserialization(&self, call: &Answered<'_>, _: &RuntimeComponents, state: &mut ConfigBag) -> Result<(), BoxError> {
        let (Some(operation), Some(asked)) = (state.load::<Metadata>(), state.load::<Asked>()) else { return Ok(()) };
        let units = match call.output_or_error() {
            Ok(output) => capacity::consumed(output, *asked),
            Err(error) => error.as_operation_error().and_then(capacity::refused),
        };
        if let (Some(units), Some(usage)) = (units, self.reading().dynamodb.get_mut(operation.name())) {
            usage.units = usage.units + units;
            usage.unknown -= 1;
        }
        Ok(())
    }
}
