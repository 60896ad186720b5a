//! The real program, ended again and again under load: nothing is lost, and nothing is done twice without a reason.
//!
//! The size that fits a push; `cargo run --release -p nobat-tests --bin kill` is the same at any size.

use nobat_tests::kill::{How, Plan, Verdict, check, run};
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
    let verdict = verdict(Plan { tasks: 1_000, ends: 10, how: How::Kill, seed: 1 }).await;
    assert_eq!((verdict.attempted, verdict.kills), (1_000, 10));
    assert!(verdict.duplicated > 0, "no kill has met any work, so this run has proved nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_graceful_stops_under_load_lose_nothing_and_repeat_nothing() {
    let verdict = verdict(Plan { tasks: 1_000, ends: 10, how: How::Terminate, seed: 2 }).await;
    assert_eq!((verdict.attempted, verdict.duplicated), (1_000, 0));
}
