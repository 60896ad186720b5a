//! Many deliveries at once, as the message queue passes them to a Lambda function.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use nobat_core::ports::{Delivery, Receipt, Settlement};
use nobat_core::types::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::execution::runner::Runner;

/// Time reserved at the end of a Lambda call to give back unfinished tasks. One AWS call takes at most 5 s.
const MARGIN: Duration = Duration::from_secs(6);
/// Time reserved in addition to [`MARGIN`], so that a long attempt times out before its task is given back.
/// Otherwise the attempt would start again each time, and never end.
const SETTLING: Duration = Duration::from_secs(1);

impl Runner {
    /// Runs deliveries in parallel. Returns a settlement for each hint. The settlement says if the message
    /// queue may delete the hint.
    ///
    /// A panic in one delivery does not affect the other deliveries. Tasks that are unfinished shortly before
    /// `deadline` are given back.
    pub async fn run_batch(
        &self,
        deliveries: Vec<Delivery>,
        deadline: Timestamp,
    ) -> Vec<(Receipt, Settlement)> {
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

    async fn run_isolated(
        &self,
        delivery: Delivery,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Option<(Receipt, Settlement)> {
        let receipt = match &delivery {
            Delivery::Hint { receipt, .. } => Some(receipt.clone()),
            Delivery::Claimed(_) => None,
        };
        let run = AssertUnwindSafe(self.run_within(delivery, limit, stop)).catch_unwind();
        let settlement = run.await.unwrap_or(Settlement::Return);
        receipt.map(|receipt| (receipt, settlement))
    }
}
