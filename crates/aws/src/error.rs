//! Maps errors of the table and the message queue to errors of the ports.

use std::error::Error;
use std::fmt::Write;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use nobat_core::ports::StoreError;

/// Attribute whose format this version of nobat cannot read.
#[derive(Debug, thiserror::Error)]
#[error("attribute {0} cannot be read")]
pub(crate) struct Unreadable(pub(crate) &'static str);

impl From<nobat_core::types::unreadable::Unreadable> for Unreadable {
    fn from(unreadable: nobat_core::types::unreadable::Unreadable) -> Self {
        Self(unreadable.0)
    }
}

impl From<Unreadable> for StoreError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Corrupt(unreadable.to_string())
    }
}

/// Error codes of throttled requests.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
const THROTTLES: [&str; 8] = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "ThrottledException",
    "RequestThrottled",
    "RequestLimitExceeded",
    "OverLimit",
    "LimitExceededException",
];

#[expect(clippy::needless_pass_by_value, reason = "it is passed to `map_err`")]
/// Returns the error of a failed call, after the SDK's last try.
pub(crate) fn failed<E: ProvideErrorMetadata + Error + 'static>(error: SdkError<E>) -> StoreError {
    if error.code().is_some_and(|code| THROTTLES.contains(&code)) {
        return StoreError::Overloaded;
    }
    StoreError::Unavailable(causes(&error))
}

/// Returns the error of a failed write, after the SDK's last try.
///
/// Never returns [`StoreError::Overloaded`], which promises that nothing was written. An earlier try of the
/// same write may have succeeded, although its response was lost.
#[expect(clippy::needless_pass_by_value, reason = "it is passed to `map_err`")]
pub(crate) fn unsure<E: ProvideErrorMetadata + Error + 'static>(error: SdkError<E>) -> StoreError {
    StoreError::Unavailable(causes(&error))
}

/// Returns the messages of the error and of its causes. Omits the fields of these errors, because a field may
/// contain an item.
fn causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(said, ": {error}");
        cause = error.source();
    }
    said
}
