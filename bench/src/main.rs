//! `cargo run --release -p nobat-bench`: measures nobat's performance targets beside the limit of its parts.
//!
//! Machines differ and drift, so the ratio of two numbers of one run counts. Every server is a separate
//! process. This process generates the load, on the same cores.

mod bullmq;
mod limit;
mod load;
mod nobat_server;
mod process;
mod rows;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures nobat beside the bare limit of its parts
#[derive(Parser)]
struct Cli {
    /// Duration of each measurement of a rate, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Number of measurements of each rate. The median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Also measure with a million tasks, which takes some minutes
    #[arg(long)]
    million: bool,
    /// Also measure with 1 ms more for each sync of the disk (needs `cc`)
    #[arg(long)]
    slow_disk: bool,
    /// Also measure durable BullMQ (needs `redis-server`, `node` and `npm`)
    #[arg(long)]
    bullmq: bool,
    /// Folder for the servers' files, on the disk to measure
    #[arg(long, default_value = "target/bench-data")]
    data: PathBuf,
    #[command(subcommand)]
    server: Option<Server>,
}

#[derive(Subcommand)]
enum Server {
    /// Serve the bare limit (started by the benchmark itself)
    #[command(hide = true)]
    Limit { data: PathBuf },
    /// Serve nobat (started by the benchmark itself)
    #[command(hide = true)]
    Nobat { data: PathBuf, concurrency: usize },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match &cli.server {
        Some(Server::Limit { data }) => runtime.block_on(limit::serve(data)),
        Some(Server::Nobat { data, concurrency }) => {
            runtime.block_on(nobat_server::serve(data, *concurrency))
        }
        None => {
            let runs = rows::Runs {
                seconds: cli.seconds,
                rounds: cli.rounds,
                million: cli.million,
                slow_disk: cli.slow_disk,
                bullmq: cli.bullmq,
                data: cli.data,
            };
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(runs.print())
        }
    }
}
