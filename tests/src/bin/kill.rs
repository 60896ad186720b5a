//! `cargo run --release -p nobat-tests --bin kill`: ends the real program again and again, and checks that nothing came of it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use nobat_tests::kill::{How, Place, Plan, check, run};

/// Ends nobat again and again under load, and checks that nothing is lost or done twice without a reason
#[derive(Parser)]
struct Cli {
    /// How many tasks are submitted
    #[arg(long, default_value_t = 10_000)]
    tasks: usize,
    /// How often it is ended
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// How it is ended
    #[arg(long, value_enum, default_value_t = Ending::Kill)]
    how: Ending,
    /// Where it keeps its tasks
    #[arg(long, value_enum, default_value_t = Backend::Sqlite)]
    backend: Backend,
    /// What chance is made of
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the file, the history and the ledger are left
    #[arg(long, default_value = "target/kill")]
    folder: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    /// In an SQLite file
    Sqlite,
    /// In DynamoDB and SQS, two copies of it, on an emulator
    Aws,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ending {
    /// SIGKILL, at once
    Kill,
    /// SIGTERM, which it is to obey with exit code 0
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
    std::fs::create_dir_all(&cli.folder).with_context(|| format!("{} cannot be made", cli.folder.display()))?;
    println!("{plan:?}, evidence in {}", cli.folder.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let verdict = check(&runtime.block_on(run(plan, &cli.folder))?);
    println!("{verdict}");
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
