//! Task loop of a server: takes tasks as soon as it has room.

use std::pin::pin;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use nobat_core::ports::Delivery;
use nobat_worker::execution::runner::Runner;
use tokio_util::sync::CancellationToken;

/// Runs up to `concurrency` tasks at a time until it is dropped. Panics if the queue returns an error.
pub async fn serve(runner: &Runner, concurrency: usize) {
    let receive = |room| async move { runner.backend.queue.receive(room).await.expect("the queue answers") };
    process_deliveries(concurrency, receive, |delivery| run(runner, delivery)).await;
}

/// Receives as many deliveries as there is room for, and runs them concurrently, until it is dropped.
pub async fn process_deliveries<Received, Run>(
    concurrency: usize,
    receive: impl Fn(usize) -> Received,
    run: impl Fn(Delivery) -> Run,
) where
    Received: Future<Output = Vec<Delivery>>,
    Run: Future<Output = ()>,
{
    let mut running = FuturesUnordered::new();
    loop {
        let room = concurrency - running.len();
        if room == 0 {
            running.next().await;
            continue;
        }
        let mut receiving = pin!(receive(room));
        let deliveries = loop {
            if running.is_empty() {
                break receiving.await;
            }
            match select(receiving.as_mut(), running.next()).await {
                Either::Left((deliveries, _)) => break deliveries,
                Either::Right(_) => {}
            }
        };
        running.extend(deliveries.into_iter().map(&run));
    }
}

async fn run(runner: &Runner, delivery: Delivery) {
    let receipt = match &delivery {
        Delivery::Hint { receipt, .. } => Some(receipt.clone()),
        Delivery::Claimed(_) => None,
    };
    let settlement = runner.run(delivery, &CancellationToken::new()).await;
    if let Some(receipt) = receipt {
        runner.backend.queue.settle(vec![(receipt, settlement)]).await.expect("the queue answers");
    }
}
