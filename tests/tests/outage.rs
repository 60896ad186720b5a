//! The real program while its table or its queue is unavailable: it reports this, loses nothing, and recovers
//! by itself.
//!
//! Small size for every push. `cargo run --release -p nobat-tests --bin outage` runs every fault, for longer.

use std::time::Duration;

use nobat_tests::outage::{Plan, Sweeps, run};

#[tokio::test(flavor = "multi_thread")]
async fn three_outages_lose_no_task_and_throughput_recovers() {
    let plan = Plan {
        cycles: 3,
        rate: 10,
        fault: Duration::from_secs(2),
        calm: Duration::from_secs(3),
        sweeps: Sweeps::Hurried,
    };
    let report = run(plan).await.unwrap_or_else(|error| panic!("{plan:?}: {error:#}"));
    println!("{report}");
    assert!(report.is_clean(), "{report}");
}
