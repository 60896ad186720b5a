//! Client that keeps submitting tasks while the program is killed, and records what it saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::harness::exchange::{ExchangeError, exchange};
use crate::kill::history::{History, What};

/// State that the clients share.
pub struct Load {
    /// History of all clients.
    pub history: History,
    /// Addresses on which instances of the program listen now.
    pub addresses: watch::Receiver<Vec<SocketAddr>>,
    /// URL that the tasks call.
    pub url: String,
    /// Number of tasks to submit.
    pub tasks: u64,
    /// Number of tasks that clients have started to submit.
    pub begun: AtomicU64,
    /// Number of lives of the program over which the tasks are spread.
    pub lives: u64,
    /// Current life of the program, once it runs.
    pub life: watch::Receiver<Option<Life>>,
}

/// One life of the program, between a start and a kill.
#[derive(Clone, Copy)]
pub struct Life {
    /// Number of the life.
    pub number: u64,
    /// Time when the program began to listen.
    pub since: Instant,
    /// Planned length of the life.
    pub length: Duration,
}

/// Client.
pub struct Client {
    /// Number of the client.
    pub number: usize,
    /// State that the clients share.
    pub load: Arc<Load>,
}

/// Maximum wait for a change of addresses after a failed request.
const PAUSE: Duration = Duration::from_millis(100);

impl Client {
    /// Submits tasks until all have been submitted.
    pub async fn run(self) -> anyhow::Result<()> {
        loop {
            let key = self.load.begun.fetch_add(1, Ordering::Relaxed);
            if key >= self.load.tasks {
                return Ok(());
            }
            self.turn(key).await?;
            self.submit(key).await?;
        }
    }

    /// Waits until this task is to be submitted. The tasks are spread evenly over each life. Tasks that a
    /// life did not get to are submitted in the next one.
    async fn turn(&self, key: u64) -> anyhow::Result<()> {
        let (place, tasks) = (key * self.load.lives, self.load.tasks);
        let mut life = self.load.life.clone();
        loop {
            let Life { number, since, length } =
                life.wait_for(Option::is_some).await?.context("no life of the program has begun")?;
            let ahead = u32::try_from(place.saturating_sub(number * tasks))?;
            tokio::select! {
                () = sleep_until(since + length * ahead / u32::try_from(tasks)?) => return Ok(()),
                changed = life.changed() => changed?,
            }
        }
    }

    /// Submits a task until its fate is known. Half of the tasks have no idempotency key; a lost answer ends
    /// the attempts for these.
    async fn submit(&self, key: u64) -> anyhow::Result<()> {
        let mut addresses = self.load.addresses.clone();
        loop {
            let address = self.choose(&addresses.wait_for(|alive| !alive.is_empty()).await?, key);
            self.note(key, What::Invoke)?;
            let what = self.post(address, key).await?;
            self.note(key, what.clone())?;
            match what {
                What::Ok { .. } => return Ok(()),
                What::Unknown if !is_keyed(key) => return Ok(()),
                What::Invoke | What::Fail | What::Unknown => {}
            }
            // Usually the program is dead and will listen elsewhere. Otherwise the client retries at the same
            // address.
            let _ = timeout(PAUSE, addresses.wait_for(|alive| !alive.contains(&address))).await;
        }
    }

    fn choose(&self, alive: &[SocketAddr], key: u64) -> SocketAddr {
        alive[(self.number + usize::try_from(key).unwrap_or(0)) % alive.len()]
    }

    async fn post(&self, address: SocketAddr, key: u64) -> anyhow::Result<What> {
        let task = json!({
            "kind": "http",
            "payload": {"url": self.load.url, "body": {"key": key}},
            // Enough attempts for a task that meets one kill after another.
            "retry": {"max_attempts": 50, "initial_delay": 0.1, "max_delay": 2},
        });
        let idempotency_key = format!("work-{key}");
        let headers: &[_] =
            if is_keyed(key) { &[("idempotency-key", idempotency_key.as_str())] } else { &[] };
        match exchange(address, "POST", "/v1/tasks", headers, &task.to_string()).await {
            Ok(answer) if answer.status == 202 => {
                let task = answer.json()["id"].as_str().unwrap_or_default().to_owned();
                Ok(What::Ok { task })
            }
            // The client cannot know which part of a request with a 5xx answer was carried out.
            Ok(answer) if answer.status >= 500 => Ok(What::Unknown),
            Ok(answer) => anyhow::bail!("a task was refused: {}", answer.text()),
            Err(ExchangeError::NotSent(_)) => Ok(What::Fail),
            Err(ExchangeError::Unanswered(_)) => Ok(What::Unknown),
        }
    }

    fn note(&self, key: u64, what: What) -> std::io::Result<()> {
        self.load.history.note(self.number, key, what)
    }
}

/// Returns true for every other piece of work: it is submitted with an idempotency key.
fn is_keyed(key: u64) -> bool {
    key.is_multiple_of(2)
}
