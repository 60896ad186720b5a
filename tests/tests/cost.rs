//! Cost of tasks on AWS: the budget is kept, and `docs/cost.md` is up to date.

use std::fs;
use std::time::Duration;

use nobat_aws::Settings;
use nobat_aws::meter::{Meter, Reading, Units, Usage};
use nobat_core::ports::{ClaimResult, InsertResult};
use nobat_core::task::Task;
use nobat_core::task::lifecycle::Event;
use nobat_core::types::intervals::LEASE;
use nobat_tests::aws::emulator::Emulator;
use nobat_tests::aws::fault_proxy::{Flow, Tap};
use nobat_tests::aws::queues::Queues;
use nobat_tests::aws::table::Table;
use nobat_tests::cost::context::{BATCH, Stage, Used};
use nobat_tests::cost::prices::{POLLER_REQUESTS, Prices};
use nobat_tests::cost::{page, scenario, starts};
use nobat_tests::harness::program::workspace;
use nobat_tests::sample;

fn written(write: f64) -> Usage {
    Usage { tries: 1, units: Units { write, read: 0.0 }, unknown: 0 }
}

/// Returns a reading with one call to the table and `sends` calls to the queue.
fn calls(operation: &str, usage: Usage, sends: u32) -> Reading {
    let sqs = if sends == 0 { None } else { Some(("SendMessageBatch".to_owned(), sends)) };
    Reading { dynamodb: [(operation.to_owned(), usage)].into(), sqs: sqs.into_iter().collect() }
}

async fn accept(stage: &Stage, task: Task) {
    let inserted = stage.backend.accept(vec![task], stage.time.now()).await.unwrap();
    assert!(matches!(inserted, InsertResult::Created(_)), "{inserted:?}");
}

async fn claim(stage: &Stage, task: &Task) -> Task {
    let now = stage.time.now();
    match stage.backend.store.claim(&task.key(), now + LEASE, now).await.unwrap() {
        ClaimResult::Granted(task) => task,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_step_of_the_happy_path_costs_what_the_budget_says() {
    let stage = Stage::set().await;
    let task = sample::task(1, stage.time.now());
    accept(&stage, task.clone()).await;
    assert_eq!(stage.reading(), calls("PutItem", written(3.0), 1), "the item and two index entries");
    let claimed = claim(&stage, &task).await;
    assert_eq!(stage.reading(), calls("UpdateItem", written(1.0), 0), "a claim changes no index");
    let event = Event::Succeed { token: claimed.token, result: sample::json(r#"{"ok":true}"#) };
    stage.backend.apply(&task.key(), Some(claimed), event, stage.time.now()).await.unwrap();
    assert_eq!(
        stage.reading(),
        calls("UpdateItem", written(2.0), 0),
        "the item and the removal of its sweep mark"
    );
}

/// Statistics, which will add 0.2 write units, do not exist yet.
#[tokio::test]
async fn the_happy_path_stays_within_the_budget() {
    let ten = scenario::happy().await;
    assert_eq!(ten.tasks, 10);
    let units = Units { write: 60.0, read: 0.0 };
    assert_eq!(ten.used, Used { units, sends: 10, batches: 1, requests: 10, held: Duration::ZERO });
    assert_eq!(
        ten.used.batches * POLLER_REQUESTS,
        2,
        "the poller of Lambda makes 0.2 requests to SQS for each task"
    );
    let a_million = Prices::read().bill(&ten).total();
    assert!(a_million < 5.60, "${a_million:.2} for a million tasks");
}

#[tokio::test]
async fn a_request_that_is_refused_is_counted() {
    let stage = Stage::set().await;
    let task = sample::task(1, stage.time.now());
    accept(&stage, task.clone()).await;
    stage.reading();
    let again = stage.backend.accept(vec![task], stage.time.now()).await.unwrap();
    assert!(matches!(again, InsertResult::Existing(_)), "{again:?}");
    assert_eq!(
        stage.reading(),
        calls("PutItem", written(1.0), 0),
        "a refused write costs the size of the stored item, without indexes"
    );
}

#[tokio::test]
async fn request_without_a_response_is_counted_as_unknown() {
    let emulator = Emulator::shared();
    let tap = Tap::before(emulator.address()).await.unwrap();
    let (table, queues) =
        (Table::create(emulator.client()).await, Queues::create(emulator.client(), LEASE).await);
    let settings =
        Settings { table: table.name().to_owned(), queue_url: queues.hints().to_owned(), retention: LEASE };
    let meter = Meter::default();
    let backend = nobat_aws::connect_to_emulator_with(&settings, &tap.url(), &meter).await;
    tap.set(Flow::LosesNextReply);
    let now = sample::start();
    let inserted = backend.store.insert(vec![sample::task(1, now)], now).await.unwrap();
    assert!(matches!(inserted, InsertResult::Created(_)), "{inserted:?}");
    let usage = Usage { tries: 2, units: Units { write: 1.0, read: 0.0 }, unknown: 1 };
    assert_eq!(
        meter.take(),
        calls("PutItem", usage, 0),
        "the first try wrote the item, so the second is refused"
    );
}

#[tokio::test]
async fn cost_page_matches_the_generated_tables() {
    let tables = page::tables(&scenario::all().await, &scenario::idle_sweep().await, &Prices::read());
    let tables = tables + &page::limits(&starts::starts().await, &starts::heat());
    let page = fs::read_to_string(page::path()).unwrap();
    assert_eq!(
        page,
        page::with_tables(&page, &tables),
        "run `cargo run --release -p nobat-tests --bin cost`"
    );
}

#[test]
fn assumed_function_settings_match_the_template() {
    let template = fs::read_to_string(workspace().join("infra/template.yaml")).unwrap();
    let says = |setting: &str| template.lines().any(|line| line.trim() == setting);
    assert!(says(&format!("MemorySize: {}", Prices::read().assumed.memory_mib)));
    assert!(says(&format!("BatchSize: {BATCH}")));
    assert!(says("ScheduleExpression: rate(1 minute)"));
}
