//! The services behind the shop, and the bank. Each keeps what it did for which order, so a repeated call has no
//! further effect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use ring::hmac::{HMAC_SHA256, Key, sign};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::Client;

/// Secret that the bank and the source share.
pub(crate) const BANK_SECRET: &str = "correct horse battery staple";

/// Time after which the bank confirms a charge.
const CONFIRMATION: Duration = Duration::from_millis(50);

/// Stock, payment, mail and bank.
pub(crate) struct Services {
    /// Address of all services.
    pub(crate) address: SocketAddr,
    /// True if the payment service answers each call with 503.
    pub(crate) is_payment_down: AtomicBool,
    /// URL of the source to which the bank sends its webhooks. Without a source, charges need no confirmation.
    source: Option<String>,
    done: Mutex<Done>,
    client: Client,
}

/// Orders for which each service did its work.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) reserved: BTreeSet<u64>,
    pub(crate) charged: BTreeSet<u64>,
    pub(crate) mailed: BTreeSet<u64>,
    pub(crate) released: BTreeSet<u64>,
    /// Charges that the bank never confirms.
    pub(crate) unconfirmed: BTreeSet<u64>,
    /// URL and token with which a charge is reported as complete.
    waiting: BTreeMap<u64, (String, String)>,
}

impl Services {
    /// Starts the services.
    pub(crate) async fn start(nobat: Option<&str>) -> anyhow::Result<Arc<Self>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let services = Arc::new(Self {
            address: listener.local_addr()?,
            is_payment_down: AtomicBool::new(false),
            source: nobat.map(|nobat| format!("{nobat}/v1/in/default/bank")),
            done: Mutex::default(),
            client: Client::new(),
        });
        let router = Router::new()
            .route("/stock", post(stock))
            .route("/payment", post(payment))
            .route("/mail", post(mail))
            .route("/release", post(release))
            .route("/confirmed", post(confirmed))
            .with_state(Arc::clone(&services));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(services)
    }

    /// Returns the URL of a service.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Reads or changes what was done.
    pub(crate) fn done<T>(&self, look: impl FnOnce(&mut Done) -> T) -> T {
        look(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends the webhook of a charge twice, as payment providers sometimes do.
    async fn confirm(self: Arc<Self>, source: String, order: u64) {
        tokio::time::sleep(CONFIRMATION).await;
        let body = json!({"id": format!("charge-{order}"), "order": order});
        let key = Key::new(HMAC_SHA256, BANK_SECRET.as_bytes());
        let signature = data_encoding::HEXLOWER.encode(sign(&key, body.to_string().as_bytes()).as_ref());
        for _ in 0..2 {
            // The bank tries again until the source has stored the webhook.
            while !matches!(
                self.client.send("POST", &source, &[("x-signature", &signature)], &body).await,
                Ok((200, _))
            ) {
                tokio::time::sleep(CONFIRMATION).await;
            }
        }
    }
}

type Response = Result<StatusCode, StatusCode>;

async fn stock(State(services): State<Arc<Services>>, Json(body): Json<Value>) -> Response {
    tokio::time::sleep(Duration::from_millis(200)).await;
    let order = order(&body)?;
    services.done(|done| done.reserved.insert(order));
    Ok(StatusCode::OK)
}

async fn payment(
    State(services): State<Arc<Services>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let order = order(&body)?;
    if services.is_payment_down.load(Ordering::Relaxed) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    tokio::time::sleep(Duration::from_millis(if order % 50 == 49 { 1_650 } else { 300 })).await;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(source) = services.source.clone() else {
        services.done(|done| done.charged.insert(order));
        return Ok(StatusCode::OK);
    };
    let (Some(task), Some(token)) = (header("nobat-task-id"), header("nobat-completion-token")) else {
        return Err(StatusCode::BAD_REQUEST);
    };
    let nobat = source.trim_end_matches("/v1/in/default/bank");
    let report = (format!("{nobat}/v1/tasks/{task}/complete"), token.to_owned());
    services.done(|done| done.waiting.insert(order, report));
    if order % 10 == 9 {
        services.done(|done| done.unconfirmed.insert(order));
    } else {
        tokio::spawn(Arc::clone(&services).confirm(source, order));
    }
    Ok(StatusCode::ACCEPTED)
}

async fn mail(State(services): State<Arc<Services>>, Json(body): Json<Value>) -> Response {
    tokio::time::sleep(Duration::from_millis(150)).await;
    let order = order(&body)?;
    services.done(|done| done.mailed.insert(order));
    Ok(StatusCode::OK)
}

/// Releases the stock of an order whose charge the bank did not confirm.
async fn release(State(services): State<Arc<Services>>, Json(body): Json<Value>) -> Response {
    let order = order(&body)?;
    services.done(|done| done.released.insert(order));
    Ok(StatusCode::OK)
}

/// Takes the event of a confirmed charge, and reports the task that waits for it as complete.
async fn confirmed(State(services): State<Arc<Services>>, Json(body): Json<Value>) -> Response {
    let order = order(&body)?;
    let (url, token) =
        services.done(|done| done.waiting.get(&order).cloned()).ok_or(StatusCode::NOT_FOUND)?;
    let result = json!({"result": {"order": order}});
    let headers = [("nobat-completion-token", token.as_str())];
    let (status, _) =
        services.client.send("POST", &url, &headers, &result).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    if status != 200 {
        return Err(StatusCode::BAD_GATEWAY);
    }
    services.done(|done| done.charged.insert(order));
    Ok(StatusCode::OK)
}

fn order(body: &Value) -> Result<u64, StatusCode> {
    body["order"].as_u64().ok_or(StatusCode::BAD_REQUEST)
}
