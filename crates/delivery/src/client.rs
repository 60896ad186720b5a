//! Sends one request and reads one response, within limits.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use nobat_core::collections::recent::Recent;
use nobat_core::types::name::Tenant;
use parking_lot::Mutex;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tokio::time::timeout;

use crate::coding::{Extent, MAX_BODY, MAX_ENCODED};
use crate::connector::Connector;
use crate::destination::Destination;
use crate::error::{SendError, TlsFault};
use crate::guard::Guard;
use crate::lookup::{ORIGIN, Origin};
use crate::resolver::{Resolve, SystemResolver};
use crate::reuse::{Counting, is_lost_with_reused_connection, is_unprocessed, note_answer};
use crate::{ca_certificates, coding};

/// Maximum length of a response's status line and headers, in bytes. A longer head is usually an error. The
/// client accepts it if the read that exceeds the limit also completes the head, which then has at most twice
/// this length.
const MAX_HEAD: usize = 64 * 1024;

/// Maximum number of headers of an HTTP/1 response. HTTP/2 counts 32 bytes for each header in addition to the
/// header's text (RFC 9113, section 6.5.2), so [`MAX_HEAD`] also limits the number of headers. This constant
/// sets the same limit for HTTP/1.
const MAX_HEADERS: usize = MAX_HEAD / 32;

/// Idle time after which a connection is closed. A longer time has no benefit, because under load the next
/// request to the same host comes much earlier.
const MAX_IDLE: Duration = Duration::from_secs(10);

const MAX_IDLE_PER_HOST: usize = 8;

/// Maximum number of connection pools for destinations with their own certificate authorities. Beyond this
/// number, the client drops the least recently used pool.
const MAX_AUTHORITIES: usize = 64;

/// A request that is ready to be sent. `Debug` prints neither its body nor its header values.
pub struct Request {
    /// HTTP method.
    pub method: Method,
    /// The checked URL.
    pub destination: Destination,
    /// Headers, except the headers that the connection sets: host and framing.
    pub headers: HeaderMap,
    /// Body. Empty means no body.
    pub body: Bytes,
    /// Certificate authorities, as PEM, that replace the operating system's authorities for this destination.
    pub authority: Option<Arc<str>>,
    /// Tenant whose limit of parallel look-ups applies.
    pub tenant: Tenant,
    /// Maximum duration, from the look-up of the name to the last byte that is read of the response.
    pub timeout: Duration,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Request({} {:?}, {} headers, {} bytes)",
            self.method,
            self.destination,
            self.headers.len(),
            self.body.len()
        )
    }
}

/// A response with any status. `Debug` prints neither its body nor its header values.
pub struct Answer {
    /// Status. Redirects are not followed.
    pub status: StatusCode,
    /// Headers, without `content-encoding` and `content-length` if the body was decoded.
    pub headers: HeaderMap,
    /// Body, at most [`MAX_BODY`] bytes. Gzip, deflate and br are decoded. If the headers still contain
    /// `content-encoding`, the body is not decoded.
    pub body: Bytes,
    /// Completeness of the body.
    pub extent: Extent,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} headers, {} bytes)", self.status, self.headers.len(), self.body.len())
    }
}

/// Sends requests to untrusted destinations.
///
/// The client connects only to the destination itself. It uses no proxy, even if the environment names a
/// proxy, and follows no redirect. Cloning is cheap, and clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: Connections,
    connector: Connector,
    /// Connections of requests with their own certificate authorities (PEM). Requests with different
    /// authorities share no connections.
    vouched_for: Arc<Mutex<Recent<Arc<str>, Connections>>>,
}

type Pool = legacy::Client<Counting<HttpsConnector<Connector>>, Full<Bytes>>;

/// Connections that trust the same certificate authorities.
#[derive(Clone)]
struct Connections {
    /// Pool that keeps connections for the next request.
    pooled: Pool,
    /// Pool that opens a new connection for each request.
    fresh: Pool,
}

impl Client {
    /// Creates a client that connects only to addresses that the guard permits. The client trusts the
    /// operating system's certificate authorities.
    pub fn new(guard: Guard) -> Self {
        let resolver = SystemResolver::new()
            .unwrap_or_else(|error| unreachable!("the default resolver configuration is valid: {error}"));
        Self::with_resolver(guard, Arc::new(resolver))
    }

    /// Creates a client with its own resolver.
    pub fn with_resolver(guard: Guard, resolver: Arc<dyn Resolve>) -> Self {
        Self::assemble(guard, resolver, trusting_the_system())
    }

    fn assemble(guard: Guard, resolver: Arc<dyn Resolve>, tls: ClientConfig) -> Self {
        let connector = Connector::new(guard, resolver);
        let vouched_for = Arc::new(Mutex::new(Recent::new(MAX_AUTHORITIES)));
        Self { http: connections(connector.clone(), tls), connector, vouched_for }
    }

    /// Returns the guard, for checks before a request is made.
    pub fn guard(&self) -> &Guard {
        self.connector.guard()
    }

    /// Returns the connection pool for a request: the shared pool, or the pool for these certificate
    /// authorities, which is created at its first use.
    fn connections(&self, authority: Option<Arc<str>>) -> Result<Connections, SendError> {
        let Some(pem) = authority else { return Ok(self.http.clone()) };
        let mut vouched_for = self.vouched_for.lock();
        if let Some(known) = vouched_for.get(&pem) {
            return Ok(known.clone());
        }
        let roots = ca_certificates::roots(&pem).map_err(|_| SendError::Tls(TlsFault::Authority))?;
        let made =
            connections(self.connector.clone(), tls().with_root_certificates(roots).with_no_client_auth());
        vouched_for.insert(pem, made.clone());
        Ok(made)
    }

    /// Sends a request and reads the response. Dropping the future closes the connection.
    ///
    /// Sends the request once more, on a new connection, in two cases. Either a reused connection was lost
    /// before the first byte of a response, or the receiver refused to process the request (HTTP/2).
    /// Receivers recognize the repeated request by its idempotency key.
    pub async fn send(&self, request: Request) -> Result<Answer, SendError> {
        let (limit, origin) = (request.timeout, Origin::new(request.tenant.clone()));
        let sent = timeout(limit, ORIGIN.scope(origin.clone(), self.exchange(request))).await;
        // A request that timed out while its look-up waited to start says nothing about its destination.
        let late = || if origin.is_waiting() { SendError::LocalResources } else { SendError::Timeout };
        sent.unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(&self, request: Request) -> Result<Answer, SendError> {
        let connections = self.connections(request.authority)?;
        let mut message = http::Request::new(Full::new(request.body));
        *message.method_mut() = request.method;
        *message.uri_mut() = request.destination.into_uri();
        *message.headers_mut() = request.headers;
        state_empty_body(&mut message);
        let (head, body) =
            connections.request(message).await.map_err(|error| SendError::explain(&error))?.into_parts();
        let mut headers = head.headers;
        let limit = if headers.contains_key(CONTENT_ENCODING) { MAX_ENCODED } else { MAX_BODY };
        let (body, is_cut) = read(body, limit).await?;
        note_answer(&head.extensions);
        let (body, extent) = coding::decode(&mut headers, body, is_cut);
        Ok(Answer { status: head.status, headers, body: body.into(), extent })
    }
}

impl Connections {
    async fn request(
        &self,
        mut message: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, legacy::Error> {
        let again = message.clone();
        let captured = capture_connection(&mut message);
        match self.pooled.request(message).await {
            Err(error) if is_unprocessed(&error) || is_lost_with_reused_connection(&captured) => {
                self.fresh.request(again).await
            }
            answered => answered,
        }
    }
}

/// Adds `content-length: 0` to a request without a body whose method expects a body. Receivers may require a
/// length (RFC 9110, section 8.6), and hyper sends a length of 0 in HTTP/2 only.
fn state_empty_body(message: &mut http::Request<Full<Bytes>>) {
    let has_body_by_method = matches!(*message.method(), Method::POST | Method::PUT | Method::PATCH);
    if has_body_by_method && message.body().is_end_stream() {
        message.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("guard", self.guard()).finish_non_exhaustive()
    }
}

/// Returns the body up to `limit` bytes, and true if the body is longer. Dropping an unfinished body closes
/// its connection.
pub(crate) async fn read(mut body: Incoming, limit: usize) -> Result<(Vec<u8>, bool), SendError> {
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| SendError::explain(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        let room = limit - kept.len();
        if data.len() > room {
            kept.extend_from_slice(&data[..room]);
            return Ok((kept, true));
        }
        kept.extend_from_slice(&data);
    }
    Ok((kept, false))
}

/// Creates pools that use this connector. The pools use HTTP/2 with receivers that offer HTTP/2 in the TLS
/// handshake.
fn connections(connector: Connector, tls: ClientConfig) -> Connections {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(connector);
    let pool = |max_idle| {
        legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(MAX_IDLE)
            .pool_max_idle_per_host(max_idle)
            .http1_max_buf_size(MAX_HEAD)
            .http1_max_headers(MAX_HEADERS)
            .http2_max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .http2_initial_stream_window_size(u32::try_from(MAX_BODY).unwrap_or(u32::MAX))
            .http2_keep_alive_interval(MAX_IDLE)
            .http2_keep_alive_timeout(MAX_IDLE)
            .build(Counting(connector.clone()))
    };
    Connections { pooled: pool(MAX_IDLE_PER_HOST), fresh: pool(0) }
}

pub(crate) fn tls() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("ring supports TLS 1.2 and 1.3"))
}

/// Returns a configuration that trusts the operating system's authorities. The program also starts on a
/// machine without authorities (a bare container), because it can still call `http` destinations.
fn trusting_the_system() -> ClientConfig {
    let trusting = tls().with_native_roots().unwrap_or_else(|error| {
        tracing::warn!(%error, "no trusted certificates were found on this machine; https destinations cannot be reached");
        tls().with_root_certificates(RootCertStore::empty())
    });
    trusting.with_no_client_auth()
}
