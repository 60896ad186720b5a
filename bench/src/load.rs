//! Load generator: a number of connections, each with one request at a time.
//!
//! Requests are prepared in advance and responses are parsed as little as possible, so that the generator
//! uses little CPU time.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// End of the load.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After this duration.
    Elapsed(Duration),
    /// After this number of requests.
    Sent(usize),
}

/// Result of a load.
pub(crate) struct Load {
    /// Number of requests that were answered with 202.
    pub(crate) accepted: usize,
    /// Time from the first request to the last response.
    pub(crate) elapsed: Duration,
    /// 99th percentile of the request durations.
    pub(crate) p99: Duration,
}

impl Load {
    /// Returns the number of accepted requests per second.
    pub(crate) fn rate(&self) -> f64 {
        per_second(self.accepted, self.elapsed)
    }
}

/// Returns the rate per second.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no exact number")]
pub(crate) fn per_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// Sends the same request as fast as the server accepts it.
pub(crate) async fn post(
    address: SocketAddr,
    connections: usize,
    request: &str,
    until: Until,
) -> anyhow::Result<Load> {
    let request: Rc<str> = request.into();
    let begun = Instant::now();
    let left = Rc::new(Cell::new(match until {
        Until::Sent(count) => count,
        Until::Elapsed(_) => usize::MAX,
    }));
    let end = match until {
        Until::Elapsed(duration) => Some(begun + duration),
        Until::Sent(_) => None,
    };
    let here = LocalSet::new();
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (request, left) = (Rc::clone(&request), Rc::clone(&left));
            here.spawn_local(async move {
                let mut connection = Connection::open(address).await?;
                let mut latencies = Vec::new();
                while left.get() > 0 && end.is_none_or(|end| Instant::now() < end) {
                    left.set(left.get() - 1);
                    let sent = Instant::now();
                    ensure!(
                        connection.exchange(&request).await?.0 == 202,
                        "the server did not accept a request"
                    );
                    latencies.push(sent.elapsed());
                }
                Ok::<_, anyhow::Error>(latencies)
            })
        })
        .collect();
    let mut latencies = here
        .run_until(async {
            let mut all = Vec::new();
            for worker in workers {
                all.extend(worker.await??);
            }
            Ok::<_, anyhow::Error>(all)
        })
        .await?;
    let elapsed = begun.elapsed();
    Ok(Load { accepted: latencies.len(), elapsed, p99: percentile(&mut latencies, 99) })
}

/// Returns the value that `percent` of 100 values do not exceed. Sorts the values.
pub(crate) fn percentile<T: Ord + Copy + Default>(values: &mut [T], percent: usize) -> T {
    values.sort_unstable();
    values.get((values.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

/// Returns a request that submits a task.
pub(crate) fn task(body: &str) -> String {
    request("/v1/tasks", body)
}

/// Returns a request that publishes an event.
pub(crate) fn event(body: &str) -> String {
    request("/v1/events", body)
}

fn request(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A persistent connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024] })
    }

    /// Sends a request. Returns the status and the body of the response.
    pub(crate) async fn exchange(&mut self, request: &str) -> anyhow::Result<(u16, &str)> {
        self.stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the server closed the connection");
            filled += read;
            if let Some((status, body)) = complete(&self.buffer[..filled])? {
                return Ok((status, std::str::from_utf8(&self.buffer[body..filled])?));
            }
        }
    }
}

/// Returns the status and the start of the body once the response is complete.
fn complete(answer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end])?;
    let status = head.get(9..12).context("the response has no status")?.parse()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let body = end + 4;
    Ok((answer.len() - body >= length.context("the response has no content-length")?)
        .then_some((status, body)))
}
