//! The shop: `POST /orders`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::Client;
use crate::services::Services;

struct Shop {
    client: Client,
    /// URL of nobat. `None`: the shop calls its services in line.
    nobat: Option<String>,
    services: Arc<Services>,
}

/// Starts the shop, and returns its address.
pub(crate) async fn start(services: Arc<Services>, nobat: Option<String>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let shop = Arc::new(Shop { client: Client::new(), nobat, services });
    let router = Router::new().route("/orders", post(accept)).with_state(shop);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn accept(State(shop): State<Arc<Shop>>, Json(order): Json<Value>) -> Result<StatusCode, StatusCode> {
    if let Some(nobat) = &shop.nobat {
        let number = order["order"].to_string();
        let event = json!({"type": "order.created", "source": "/shop", "id": number, "subject": number, "data": order});
        let published = shop.client.call("POST", &format!("{nobat}/v1/events"), &event).await;
        return published.map(|()| StatusCode::ACCEPTED).map_err(|_| StatusCode::BAD_GATEWAY);
    }
    for service in ["stock", "payment", "mail"] {
        let called = shop.client.call("POST", &shop.services.url(service), &order).await;
        called.map_err(|_| StatusCode::BAD_GATEWAY)?;
    }
    Ok(StatusCode::CREATED)
}
