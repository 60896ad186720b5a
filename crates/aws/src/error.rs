//! What can go wrong with a table or a queue, in the words of the ports.

use std::error::Error;
use std::fmt::Write;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use nobat_core::ports::StoreError;
use nobat_core::stored;

/// An attribute is not what this version writes there.
#[derive(Debug, thiserror::Error)]
#[error("attribute {0} cannot be read")]
pub(crate) struct Unreadable(pub(crate) &'static str);

impl From<stored::Unreadable> for Unreadable {
    fn from(unreadable: stored::Unreadable) -> Self {
        Self(unreadable.0)
    }
}

impl From<Unreadable> for StoreError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Corrupt(unreadable.to_string())
    }
}

/// What AWS says when it is asked for more than it grants.
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

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
/// What became of a call, after the SDK has tried it as often as it does.
pub(crate) fn failed<E: ProvideErrorMetadata + Error + 'static>(error: SdkError<E>) -> StoreError {
    if error.code().is_some_and(|code| THROTTLES.contains(&code)) {
        return StoreError::Overloaded;
    }
    StoreError::Unavailable(causes(&error))
}

/// What became of a write, after the SDK has tried it as often as it does: the last try may have been throttled, and the first have
/// gone through without an answer. It is not known, so it is never called overload, which says that nothing was done.
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(crate) fn unsure<E: ProvideErrorMetadata + Error + 'static>(error: SdkError<E>) -> StoreError {
    StoreError::Unavailable(causes(&error))
}

/// The error and what caused it, as they put it themselves; never their fields, which may hold an item.
fn causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(said, ": {error}");
        cause = error.source();
    }
    said
}
