//! `cargo run -p nobat-tests --bin power`: cuts the power again and again, and checks that what was answered with 202 is still there.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nobat_tests::disk::Cache;
use nobat_tests::kill::{How, Place, Plan, check, run};

/// Cuts the power under nobat again and again, on a disk that loses what was not synced, and checks that nothing is lost that was answered
#[derive(Parser)]
struct Cli {
    /// How many tasks are submitted; 20 for each cut unless said otherwise
    #[arg(long)]
    tasks: Option<usize>,
    /// How often the power is cut
    #[arg(long, default_value_t = 500)]
    cuts: usize,
    /// Positive control: with COMMITs that are not synced (`synchronous=NORMAL`), something must be lost
    #[arg(long)]
    control: bool,
    /// What chance is made of
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the file, the history and the ledger are left
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
    std::fs::create_dir_all(&cli.folder).with_context(|| format!("{} cannot be made", cli.folder.display()))?;
    println!("{plan:?}, evidence in {}", cli.folder.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let evidence = runtime.block_on(run(plan, &cli.folder))?;
    let verdict = check(&evidence);
    println!("{}{verdict}", evidence.losses);
    let is_as_it_should_be = if cli.control { !verdict.lost.is_empty() } else { verdict.is_clean() };
    if cli.control {
        println!("{}", if is_as_it_should_be { "seen to lose tasks, as it should" } else { "nothing is lost: the disk does not forget" });
    }
    Ok(if is_as_it_should_be { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
