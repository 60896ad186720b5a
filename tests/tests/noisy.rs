//! Small noisy neighbours: under each attack, every request of the quiet tenant is answered, and every task
//! succeeds at its first attempt.
//!
//! These tests do not check latencies. `cargo run --release -p nobat-tests --bin noisy` measures them.

use std::time::Duration;

use nobat_tests::noisy::attack::{Attack, obey};
use nobat_tests::noisy::{Outcome, Plan, Store, run};

/// Arguments with which this program attacks instead of testing.
const ATTACKER: [&str; 4] = ["--exact", "attacker", "--include-ignored", "--nocapture"];

async fn run_attack(attack: Attack) -> Outcome {
    run_attack_on(Store::Sqlite, attack).await
}

async fn run_attack_on(store: Store, attack: Attack) -> Outcome {
    let plan = Plan {
        attack,
        store,
        is_full: false,
        measured: Duration::from_secs(2),
        lead: Duration::from_secs(1),
    };
    let outcome = run(plan, &ATTACKER).await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("| {attack:?} {outcome}");
    assert!(outcome.failures().is_empty(), "{:#?}", outcome.failures());
    outcome
}

#[tokio::test]
#[ignore = "attacker process that the tests below start"]
async fn attacker() {
    assert!(obey().await.unwrap(), "the environment names no attack");
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_affect_others() {
    run_attack(Attack::UnreadAnswers).await;
}

#[tokio::test]
async fn filtered_lists_do_not_affect_others() {
    run_attack(Attack::FilteredLists).await;
}

#[tokio::test]
async fn stalled_bodies_do_not_affect_others() {
    run_attack(Attack::StalledBodies).await;
}

#[tokio::test]
async fn endless_bodies_do_not_affect_others() {
    run_attack(Attack::EndlessBodies).await;
}

#[tokio::test]
async fn many_new_connections_do_not_affect_others() {
    run_attack(Attack::NewConnections).await;
}

#[tokio::test]
async fn guessed_keys_do_not_affect_others_at_the_same_address() {
    run_attack(Attack::BadKeys).await;
}

#[tokio::test]
async fn idle_connections_leave_handles_for_calls() {
    run_attack(Attack::IdleConnections).await;
}

#[tokio::test]
async fn many_limit_keys_do_not_affect_others() {
    run_attack(Attack::LimitKeys).await;
}

#[tokio::test]
async fn slow_endpoint_does_not_affect_others() {
    run_attack(Attack::DrippingEndpoint).await;
}

#[tokio::test]
async fn many_submissions_do_not_affect_others() {
    run_attack(Attack::Submissions).await;
}

#[tokio::test]
async fn lists_and_submissions_do_not_affect_others_on_dynamodb() {
    for attack in [Attack::FilteredLists, Attack::Submissions] {
        run_attack_on(Store::Aws, attack).await;
    }
}

#[tokio::test]
#[ignore = "needs root, for a mount namespace and port 53"]
async fn silent_name_servers_do_not_affect_others() {
    run_attack(Attack::SilentNames).await;
}
