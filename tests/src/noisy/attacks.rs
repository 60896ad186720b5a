//! Implementation of each attack. All of them run until they are aborted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use nobat_core::auth::api_key::KeyText;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{interval, sleep};

use crate::noisy::attack::{Attack, Counts, Order};
use crate::noisy::wire::{ATTACKER, Wire, connect, request};

/// Pause of an attacker that was refused, before its next try.
const PAUSE: Duration = Duration::from_millis(100);

/// Prepares an attack before the first measurement.
pub async fn prepare(order: &Order) -> anyhow::Result<()> {
    if order.attack == Attack::FilteredLists {
        let mut wire = Wire::open(ATTACKER, order.server).await?;
        let body = json!({"tasks": vec![json!({"kind": "noop"}); 100]}).to_string();
        for _ in 0..order.size(20, 2_000) {
            let status = wire.exchange(&request("POST", "/v1/tasks/batch", Some(&order.key), &body)).await?;
            anyhow::ensure!(status == 202, "a batch was answered with {status}");
        }
    }
    Ok(())
}

/// Makes the attack.
pub async fn make(order: Order, counts: Counts) {
    let order = Arc::new(order);
    match order.attack {
        Attack::UnreadAnswers => {
            run_concurrently(order.size(200, 10_000), |_| unread(order.clone(), counts.clone())).await;
        }
        Attack::FilteredLists => {
            let list = request("GET", "/v1/tasks?kind=nosuch&limit=100", Some(&order.key), "");
            run_concurrently(order.size(50, 3_000), |_| {
                repeat(order.clone(), ATTACKER, list.clone(), counts.clone())
            })
            .await;
        }
        Attack::StalledBodies => {
            run_concurrently(order.size(50, 1_000), |_| stall(order.clone(), counts.clone())).await;
        }
        Attack::EndlessBodies => {
            run_concurrently(order.size(8, 64), |_| endless(order.clone(), counts.clone())).await;
        }
        Attack::NewConnections => {
            run_concurrently(order.size(16, 256), |_| reconnect(order.clone(), counts.clone())).await;
        }
        Attack::BadKeys => {
            run_concurrently(order.size(4, 18), |_| guess(order.clone(), counts.clone())).await;
        }
        Attack::IdleConnections => run_concurrently(1_010, |_| idle(order.clone(), counts.clone())).await,
        Attack::LimitKeys => {
            let next = Arc::new(AtomicUsize::new(0));
            run_concurrently(8, |_| limit_keys(order.clone(), next.clone(), counts.clone())).await;
        }
        Attack::DrippingEndpoint => drip(order, counts).await,
        Attack::SilentNames => silent_names(order, counts).await,
        Attack::Submissions => {
            let task = request("POST", "/v1/tasks", Some(&order.key), r#"{"kind":"noop"}"#);
            run_concurrently(order.size(8, 64), |_| {
                repeat(order.clone(), ATTACKER, task.clone(), counts.clone())
            })
            .await;
        }
    }
}

/// Runs `count` futures at the same time.
async fn run_concurrently<F: Future<Output = ()> + Send + 'static>(count: usize, start: impl Fn(usize) -> F) {
    join_all((0..count).map(|number| tokio::spawn(start(number)))).await;
}

/// Sends requests one after another on one connection. Reconnects when the connection is closed.
async fn repeat(order: Arc<Order>, from: Ipv4Addr, request: String, counts: Counts) {
    loop {
        if let Ok(mut wire) = Wire::open(from, order.server).await {
            counts.add("connections");
            while let Ok(status) = wire.exchange(&request).await {
                counts.add(status.to_string());
                if status >= 400 {
                    sleep(PAUSE).await;
                }
            }
        }
        sleep(PAUSE).await;
    }
}

async fn unread(order: Arc<Order>, counts: Counts) {
    let twice = request("GET", "/openapi.json", None, "").repeat(2);
    loop {
        if let Ok(mut stream) = connect(ATTACKER, order.server, Some(2_048)).await
            && stream.write_all(twice.as_bytes()).await.is_ok()
        {
            counts.add("connections");
            // A read would tell whether the connection is closed, but this attack must not read.
            while stream.peer_addr().is_ok() && matches!(stream.take_error(), Ok(None)) {
                sleep(Duration::from_secs(1)).await;
            }
        }
        sleep(PAUSE).await;
    }
}

async fn stall(order: Arc<Order>, counts: Counts) {
    const LENGTH: usize = 256 * 1024;
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {LENGTH}\r\n\r\n",
        order.key
    );
    let most = format!("{head}{{\"kind\":\"noop\",\"payload\":\"{}", "x".repeat(LENGTH - 1_024));
    loop {
        if let Ok(mut wire) = Wire::open(ATTACKER, order.server).await {
            counts.add("connections");
            // The server may answer while the attacker still sends.
            let _ = wire.send(most.as_bytes()).await;
            match wire.answer().await {
                Ok(status) => counts.add(status.to_string()),
                Err(_) => counts.add("closed"),
            }
        }
        sleep(PAUSE).await;
    }
}

async fn endless(order: Arc<Order>, counts: Counts) {
    let head = "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    loop {
        if let Ok(mut wire) = Wire::open(ATTACKER, order.server).await {
            counts.add("connections");
            if wire.send(head.as_bytes()).await.is_ok() {
                while wire.send(chunk.as_bytes()).await.is_ok() {}
            }
        }
    }
}

async fn reconnect(order: Arc<Order>, counts: Counts) {
    loop {
        if let Ok(stream) = connect(ATTACKER, order.server, None).await {
            counts.add("connections");
            drop(stream);
        }
        tokio::task::yield_now().await;
    }
}

/// Tries 20 keys a second.
async fn guess(order: Arc<Order>, counts: Counts) {
    let mut ticks = interval(Duration::from_millis(50));
    loop {
        let Ok(mut wire) = Wire::open(Ipv4Addr::LOCALHOST, order.server).await else { continue };
        loop {
            ticks.tick().await;
            let guess = KeyText::new(rand::random());
            let Ok(status) = wire.exchange(&request("GET", "/v1/tasks", Some(guess.as_str()), "")).await
            else {
                break;
            };
            counts.add(status.to_string());
        }
    }
}

async fn idle(order: Arc<Order>, counts: Counts) {
    loop {
        if let Ok(mut wire) = Wire::open(ATTACKER, order.server).await {
            counts.add("connections");
            // The read ends when the server closes the connection.
            let _ = wire.answer().await;
        }
        sleep(PAUSE).await;
    }
}

async fn limit_keys(order: Arc<Order>, next: Arc<AtomicUsize>, counts: Counts) {
    let keys = order.size(2_000, 200_000);
    loop {
        let Ok(mut wire) = Wire::open(ATTACKER, order.server).await else { continue };
        loop {
            let first = next.fetch_add(50, Ordering::Relaxed) % keys;
            let names = || (first..first + 50).map(|number| format!("key-{number}"));
            let tasks: Vec<Value> = names().map(|name| json!({"kind": "noop", "limit_key": name})).collect();
            let limits = names().map(|name| {
                request("PUT", &format!("/v1/limits/{name}"), Some(&order.key), r#"{"rate":1,"period":60}"#)
            });
            let tasks =
                request("POST", "/v1/tasks/batch", Some(&order.key), &json!({"tasks": tasks}).to_string());
            if send_all(&mut wire, limits.chain([tasks]), &counts).await.is_err() {
                break;
            }
        }
        sleep(PAUSE).await;
    }
}

async fn send_all(
    wire: &mut Wire,
    requests: impl Iterator<Item = String>,
    counts: &Counts,
) -> anyhow::Result<()> {
    for request in requests {
        let status = wire.exchange(&request).await?;
        counts.add(status.to_string());
        if status >= 400 {
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn drip(order: Arc<Order>, counts: Counts) {
    let Ok(listener) = TcpListener::bind((ATTACKER, 0)).await else { return };
    let Ok(address) = listener.local_addr() else { return };
    let calls = counts.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            calls.add("calls");
            tokio::spawn(async move {
                let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
                while sent.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                    sent = stream.write_all(b"x").await;
                }
            });
        }
    });
    let url = |address: SocketAddr| format!("http://{address}/");
    let call = json!({"kind": "http", "payload": {"url": url(address)}, "timeout": 30});
    submit(&order, order.size(3, 10), Duration::from_secs(1), |_| call.clone(), &counts).await;
}

async fn silent_names(order: Arc<Order>, counts: Counts) {
    let call = |number| json!({"kind": "http", "payload": {"url": format!("http://slow{number}.test/"), "timeout": 0.02}});
    submit(&order, order.size(1, 2), Duration::from_secs(1), call, &counts).await;
}

/// Submits `batches` batches of 100 tasks at once, and then one batch every `every`.
async fn submit(
    order: &Order,
    batches: usize,
    every: Duration,
    task: impl Fn(usize) -> Value,
    counts: &Counts,
) {
    let (mut ticks, mut number) = (interval(every), 0);
    loop {
        let Ok(mut wire) = Wire::open(ATTACKER, order.server).await else { continue };
        loop {
            if number >= batches * 100 {
                ticks.tick().await;
            }
            let tasks: Vec<Value> = (number..number + 100).map(&task).collect();
            number += 100;
            let batch =
                request("POST", "/v1/tasks/batch", Some(&order.key), &json!({"tasks": tasks}).to_string());
            let Ok(status) = wire.exchange(&batch).await else { break };
            counts.add(status.to_string());
        }
        sleep(PAUSE).await;
    }
}
