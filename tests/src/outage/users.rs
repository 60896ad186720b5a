//! Those who submit tasks and wait for them to end, one every moment, whatever becomes of those before them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::world::exchange::{Answer, exchange};
use crate::world::{has_ended, path};

/// The users, and what they have seen so far.
pub struct Users {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    arrivals: JoinHandle<()>,
}

/// What users saw.
#[derive(Default)]
struct Seen {
    /// The tasks that were answered with 202.
    accepted: Vec<Value>,
    /// When users came.
    came: Vec<Instant>,
    /// When users were shown the ends of their tasks.
    served: Vec<Instant>,
    /// When users were told to come again, and how long they had waited for that.
    refused: Vec<(Instant, Duration)>,
    /// What should not have been.
    wrong: Vec<String>,
}

/// How long a user waits for the end of a task, in seconds.
const WAIT: u64 = 15;
/// How long an answer may take that is not held: two calls, of which each has its 5 seconds.
pub const LIMIT: Duration = Duration::from_secs(10);
/// What is granted beyond that to a machine that has other things to do.
const SLACK: Duration = Duration::from_secs(3);

impl Users {
    /// Lets so many come in a second.
    pub fn start(address: SocketAddr, rate: u32) -> Self {
        let (seen, stop) = (Arc::default(), CancellationToken::new());
        let arrivals = tokio::spawn(arrive(address, rate, Arc::clone(&seen), stop.clone()));
        Self { address, seen, stop, arrivals }
    }

    /// How many users a second were shown the ends of their tasks, of late.
    ///
    /// No more than came: what was left waiting by a fault is made up for afterwards, and is no measure for anything.
    pub fn rate(&self, last: Duration) -> f64 {
        let seen = lock(&self.seen);
        let count = |moments: &[Instant]| moments.iter().rev().take_while(|at| at.elapsed() <= last).count();
        let count = count(&seen.served).min(count(&seen.came));
        f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / last.as_secs_f64()
    }

    /// How many users were told to come again since then, and the longest that one of them has waited for that.
    pub fn refused_since(&self, since: Instant) -> (usize, Duration) {
        let seen = lock(&self.seen);
        let refused = seen.refused.iter().filter(|(at, _)| *at >= since);
        refused.fold((0, Duration::ZERO), |(count, longest), (_, waited)| (count + 1, longest.max(*waited)))
    }

    /// One more, with several tasks at once that are due later.
    pub async fn submit_for_later(&self, count: usize, delay: Duration) {
        let task = json!({"kind": "noop", "delay": delay.as_secs()});
        let batch = json!({"tasks": vec![task; count]}).to_string();
        let user = User { address: self.address, seen: Arc::clone(&self.seen) };
        if let Some(answer) = user.ask("POST", "/v1/tasks/batch", &batch, LIMIT).await {
            let tasks = answer.json()["data"].take();
            lock(&self.seen).accepted.extend(tasks.as_array().into_iter().flatten().cloned());
        }
    }

    /// Lets nobody come any more, waits until the last has gone, and returns the tasks that were accepted and all that was wrong.
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

/// One of them.
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
        let Some(answer) = self.ask("GET", &watch, "", LIMIT + Duration::from_secs(WAIT)).await else { return };
        if has_ended(&answer.json()) {
            lock(&self.seen).served.push(Instant::now());
        }
    }

    /// The answer, if it is a good one. The only other that there may be is 503, which says when to come again.
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
            Ok(answer) if answer.status == 503 && answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0) => {
                seen.refused.push((Instant::now(), took));
            }
            Ok(answer) => seen.wrong.push(format!("{method} {path}: {} {:?} {}", answer.status, answer.headers, answer.text())),
            Err(error) => seen.wrong.push(format!("{method} {path}: {error}")),
        }
        None
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
