//! Registered handlers, by kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use nobat_core::config::kind::{KindError, KindRegistry, Target};
use nobat_core::json::Json;
use nobat_core::task::{ErrorCode, Wait};
use nobat_core::types::name::Name;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::handler::context::TaskContext;
use crate::handler::failure::Failure;
use crate::handler::{BatchOutcome, Handler, MAX_RESULT};

/// Handlers of a program, by kind.
#[derive(Clone, Default)]
pub struct Handlers {
    by_kind: BTreeMap<Name, Arc<dyn AnyHandler>>,
}

impl Handlers {
    /// Creates an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler. The new handler replaces an earlier handler of the same kind.
    #[must_use]
    pub fn with<H: Handler>(mut self, handler: H) -> Self {
        const {
            assert!(
                Name::is_valid(H::KIND),
                "a handler's KIND must have 1 to 64 of the characters A-Z a-z 0-9 . _ -"
            );
            assert!(
                !matches!(H::KIND.as_bytes(), b"event" | b"schedule"),
                "the kinds `event` and `schedule` are reserved for tasks that nobat creates"
            );
        };
        if let Ok(kind) = Name::new(H::KIND) {
            self.by_kind.insert(kind, Arc::new(handler));
        }
        self
    }

    pub(crate) fn get(&self, kind: &Name) -> Option<&Arc<dyn AnyHandler>> {
        self.by_kind.get(kind)
    }
}

impl KindRegistry for Handlers {
    fn check(&self, kind: &Name, payload: &Json, aim: Target) -> Result<Option<Wait>, KindError> {
        match self.get(kind) {
            Some(handler) => handler.check(payload, aim),
            None => Err(KindError::UnknownKind(self.by_kind.keys().map(Name::to_string).collect())),
        }
    }

    fn check_authority(&self, pem: &str) -> Result<(), String> {
        nobat_delivery::ca_certificates::check(pem).map_err(|error| error.to_string())
    }
}

/// Object-safe form of [`Handler`]: JSON in, JSON out. Turns a panic into a failure.
pub(crate) trait AnyHandler: Send + Sync {
    fn check(&self, payload: &Json, aim: Target) -> Result<Option<Wait>, KindError>;
    fn wait(&self, payload: &Json) -> Option<Wait>;
    fn run<'a>(&'a self, payload: &'a Json, context: &'a TaskContext)
    -> BoxFuture<'a, Result<Json, Failure>>;
    fn batch_key(&self, payload: &Json) -> Option<u64>;
    fn run_batch<'a>(&'a self, batch: Vec<(&'a Json, &'a TaskContext)>) -> BoxFuture<'a, BatchOutcome<Json>>;
}

pub(crate) fn input<T: DeserializeOwned>(payload: &Json) -> Result<T, Failure> {
    payload.parse().map_err(|error| Failure::permanent(ErrorCode::INVALID_PAYLOAD, error.to_string()))
}

pub(crate) fn keep<T: Serialize>(output: &T) -> Result<Json, Failure> {
    let json = Json::from_value(output)
        .map_err(|error| Failure::permanent(ErrorCode::INVALID_RESULT, error.to_string()))?;
    if json.get().len() > MAX_RESULT {
        return Err(Failure::permanent(
            ErrorCode::INVALID_RESULT,
            format!("the result is longer than {MAX_RESULT} bytes of JSON"),
        ));
    }
    Ok(json)
}

/// Returns the failure of a handler that panicked, without the panic's message, which may quote the payload.
pub(crate) fn panicked() -> Failure {
    Failure::retry(ErrorCode::CRASHED, "the handler panicked")
}
