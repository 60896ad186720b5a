//! Many deliveries at once, as a queue hands them to a function.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use nobat_core::ports::{Delivery, Receipt, Settlement};
use nobat_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::run::Runner;

/// What is kept back of the time until the deadline, for giving back what is not finished by then: more than one call may take.
const MARGIN: Duration = Duration::from_secs(6);
/// What is kept back of that for an attempt that fills it all, so that it counts as one that took too long: given back, it would
/// begin anew each time, and never end.
const SETTLING: Duration = Duration::from_secs(1);

impl Runner {
    /// Runs deliveries side by side, and says of each whether the queue may forget it.
    ///
    /// None of them holds up another: a panic is one delivery's own, and what is not finished shortly before `deadline` is
    /// given back.
    pub async fn run_batch(&self, deliveries: Vec<Delivery>, deadline: Timestamp) -> Vec<(Receipt, Settlement)> {
        let stop = CancellationToken::new();
        let left = deadline.since(self.clock.now()).saturating_sub(MARGIN);
        let limit = left.saturating_sub(SETTLING);
        let work = join_all(deliveries.into_iter().map(|delivery| self.run_isolated(delivery, limit, &stop)));
        let time = async {
            tokio::select! {
                () = self.clock.sleep(left) => stop.cancel(),
                () = stop.cancelled() => {}
            }
        };
        let work = work.inspect(|_| stop.cancel());
        join(work, time).await.0.into_iter().flatten().collect()
    }

    async fn run_isolated(&self, delivery: Delivery, limit: Duration, stop: &CancellationToken) -> Option<(Receipt, Settlement)> {
        let receipt = match &delivery {
            Delivery::Hint { receipt, .. } => Some(receipt.clone()),
            Delivery::Claimed(_) => None,
        };
        let run = AssertUnwindSafe(self.run_within(delivery, limit, stop)).catch_unwind();
        let settlement = run.await.unwrap_or(Settlement::Return);
        receipt.map(|receipt| (receipt, settlement))
    }
}
