//! Port to the store of limiter states.

use std::time::Duration;

use async_trait::async_trait;

use crate::limits::{LimiterChange, LimiterKey, LimiterState, Successor};
use crate::ports::error::StoreError;
use crate::types::time::Timestamp;

/// Store of limiter states.
#[async_trait]
pub trait LimiterStore: Send + Sync {
    /// Returns the state of a limiter. Returns the default state if nothing is stored, as for most limiters.
    async fn read(&self, name: &LimiterKey) -> Result<VersionedState, StoreError>;

    /// Writes the state if the stored version is `over`. The store deletes a limiter after [`IDLE`] without a
    /// write.
    async fn write(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, StoreError>;

    /// Applies a change to a limiter, and tries again after each conflict with another writer. Returns the
    /// new leader of the batch, if the leader changed.
    ///
    /// # Errors
    /// Fails with [`StoreError::Overloaded`] after [`MAX_CONFLICTS`] conflicts with other writers.
    async fn change(
        &self,
        name: &LimiterKey,
        change: LimiterChange,
        now: Timestamp,
    ) -> Result<Option<Successor>, StoreError> {
        let mut kept = self.read(name).await?;
        for _ in 0..MAX_CONFLICTS {
            let mut limiter = kept.limiter.clone();
            let successor = limiter.change(change, now);
            if limiter == kept.limiter {
                return Ok(successor);
            }
            match self.write(name, &limiter, kept.version, now).await? {
                WriteResult::Done => return Ok(successor),
                WriteResult::Conflict(there) => kept = there,
            }
        }
        Err(StoreError::Overloaded)
    }
}

/// Maximum number of tries to write in one [`LimiterStore::change`].
pub const MAX_CONFLICTS: usize = 20;

/// Stored state of a limiter, with its version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionedState {
    /// Number of writes to the state. 0 if nothing is stored.
    pub version: u64,
    /// The state.
    pub limiter: LimiterState,
}

/// Result of a [`LimiterStore::write`].
#[expect(clippy::large_enum_variant, reason = "one value exists at a time, and it is never stored")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// The state was written.
    Done,
    /// Another process changed the state after the read, so nothing was written. Holds the stored state.
    Conflict(VersionedState),
}

/// Time after the last write for which a store keeps a limiter. All data in a limiter's state expires
/// earlier.
pub const IDLE: Duration = Duration::from_hours(48);
