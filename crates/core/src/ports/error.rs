//! Errors of stores and message queues.

/// Failure of a store or message queue: the request was not carried out, or the response was lost.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store or message queue failed, is unreachable, or did not respond in time.
    #[error("a call to the store or the message queue failed or got no response: {0}")]
    Unavailable(String),
    /// The store or message queue has too many requests to accept another one.
    #[error("the store is overloaded")]
    Overloaded,
    /// The stored data is invalid, because of a bug or a damaged file.
    #[error("the stored data is invalid: {0}")]
    Corrupt(String),
}
