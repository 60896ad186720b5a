//! One request on its own connection.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName};
use hyper::{Request, client};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Answer to a request.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// Error of a request without an answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection failed, so nothing was sent and the request had no effect.
    #[error("the connection failed: {0}")]
    NotSent(#[source] std::io::Error),
    /// The request may have been carried out.
    #[error("the request got no response: {0}")]
    Unanswered(#[source] anyhow::Error),
}

/// Maximum wait for an answer, longer than any server holds one.
const TIMEOUT: Duration = Duration::from_mins(1);

impl Answer {
    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} is not JSON: {error}", self.text()))
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns a header's value, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the status and the `code` of a problem document.
    pub fn problem(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// Sends a request and reads the answer. The body is sent as JSON unless a header says otherwise.
pub async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, ExchangeError> {
    let stream = TcpStream::connect(address).await.map_err(ExchangeError::NotSent)?;
    let is_said =
        |header: &HeaderName| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header.as_str()));
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
    let request = request.body(Full::from(body.to_owned())).expect("the request is valid");
    let answered = tokio::time::timeout(TIMEOUT, converse(stream, request)).await;
    answered.map_err(anyhow::Error::from).flatten().map_err(ExchangeError::Unanswered)
}

async fn converse(stream: TcpStream, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The task ends once the sender is dropped. Its errors show in the answer.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await?.to_bytes() })
}
