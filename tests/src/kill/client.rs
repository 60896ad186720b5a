//! A client that submits tasks whatever becomes of the program, and notes what it saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::kill::history::{History, What};
use crate::world::exchange::{ExchangeError, exchange};

/// What the clients share.
pub struct Load {
    /// What they note things in.
    pub history: History,
    /// Where copies of the program listen at the moment.
    pub addresses: watch::Receiver<Vec<SocketAddr>>,
    /// What the tasks are to call.
    pub url: String,
    /// How many tasks there are to be.
    pub tasks: u64,
    /// How many of them were begun with.
    pub begun: AtomicU64,
    /// How many lives of the program they are spread over.
    pub lives: u64,
    /// Which of them it is in, once there is one.
    pub life: watch::Receiver<Option<Life>>,
}

/// One of the program's lives.
#[derive(Clone, Copy)]
pub struct Life {
    /// Its number.
    pub number: u64,
    /// When the program began to listen.
    pub since: Instant,
    /// How long it is to go on.
    pub length: Duration,
}

/// One of the clients.
pub struct Client {
    /// Its number.
    pub number: usize,
    /// What it shares with the others.
    pub load: Arc<Load>,
}

/// How long a client waits for news after a request that came to nothing.
const PAUSE: Duration = Duration::from_millis(100);

impl Client {
    /// Submits tasks until all have been.
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

    /// Waits for the moment at which a task is to be submitted: they go on evenly for as long as a life does, and what a life did not
    /// come to is left to the next.
    async fn turn(&self, key: u64) -> anyhow::Result<()> {
        let (place, tasks) = (key * self.load.lives, self.load.tasks);
        let mut life = self.load.life.clone();
        loop {
            let Life { number, since, length } = life.wait_for(Option::is_some).await?.context("a life")?;
            let ahead = u32::try_from(place.saturating_sub(number * tasks))?;
            tokio::select! {
                () = sleep_until(since + length * ahead / u32::try_from(tasks)?) => return Ok(()),
                changed = life.changed() => changed?,
            }
        }
    }

    /// Submits a task until it is known what came of it. Half of them have no idempotency key; of those a lost answer is the end.
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
            // As a rule the program is dead, and will listen elsewhere; if not, it is asked again where it was.
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
            // Enough attempts for a task that is met by one kill after the other.
            "retry": {"max_attempts": 50, "base": 0.1, "max": 2},
        });
        let idempotency_key = format!("work-{key}");
        let headers: &[_] = if is_keyed(key) { &[("idempotency-key", idempotency_key.as_str())] } else { &[] };
        match exchange(address, "POST", "/v1/tasks", headers, &task.to_string()).await {
            Ok(answer) if answer.status == 202 => {
                let task = answer.json()["id"].as_str().unwrap_or_default().to_owned();
                Ok(What::Ok { task })
            }
            // What a 5xx was carried out of is not known.
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

/// Every other piece of work has an idempotency key.
fn is_keyed(key: u64) -> bool {
    key.is_multiple_of(2)
}
