//! Receiver that answers as programmed and records all requests.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::harness::PATIENCE;

/// Server on this machine. It answers with 200 on paths without a script.
pub struct Receiver {
    address: SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Inner {
    replies: Mutex<BTreeMap<String, VecDeque<Reply>>>,
    received: Mutex<Vec<Received>>,
    /// Number of requests so far.
    count: watch::Sender<usize>,
}

/// Request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Query without the question mark, empty if there is none.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// Programmed answer.
#[derive(Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    gate: Option<Gate>,
}

/// Gate that holds answers back until it is opened.
#[derive(Clone, Default)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Receiver {
    /// Starts a receiver on a free port.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_at("127.0.0.1:0").await
    }

    /// Starts a receiver on an address of this machine.
    pub async fn start_at(address: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (address, inner) = (listener.local_addr()?, Arc::new(Inner::default()));
        let server = tokio::spawn(serve(listener, Arc::clone(&inner)));
        Ok(Self { address, inner, server })
    }

    /// Returns the URL of a path on this receiver.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the replies for a path. They are used in order, and the last one is repeated.
    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.inner.replies).insert(path.to_owned(), replies.into_iter().collect());
    }

    /// Returns the requests for a path so far, in order of arrival.
    pub fn received(&self, path: &str) -> Vec<Received> {
        lock(&self.inner.received).iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Waits for at least `count` requests in all, and returns all of them.
    pub async fn wait_for_all(&self, count: usize) -> Vec<Received> {
        let mut all = self.inner.count.subscribe();
        let arrived = timeout(PATIENCE, all.wait_for(|received| *received >= count)).await.is_ok();
        assert!(arrived, "expected {count} requests");
        lock(&self.inner.received).clone()
    }

    /// Waits for at least `count` requests for a path, and returns them.
    pub async fn wait_for(&self, path: &str, count: usize) -> Vec<Received> {
        let mut all = self.inner.count.subscribe();
        let arrived = all.wait_for(|_| self.received(path).len() >= count);
        let arrived = timeout(PATIENCE, arrived).await.is_ok();
        let received = self.received(path);
        assert!(arrived, "expected {count} requests for {path}, but got {}", received.len());
        received
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Received {
    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{:?} is not JSON: {error}", self.body))
    }

    /// Returns a header's value, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Reply {
    /// Creates a reply with this status and no body.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), gate: None }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(self, body: impl Into<String>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Holds the reply back until the gate is opened.
    #[must_use]
    pub fn behind(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    async fn give(self) -> Response<Full<Bytes>> {
        if let Some(gate) = &self.gate {
            gate.passed().await;
        }
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(Full::from(self.body)).expect("the reply is valid")
    }
}

impl Gate {
    /// Opens the gate for waiting and later replies.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        // The channel cannot close: the sender lives in `self`.
        let _ = self.0.subscribe().wait_for(|is_open| *is_open).await;
    }
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        // A request whose client disconnects before its end is not recorded.
        let Ok(body) = body.collect().await else { return Response::default() };
        let path = head.uri.path().to_owned();
        let received = Received {
            method: head.method.to_string(),
            path: path.clone(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers,
            body: body.to_bytes(),
        };
        let reply = self.next_reply(&path);
        lock(&self.received).push(received);
        self.count.send_modify(|count| *count += 1);
        reply.give().await
    }

    fn next_reply(&self, path: &str) -> Reply {
        let mut replies = lock(&self.replies);
        match replies.get_mut(path) {
            Some(replies) if replies.len() > 1 => replies.pop_front(),
            Some(replies) => replies.front().cloned(),
            None => None,
        }
        .unwrap_or_else(|| Reply::status(200))
    }
}

async fn serve(listener: TcpListener, inner: Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept().await {
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            let answer = service_fn(|request| async { Ok::<_, Infallible>(inner.answer(request).await) });
            // Clients that disconnect or are killed are part of the stories.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
