//! One request on a connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName};
use hyper::{Request, client};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// What came back.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nobody was there, so nothing was sent and nothing can have come of it.
    #[error("there was no connection: {0}")]
    NotSent(#[source] std::io::Error),
    /// The request may have been carried out, or not.
    #[error("there was no answer: {0}")]
    Unanswered(#[source] anyhow::Error),
}

/// Longer than any server holds an answer.
const TIMEOUT: Duration = Duration::from_mins(1);

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{} is not JSON: {error}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Status and `code` of a problem.
    pub fn problem(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// Sends a request, its body as JSON unless a header says otherwise, and reads the answer.
pub async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, ExchangeError> {
    let stream = TcpStream::connect(address).await.map_err(ExchangeError::NotSent)?;
    let is_said = |header: &HeaderName| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header.as_str()));
    let mut request = Request::builder().method(method).uri(path);
    if !is_said(&HOST) {
        request = request.header(HOST, address.to_string());
    }
    if !body.is_empty() && !is_said(&CONTENT_TYPE) {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::from(body.to_owned())).expect("a request that can be sent");
    let answered = tokio::time::timeout(TIMEOUT, converse(stream, request)).await;
    answered.map_err(anyhow::Error::from).flatten().map_err(ExchangeError::Unanswered)
}

async fn converse(stream: TcpStream, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself once the sender is dropped; what breaks it shows in the answer.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await?.to_bytes() })
}
