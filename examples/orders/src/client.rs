//! HTTP client of the shop, the bank and the load.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// HTTP client.
#[derive(Clone)]
pub(crate) struct Client(hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>);

impl Client {
    /// Creates a client with its own connections.
    pub(crate) fn new() -> Self {
        Self(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http())
    }

    /// Sends JSON, and returns the status and the body of the response.
    pub(crate) async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> anyhow::Result<(u16, Bytes)> {
        let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = self.0.request(request.body(Full::from(body.to_string()))?).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    /// Sends JSON. An error is a response without success.
    pub(crate) async fn call(&self, method: &str, url: &str, body: &Value) -> anyhow::Result<()> {
        let (status, answer) = self.send(method, url, &[], body).await?;
        anyhow::ensure!(
            (200..300).contains(&status),
            "{url}: {status}: {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    }
}
