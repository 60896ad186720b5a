//! Quiet tenant: a steady, modest rate of submissions, reads and deliveries, each measured.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::harness::exchange::{Answer, exchange};
use crate::harness::{attempts, path};

/// Rounds per second. Each is a submission, a read of its task, and a delivery.
const RATE: u32 = 40;
/// Maximum time of a delivery before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tenant with its own endpoint.
pub struct Quiet {
    server: SocketAddr,
    authorization: String,
    url: String,
    /// File on the server's disk.
    probe: PathBuf,
    arrivals: Arc<Arrivals>,
    next: AtomicU64,
    /// Paths of the accepted tasks.
    accepted: Mutex<Vec<String>>,
}

/// Deliveries that are awaited, by number.
type Arrivals = Mutex<HashMap<u64, oneshot::Sender<Instant>>>;

/// Latencies of one measurement, as 99th percentiles.
#[derive(Debug, Default)]
pub struct Figures {
    /// Time from the first byte of a `POST` to its 202, on a new connection each time.
    pub submit: Duration,
    /// Time from the first byte of a `GET` of the task to its 200, on a new connection each time.
    pub read: Duration,
    /// Time from the 202 to the arrival at the endpoint.
    pub delivery: Duration,
    /// Delay of a thread's wake-up in this process: the wait that the machine alone adds to a request.
    pub wake_up: Duration,
    /// Duration of a 4 KiB write and its `fdatasync` in this process: the wait that the disk alone adds to a
    /// submission.
    pub disk: Duration,
    /// Number of measured rounds.
    pub rounds: usize,
    /// Requests with an unexpected answer, and deliveries that did not come.
    pub failures: Vec<String>,
}

/// Latencies of one round.
#[derive(Clone, Copy)]
struct Round {
    submit: Duration,
    read: Duration,
    delivery: Duration,
}

impl Quiet {
    /// Starts the endpoint, which the server calls by the name `host`. `folder` is on the server's disk.
    pub async fn start(server: SocketAddr, key: &str, host: &str, folder: &Path) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{host}:{}", listener.local_addr()?.port());
        let arrivals = Arc::<Arrivals>::default();
        tokio::spawn(receive(listener, Arc::clone(&arrivals)));
        let authorization = format!("Bearer {key}");
        Ok(Self {
            server,
            authorization,
            url,
            probe: folder.join("probe"),
            arrivals,
            next: AtomicU64::new(0),
            accepted: Mutex::default(),
        })
    }

    /// Runs rounds for `time`, and returns the latencies once all deliveries have come.
    pub async fn measure(&self, time: Duration) -> anyhow::Result<Figures> {
        let mut ticks = interval(Duration::from_secs(1) / RATE);
        // A slow server must not get fewer requests.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (begun, mut rounds, mut running) = (Instant::now(), Vec::new(), FuturesUnordered::new());
        let lateness = std::thread::spawn(move || lateness(time));
        let probe = self.probe.clone();
        let syncs = std::thread::spawn(move || syncs(&probe, time));
        while begun.elapsed() < time {
            tokio::select! {
                _ = ticks.tick() => running.push(self.round()),
                Some(round) = running.next() => rounds.push(round),
            }
        }
        rounds.extend(running.collect::<Vec<_>>().await);
        let wake_up = lateness.join().map_err(|_| anyhow!("a measuring thread panicked"))?;
        let disk = syncs.join().map_err(|_| anyhow!("a measuring thread panicked"))??;
        Ok(Figures { wake_up, disk, ..figures(rounds) })
    }

    async fn round(&self) -> Result<Round, String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, arrival) = oneshot::channel();
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sender);
        let payload = json!({"url": format!("{}/{number}", self.url), "body": {"number": number}});
        let task = json!({"kind": "http", "payload": payload, "timeout": 10}).to_string();
        let (submit, task) = self.ask("POST", "/v1/tasks", &task, 202).await?;
        let accepted = Instant::now();
        let path = path(&task.json());
        let (read, _) = self.ask("GET", &path, "", 200).await?;
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).push(path);
        let delivery =
            timeout(PATIENCE, arrival).await.map_err(|_| format!("delivery {number} did not arrive"))?;
        let arrived = delivery.map_err(|error| error.to_string())?;
        Ok(Round { submit, read, delivery: arrived.saturating_duration_since(accepted) })
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: &str,
        expected: u16,
    ) -> Result<(Duration, Answer), String> {
        let sent = Instant::now();
        let answer =
            exchange(self.server, method, path, &[("authorization", &self.authorization)], body).await;
        let answer = answer.map_err(|error| format!("{method}: {error}"))?;
        if answer.status == expected {
            Ok((sent.elapsed(), answer))
        } else {
            Err(format!("{method}: {} {}", answer.status, answer.text()))
        }
    }

    /// Returns the accepted tasks that did not succeed at their first attempt.
    pub async fn harmed(&self) -> Vec<String> {
        let paths = std::mem::take(&mut *self.accepted.lock().unwrap_or_else(PoisonError::into_inner));
        let mut harmed = Vec::new();
        for path in paths {
            match self.ask("GET", &format!("{path}?wait=20"), "", 200).await {
                Ok((_, task)) => {
                    let task = task.json();
                    if task["status"] != "succeeded" || attempts(&task, "/outcome").len() != 1 {
                        harmed.push(format!(
                            "{path}: {} with {:?}",
                            task["status"],
                            attempts(&task, "/error/code")
                        ));
                    }
                }
                Err(error) => harmed.push(error),
            }
        }
        harmed
    }
}

/// Returns the 99th percentile of the delay of a thread's wake-up. The thread sleeps for 1 ms repeatedly.
fn lateness(time: Duration) -> Duration {
    const PAUSE: Duration = Duration::from_millis(1);
    let (begun, mut late) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let asked = Instant::now();
        std::thread::sleep(PAUSE);
        late.push(asked.elapsed().saturating_sub(PAUSE));
    }
    p99(late)
}

/// Returns the 99th percentile of the duration of a 4 KiB write and its `fdatasync`. It writes as often as
/// the tenant submits.
fn syncs(path: &Path, time: Duration) -> std::io::Result<Duration> {
    let mut file = File::create(path)?;
    let (begun, mut taken) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let started = Instant::now();
        file.rewind()?;
        file.write_all(&[0; 4_096])?;
        file.sync_data()?;
        taken.push(started.elapsed());
        std::thread::sleep((Duration::from_secs(1) / RATE).saturating_sub(started.elapsed()));
    }
    Ok(p99(taken))
}

/// Returns the 99th percentile. Zero if there are no times.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

fn figures(rounds: Vec<Result<Round, String>>) -> Figures {
    let total = rounds.len();
    let (mut measured, mut failures) = (Vec::new(), Vec::new());
    for round in rounds {
        match round {
            Ok(round) => measured.push(round),
            Err(failure) => failures.push(failure),
        }
    }
    let of = |part: fn(&Round) -> Duration| p99(measured.iter().map(part).collect());
    let (submit, read, delivery) =
        (of(|round| round.submit), of(|round| round.read), of(|round| round.delivery));
    Figures { submit, read, delivery, rounds: total, failures, ..Figures::default() }
}

/// Records the arrival of each delivery. It closes the connection after each, so that every delivery needs a
/// new one.
async fn receive(listener: TcpListener, arrivals: Arc<Arrivals>) {
    while let Ok((stream, _)) = listener.accept().await {
        let arrivals = Arc::clone(&arrivals);
        let answer = service_fn(move |request: Request<Incoming>| {
            let number = request.uri().path().trim_start_matches('/').parse::<u64>();
            let waiting = number
                .ok()
                .and_then(|number| arrivals.lock().unwrap_or_else(PoisonError::into_inner).remove(&number));
            if let Some(waiting) = waiting {
                let _ = waiting.send(Instant::now());
            }
            let answer =
                Response::builder().header("connection", "close").body(Full::new(Bytes::from_static(b"ok")));
            async { Ok::<_, Infallible>(answer.expect("the response is valid")) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}
