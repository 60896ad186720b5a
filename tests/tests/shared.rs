//! A limit that several processes share is neither exceeded nor left unused.

use std::sync::Arc;
use std::time::Duration;

use nobat_core::service::backend::Backend;
use nobat_sqlite::Sqlite;
use nobat_tests::conformance::RETENTION;
use nobat_tests::shared::{CONCURRENCY, Plan, RATE, play};
use nobat_tests::size::size;
use nobat_tests::time::Time;
use nobat_tests::{model, sample};

/// Runs for 30 seconds (120 at full size), with a third more tasks than the limit allows. At least `least`
/// per cent of the limit must be used.
fn check(time: &Arc<Time>, backend: &Backend, processes: usize, latency: Duration, least: usize) {
    let seconds = size(30, 120);
    let (tasks, lasts) =
        (seconds * RATE as usize * 4 / 3, Duration::from_secs(u64::try_from(seconds).unwrap()));
    let plan = Plan { processes, latency, tasks, lasts };
    let seen = play(time, backend, plan);
    println!("{plan:?}: {seen:?}, {} % used", seen.starts * 100 / (seconds * RATE as usize));
    assert!(seen.most_in_a_second <= RATE as usize && seen.most_at_once <= CONCURRENCY as usize, "{seen:?}");
    assert!(seen.starts >= seconds * RATE as usize * least / 100, "{seen:?}");
}

#[test]
fn eight_processes_keep_and_use_a_limit_on_sqlite() {
    let time = Time::at(sample::start());
    let sqlite = Sqlite::in_memory(RETENTION, time.clock()).unwrap();
    check(&time, &sqlite.backend(), 8, Duration::from_millis(1), 95);
}

/// If a store call takes 5 ms, processes that write the same limiter state conflict. Two of them can use
/// nearly all of the limit, eight about two thirds. No number of processes exceeds it.
#[test]
fn two_and_eight_processes_keep_and_use_a_limit_on_the_model() {
    for (processes, least) in [(2, 93), (8, 55)] {
        let time = Time::at(sample::start());
        check(&time, &model::backend(&time, RETENTION), processes, Duration::from_millis(5), least);
    }
}
