//! `cargo run -p nobat-tests --bin power`: cuts the power repeatedly, and checks that every task answered
//! with 202 is still there.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nobat_tests::disk::Cache;
use nobat_tests::kill::{How, Place, Plan, check, run};

/// Cuts the power under nobat repeatedly, on a disk that loses unsynced writes, and checks that no accepted
/// task is lost
#[derive(Parser)]
struct Cli {
    /// Number of tasks to submit. Default: 20 for each cut
    #[arg(long)]
    tasks: Option<usize>,
    /// Number of power cuts
    #[arg(long, default_value_t = 500)]
    cuts: usize,
    /// Positive control: if COMMITs are not synced (`synchronous=NORMAL`), tasks must be lost
    #[arg(long)]
    control: bool,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the file, the history and the ledger. Its old content is deleted
    #[arg(long, default_value = "target/power")]
    folder: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let cache = if cli.control { Cache::ForgetsCommits } else { Cache::Forgets };
    let tasks = cli.tasks.unwrap_or(20 * cli.cuts);
    let plan = Plan { tasks, ends: cli.cuts, how: How::Kill, place: Place::Disk(cache), seed: cli.seed };
    if cli.folder.exists() {
        std::fs::remove_dir_all(&cli.folder)?;
    }
    std::fs::create_dir_all(&cli.folder)
        .with_context(|| format!("{} cannot be created", cli.folder.display()))?;
    println!("{plan:?}, evidence in {}", cli.folder.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let evidence = runtime.block_on(run(plan, &cli.folder))?;
    let verdict = check(&evidence);
    println!("{}{verdict}", evidence.losses);
    let is_as_it_should_be = if cli.control { !verdict.lost.is_empty() } else { verdict.is_clean() };
    if cli.control {
        println!(
            "{}",
            if is_as_it_should_be {
                "accepted tasks are lost, as expected without synced COMMITs"
            } else {
                "no accepted task is lost: the disk loses no unsynced COMMIT"
            }
        );
    }
    Ok(if is_as_it_should_be { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
