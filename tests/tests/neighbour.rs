//! Endpoint that is down for half an hour while many tasks wait for it: only probes call it, and another
//! endpoint is not slowed down.

use std::sync::Arc;
use std::time::Duration;

use nobat_aws::Settings;
use nobat_core::service::backend::Backend;
use nobat_sqlite::Sqlite;
use nobat_tests::aws::emulator::Emulator;
use nobat_tests::aws::queues::Queues;
use nobat_tests::aws::table::Table;
use nobat_tests::conformance::RETENTION;
use nobat_tests::model::backend_quirks::Tame;
use nobat_tests::model::{self, ModelQueue};
use nobat_tests::neighbour::{Plan, Seen, play};
use nobat_tests::sample;
use nobat_tests::size::size;
use nobat_tests::time::Time;
use tokio::runtime::Runtime;

/// Maximum number of calls, in three parts. 64 calls ran when the circuit breaker opened. 9 started while the
/// first failures were recorded. Probes come a little more than 30 seconds apart, so there are at most 60.
const MOST_CALLS: usize = 64 + 9 + 60;

fn check(seen: &Seen, crowd: usize) {
    println!("{seen:?}");
    let [quiet, outage] = seen.p99;
    assert!(seen.done.iter().all(|done| *done > 100), "{seen:?}");
    assert!(seen.calls <= MOST_CALLS, "{seen:?}");
    assert!(outage <= quiet * 6 / 5, "tasks of the other endpoint waited longer: {seen:?}");
    assert_eq!(seen.crowd_done, crowd, "all tasks are done after the recovery: {seen:?}");
}

#[test]
fn failing_endpoint_does_not_slow_its_neighbour_on_sqlite() {
    let time = Time::at(sample::start());
    let sqlite = Sqlite::in_memory(RETENTION, time.clock()).unwrap();
    let crowd = size(500, 10_000);
    let every = Duration::from_millis(u64::try_from(size(1_000, 200)).unwrap());
    let plan = Plan {
        crowd,
        every,
        latency: Duration::from_millis(1),
        sweep: Duration::from_secs(1),
        runtime: None,
    };
    check(&play(plan, &time, &sqlite.backend()), crowd);
}

/// A table and a queue in memory, which have room for many tasks. Calls to the emulator would also take real
/// time.
#[test]
fn failing_endpoint_does_not_slow_its_neighbour_on_the_model() {
    let time = Time::at(sample::start());
    let crowd = size(500, 10_000);
    let every = Duration::from_millis(u64::try_from(size(2_000, 200)).unwrap());
    let plan = Plan {
        crowd,
        every,
        latency: Duration::from_millis(5),
        sweep: Duration::from_mins(1),
        runtime: None,
    };
    check(&play(plan, &time, &model::backend(&time, RETENTION)), crowd);
}

/// The queue is a model of SQS, because a real one does not follow virtual time.
#[test]
fn failing_endpoint_does_not_slow_its_neighbour_on_dynamodb() {
    let time = Time::at(sample::start());
    let runtime = Runtime::new().unwrap();
    let emulator = Emulator::shared();
    let backend = runtime.block_on(async {
        let (table, queues) = (
            Table::create(emulator.client()).await,
            Queues::create(emulator.client(), Duration::from_secs(90)).await,
        );
        let settings = Settings {
            table: table.name().to_owned(),
            queue_url: queues.hints().to_owned(),
            retention: RETENTION,
        };
        nobat_aws::connect_to_emulator(&settings, &emulator.url()).await
    });
    let queue = Arc::new(ModelQueue::new(Arc::clone(&time), Arc::new(Tame), Duration::from_secs(90), None));
    let backend = Backend { queue, ..backend };
    let crowd = size(100, 500);
    let plan = Plan {
        crowd,
        every: Duration::from_millis(u64::try_from(size(10_000, 2_000)).unwrap()),
        latency: Duration::from_millis(5),
        sweep: Duration::from_mins(1),
        runtime: Some(runtime.handle().clone()),
    };
    check(&play(plan, &time, &backend), crowd);
}
