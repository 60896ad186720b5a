//! Kinds of tasks, as a submission sees them.

use crate::json::Json;
use crate::types::field_error::FieldError;
use crate::types::name::Name;

/// Registry of the kinds that run here, and of their payloads.
pub trait KindRegistry: Send + Sync {
    /// Checks that a task of this kind with this payload can run here. Pointers in errors start in the
    /// payload.
    fn check(&self, kind: &Name, payload: &Json, aim: Target) -> Result<(), KindError>;

    /// Checks that the text is PEM with certificate authorities that an endpoint's certificate can be
    /// verified against. Returns the expected format as the error.
    fn check_authority(&self, pem: &str) -> Result<(), String>;
}

/// Place that names the destination of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The payload, if the task calls a destination at all.
    Payload,
    /// The endpoint of the task.
    Endpoint,
}

/// Reason why a task cannot run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KindError {
    /// No handler runs this kind. Holds the known kinds.
    UnknownKind(Vec<String>),
    /// Tasks of this kind take no endpoint.
    EndpointMissing,
    /// The payload is not valid for the kind.
    Payload(Vec<FieldError>),
}
