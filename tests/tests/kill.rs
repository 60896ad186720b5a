//! The real program, ended repeatedly under load: no task is lost, and none is repeated without a reason.
//!
//! Small size for every push. `cargo run --release -p nobat-tests --bin kill` runs it at any size.

use nobat_tests::kill::{How, Place, Plan, Verdict, check, run};
use nobat_tests::scratch::Scratch;

async fn verdict(plan: Plan) -> Verdict {
    let scratch = Scratch::new().unwrap();
    let evidence = run(plan, scratch.path()).await.unwrap_or_else(|error| panic!("{plan:?}: {error:#}"));
    let verdict = check(&evidence);
    println!("{plan:?}\n{verdict}");
    assert!(verdict.is_clean(), "{plan:?}\n{verdict}");
    verdict
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_survive_ten_kills() {
    let verdict = verdict(Plan { tasks: 1_000, ends: 10, how: How::Kill, place: Place::File, seed: 1 }).await;
    assert_eq!((verdict.attempted, verdict.kills), (1_000, 10));
    assert!(verdict.duplicated > 0, "no kill interrupted an attempt, so this run proves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_graceful_stops_lose_and_repeat_no_task() {
    let verdict =
        verdict(Plan { tasks: 1_000, ends: 10, how: How::Terminate, place: Place::File, seed: 2 }).await;
    assert_eq!((verdict.attempted, verdict.duplicated), (1_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_survive_ten_kills_of_two_instances() {
    let verdict =
        verdict(Plan { tasks: 1_000, ends: 10, how: How::Kill, place: Place::Cloud, seed: 3 }).await;
    assert_eq!((verdict.attempted, verdict.kills), (1_000, 10));
    assert!(verdict.duplicated > 0, "no kill interrupted an attempt, so this run proves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn graceful_stops_of_two_instances_lose_and_repeat_no_task() {
    let verdict =
        verdict(Plan { tasks: 1_000, ends: 10, how: How::Terminate, place: Place::Cloud, seed: 4 }).await;
    assert_eq!((verdict.attempted, verdict.duplicated), (1_000, 0));
}
