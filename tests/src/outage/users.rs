//! Users who submit tasks at a steady rate and wait for their ends, independently of each other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::harness::exchange::{Answer, exchange};
use crate::harness::{has_ended, path};

/// Users, and their observations so far.
pub struct Users {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    arrivals: JoinHandle<()>,
}

/// Observations of the users.
#[derive(Default)]
struct Seen {
    /// Tasks that were answered with 202.
    accepted: Vec<Value>,
    /// Times when users came.
    came: Vec<Instant>,
    /// Times when users saw the end of their task.
    served: Vec<Instant>,
    /// Times when users got a 503, and how long they had waited for it.
    refused: Vec<(Instant, Duration)>,
    /// Violations, in words.
    wrong: Vec<String>,
}

/// Seconds for which a user waits for the end of a task.
const WAIT: u64 = 15;
/// Maximum duration of an answer without `?wait=`: two calls to AWS of up to 5 seconds each.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Extra time for a busy machine.
const SLACK: Duration = Duration::from_secs(3);

impl Users {
    /// Starts users at `rate` per second.
    pub fn start(address: SocketAddr, rate: u32) -> Self {
        let (seen, stop) = (Arc::default(), CancellationToken::new());
        let arrivals = tokio::spawn(arrive(address, rate, Arc::clone(&seen), stop.clone()));
        Self { address, seen, stop, arrivals }
    }

    /// Returns the number of users per second who saw the end of their task within the time `last`.
    ///
    /// It is at most the number of users who came. Tasks that a fault delayed end afterwards and would
    /// inflate the rate.
    pub fn rate(&self, last: Duration) -> f64 {
        let seen = lock(&self.seen);
        let count = |moments: &[Instant]| moments.iter().rev().take_while(|at| at.elapsed() <= last).count();
        let count = count(&seen.served).min(count(&seen.came));
        f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / last.as_secs_f64()
    }

    /// Returns the number of users who got a 503 since then, and the longest wait for it.
    pub fn refused_since(&self, since: Instant) -> (usize, Duration) {
        let seen = lock(&self.seen);
        let refused = seen.refused.iter().filter(|(at, _)| *at >= since);
        refused.fold((0, Duration::ZERO), |(count, longest), (_, waited)| (count + 1, longest.max(*waited)))
    }

    /// Submits `count` tasks in one batch, due after `delay`.
    pub async fn submit_for_later(&self, count: usize, delay: Duration) {
        let task = json!({"kind": "noop", "delay": delay.as_secs()});
        let batch = json!({"tasks": vec![task; count]}).to_string();
        let user = User { address: self.address, seen: Arc::clone(&self.seen) };
        if let Some(answer) = user.ask("POST", "/v1/tasks/batch", &batch, LIMIT).await {
            let tasks = answer.json()["data"].take();
            lock(&self.seen).accepted.extend(tasks.as_array().into_iter().flatten().cloned());
        }
    }

    /// Stops new users, waits for the last one, and returns the accepted tasks and the violations.
    pub async fn stop(self) -> anyhow::Result<(Vec<Value>, Vec<String>)> {
        self.stop.cancel();
        self.arrivals.await?;
        let seen = std::mem::take(&mut *lock(&self.seen));
        Ok((seen.accepted, seen.wrong))
    }
}

async fn arrive(address: SocketAddr, rate: u32, seen: Arc<Mutex<Seen>>, stop: CancellationToken) {
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut users = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {
                let user = User { address, seen: Arc::clone(&seen) };
                users.spawn(async move { user.run().await });
            }
            Some(_) = users.join_next() => {}
        }
    }
    users.join_all().await;
}

/// One user.
struct User {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl User {
    async fn run(self) {
        lock(&self.seen).came.push(Instant::now());
        let Some(answer) = self.ask("POST", "/v1/tasks", r#"{"kind":"noop"}"#, LIMIT).await else { return };
        let task = answer.json();
        lock(&self.seen).accepted.push(task.clone());
        let watch = format!("{}?wait={WAIT}", path(&task));
        let Some(answer) = self.ask("GET", &watch, "", LIMIT + Duration::from_secs(WAIT)).await else {
            return;
        };
        if has_ended(&answer.json()) {
            lock(&self.seen).served.push(Instant::now());
        }
    }

    /// Returns the answer if its status is 200 or 202. The only other permitted answer is a 503 with a
    /// positive `retry-after`.
    async fn ask(&self, method: &str, path: &str, body: &str, limit: Duration) -> Option<Answer> {
        let asked = Instant::now();
        let answer = exchange(self.address, method, path, &[], body).await;
        let took = asked.elapsed();
        let mut seen = lock(&self.seen);
        if took > limit + SLACK {
            seen.wrong.push(format!("{method} {path} took {took:?}"));
        }
        match answer {
            Ok(answer) if matches!(answer.status, 200 | 202) => return Some(answer),
            Ok(answer)
                if answer.status == 503
                    && answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0) =>
            {
                seen.refused.push((Instant::now(), took));
            }
            Ok(answer) => seen.wrong.push(format!(
                "{method} {path}: {} {:?} {}",
                answer.status,
                answer.headers,
                answer.text()
            )),
            Err(error) => seen.wrong.push(format!("{method} {path}: {error}")),
        }
        None
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
