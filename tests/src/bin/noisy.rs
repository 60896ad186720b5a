//! `cargo run --release -p nobat-tests --bin noisy`: measures a quiet tenant while a stranger or another tenant does its worst.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use nobat_tests::noisy::attack::{Attack, obey};
use nobat_tests::noisy::{HEAD, Plan, run};

/// Measures a quiet tenant of nobat, alone and under one attack after the other, and prints a table
///
/// Name look-ups (silent-names) need root, for a mount namespace and port 53 of a loopback address.
#[derive(Parser)]
struct Cli {
    /// The attacks to make; all of them by default
    #[arg(value_enum)]
    attacks: Vec<Attack>,
    /// Make small attacks, as the tests do
    #[arg(long)]
    small: bool,
    /// Seconds of each measurement, before the attack and during it
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds that an attack goes on before it is measured
    #[arg(long, default_value_t = 5)]
    lead: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    if obey().await? {
        return Ok(ExitCode::SUCCESS);
    }
    let Cli { attacks, small, seconds, lead } = Cli::parse();
    let attacks = if attacks.is_empty() { Attack::value_variants().to_vec() } else { attacks };
    println!("{HEAD}");
    let mut failures = Vec::new();
    for attack in attacks {
        let plan = Plan { attack, is_full: !small, measured: Duration::from_secs(seconds), lead: Duration::from_secs(lead) };
        let outcome = run(plan, &[]).await?;
        println!("| {attack:?} {outcome}");
        failures.extend(outcome.failures().into_iter().map(|failure| format!("{attack:?}: {failure}")));
    }
    for failure in failures.iter().take(20) {
        println!("{failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
