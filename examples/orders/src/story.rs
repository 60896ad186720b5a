//! The same orders for both shops, and the outcome of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::services::{Done, Services};
use crate::{server, shop};

/// Orders that arrive.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Orders a second.
    pub(crate) rate: u32,
    /// Time for which orders arrive.
    pub(crate) duration: Duration,
}

/// Outcome of all orders.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) orders: usize,
    /// Median of the time to the response.
    pub(crate) median: Duration,
    /// 99th percentile of the time to the response.
    pub(crate) p99: Duration,
    /// Orders that the shop answered with an error.
    pub(crate) errors: usize,
    /// Orders with stock, mail, and a charge that is confirmed or whose stock was released.
    pub(crate) complete: usize,
    /// Orders for which only some services did their work.
    pub(crate) partial: usize,
    /// Charges that the bank did not confirm.
    pub(crate) unconfirmed: usize,
    /// Unconfirmed charges whose stock was released.
    pub(crate) released: usize,
    /// Time from the last response to the end of all work.
    pub(crate) remaining: Duration,
}

/// Maximum time for the work after the last order.
const MAX_WORK: Duration = Duration::from_mins(2);

/// Runs the shop that calls its services in line.
pub(crate) async fn inline(load: Load) -> anyhow::Result<Outcome> {
    let services = Services::start(None).await?;
    let shop = shop::start(Arc::clone(&services), None).await?;
    let responses = orders(shop, &services, load).await?;
    Ok(outcome(&responses, &services, Duration::ZERO))
}

/// Runs the shop with nobat, until all orders are complete.
pub(crate) async fn with_nobat(load: Load) -> anyhow::Result<Outcome> {
    let (folder, shutdown) = (tempfile::tempdir()?, CancellationToken::new());
    let _guard = shutdown.clone().drop_guard();
    let nobat = server::start(folder.path(), shutdown).await?;
    let services = Services::start(Some(&nobat)).await?;
    server::configure(&nobat, &services).await?;
    let shop = shop::start(Arc::clone(&services), Some(nobat)).await?;
    let responses = orders(shop, &services, load).await?;
    let (count, begun) = (responses.len(), Instant::now());
    while services.done(|done| complete(done)) < count && begun.elapsed() < MAX_WORK {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(outcome(&responses, &services, begun.elapsed()))
}

/// Sends the orders. The payment service is down for the middle third of the time. Returns for each order the time
/// to the response, and true if it was a success.
async fn orders(shop: SocketAddr, services: &Services, load: Load) -> anyhow::Result<Vec<(Duration, bool)>> {
    let (client, url) = (Client::new(), format!("http://{shop}/orders"));
    let count = load.duration.as_secs() * u64::from(load.rate);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / load.rate);
    let mut sending = JoinSet::new();
    for order in 0..count {
        ticks.tick().await;
        services.is_payment_down.store((count / 3..2 * count / 3).contains(&order), Ordering::Relaxed);
        let (client, url) = (client.clone(), url.clone());
        sending.spawn(async move {
            let begun = Instant::now();
            let answered = client.call("POST", &url, &json!({"order": order})).await;
            (begun.elapsed(), answered.is_ok())
        });
    }
    Ok(sending.join_all().await)
}

fn outcome(responses: &[(Duration, bool)], services: &Services, remaining: Duration) -> Outcome {
    let mut times: Vec<Duration> = responses.iter().map(|(time, _)| *time).collect();
    times.sort();
    let percentile = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    services.done(|done| {
        let begun = done.reserved.union(&done.mailed).count();
        let complete = complete(done);
        Outcome {
            orders: responses.len(),
            median: percentile(50),
            p99: percentile(99),
            errors: responses.iter().filter(|(_, is_success)| !is_success).count(),
            complete,
            partial: begun - complete,
            unconfirmed: done.unconfirmed.len(),
            released: done.unconfirmed.intersection(&done.released).count(),
            remaining,
        }
    })
}

/// Returns the number of orders with stock, mail, and a charge that is confirmed or whose stock was released.
fn complete(done: &Done) -> usize {
    let is_paid = |order: &&u64| done.charged.contains(order) || done.released.contains(order);
    done.reserved.intersection(&done.mailed).filter(is_paid).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every order is complete although the payment service was down, the bank confirmed each charge twice or never,
    /// and the shop answered at once.
    #[tokio::test(flavor = "multi_thread")]
    async fn shop_with_nobat_completes_every_order() {
        let outcome = with_nobat(Load { rate: 40, duration: Duration::from_secs(3) }).await.unwrap();
        assert_eq!((outcome.orders, outcome.errors, outcome.complete, outcome.partial), (120, 0, 120, 0));
        assert_eq!((outcome.unconfirmed, outcome.released), (12, 12), "{outcome:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn shop_in_line_fails_orders_while_a_service_is_down() {
        let outcome = inline(Load { rate: 40, duration: Duration::from_secs(3) }).await.unwrap();
        // The shop fails orders whose payment is due while the service is down.
        assert!(outcome.errors > 20 && outcome.partial == outcome.errors, "{outcome:?}");
    }
}
