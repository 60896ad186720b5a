//! The pass that removes ended tasks after their retention.

use nobat_core::ports::StoreError;
use nobat_core::service::backend::Backend;
use nobat_core::types::time::Timestamp;

/// Removes ended tasks after their retention.
#[derive(Clone)]
pub struct Pruner {
    /// The store.
    pub backend: Backend,
}

/// Maximum number of tasks that one write removes. A longer write would delay other writes.
const AT_ONCE: usize = 500;

impl Pruner {
    /// Runs one pass. Returns the number of removed tasks.
    pub async fn run_once(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            let some = self.backend.store.prune(AT_ONCE, now).await?;
            removed += some;
            if some < AT_ONCE {
                return Ok(removed);
            }
        }
    }
}
