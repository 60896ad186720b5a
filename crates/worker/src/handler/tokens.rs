//! Completion tokens for calls whose receivers report the outcome later.

use std::sync::Arc;

use nobat_core::ports::{Clock, Random};
use nobat_core::service::backend::{ApplyError, Backend};
use nobat_core::task::lifecycle::Event;
use nobat_core::task::{CompletionToken, TaskKey};
use nobat_core::types::held_reason::HeldReason;

use crate::handler::failure::Failure;

/// Issues completion tokens.
pub(crate) struct TokenIssuer {
    pub(crate) backend: Backend,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
}

impl TokenIssuer {
    /// Issues a token for a running attempt. The digest is stored before the call, because a completion can arrive
    /// before the response to the call.
    pub(crate) async fn issue(&self, name: &TaskKey, attempt: u64) -> Result<CompletionToken, Failure> {
        let mut random = [0; 32];
        for bytes in random.chunks_exact_mut(8) {
            bytes.copy_from_slice(&self.random.next_u64().to_ne_bytes());
        }
        let token = CompletionToken::new(name.tenant.clone(), random);
        let event = Event::IssueToken { token: attempt, digest: token.digest() };
        match self.backend.apply(name, None, event, self.clock.now()).await {
            Ok(_) => Ok(token),
            Err(ApplyError::Store(error)) => {
                tracing::warn!(task = %name.id, %error, "the completion token of a call could not be stored; the call is not made, and its task is held");
                Err(unavailable())
            }
            // The attempt has lost its lease, so that its outcome is not stored either.
            Err(ApplyError::Missing | ApplyError::Refused(_)) => Err(unavailable()),
        }
    }
}

/// Returns the failure of a call that was not made for lack of a completion token.
pub(crate) fn unavailable() -> Failure {
    Failure::held(HeldReason::SecretUnavailable, "the completion token of the call could not be stored")
}
