//! `cargo run --release -p nobat-tests --bin noisy`: measures a quiet tenant while a stranger or another
//! tenant attacks.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nobat_tests::noisy::attack::{Attack, obey};
use nobat_tests::noisy::{HEAD, Plan, Store, run};

/// Measures a quiet tenant of nobat, alone and under one attack after another, and prints a table
///
/// Name look-ups (silent-names) need root, for a mount namespace and port 53 of a loopback address.
#[derive(Parser)]
struct Cli {
    /// Attacks to make. Default: on `sqlite` all attacks, on `aws` all that reach the store
    #[arg(value_enum)]
    attacks: Vec<Attack>,
    /// Backend of the server
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    backend: Store,
    /// Makes small attacks, as the tests do
    #[arg(long)]
    small: bool,
    /// Seconds of each measurement, before the attack and during it
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds between the start of an attack and its measurement
    #[arg(long, default_value_t = 5)]
    lead: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    if obey().await? {
        return Ok(ExitCode::SUCCESS);
    }
    let Cli { attacks, backend: store, small, seconds, lead } = Cli::parse();
    let attacks = if attacks.is_empty() { store.attacks() } else { attacks };
    println!("{HEAD}");
    let mut failures = Vec::new();
    for attack in attacks {
        let plan = Plan {
            attack,
            store,
            is_full: !small,
            measured: Duration::from_secs(seconds),
            lead: Duration::from_secs(lead),
        };
        let outcome = run(plan, &[]).await?;
        println!("| {attack:?} {outcome}");
        failures.extend(outcome.failures().into_iter().map(|failure| format!("{attack:?}: {failure}")));
    }
    for failure in failures.iter().take(20) {
        println!("{failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
