//! Port to the registry of kinds.

use crate::json::Json;
use crate::task::Wait;
use crate::types::field_error::FieldError;
use crate::types::name::Name;

/// Registry of the kinds that this installation runs. The registry also checks the payloads of tasks.
pub trait KindRegistry: Send + Sync {
    /// Checks that this installation can run a task of this kind with this payload. Returns the wait of the
    /// task, if the payload has one. JSON pointers in the errors are relative to the payload.
    fn check(&self, kind: &Name, payload: &Json, aim: Target) -> Result<Option<Wait>, KindError>;

    /// Checks that the text is PEM with certificate authorities. The error states the expected format.
    fn check_authority(&self, pem: &str) -> Result<(), String>;
}

/// Source of the URL that a task calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The payload contains the URL, if tasks of this kind call a URL.
    Payload,
    /// The endpoint of the task.
    Endpoint,
}

/// Reason why this installation cannot run a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KindError {
    /// No handler runs this kind. Holds the known kinds.
    UnknownKind(Vec<String>),
    /// Tasks of this kind take no endpoint.
    EndpointNotSupported,
    /// The payload is not valid for the kind.
    Payload(Vec<FieldError>),
}
