//! The HTTP server: takes connections and answers their requests, within limits that no client can exceed.
//!
//! HTTP/1.1 only, so that attacks with HTTP/2 streams and frames do not apply; a proxy in front can speak HTTP/2. A request head that is
//! not valid is answered with a bare 400, 414, 431 or 501, by hyper or by [`head`], and the connection is closed: there is no telling
//! where the next request would begin. A request with both `Content-Length` and `Transfer-Encoding: chunked` is read as chunked, and is
//! the last of its connection (RFC 9112, section 6.3).

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
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
use nobat_core::network::{Network, client_network};
use nobat_core::turns::Turns;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::connections::{ConnectionMetrics, Connections};
use crate::door::Peer;
use crate::head;
use crate::socket::{Socket, Transport};

/// Limits that hold for every client, with or without a key.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Maximum number of open connections. Default 10,000. A connection beyond it is closed at once.
    pub connections: usize,
    /// Maximum number of open connections of one client address, or of one /64 network of IPv6. Default: half of `connections`, at least
    /// 1. A connection beyond it is closed at once.
    pub connections_per_address: Option<NonZeroUsize>,
    /// Networks to which `connections_per_address` does not apply: the proxies that bring other clients. Default: none.
    pub trusted_proxies: Vec<Network>,
    /// Maximum time for the head of a request to arrive, from the first moment of the connection or from the answer before. Default 10 s.
    pub head: Duration,
    /// Maximum time in which a client that is being written to takes nothing. Default 15 s. Then the connection is reset.
    pub write: Duration,
    /// Maximum time for requests to be finished once the server is told to stop. Default 10 s.
    pub grace: Duration,
    /// Counters of the connections.
    pub metrics: Arc<ConnectionMetrics>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: None,
            trusted_proxies: Vec::new(),
            head: Duration::from_secs(10),
            write: Duration::from_secs(15),
            grace: Duration::from_secs(10),
            metrics: Arc::default(),
        }
    }
}

/// Maximum size of a request's head. Hyper limits the number of header fields to 100 by default.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Maximum number of bytes that hyper reads ahead from a connection, and that it buffers for a connection before it stops asking for more.
const MAX_BUFFER_BYTES: usize = 32 * 1024;
/// Maximum number of bytes of an answer that the kernel holds unsent, besides those that the client's receive window has room for. Without a
/// bound it holds up to 4 MiB (`tcp_wmem`) for a client that reads nothing, and some thousand such clients use up the memory of all TCP
/// connections (`tcp_mem`). `SO_SNDBUF` would also bound what is on the way, and make clients wait for delayed acknowledgements.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 32 * 1024;
/// Maximum number of connections whose tasks are spawned and have not run yet. Further ones wait, and client addresses take turns: the
/// runtime runs its tasks in order of their arrival, so the connections of one client would delay all others.
const MAX_STARTING: usize = 32;
/// Pause before the next connection is accepted after an error such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` fires, then finishes the requests that are under way, but not for longer than `grace`.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, grace: Duration) {
    serve_within(listener, router, shutdown, Limits { grace, ..Limits::default() }).await;
}

/// Serves as [`serve`] does, within other limits.
pub async fn serve_within(listener: TcpListener, router: Router, shutdown: CancellationToken, limits: Limits) {
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
                    // A reset leaves nothing behind in the kernel.
                    stream.reset_on_close();
                }
                continue;
            }
            permit = Arc::clone(&starting).acquire_owned(), if !waiting.is_empty() => permit,
        };
        let Some((stream, peer, slot)) = waiting.pop() else { continue };
        prepare(&stream, &limits);
        // A token of its own for each, so that they do not all contend for the lock of one.
        let (http, router, shutdown, limits) = (http.clone(), router.clone(), shutdown.child_token(), Arc::clone(&limits));
        tokio::spawn(async move {
            drop(permit);
            converse(stream, Peer(peer.ip()), &http, router, shutdown, &limits).await;
            drop(slot);
        });
    }
    drop((listener, waiting));
    // Each connection minds the grace by itself.
    connections.closed().await;
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Without a timer, hyper would quietly have no timeout.
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_header_size(MAX_HEAD_BYTES).max_buf_size(MAX_BUFFER_BYTES);
    http
}

/// Returns the next connection. No error ends it.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
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

/// Sets the options of a new connection.
fn prepare(stream: &TcpStream, limits: &Limits) {
    // An answer is one write: to wait for more to send along with it would only delay it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        // An answer that fits the kernel's buffer is written for the program, also after the connection was closed; whether the client
        // takes it, the kernel alone knows.
        if let Err(error) = socket.set_tcp_user_timeout(Some(limits.write)) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT was not set");
        }
        if let Err(error) = socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES) {
            tracing::debug!(%error, "TCP_NOTSENT_LOWAT was not set");
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
    let connection = http.serve_connection(TokioIo::new(Socket::new(stream, shutdown.clone(), limits)), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.grace, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::warn!("a request was cut off, since it outlasted the grace"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// The answer to a head that is not valid, in the form that hyper gives it.
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

    /// The buffer between client and server, each way.
    const PIPE_BYTES: usize = 1024;
    const ANSWER_BYTES: usize = 256 * 1024;

    /// A connection to a server that counts its requests, and the server.
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
        let serving = async move { converse(server, peer, &http, router, CancellationToken::new(), &limits).await };
        (client, tokio::spawn(serving))
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn kernel_keeps_little_for_a_client_that_reads_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream, &Limits::default());
        stream.writable().await.unwrap();
        let (mut kept, piece) = (0, [0; 8 * 1024]);
        // Without the bound, it is several megabytes on loopback. A window of the client's is 64 KiB at first.
        while let Ok(count) = stream.try_write(&piece) {
            kept += count;
        }
        assert!((32 * 1024..1024 * 1024).contains(&kept), "{kept} bytes");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn connection_of_another_address_does_not_wait_for_all_before_it() {
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
        // Only now the server runs, on the thread of this test.
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let router = Router::new().route("/", get(move || std::future::ready(counter.fetch_add(1, Ordering::Relaxed).to_string())));
        let (stop, _guard) = (CancellationToken::new(), loud);
        let serving = tokio::spawn(serve(listener, router, stop.clone(), Duration::ZERO));
        let mut answer = vec![0; 4096];
        let read = quiet.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        let before: usize = answer.rsplit("\r\n").next().unwrap().parse().unwrap();
        // The server accepts some while those before them start.
        assert!(before < LOUD * 3 / 4, "{before} requests were answered before it");
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_reads_nothing_is_ended_at_the_write_deadline() {
        let (limits, begun) = (Limits::default(), Instant::now());
        let (mut client, server) = connect(&limits, &Arc::default());
        client.write_all(GET).await.unwrap();
        server.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), limits.write.as_secs());
        assert_eq!(limits.metrics.write_timeouts(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_drips_is_ended_and_one_that_reads_slowly_is_not() {
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
            assert_eq!((read < ANSWER_BYTES, limits.metrics.write_timeouts() == 1), (is_ended, is_ended), "{bytes} at a time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pause_between_two_slow_answers_is_no_stalled_write() {
        let limits = Limits { head: Duration::from_hours(2), ..Limits::default() };
        let (mut client, _server) = connect(&limits, &Arc::default());
        let mut buffer = vec![0; 4096];
        for _ in 0..2 {
            client.write_all(GET).await.unwrap();
            // The server has to wait for this client, and is then free.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let mut read = 0;
            while read < ANSWER_BYTES {
                read += client.read(&mut buffer).await.unwrap();
            }
            while let Ok(more) = timeout(Duration::from_millis(1), client.read(&mut buffer)).await {
                assert_ne!(more.unwrap(), 0, "closed");
            }
            tokio::time::sleep(Duration::from_hours(1)).await;
        }
        assert_eq!(limits.metrics.write_timeouts(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_sends_and_never_reads_fills_no_memory() {
        const REQUEST: &[u8] = b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        let (limits, requests) = (Limits { write: Duration::from_hours(1), ..Limits::default() }, Arc::default());
        let (mut client, _server) = connect(&limits, &requests);
        let sending = async {
            for _ in 0..10_000 {
                // In two parts, so that the server is woken in between.
                for part in [&REQUEST[..40], &REQUEST[40..]] {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        };
        assert!(timeout(Duration::from_mins(1), sending).await.is_err(), "the server reads on");
        let answered = requests.load(Ordering::Relaxed);
        // An answer is at least 60 bytes long.
        assert!(answered <= (PIPE_BYTES + MAX_BUFFER_BYTES) / 60, "{answered} answers");
    }
}
