//! Serving a router on a socket of our own, with the limits that strangers make necessary.
//!
//! HTTP/1.1 only, so that what can be done to a server with HTTP/2 streams and frames cannot be done to this one; whoever
//! wants HTTP/2 puts a proxy in front. What is wrong with a request's head is answered by hyper itself, with a bare 400,
//! 414 or 431, and the connection is closed: there is no telling where the next request would begin. One that gives a length
//! and is chunked besides is read as chunked, and is the last of its connection (RFC 9112, section 6.3).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::door::Peer;
use crate::socket::Socket;

/// How much is granted to clients as such.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many may be connected at a time; whoever comes beyond that is hung up on.
    pub connections: usize,
    /// How long the head of a request may take to arrive, and a connection be idle before it.
    pub head: Duration,
    /// How long requests may take to be finished once the server is told to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, head: Duration::from_secs(10), grace: Duration::from_secs(10) }
    }
}

/// The longest head of a request. That it has at most 100 header fields is what hyper sees to unless told otherwise.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// What a connection buffers at most, each way.
const MAX_BUFFER_BYTES: usize = 32 * 1024;
/// What is waited when the process is out of file descriptors, say, before the next connection is taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` fires, then finishes the requests that are under way, but not for longer than `grace`.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, grace: Duration) {
    serve_within(listener, router, shutdown, Limits { grace, ..Limits::default() }).await;
}

/// The same, within limits other than the usual.
pub async fn serve_within(listener: TcpListener, router: Router, shutdown: CancellationToken, limits: Limits) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let http = http(&limits);
    while let Some((stream, peer)) = accept(&listener, &shutdown).await {
        // Without a slot the stream is dropped, which closes it.
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        // A token of its own for each, so that they do not all contend for the lock of one.
        let (http, router, shutdown) = (http.clone(), router.clone(), shutdown.child_token());
        tokio::spawn(async move {
            converse(stream, Peer(peer.ip()), &http, router, shutdown, limits.grace).await;
            drop(slot);
        });
    }
    drop(listener);
    // Once all slots are free, all connections are closed. Each of them minds the grace by itself.
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let _ = slots.acquire_many(all).await;
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Without a timer, hyper would quietly have no timeout.
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_header_size(MAX_HEAD_BYTES).max_buf_size(MAX_BUFFER_BYTES);
    http
}

/// The next connection, or nothing once the server is told to stop. Nothing else ends it.
async fn accept(listener: &TcpListener, shutdown: &CancellationToken) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) if is_about_one_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A client that was gone before it was its turn.
fn is_about_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Answers the requests of one connection, one after the other.
async fn converse(stream: TcpStream, peer: Peer, http: &http1::Builder, router: Router, shutdown: CancellationToken, grace: Duration) {
    // An answer is one write: to wait for more to send along with it would only delay it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().call(request)
    });
    let connection = http.serve_connection(TokioIo::new(Socket::new(stream, shutdown.clone())), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(grace, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::warn!("a request was cut off, since it outlasted the grace"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
