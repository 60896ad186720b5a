//! One fault: measurements before, during and after it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::harness::exchange::exchange;
use crate::outage::context::Stage;
use crate::outage::fault::{Fault, Part};
use crate::outage::users::{LIMIT, Users};
use crate::outage::{ENOUGH, Plan, RECOVERY};

/// Measurements. Throughputs are tasks per second whose users saw them end. `before` is the highest so far.
#[derive(Clone, Debug)]
pub struct Cycle {
    fault: Fault,
    pub(crate) before: f64,
    during: f64,
    after: f64,
    /// Duration of the fault.
    lasted: Duration,
    /// Number of requests that were answered with 503, and the longest duration of one of them.
    refused: (usize, Duration),
    /// Time after the fault until throughput was back, or the limit if it was not.
    pub(crate) recovery: Duration,
    /// Violations of the health checks.
    health: Vec<&'static str>,
}

/// Interval between two checks.
const LOOK: Duration = Duration::from_millis(250);
/// Maximum time until the program reports that it is not ready, or that it is ready again.
const NOTICE: Duration = Duration::from_secs(20);
/// Number of tasks that wait in the queue when it is emptied, and their delay.
const WAITING: (usize, Duration) = (20, Duration::from_secs(15));
/// Maximum duration of an answer that needs no table and no queue.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Head of a table of cycles.
pub const HEAD: &str = "| # | fault | lasted | tasks/s at best before | during | 503s (longest) | back after | afterwards | of before |
|---|---|---|---|---|---|---|---|---|";

impl Cycle {
    /// Causes a fault and measures around it.
    ///
    /// `best` is the highest throughput of this run so far.
    pub(crate) async fn run(
        fault: Fault,
        plan: Plan,
        best: f64,
        stage: &Stage,
        users: &Users,
    ) -> anyhow::Result<Self> {
        if fault == Fault::Emptied {
            users.submit_for_later(WAITING.0, WAITING.1).await;
        }
        let (begun, before) = (Instant::now(), users.rate(plan.calm).max(best));
        stage.cause(fault).await?;
        let health = watch_health(stage.address()).await;
        until(
            || {
                begun.elapsed() >= plan.fault
                    && (fault.part() == Part::Queue || users.refused_since(begun).0 > 0)
            },
            plan.fault + NOTICE,
        )
        .await;
        let (lasted, refused) = (begun.elapsed(), users.refused_since(begun));
        let during = users.rate(begun.elapsed());
        stage.heal(fault);
        let healed = Instant::now();
        let (recovery, _) = wait_for_throughput(users, healed, before, plan.calm).await;
        // The recovery may have come from tasks that had been waiting, so throughput is measured once more.
        let calm = Instant::now();
        let (_, after) = wait_for_throughput(users, calm, before, plan.calm).await;
        let mut cycle = Self { fault, before, during, after, lasted, refused, recovery, health };
        if !reaches_status(stage.address(), "/readyz", 200).await {
            cycle.health.push("/readyz does not report ready after the fault");
        }
        Ok(cycle)
    }

    /// Returns the share of the throughput that came back.
    pub fn share(&self) -> f64 {
        self.after / self.before
    }

    /// Returns the violations, in words.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self.health.iter().map(|what| (*what).to_owned()).collect();
        if self.recovery >= RECOVERY {
            wrong.push("throughput did not recover in time".to_owned());
        }
        if self.before == 0.0 || self.share() < ENOUGH {
            wrong.push(format!(
                "throughput was {:.1} tasks a second before the fault, and {:.1} after it",
                self.before, self.after
            ));
        }
        if self.fault.part() == Part::Table && self.refused.0 == 0 {
            wrong.push("no request was answered with 503".to_owned());
        }
        if self.fault.part() == Part::Queue && self.refused.0 > 0 {
            wrong.push(format!(
                "{} requests were answered with 503 although the table was available",
                self.refused.0
            ));
        }
        wrong
    }

    /// Returns a row of the table.
    pub(crate) fn row(&self, number: usize) -> String {
        let (refused, longest) = self.refused;
        format!(
            "| {number} | {} | {:.1} s | {:.1} | {:.1} | {refused} ({:.1} s) | {:.1} s | {:.1} | {:.0} % |",
            self.fault,
            self.lasted.as_secs_f64(),
            self.before,
            self.during,
            longest.as_secs_f64(),
            self.recovery.as_secs_f64(),
            self.after,
            100.0 * self.share(),
        )
    }
}

/// Returns violations of the health checks during a fault: the program must report at once that it is alive,
/// and soon that it is not ready.
async fn watch_health(address: SocketAddr) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    if !reaches_status(address, "/readyz", 503).await {
        wrong.push("/readyz reports ready during the fault");
    }
    let asked = Instant::now();
    if !is(address, "/healthz", 200).await || asked.elapsed() > AT_ONCE {
        wrong.push("/healthz does not respond at once");
    }
    wrong
}

async fn reaches_status(address: SocketAddr, path: &str, status: u16) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < NOTICE {
        if is(address, path, status).await {
            return true;
        }
        sleep(LOOK).await;
    }
    false
}

async fn is(address: SocketAddr, path: &str, status: u16) -> bool {
    let answered = tokio::time::timeout(LIMIT, exchange(address, "GET", path, &[], "")).await;
    matches!(answered, Ok(Ok(answer)) if answer.status == status)
}

/// Returns the time until throughput was back, and the throughput then. The time is the beginning of the
/// first window with enough throughput, or of the last one within the limit.
async fn wait_for_throughput(
    users: &Users,
    since: Instant,
    before: f64,
    window: Duration,
) -> (Duration, f64) {
    loop {
        let (passed, rate) = (since.elapsed(), users.rate(window));
        if passed >= window && rate >= ENOUGH * before || passed >= window + RECOVERY {
            return (passed.saturating_sub(window), rate);
        }
        sleep(LOOK).await;
    }
}

/// Waits until `is_so` returns true, but at most for `patience`.
async fn until(is_so: impl Fn() -> bool, patience: Duration) {
    let begun = Instant::now();
    while !is_so() && begun.elapsed() < patience {
        sleep(LOOK).await;
    }
}
