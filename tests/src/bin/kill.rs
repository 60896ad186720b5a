//! `cargo run --release -p nobat-tests --bin kill`: kills the real program repeatedly and checks that no task
//! is lost.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use nobat_tests::kill::{How, Place, Plan, check, run};

/// Kills nobat repeatedly under load, and checks that no task is lost or executed twice without a reason
#[derive(Parser)]
struct Cli {
    /// Number of tasks to submit
    #[arg(long, default_value_t = 10_000)]
    tasks: usize,
    /// Number of kills
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// Signal that ends the program
    #[arg(long, value_enum, default_value_t = Ending::Kill)]
    how: Ending,
    /// Backend of the program
    #[arg(long, value_enum, default_value_t = Backend::Sqlite)]
    backend: Backend,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the file, the history and the ledger. Its old content is deleted
    #[arg(long, default_value = "target/kill")]
    folder: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    /// SQLite file
    Sqlite,
    /// DynamoDB and SQS on an emulator, with two instances of the program
    Aws,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ending {
    /// SIGKILL, which ends the program at once
    Kill,
    /// SIGTERM, after which the program must exit with code 0
    Terminate,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let how = match cli.how {
        Ending::Kill => How::Kill,
        Ending::Terminate => How::Terminate,
    };
    let place = match cli.backend {
        Backend::Sqlite => Place::File,
        Backend::Aws => Place::Cloud,
    };
    let plan = Plan { tasks: cli.tasks, ends: cli.kills, how, place, seed: cli.seed };
    if cli.folder.exists() {
        std::fs::remove_dir_all(&cli.folder)?;
    }
    std::fs::create_dir_all(&cli.folder)
        .with_context(|| format!("{} cannot be created", cli.folder.display()))?;
    println!("{plan:?}, evidence in {}", cli.folder.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let verdict = check(&runtime.block_on(run(plan, &cli.folder))?);
    println!("{verdict}");
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
