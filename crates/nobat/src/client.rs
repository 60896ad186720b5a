//! Client of the API: over HTTP to a nobat server, or in this process.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nobat_api::App;
use nobat_core::auth::api_key::KeyText;
use nobat_core::types::http_url::{HttpUrl, UrlHost};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::response::Answer;

/// Server that a command talks to, and the form of its output.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientArgs {
    /// URL of the server
    #[arg(long, env = "NOBAT_URL", default_value = "http://127.0.0.1:8080", global = true)]
    pub(crate) url: String,
    /// API key. Prefer the variable: other users of this machine can read flags
    #[arg(long, env = "NOBAT_KEY", hide_env_values = true, global = true)]
    pub(crate) key: Option<String>,
    /// Print the server's JSON, unchanged, instead of a table
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Client of the API.
pub(crate) enum Client {
    /// Sends requests over HTTP.
    There(Box<Remote>),
    /// Calls the API in this process, which has opened the store itself.
    Here(App),
}

/// HTTP client of one server.
pub(crate) struct Remote {
    base: HttpUrl,
    /// Value of the `Host` header, if it differs from the address of the connection.
    host: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Response with a status of 4xx or 5xx: problem details (RFC 9457). Fields that cannot be read are empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Refusal {
    status: u16,
    code: String,
    detail: String,
    errors: Vec<FieldError>,
}

/// Error of one field.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FieldError {
    pointer: String,
    detail: String,
}

/// Maximum time for the head of a response, and again for its body. It is longer than the maximum `?wait=` of
/// this program (20 seconds).
const TIMEOUT: Duration = Duration::from_mins(1);
/// Number of elements in one page of a list.
const PAGE: usize = 100;

impl Client {
    pub(crate) fn new(target: &ClientArgs) -> anyhow::Result<Self> {
        let base =
            HttpUrl::parse(&target.url).context("the server's URL (from --url or NOBAT_URL) is not valid")?;
        let (base, host) = to_this_machine(base)?;
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .context("the certificate authorities of this machine cannot be loaded")?
            .https_or_http()
            .enable_http1()
            .build();
        let authorization = target.key.as_deref().map(authorization).transpose()?;
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self::There(Box::new(Remote { base, host, authorization, http })))
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, None, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: String) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, Some(body), None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, path, None, None).await
    }

    /// Returns the first `limit` elements of a list, from as many pages as needed.
    pub(crate) async fn list(
        &self,
        path: &str,
        filters: &[(&str, &str)],
        limit: usize,
    ) -> anyhow::Result<Vec<Box<RawValue>>> {
        let filters: Vec<String> =
            filters.iter().map(|(name, text)| format!("&{name}={}", encode(text))).collect();
        let filters = filters.concat();
        let (mut found, mut cursor) = (Vec::new(), String::new());
        // A page can be short although more pages follow, since the server reads a limited number of records
        // for each page.
        while found.len() < limit {
            let size = (limit - found.len()).min(PAGE);
            let page = self.get(&format!("{path}?limit={size}{filters}{cursor}")).await?.page()?;
            found.extend(page.data);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={}", encode(&next)),
                None => break,
            }
        }
        Ok(found)
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        key: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let (status, body) = match self {
            Self::There(remote) => remote.send(method, path, body, key).await?,
            Self::Here(app) => nobat_api::ask(app.clone(), method, path, body).await,
        };
        if status.is_success() {
            return Answer::new(body.into())
                .with_context(|| format!("the response has status {status} and is not JSON"));
        }
        let problem: Refusal = serde_json::from_slice(&body).unwrap_or_default();
        let refusal = Refusal { status: status.as_u16(), ..problem };
        if status.is_client_error() { Err(refusal.into()) } else { Err(anyhow::anyhow!("{refusal}")) }
    }
}

/// Returns the `Authorization` header for a key.
fn authorization(key: &str) -> anyhow::Result<HeaderValue> {
    // The error must not repeat the value, which may be a mistyped key.
    let key: KeyText = key.trim().parse().context("the API key (from --key or NOBAT_KEY) is not valid")?;
    let mut header = HeaderValue::from_str(&format!("Bearer {}", key.as_str()))?;
    header.set_sensitive(true);
    Ok(header)
}

impl Remote {
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        key: Option<&str>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
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
            let key = HeaderValue::from_str(key)
                .context("the idempotency key is not a valid header; use visible ASCII characters")?;
            request = request.header(HeaderName::from_static("idempotency-key"), key);
        }
        let request = request.body(Full::from(body.unwrap_or_default()))?;
        let cannot_reach = || format!("cannot reach {} (is `nobat serve` running there?)", self.base);
        let sent = within_timeout(self.http.request(request)).await.with_context(cannot_reach)?;
        let (status, task) = (
            sent.status(),
            sent.headers().get(LOCATION).and_then(|path| path.to_str().ok()).map(str::to_owned),
        );
        let body = within_timeout(sent.into_body().collect()).await.with_context(|| match &task {
            // The task is stored, even if the rest of the response is lost.
            Some(path) => format!(
                "accepted: {}\nthe rest of the response did not arrive",
                path.rsplit('/').next().unwrap_or_default()
            ),
            None => cannot_reach(),
        });
        Ok((status, body?.to_bytes()))
    }
}

async fn within_timeout<T, E: Into<anyhow::Error>>(
    answer: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(TIMEOUT, answer).await.context("no response within a minute")?.map_err(Into::into)
}

impl Refusal {
    /// Renames the fields of the error, for example from pointers to flags.
    pub(crate) fn renamed(mut self, name: impl Fn(&str) -> Option<String>) -> Self {
        for error in &mut self.errors {
            error.pointer = name(&error.pointer).unwrap_or_else(|| std::mem::take(&mut error.pointer));
        }
        self
    }
}

impl std::error::Error for Refusal {}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.detail.as_str() {
            "" => write!(f, "the response has status {}", self.status)?,
            // The lines below give the details.
            _ if !self.errors.is_empty() => {
                write!(f, "the request is not valid ({} {})", self.status, self.code)?;
            }
            detail => write!(f, "{detail} ({} {})", self.status, self.code)?,
        }
        for FieldError { pointer, detail } in &self.errors {
            write!(f, "\n  {pointer}: {detail}")?;
        }
        Ok(())
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
pub(crate) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Connects names below `localhost` to this machine (RFC 6761, section 6.3), since not every resolver knows
/// these names. AWS emulators give each API such a name.
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
            (
                "http://a.execute-api.localhost:4566",
                "http://127.0.0.1:4566/",
                Some("a.execute-api.localhost:4566"),
            ),
            ("https://example.com/x", "https://example.com/x", None),
            ("http://localhost:8080", "http://localhost:8080/", None),
        ] {
            let (base, named) = to_this_machine(url.parse().unwrap()).unwrap();
            assert_eq!((base.as_str(), named.as_ref().map(|name| name.to_str().unwrap())), (connected, host));
        }
    }
}
