//! Errors of stores and queues.

/// Failure of a store or queue: it did not carry out the request, or its answer was lost.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store or queue is unreachable, or did not answer in time.
    #[error("the store does not respond: {0}")]
    Unavailable(String),
    /// The store or queue has too many requests to accept another one.
    #[error("the store is overloaded")]
    Overloaded,
    /// The stored data is invalid, because of a bug or a damaged file.
    #[error("the stored data is invalid: {0}")]
    Corrupt(String),
}
