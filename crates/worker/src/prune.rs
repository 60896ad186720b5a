//! The pass that removes what was kept for long enough.

use nobat_core::backend::Backend;
use nobat_core::ports::StoreError;
use nobat_core::time::Timestamp;

/// Removes ended tasks once their time is over.
#[derive(Clone)]
pub struct Pruner {
    /// Where the tasks are.
    pub backend: Backend,
}

/// How many tasks are removed in one write, which others wait for.
const AT_ONCE: usize = 500;

impl Pruner {
    /// One pass; returns how many tasks it removed.
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
