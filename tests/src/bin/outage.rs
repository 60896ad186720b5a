//! `cargo run -p nobat-tests --bin outage`: takes table and queue away from the real program, and checks that
//! it recovers.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nobat_tests::outage::cycle::HEAD;
use nobat_tests::outage::{Plan, Sweeps, run};

/// Takes table and queue away from nobat repeatedly, and checks that it recovers by itself and loses no task
#[derive(Parser)]
struct Cli {
    /// Number of faults, one after another
    #[arg(long, default_value_t = 20)]
    cycles: usize,
    /// Tasks submitted per second, from 1 to 1,000
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// Minimum length of each fault, in seconds
    #[arg(long, default_value_t = 15)]
    fault: u64,
    /// Seconds for which throughput is measured before and after the faults. At least 1
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    calm: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Cli { cycles, rate, fault, calm } = Cli::parse();
    let plan = Plan {
        cycles,
        rate,
        fault: Duration::from_secs(fault),
        calm: Duration::from_secs(calm),
        sweeps: Sweeps::InTime,
    };
    println!("{HEAD}");
    let report = run(plan).await?;
    println!("\n{report}");
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
