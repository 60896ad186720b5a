//! The other side: a server that answers as it is told, and remembers all that it was sent.

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

use crate::world::PATIENCE;

/// A server on this machine. Whatever it was told nothing about it answers with 200.
pub struct Receiver {
    address: SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Inner {
    replies: Mutex<BTreeMap<String, VecDeque<Reply>>>,
    received: Mutex<Vec<Received>>,
    /// How many requests there were.
    count: watch::Sender<usize>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its query, without the question mark; empty if there is none.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// What to answer.
#[derive(Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    gate: Option<Gate>,
}

/// Holds answers back until it is opened.
#[derive(Clone, Default)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Receiver {
    /// Starts one on a port that is free.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_at("127.0.0.1:0").await
    }

    /// Starts one at an address of this machine.
    pub async fn start_at(address: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (address, inner) = (listener.local_addr()?, Arc::new(Inner::default()));
        let server = tokio::spawn(serve(listener, Arc::clone(&inner)));
        Ok(Self { address, inner, server })
    }

    /// The URL of a path here.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests for a path with these replies, one by one; the last one again and again.
    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.inner.replies).insert(path.to_owned(), replies.into_iter().collect());
    }

    /// What was sent to a path so far, in the order of arrival.
    pub fn received(&self, path: &str) -> Vec<Received> {
        lock(&self.inner.received).iter().filter(|request| request.path == path).cloned().collect()
    }

    /// All requests, once there are at least `count`.
    pub async fn wait_for_all(&self, count: usize) -> Vec<Received> {
        let mut all = self.inner.count.subscribe();
        let arrived = timeout(PATIENCE, all.wait_for(|received| *received >= count)).await.is_ok();
        assert!(arrived, "expected {count} requests");
        lock(&self.inner.received).clone()
    }

    /// What was sent to a path, once there were so many requests.
    pub async fn wait_for(&self, path: &str, count: usize) -> Vec<Received> {
        let mut all = self.inner.count.subscribe();
        let arrived = all.wait_for(|_| self.received(path).len() >= count);
        let arrived = timeout(PATIENCE, arrived).await.is_ok();
        let received = self.received(path);
        assert!(arrived, "expected {count} requests for {path}, and there were {}", received.len());
        received
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Received {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{:?} is not JSON: {error}", self.body))
    }

    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Reply {
    /// A bare status.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), gate: None }
    }

    /// The same, with a header more.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same, with a body.
    #[must_use]
    pub fn body(self, body: impl Into<String>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The same, but not before the gate is opened.
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
        response.body(Full::from(self.body)).expect("a reply that can be sent")
    }
}

impl Gate {
    /// Lets through what waits, and everything after it.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        // It cannot be closed: the sender is here.
        let _ = self.0.subscribe().wait_for(|is_open| *is_open).await;
    }
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        // Whoever hangs up in the middle is not heard.
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
            // That a client hung up, or was killed, is part of the stories.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
