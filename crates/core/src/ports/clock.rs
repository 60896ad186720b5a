//! Port to the current time.

use std::time::Duration;

use async_trait::async_trait;

use crate::types::time::Timestamp;

/// Clock and timer.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Resolves after `duration`.
    async fn sleep(&self, duration: Duration);
}
