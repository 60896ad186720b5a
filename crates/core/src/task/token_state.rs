//! State of the completion tokens of a task.

use subtle::ConstantTimeEq;

use crate::task::Task;
use crate::task::completion::TokenDigest;
use crate::task::options::KeyedRequest;
use crate::task::state::{Held, State, Waiting};
use crate::types::held_reason::HeldReason;

/// State of a token that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// The task waits for a completion with this token, or its attempt is still running.
    Live,
    /// The task had issued this token. A completion has used the token, or the wait has ended.
    Spent,
    /// The task has not issued this token, or has issued more than [`Task::KEPT_REQUESTS`] tokens since.
    Unknown,
}

impl Task {
    /// Returns the state of a token of this task.
    pub fn token_state(&self, digest: &TokenDigest) -> TokenState {
        match self.hold.completion {
            Some(issued) if issued.digest == *digest => {
                if self.takes_completion() {
                    TokenState::Live
                } else {
                    TokenState::Spent
                }
            }
            _ if self.has_spent(digest) => TokenState::Spent,
            _ => TokenState::Unknown,
        }
    }

    /// Returns true if a worker has claimed the task because its wait timed out, and has not ended the wait.
    pub fn is_wait_over(&self) -> bool {
        matches!(self.state, State::Running(_))
            && self.hold.completion.is_some_and(|issued| issued.attempt < self.token)
    }

    /// Returns true if a completion with the issued token can be applied.
    pub(crate) fn takes_completion(&self) -> bool {
        let is_open = matches!(
            self.state,
            State::Running(_) | State::Waiting(Waiting::Held(Held { reason: HeldReason::Waiting }))
        );
        is_open && self.hold.completion.is_some_and(|issued| issued.attempt == self.token)
    }

    fn has_spent(&self, digest: &TokenDigest) -> bool {
        let KeyedRequest { key, .. } = KeyedRequest::of_token(digest, [0; 8]);
        // All requests are compared, so that the duration does not depend on the token.
        self.requests.iter().fold(false, |found, request| found | bool::from(request.key.ct_eq(&key)))
    }
}
