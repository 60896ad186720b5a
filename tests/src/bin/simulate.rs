//! Makes any number of simulated runs, or repeats one.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use clap::Parser;
use nobat_tests::simulation::{Subject, Summary, Violation, simulate};

/// Simulates nobat under all kinds of faults. Prints the last steps of the first run that breaks a promise,
/// and exits with an error.
#[derive(Parser)]
struct Arguments {
    /// Number of runs on each backend.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Makes only the run of this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// `sqlite` or `model`. Default: both.
    #[arg(long)]
    backend: Option<Subject>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (first, count) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    for subject in arguments.backend.map_or(Subject::ALL.to_vec(), |subject| vec![subject]) {
        let begun = Instant::now();
        let total = match run(subject, first, count) {
            Ok(total) => total,
            Err(violation) => {
                eprintln!("{violation}");
                return ExitCode::FAILURE;
            }
        };
        println!(
            "{}: {count} seeds from {first}, no promise broken in {} steps, {} tasks accepted, {} runs of a handler, {} crashes, {} hours ({:.1} s){}",
            subject.as_str(),
            total.steps,
            total.accepted,
            total.executions,
            total.crashes,
            total.passed.as_secs() / 3_600,
            begun.elapsed().as_secs_f64(),
            total.shown
        );
    }
    ExitCode::SUCCESS
}

/// Makes the runs, with one thread for each processor.
fn run(subject: Subject, first: u64, count: u64) -> Result<Summary, Box<Violation>> {
    let next = AtomicU64::new(first);
    let total = Mutex::new(Ok(Summary::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first.saturating_add(count) {
                break;
            }
            let outcome = simulate(seed, subject);
            let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match (&mut *total, outcome) {
                (Ok(total), Ok(run)) => *total += run,
                (Ok(_), Err(violation)) => {
                    *total = Err(violation);
                    next.store(u64::MAX, Ordering::Relaxed);
                }
                (Err(_), _) => break,
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}
