//! A process that runs tasks like a server: it takes what there is as soon as there is room.

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use nobat_core::ports::Delivery;
use nobat_worker::run::Runner;
use tokio_util::sync::CancellationToken;

/// Works for as long as it is let, on so many tasks at a time. Its queue must answer.
pub async fn serve(runner: &Runner, concurrency: usize) {
    let mut running = FuturesUnordered::new();
    loop {
        let room = concurrency - running.len();
        if room == 0 {
            running.next().await;
            continue;
        }
        let mut receiving = runner.backend.queue.receive(room);
        let deliveries = loop {
            if running.is_empty() {
                break receiving.await;
            }
            match select(receiving, running.next()).await {
                Either::Left((deliveries, _)) => break deliveries,
                Either::Right((_, still)) => receiving = still,
            }
        };
        running.extend(deliveries.expect("a queue that answers").into_iter().map(|delivery| run(runner, delivery)));
    }
}

async fn run(runner: &Runner, delivery: Delivery) {
    let receipt = match &delivery {
        Delivery::Hint { receipt, .. } => Some(receipt.clone()),
        Delivery::Claimed(_) => None,
    };
    let settlement = runner.run(delivery, &CancellationToken::new()).await;
    if let Some(receipt) = receipt {
        runner.backend.queue.settle(vec![(receipt, settlement)]).await.expect("a queue that answers");
    }
}
