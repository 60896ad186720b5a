//! A client of any nobat, by URL.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nobat_api::App;
use nobat_core::http_url::{HttpUrl, UrlHost};
use nobat_core::key::KeyText;
use serde_json::Value;

/// Which nobat to talk to.
#[derive(Args, Clone)]
pub(crate) struct Target {
    /// The nobat to talk to
    #[arg(long, env = "NOBAT_URL", default_value = "http://127.0.0.1:8080", global = true)]
    pub(crate) url: String,
    /// The key to it
    #[arg(long, env = "NOBAT_KEY", hide_env_values = true, global = true)]
    pub(crate) key: Option<String>,
    /// Print JSON, for programs, instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// A way to ask it.
pub(crate) enum Client {
    /// Over HTTP.
    There(Box<Remote>),
    /// In this process, which has opened the store itself.
    Here(App),
}

/// A connection to a server.
pub(crate) struct Remote {
    base: HttpUrl,
    /// The name that the other side is to be asked for by, if it is not the one that is connected to.
    host: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// nobat understood, and said no.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: u16,
    problem: Value,
}

/// Longer than the longest wait that a server grants.
const TIMEOUT: Duration = Duration::from_mins(1);

impl Client {
    pub(crate) fn new(target: &Target) -> anyhow::Result<Self> {
        let base = HttpUrl::parse(&target.url).context("NOBAT_URL, or --url")?;
        let (base, host) = to_this_machine(base)?;
        let connector = HttpsConnectorBuilder::new().with_native_roots().context("no certificates")?.https_or_http().enable_http1().build();
        let authorization = target.key.as_deref().map(authorization).transpose()?;
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self::There(Box::new(Remote { base, host, authorization, http })))
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, None, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: String, key: Option<&str>) -> anyhow::Result<Value> {
        self.send(Method::POST, path, Some(body), key).await
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::DELETE, path, None, None).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<String>, key: Option<&str>) -> anyhow::Result<Value> {
        let (status, body) = match self {
            Self::There(remote) => remote.send(method, path, body, key).await?,
            Self::Here(app) => nobat_api::ask(app.clone(), method, path, body).await,
        };
        let body: Value = serde_json::from_slice(&body).with_context(|| format!("the answer is {status}, and not in JSON"))?;
        if status.is_success() {
            return Ok(body);
        }
        let refusal = Refusal { status: status.as_u16(), problem: body };
        if status.is_client_error() { Err(refusal.into()) } else { Err(anyhow::anyhow!("{refusal}")) }
    }
}

/// The header that brings a key.
fn authorization(key: &str) -> anyhow::Result<HeaderValue> {
    // Said here, and not repeated: it may be half of a key.
    let key: KeyText = key.trim().parse().context("NOBAT_KEY, or --key")?;
    let mut header = HeaderValue::from_str(&format!("Bearer {}", key.as_str()))?;
    header.set_sensitive(true);
    Ok(header)
}

impl Remote {
    async fn send(&self, method: Method, path: &str, body: Option<String>, key: Option<&str>) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(self.base.join(path)?.as_str());
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(host) = &self.host {
            request = request.header(HOST, host);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(key) = key {
            let key = HeaderValue::from_str(key).context("the idempotency key cannot be a header")?;
            request = request.header(HeaderName::from_static("idempotency-key"), key);
        }
        let request = request.body(Full::from(body.unwrap_or_default()))?;
        let exchange = async {
            let answer = self.http.request(request).await?;
            let status = answer.status();
            Ok::<_, anyhow::Error>((status, answer.into_body().collect().await?.to_bytes()))
        };
        let answered = tokio::time::timeout(TIMEOUT, exchange).await.context("no answer in time").and_then(|answered| answered);
        answered.with_context(|| format!("cannot talk to {} (is `nobat serve` running there?)", self.base))
    }
}

impl std::error::Error for Refusal {}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |name: &str| self.problem[name].as_str().unwrap_or_default();
        write!(f, "{} ({} {})", text("detail"), self.status, text("code"))?;
        for error in self.problem["errors"].as_array().into_iter().flatten() {
            write!(f, "\n  {}: {}", error["pointer"].as_str().unwrap_or_default(), error["detail"].as_str().unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Names below `localhost` are this machine (RFC 6761, section 6.3), which not every resolver knows: emulators of AWS tell their APIs
/// apart by such names.
fn to_this_machine(base: HttpUrl) -> anyhow::Result<(HttpUrl, Option<HeaderValue>)> {
    match base.host() {
        UrlHost::Name(name) if name.ends_with(".localhost") => {
            let host = HeaderValue::from_str(base.authority())?;
            Ok((base.with_address(Ipv4Addr::LOCALHOST.into()), Some(host)))
        }
        UrlHost::Name(_) | UrlHost::Address(_) => Ok((base, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_localhost_are_this_machine() {
        for (url, connected, host) in [
            ("http://a.execute-api.localhost:4566", "http://127.0.0.1:4566/", Some("a.execute-api.localhost:4566")),
            ("https://example.com/x", "https://example.com/x", None),
            ("http://localhost:8080", "http://localhost:8080/", None),
        ] {
            let (base, named) = to_this_machine(url.parse().unwrap()).unwrap();
            assert_eq!((base.as_str(), named.as_ref().map(|name| name.to_str().unwrap())), (connected, host));
        }
    }
}
