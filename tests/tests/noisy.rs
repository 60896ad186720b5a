//! Small noisy neighbours: under each attack, every request of the quiet tenant is answered, and every task succeeds at its first attempt.
//!
//! These tests do not check latencies. `cargo run --release -p nobat-tests --bin noisy` measures them.

use std::time::Duration;

use nobat_tests::noisy::attack::{Attack, obey};
use nobat_tests::noisy::{Outcome, Plan, Store, run};

/// Arguments with which this program attacks instead of testing.
const ATTACKER: [&str; 4] = ["--exact", "attacker", "--include-ignored", "--nocapture"];

async fn attacked(attack: Attack) -> Outcome {
    attacked_on(Store::Sqlite, attack).await
}

async fn attacked_on(store: Store, attack: Attack) -> Outcome {
    let plan = Plan { attack, store, is_full: false, measured: Duration::from_secs(2), lead: Duration::from_secs(1) };
    let outcome = run(plan, &ATTACKER).await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("| {attack:?} {outcome}");
    assert!(outcome.failures().is_empty(), "{:#?}", outcome.failures());
    outcome
}

#[tokio::test]
#[ignore = "the attacker of the tests below, started by them as a process"]
async fn attacker() {
    assert!(obey().await.unwrap(), "nobody ordered an attack");
}

#[tokio::test]
async fn clients_that_do_not_read_harm_nobody() {
    attacked(Attack::UnreadAnswers).await;
}

#[tokio::test]
async fn lists_with_filters_harm_nobody() {
    attacked(Attack::FilteredLists).await;
}

#[tokio::test]
async fn bodies_that_stall_harm_nobody() {
    attacked(Attack::StalledBodies).await;
}

#[tokio::test]
async fn bodies_without_end_harm_nobody() {
    attacked(Attack::EndlessBodies).await;
}

#[tokio::test]
async fn many_new_connections_harm_nobody() {
    attacked(Attack::NewConnections).await;
}

#[tokio::test]
async fn guessed_keys_harm_nobody_at_the_same_address() {
    attacked(Attack::BadKeys).await;
}

#[tokio::test]
async fn idle_connections_leave_handles_for_calls() {
    attacked(Attack::IdleConnections).await;
}

#[tokio::test]
async fn many_limit_keys_harm_nobody() {
    attacked(Attack::LimitKeys).await;
}

#[tokio::test]
async fn an_endpoint_that_drips_harms_nobody() {
    attacked(Attack::DrippingEndpoint).await;
}

#[tokio::test]
async fn many_submissions_harm_nobody() {
    attacked(Attack::Submissions).await;
}

#[tokio::test]
async fn lists_and_submissions_of_a_tenant_harm_nobody_on_a_table() {
    for attack in [Attack::FilteredLists, Attack::Submissions] {
        attacked_on(Store::Aws, attack).await;
    }
}

#[tokio::test]
#[ignore = "needs root, for a mount namespace and port 53"]
async fn silent_name_servers_harm_nobody() {
    attacked(Attack::SilentNames).await;
}
