//! `cargo run -p nobat-tests --bin outage`: takes the table and the queue away from the real program, and checks that it recovers.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nobat_tests::outage::cycle::HEAD;
use nobat_tests::outage::{Plan, Sweeps, run};

/// Takes table and queue away from nobat again and again, and checks that it recovers by itself and loses nothing
#[derive(Parser)]
struct Cli {
    /// How many faults there are, one after the other
    #[arg(long, default_value_t = 20)]
    cycles: usize,
    /// How many tasks are submitted in a second
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// How long each fault lasts at least, in seconds
    #[arg(long, default_value_t = 15)]
    fault: u64,
    /// How long throughput is measured before and after, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    calm: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Cli { cycles, rate, fault, calm } = Cli::parse();
    let plan = Plan { cycles, rate, fault: Duration::from_secs(fault), calm: Duration::from_secs(calm), sweeps: Sweeps::InTime };
    println!("{HEAD}");
    let report = run(plan).await?;
    println!("\n{report}");
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
