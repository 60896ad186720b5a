//! nobat in this process, and its configuration for the shop.

use std::path::Path;

use clap::Parser;
use nobat::{Handlers, Serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::services::{BANK_SECRET, Services};

/// Seconds after which an unconfirmed charge releases the stock.
const CONFIRMATION: u32 = 2;

/// Starts nobat on a file in the folder, and returns its URL.
pub(crate) async fn start(folder: &Path, stop: CancellationToken) -> anyhow::Result<String> {
    let mut settings = Serve::try_parse_from(["serve", "--allow-private-networks", "127.0.0.0/8"])?;
    settings.place.data = folder.join("nobat.db");
    settings.concurrency = 512;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(nobat::serve(settings, listener, Handlers::new(), stop));
    Ok(url)
}

/// Creates the endpoints, the subscriptions and the source of the bank.
pub(crate) async fn configure(nobat: &str, services: &Services) -> anyhow::Result<()> {
    let client = Client::new();
    for name in ["stock", "payment", "mail", "release", "confirmed"] {
        let endpoint = json!({
            "url": services.url(name),
            "retry": {"max_attempts": 50, "initial_delay": 0.2, "max_delay": 1},
            "circuit_breaker": {"window": 10, "open_duration": 1},
        });
        client.call("PUT", &format!("{nobat}/v1/endpoints/{name}"), &endpoint).await?;
    }
    for (name, topic, payload) in [
        ("stock", "order.created", json!({})),
        ("payment", "order.created", charge()),
        ("mail", "order.created", json!({})),
        ("confirmed", "payment.confirmed", json!({})),
    ] {
        let task = json!({"kind": "http", "endpoint": name, "payload": payload});
        let subscription = json!({"topic": topic, "body": "data", "task": task});
        client.call("PUT", &format!("{nobat}/v1/subscriptions/{name}"), &subscription).await?;
    }
    let bank = json!({
        "verify": {"hmac": {"header": "X-Signature"}, "secrets": [BANK_SECRET]},
        "event_id": "/id",
        "event": {"type": "payment.confirmed", "subject": "/order"},
    });
    client.call("PUT", &format!("{nobat}/v1/sources/bank"), &bank).await
}

/// Returns the payload of a charge: it waits for the bank, and releases the stock if the bank does not confirm.
fn charge() -> Value {
    let release = json!({"body": {"order": {"$event": "/data/order"}}});
    let then = json!({"kind": "http", "endpoint": "release", "payload": release});
    json!({"wait": {"timeout": CONFIRMATION, "then": then}})
}
