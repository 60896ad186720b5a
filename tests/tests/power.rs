//! Power cuts under the real program: every task that was answered with 202 is on disk.
//!
//! Small size for every push. `cargo run -p nobat-tests --bin power` runs it at any size.
#![cfg(target_os = "linux")]

use nobat_tests::disk::{Cache, Losses};
use nobat_tests::kill::{How, Place, Plan, Verdict, check, run};
use nobat_tests::scratch::Scratch;

async fn verdict(cache: Cache, cuts: usize) -> (Verdict, Losses) {
    let plan = Plan { tasks: 20 * cuts, ends: cuts, how: How::Kill, place: Place::Disk(cache), seed: 1 };
    let scratch = Scratch::new().unwrap();
    let evidence = run(plan, scratch.path()).await.unwrap_or_else(|error| panic!("{plan:?}: {error:#}"));
    let verdict = check(&evidence);
    println!("{plan:?}\n{}{verdict}", evidence.losses);
    (verdict, evidence.losses)
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_tasks_survive_twelve_power_cuts() {
    let (verdict, losses) = verdict(Cache::Forgets, 12).await;
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.attempted, losses.cuts), (240, 12));
    assert!(losses.in_commits > 0, "no power cut interrupted a write, so this run proves nothing");
}

/// Positive control: losses on a disk without syncs are detected.
#[tokio::test(flavor = "multi_thread")]
async fn accepted_tasks_are_lost_if_commits_are_not_synced() {
    let (verdict, _) = verdict(Cache::ForgetsCommits, 6).await;
    assert!(!verdict.lost.is_empty(), "{verdict}");
}
