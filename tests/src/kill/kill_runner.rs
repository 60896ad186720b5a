//! Run: starts and kills the program as planned, then lets it finish the rest, and collects the evidence.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::exchange::{Answer, exchange};
use crate::harness::{has_ended, moment};
use crate::kill::client::{self, Client, Load};
use crate::kill::history::History;
use crate::kill::ledger::Ledger;
use crate::kill::process_under_test::{CONCURRENCY, Subject};
use crate::kill::{Crash, Evidence, Place, Plan, Standing};

const CLIENTS: usize = 16;
/// Length of a life, in milliseconds.
const LIFE: std::ops::RangeInclusive<u64> = 50..=2_000;
/// Time between a request and the kill, in microseconds: short enough to hit the request's processing.
const LAST_MOMENT: std::ops::RangeInclusive<u64> = 0..=1_500;
/// Time between a request and the kill on a disk whose syncs take 10 ms, in microseconds.
const LAST_MOMENT_OF_DISK: std::ops::RangeInclusive<u64> = 0..=15_000;
/// If kills cut the power, one in this many lives ends before the program has started.
const INFANT_MORTALITY: u32 = 4;
/// Time until such an early kill, in milliseconds. A checkpoint takes most of the start.
const CHILDHOOD: std::ops::RangeInclusive<u64> = 10..=400;
/// Maximum wait for a request before the kill.
const QUIET: Duration = Duration::from_millis(100);

/// Carries out the plan with all files in `folder`, and returns the evidence.
pub async fn run(plan: Plan, folder: &Path) -> anyhow::Result<Evidence> {
    let ledger = Ledger::open(&folder.join("ledger.jsonl"), plan.seed).await?;
    let (alive, addresses) = watch::channel(Vec::new());
    let mut subject = Subject::new(plan, folder, alive).await?;
    let (turns, life) = watch::channel(None);
    let load = Arc::new(Load {
        history: History::create(&folder.join("history.jsonl"))?,
        addresses,
        url: ledger.url(),
        tasks: u64::try_from(plan.tasks)?,
        begun: AtomicU64::new(0),
        lives: u64::try_from(plan.ends)?,
        life,
    });
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| tokio::spawn(Client { number, load: Arc::clone(&load) }.run())).collect();
    let mut kills = Vec::new();
    for (number, fate) in (0..).zip(fates(plan)) {
        if let Some(moment) = fate.childhood {
            kills.push(subject.kill_while_starting(moment).await?);
            continue;
        }
        subject.start().await?;
        turns.send_replace(Some(client::Life { number, since: Instant::now(), length: fate.length }));
        sleep(fate.length).await;
        // The kill waits for a request, so that it always hits work in progress. The moment is still random.
        let _ = timeout(QUIET, load.history.invoked()).await;
        std::thread::sleep(fate.last_moment);
        kills.extend(subject.end_one(plan.how).await?);
    }
    let address = subject.start().await?;
    turns.send_replace(Some(client::Life {
        number: load.lives,
        since: Instant::now(),
        length: Duration::ZERO,
    }));
    for client in clients {
        client.await??;
    }
    let tasks = settle(address, subject.patience()).await?;
    subject.end_all().await?;
    let (history, executions, losses) = (load.history.events(), ledger.executions(), subject.losses());
    Ok(Evidence { history, executions, kills, tasks, concurrency: CONCURRENCY, losses })
}

/// Fate of one life.
struct Fate {
    /// Time of the kill if it comes before the program has started.
    childhood: Option<Duration>,
    length: Duration,
    last_moment: Duration,
}

fn fates(plan: Plan) -> Vec<Fate> {
    let mut chance = StdRng::seed_from_u64(plan.seed);
    let is_cut = matches!(plan.place, Place::Disk(_));
    let mut fate = || Fate {
        childhood: (is_cut && chance.random_ratio(1, INFANT_MORTALITY))
            .then(|| Duration::from_millis(chance.random_range(CHILDHOOD))),
        length: Duration::from_millis(chance.random_range(LIFE)),
        last_moment: Duration::from_micros(chance.random_range(if is_cut {
            LAST_MOMENT_OF_DISK
        } else {
            LAST_MOMENT
        })),
    };
    (0..plan.ends).map(|_| fate()).collect()
}

/// Returns all tasks once they have ended, or in their present state if they are stuck.
async fn settle(address: SocketAddr, patience: Duration) -> anyhow::Result<BTreeMap<String, Standing>> {
    let deadline = Instant::now() + patience;
    let mut tasks = BTreeMap::new();
    for mut task in list(address).await? {
        let path = format!("/v1/tasks/{}", text(&task, "id"));
        while !has_ended(&task) && Instant::now() < deadline {
            task = get(address, &format!("{path}?wait=5")).await?.json();
        }
        // The list omits attempts. A task with one attempt has no crash on record.
        if task["attempt"] != 1 {
            task = get(address, &path).await?.json();
        }
        tasks.insert(text(&task, "id"), standing(&task));
    }
    Ok(tasks)
}

async fn list(address: SocketAddr) -> anyhow::Result<Vec<Value>> {
    let (mut tasks, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(address, &format!("/v1/tasks?limit=100{cursor}")).await?.json();
        tasks.extend(page["data"].as_array().context("the list has no tasks")?.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(tasks),
        }
    }
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let answer = exchange(address, "GET", path, &[], "").await?;
    ensure!(answer.status == 200, "GET {path}: {}", answer.text());
    Ok(answer)
}

fn standing(task: &Value) -> Standing {
    let attempts = task["attempts"].as_array().into_iter().flatten();
    let crashed = attempts.filter(|attempt| attempt["outcome"] == "crashed").map(|attempt| Crash {
        attempt: attempt["number"].as_u64().unwrap_or_default(),
        from: moment(attempt, "started_at"),
        to: moment(attempt, "finished_at"),
    });
    Standing { status: text(task, "status"), crashed: crashed.collect() }
}

fn text(task: &Value, field: &str) -> String {
    task[field].as_str().unwrap_or_default().to_owned()
}
