//! Server that the tasks call. It records every call on disk before it answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nobat_core::types::time::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::kill::{Durability, Record, now};

/// One call.
#[derive(Clone, Debug, Serialize)]
pub struct Execution {
    /// Time when the call was recorded.
    pub at: Timestamp,
    /// Key of the piece of work.
    pub key: u64,
    /// Id of the task that made the call.
    pub task: String,
    /// Number of the task's attempt.
    pub attempt: u64,
}

/// Running ledger.
pub struct Ledger {
    address: SocketAddr,
    book: Arc<Book>,
    server: JoinHandle<()>,
}

struct Book {
    record: Record,
    executions: Mutex<Vec<Execution>>,
    chance: Mutex<StdRng>,
}

#[derive(Deserialize)]
struct Order {
    key: u64,
}

/// Maximum duration of a call, long enough that some call is in progress at each kill.
const LONGEST_WORK: Duration = Duration::from_millis(100);

impl Ledger {
    /// Starts a ledger.
    pub async fn open(path: &Path, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let chance = Mutex::new(StdRng::seed_from_u64(seed));
        let book = Arc::new(Book { record: Record::create(path)?, executions: Mutex::default(), chance });
        let server = tokio::spawn(serve(listener, Arc::clone(&book)));
        Ok(Self { address, book, server })
    }

    /// Returns the URL that tasks call.
    pub fn url(&self) -> String {
        format!("http://{}/work", self.address)
    }

    /// Returns all calls so far.
    pub fn executions(&self) -> Vec<Execution> {
        self.book.executions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Book {
    async fn record_call(self: &Arc<Self>, request: Request<Incoming>) -> anyhow::Result<()> {
        let (head, body) = request.into_parts();
        let header = |name: &str| {
            head.headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .context("a header of the call is missing")
        };
        let (task, attempt) = (header("nobat-task-id")?.to_owned(), header("nobat-attempt")?.parse()?);
        ensure!(header("idempotency-key")? == task, "the idempotency key is not the task's id");
        let Order { key } = serde_json::from_slice(&body.collect().await?.to_bytes())?;
        let book = Arc::clone(self);
        spawn_blocking(move || book.write(key, task, attempt)).await??;
        Ok(())
    }

    fn write(&self, key: u64, task: String, attempt: u64) -> std::io::Result<()> {
        let mut executions = self.executions.lock().unwrap_or_else(PoisonError::into_inner);
        let execution = Execution { at: now(), key, task, attempt };
        self.record.write(&execution, Durability::OnDisk)?;
        executions.push(execution);
        Ok(())
    }

    async fn work(&self) {
        let share: f64 = self.chance.lock().unwrap_or_else(PoisonError::into_inner).random();
        tokio::time::sleep(LONGEST_WORK.mul_f64(share)).await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = Response::default();
        match self.record_call(request).await {
            Ok(()) => self.work().await,
            Err(error) => {
                *response.status_mut() = StatusCode::BAD_REQUEST;
                *response.body_mut() = Full::from(error.to_string());
            }
        }
        response
    }
}

async fn serve(listener: TcpListener, book: Arc<Book>) {
    while let Ok((stream, _)) = listener.accept().await {
        let book = Arc::clone(&book);
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let book = Arc::clone(&book);
                async { Ok::<_, Infallible>(book.answer(request).await) }
            });
            // A connection breaks whenever the program is killed.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
