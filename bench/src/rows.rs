//! Rows of the table.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::bullmq::BullMq;
use crate::load::{self, Connection, Load, Until, per_second, percentile};
use crate::nobat_server::nanoseconds;
use crate::process::{Disk, Server};

/// Selection and settings of the measurements.
pub(crate) struct Runs {
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    pub(crate) million: bool,
    pub(crate) slow_disk: bool,
    pub(crate) bullmq: bool,
    pub(crate) data: PathBuf,
}

/// Loads that are compared within one round.
struct Round {
    limit: Load,
    accepts: Load,
    working: Load,
}

const NOOP: &str = r#"{"kind":"noop"}"#;
const EVENT: &str = r#"{"type":"order.created","data":{"order_id":7}}"#;
const STAMP: &str = r#"{"kind":"stamp"}"#;
/// Concurrency that runs tasks as fast as they arrive.
const WORKERS: &str = "128";
/// Concurrency of a server that only accepts tasks.
const NO_WORKERS: &str = "0";
const HAND_OVERS: usize = 2_000;

impl Runs {
    /// Measures everything and prints the table row by row.
    pub(crate) async fn print(&self) -> anyhow::Result<()> {
        println!("| measurement | result | ratio to the limit | target |");
        println!("|---|---|---|---|");
        for connections in [64, 256] {
            self.rates(connections, Disk::Plain).await?;
        }
        self.events().await?;
        let limit = self.limit(Disk::Plain).await?;
        let small = self.done(20_000, limit, Disk::Plain).await?;
        if self.million {
            let large = self.done(1_000_000, limit, Disk::Plain).await?;
            row(
                "1,000,000 tasks against 20,000",
                &format!("{:.2} times as fast", large / small),
                "",
                "1 or more",
            );
        }
        self.hand_over().await?;
        if self.bullmq {
            self.bullmq().await?;
        }
        if self.slow_disk {
            println!("| **with 1 ms more for each sync** | | | |");
            self.rates(64, Disk::Slow).await?;
            let limit = self.limit(Disk::Slow).await?;
            self.done(20_000, limit, Disk::Slow).await?;
        }
        Ok(())
    }

    async fn rates(&self, connections: usize, disk: Disk) -> anyhow::Result<()> {
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            // Measured right after one another, so that drift of the machine affects all three.
            rounds.push(Round {
                limit: self.rate(disk, &["limit"], connections).await?,
                accepts: self.rate(disk, &["nobat", NO_WORKERS], connections).await?,
                working: self.rate(disk, &["nobat", WORKERS], connections).await?,
            });
        }
        let share = |part: fn(&Round) -> &Load| {
            median(rounds.iter().map(|round| part(round).rate() / round.limit.rate()).collect())
        };
        let rate = |part: fn(&Round) -> &Load| {
            let p99 = median(rounds.iter().map(|round| part(round).p99.as_secs_f64() * 1e3).collect());
            format!(
                "{:.0}/s, p99 {p99:.1} ms",
                median(rounds.iter().map(|round| part(round).rate()).collect())
            )
        };
        row(&format!("the limit, {connections} connections"), &rate(|round| &round.limit), "1", "");
        let accepts = format!("{:.2}", share(|round| &round.accepts));
        row(
            &format!("durable accepts, {connections} connections"),
            &rate(|round| &round.accepts),
            &accepts,
            "0.75; p99 10 ms at 64",
        );
        let working = format!("{:.2}", share(|round| &round.working));
        row(
            &format!("the same while working, {connections} connections"),
            &rate(|round| &round.working),
            &working,
            "0.5",
        );
        Ok(())
    }

    /// Compares the rate of publishing events with that of submitting tasks.
    async fn events(&self) -> anyhow::Result<()> {
        let (mut rates, mut shares) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let tasks = self.rate(Disk::Plain, &["nobat", NO_WORKERS], 64).await?.rate();
            let server = Server::start(&self.data, Disk::Plain, &["nobat", NO_WORKERS])?;
            let until = Until::Elapsed(Duration::from_secs(self.seconds));
            let events = load::post(server.address, 64, &load::event(EVENT), until).await?.rate();
            rates.push(events);
            shares.push(events / tasks);
        }
        row(
            "published events, 64 connections",
            &format!("{:.0}/s", median(rates)),
            &format!("{:.2} of durable accepts", median(shares)),
            "0.5 of durable accepts",
        );
        Ok(())
    }

    async fn rate(&self, disk: Disk, server: &[&str], connections: usize) -> anyhow::Result<Load> {
        let server = Server::start(&self.data, disk, server)?;
        load::post(
            server.address,
            connections,
            &load::task(NOOP),
            Until::Elapsed(Duration::from_secs(self.seconds)),
        )
        .await
    }

    async fn limit(&self, disk: Disk) -> anyhow::Result<f64> {
        Ok(self.rate(disk, &["limit"], 64).await?.rate())
    }

    /// Submits `tasks` tasks as fast as the server accepts them, and waits until the last is done.
    async fn done(&self, tasks: usize, limit: f64, disk: Disk) -> anyhow::Result<f64> {
        let mut rates = Vec::new();
        let mut memory = 0;
        for _ in 0..if tasks > 100_000 { 1 } else { self.rounds } {
            let server = Server::start(&self.data, disk, &["nobat", WORKERS])?;
            let begun = Instant::now();
            load::post(server.address, 64, &load::task(NOOP), Until::Sent(tasks)).await?;
            // Tasks run in the order in which they are due. When the last one is done, only running ones are
            // left.
            let mut connection = Connection::open(server.address).await?;
            run_stamp(&mut connection).await?;
            while connection.exchange(&list("running")).await?.1.contains("task_") {}
            rates.push(per_second(tasks, begun.elapsed()));
            memory = server.peak_memory()?;
        }
        let rate = median(rates);
        let name = format!("accept → done, {tasks} tasks");
        row(
            &name,
            &format!("{rate:.0}/s, {memory} MiB at most"),
            &format!("{:.2}", rate / limit),
            "0.5; 64 MiB",
        );
        Ok(rate)
    }

    async fn bullmq(&self) -> anyhow::Result<()> {
        let mut rates = Vec::new();
        for _ in 0..self.rounds {
            let bullmq = BullMq::start(&self.data, 0)?;
            rates.push(
                load::post(
                    bullmq.address,
                    64,
                    &load::task(NOOP),
                    Until::Elapsed(Duration::from_secs(self.seconds)),
                )
                .await?
                .rate(),
            );
        }
        row(
            "durable BullMQ: accepts, 64 connections",
            &format!("{:.0}/s", median(rates)),
            "",
            "at most half of nobat",
        );
        let mut rates = Vec::new();
        for _ in 0..self.rounds {
            let bullmq = BullMq::start(&self.data, 128)?;
            let begun = Instant::now();
            load::post(bullmq.address, 64, &load::task(NOOP), Until::Sent(20_000)).await?;
            let mut connection = Connection::open(bullmq.address).await?;
            while bullmq.done(&mut connection).await? < 20_000 {}
            rates.push(per_second(20_000, begun.elapsed()));
        }
        row(
            "durable BullMQ: accept → done, 20000 tasks",
            &format!("{:.0}/s", median(rates)),
            "",
            "at most half of nobat",
        );
        Ok(())
    }

    /// Measures the time from the 202 to the start of the handler, on an idle server.
    async fn hand_over(&self) -> anyhow::Result<()> {
        let server = Server::start(&self.data, Disk::Plain, &["nobat", WORKERS])?;
        let mut connection = Connection::open(server.address).await?;
        let mut delays = Vec::new();
        for _ in 0..HAND_OVERS {
            delays.push(run_stamp(&mut connection).await?);
        }
        let micros = |percent, delays: &mut Vec<u64>| percentile(delays, percent) / 1_000;
        let measured = format!("p50 {} µs, p99 {} µs", micros(50, &mut delays), micros(99, &mut delays));
        row("hand-over, idle: 202 → handler starts", &measured, "", "p50 500 µs, p99 2,000 µs");
        Ok(())
    }
}

/// Submits a task and waits for its end. Returns the nanoseconds from its 202 to the start of its handler.
async fn run_stamp(connection: &mut Connection) -> anyhow::Result<u64> {
    let (_, answer) = connection.exchange(&load::task(STAMP)).await?;
    let accepted = nanoseconds();
    let task: serde_json::Value = serde_json::from_str(answer)?;
    let get = format!(
        "GET /v1/tasks/{}?wait=25 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        task["id"].as_str().context("the task has no id")?
    );
    loop {
        let (_, answer) = connection.exchange(&get).await?;
        let task: serde_json::Value = serde_json::from_str(answer)?;
        if !task["finished_at"].is_null() {
            // A handler that started before the 202 arrived counts as no delay.
            return Ok(task["result"].as_u64().context("the task has no result")?.saturating_sub(accepted));
        }
    }
}

fn list(status: &str) -> String {
    format!("GET /v1/tasks?status={status}&limit=1 HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

fn row(what: &str, measured: &str, share: &str, bar: &str) {
    println!("| {what} | {measured} | {share} | {bar} |");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
