//! A limit is kept, and used, by all processes that share it.

use std::sync::Arc;
use std::time::Duration;

use nobat_core::backend::Backend;
use nobat_sqlite::Sqlite;
use nobat_tests::conformance::RETENTION;
use nobat_tests::model;
use nobat_tests::sample;
use nobat_tests::shared::{PARALLELISM, Plan, RATE, play};
use nobat_tests::size::size;
use nobat_tests::time::Time;

/// Half a minute, or two, with a third more to do than may be done. At least so many per cent of the limit must be used.
fn check(time: &Arc<Time>, backend: &Backend, processes: usize, latency: Duration, least: usize) {
    let seconds = size(30, 120);
    let (tasks, lasts) = (seconds * RATE as usize * 4 / 3, Duration::from_secs(u64::try_from(seconds).unwrap()));
    let plan = Plan { processes, latency, tasks, lasts };
    let seen = play(time, backend, plan);
    println!("{plan:?}: {seen:?}, {} % used", seen.starts * 100 / (seconds * RATE as usize));
    assert!(seen.most_in_a_second <= RATE as usize && seen.most_at_once <= PARALLELISM as usize, "{seen:?}");
    assert!(seen.starts >= seconds * RATE as usize * least / 100, "{seen:?}");
}

#[test]
fn sixty_four_workers_of_eight_processes_keep_a_limit_and_use_it_on_a_file() {
    let time = Time::at(sample::start());
    let sqlite = Sqlite::in_memory(RETENTION, time.clock()).unwrap();
    check(&time, &sqlite.backend(), 8, Duration::from_millis(1), 95);
}

/// Where a call takes five milliseconds, processes that write the same flow are in one another's way: two of them can use what there is, and
/// eight some two thirds of it. What is promised is kept by any number.
#[test]
fn sixty_four_workers_keep_a_limit_on_a_model_of_a_table_and_few_processes_use_it() {
    for (processes, least) in [(2, 93), (8, 55)] {
        let time = Time::at(sample::start());
        check(&time, &model::backend(&time, RETENTION), processes, Duration::from_millis(5), least);
    }
}
