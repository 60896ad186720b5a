//! The HTTP server: accepts connections and answers their requests, within limits that no client can exceed.
//!
//! It supports HTTP/1.1 only, so that attacks with HTTP/2 streams and frames do not apply. A proxy in front
//! of the server can support HTTP/2.
//!
//! Hyper or [`head`] answers an invalid request head with a 400, 414, 431 or 501 without a body. The server
//! then closes the connection, because it cannot know where the next request begins. Hyper reads a request
//! with both `Content-Length` and `Transfer-Encoding: chunked` as chunked. Such a request is the last of its
//! connection (RFC 9112, section 6.3).

mod connections;
mod head;
pub(crate) mod in_process;
pub(crate) mod limits;
pub(crate) mod metrics;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Response, StatusCode};
use futures_util::future::Either;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nobat_core::auth::network::client_network;
use nobat_core::collections::turns::Turns;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::auth::policy::Peer;
use crate::server::connections::Connections;
use crate::server::limits::Limits;
use crate::server::socket::{Socket, Transport};

/// Maximum size of a request's head, in bytes. Hyper limits the number of header fields to 100 by default.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Maximum size of hyper's read buffer and of its write buffer for a connection, in bytes. While the write
/// buffer is full, hyper takes no more of a response.
const MAX_BUFFER_BYTES: usize = 32 * 1024;

/// Maximum number of response bytes that the kernel holds unsent for a connection. Without this limit, the
/// kernel holds up to 4 MiB (`tcp_wmem`) for a client that reads nothing. A few thousand such clients use up
/// the memory of all TCP connections (`tcp_mem`). `SO_SNDBUF` would also limit the bytes in flight, so
/// clients would wait for delayed acknowledgments.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 32 * 1024;

/// Maximum number of connections whose Tokio task is spawned and has not run yet. Further connections wait,
/// and the server starts one from each client address in turn. Without this limit, one client with many
/// connections would delay all other clients, because Tokio runs its tasks in order of arrival.
const MAX_STARTING: usize = 32;

/// Pause before the next accept after an error such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` fires. Then finishes the requests in progress, for at most `grace`.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, grace: Duration) {
    serve_within(listener, router, shutdown, Limits { grace, ..Limits::default() }).await;
}

/// Serves as [`serve`] does, with the given limits.
pub async fn serve_within(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    limits: Limits,
) {
    let connections = Connections::new(&limits);
    let (http, limits) = (http(&limits), Arc::new(limits));
    let starting = Arc::new(Semaphore::new(MAX_STARTING));
    let mut waiting = Turns::default();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            (stream, peer) = accept(&listener) => {
                if let Some(slot) = connections.open(peer.ip()) {
                    waiting.push(client_network(peer.ip()), (stream, peer, slot));
                } else {
                    // A reset leaves no state in the kernel.
                    stream.reset_on_close();
                }
                continue;
            }
            permit = Arc::clone(&starting).acquire_owned(), if !waiting.is_empty() => permit,
        };
        let Some((stream, peer, slot)) = waiting.pop() else { continue };
        prepare(&stream, &limits);
        // Each connection gets a child token. With one shared token, all connections would contend for its
        // lock.
        let (http, router, shutdown, limits) =
            (http.clone(), router.clone(), shutdown.child_token(), Arc::clone(&limits));
        tokio::spawn(async move {
            drop(permit);
            converse(stream, Peer(peer.ip()), &http, router, shutdown, &limits).await;
            drop(slot);
        });
    }
    drop((listener, waiting));
    // Each connection closes by itself at the end of the grace period.
    connections.closed().await;
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Without a timer, hyper silently applies no timeout.
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES);
    http
}

/// Returns the next connection. Retries after every error.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_about_one_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed; the server tries again after a pause");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns true if the client left before the server accepted its connection.
fn is_about_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Sets the options of a new connection.
fn prepare(stream: &TcpStream, limits: &Limits) {
    // A response is one write. Nagle's algorithm would only delay it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set; responses may be delayed");
    }
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        // A write succeeds as soon as the response fits in the kernel's buffer. Only the kernel knows if the
        // client acknowledges the response, so the kernel must apply the time limit.
        if let Err(error) = socket.set_tcp_user_timeout(Some(limits.write)) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT could not be set; a write may exceed its time limit");
        }
        if let Err(error) = socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES) {
            tracing::debug!(%error, "TCP_NOTSENT_LOWAT could not be set; the kernel may hold more unsent bytes");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = limits;
}

/// Answers the requests of one connection, one after the other.
async fn converse<S: Transport + Send + 'static>(
    stream: S,
    peer: Peer,
    http: &http1::Builder,
    router: Router,
    shutdown: CancellationToken,
    limits: &Limits,
) {
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        if let Some(status) = head::refusal(request.version(), request.uri(), request.headers()) {
            return Either::Left(std::future::ready(Ok(refused(status))));
        }
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        Either::Right(router.clone().call(request))
    });
    let connection =
        http.serve_connection(TokioIo::new(Socket::new(stream, shutdown.clone(), limits)), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.grace, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::warn!("a request was still running when the time limit of the shutdown passed; its connection is closed"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// Returns the response to an invalid head, in the same form as hyper's own responses.
fn refused(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, timeout};

    use super::*;

    impl Transport for DuplexStream {
        fn reset_on_close(&self) {}
    }

    /// Size of the buffer between client and server, in each direction.
    const PIPE_BYTES: usize = 1024;
    const ANSWER_BYTES: usize = 256 * 1024;

    /// Returns a connection to a server that counts its requests, and the server's task.
    fn connect(limits: &Limits, requests: &Arc<AtomicUsize>) -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = duplex(PIPE_BYTES);
        let counter = Arc::clone(requests);
        let router = Router::new().route(
            "/",
            get(move || {
                counter.fetch_add(1, Ordering::Relaxed);
                std::future::ready("x".repeat(ANSWER_BYTES))
            }),
        );
        let (http, limits) = (http(limits), limits.clone());
        let peer = Peer(std::net::Ipv4Addr::LOCALHOST.into());
        let serving =
            async move { converse(server, peer, &http, router, CancellationToken::new(), &limits).await };
        (client, tokio::spawn(serving))
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn unsent_bytes_in_the_kernel_are_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream, &Limits::default());
        stream.writable().await.unwrap();
        let (mut kept, piece) = (0, [0; 8 * 1024]);
        // Without the bound, the kernel takes several megabytes on loopback. The client's receive window
        // starts at 64 KiB.
        while let Ok(count) = stream.try_write(&piece) {
            kept += count;
        }
        assert!((32 * 1024..1024 * 1024).contains(&kept), "{kept} bytes");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn addresses_take_turns_when_connections_start() {
        const LOUD: usize = 400;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1_024).unwrap();
        let server = listener.local_addr().unwrap();
        let connect = |from: &str| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((from.parse::<std::net::IpAddr>().unwrap(), 0).into()).unwrap();
            async move {
                let mut stream = socket.connect(server).await.unwrap();
                stream.write_all(GET).await.unwrap();
                stream
            }
        };
        let mut loud = Vec::new();
        for _ in 0..LOUD {
            loud.push(connect("127.0.0.2").await);
        }
        let mut quiet = connect("127.0.0.3").await;
        // The test has one thread, so the server does not run before this line.
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let router = Router::new()
            .route("/", get(move || std::future::ready(counter.fetch_add(1, Ordering::Relaxed).to_string())));
        let (stop, _guard) = (CancellationToken::new(), loud);
        let serving = tokio::spawn(serve(listener, router, stop.clone(), Duration::ZERO));
        let mut answer = vec![0; 4096];
        let read = quiet.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        let before: usize = answer.rsplit("\r\n").next().unwrap().parse().unwrap();
        // The server accepts some connections while earlier connections start.
        assert!(before < LOUD * 3 / 4, "{before} requests were served before it");
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_reads_nothing_is_closed_at_the_write_deadline() {
        let (limits, begun) = (Limits::default(), Instant::now());
        let (mut client, server) = connect(&limits, &Arc::default());
        client.write_all(GET).await.unwrap();
        server.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), limits.write.as_secs());
        assert_eq!(limits.metrics.write_timeouts(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn client_below_the_minimum_read_rate_is_closed() {
        for (bytes, is_ended) in [(256, true), (1_024, false)] {
            let limits = Limits::default();
            let (mut client, server) = connect(&limits, &Arc::default());
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
            let (mut read, mut buffer) = (0, vec![0; bytes]);
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                match client.read(&mut buffer).await.unwrap() {
                    0 => break,
                    count => read += count,
                }
            }
            server.await.unwrap();
            assert_eq!(
                (read < ANSWER_BYTES, limits.metrics.write_timeouts() == 1),
                (is_ended, is_ended),
                "{bytes} at a time"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pause_between_slow_responses_is_not_a_write_timeout() {
        let limits = Limits { head: Duration::from_hours(2), ..Limits::default() };
        let (mut client, _server) = connect(&limits, &Arc::default());
        let mut buffer = vec![0; 4096];
        for _ in 0..2 {
            client.write_all(GET).await.unwrap();
            // The server has to wait until this client reads.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let mut read = 0;
            while read < ANSWER_BYTES {
                read += client.read(&mut buffer).await.unwrap();
            }
            while let Ok(more) = timeout(Duration::from_millis(1), client.read(&mut buffer)).await {
                assert_ne!(more.unwrap(), 0, "the connection stays open");
            }
            tokio::time::sleep(Duration::from_hours(1)).await;
        }
        assert_eq!(limits.metrics.write_timeouts(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn responses_to_a_client_that_never_reads_are_bounded() {
        const REQUEST: &[u8] = b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        let (limits, requests) =
            (Limits { write: Duration::from_hours(1), ..Limits::default() }, Arc::default());
        let (mut client, _server) = connect(&limits, &requests);
        let sending = async {
            for _ in 0..10_000 {
                // Two parts make the server wake up in between.
                for part in [&REQUEST[..40], &REQUEST[40..]] {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        };
        assert!(timeout(Duration::from_mins(1), sending).await.is_err(), "the server stops reading");
        let answered = requests.load(Ordering::Relaxed);
        // A response is at least 60 bytes long.
        assert!(answered <= (PIPE_BYTES + MAX_BUFFER_BYTES) / 60, "{answered} responses");
    }
}
