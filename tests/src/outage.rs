//! The real program while its table or its queue is unavailable, and a check that it recovers by itself.
//!
//! Users submit tasks at a steady rate and wait for their ends, also during the faults. The throughput is the
//! number of ends that they see. The faults are those of a network (see [`crate::aws::fault_proxy`]), and a
//! queue that comes back empty. At the end, the table itself is checked: every accepted task is there and
//! done.

pub mod context;
pub mod cycle;
pub mod fault;
pub mod settlement;
pub mod users;

use std::fmt::{self, Display};
use std::time::Duration;

pub use fault::Fault;

use crate::outage::context::Stage;
use crate::outage::cycle::Cycle;
use crate::outage::settlement::Settlement;
use crate::outage::users::Users;

/// Parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of faults, one after another. The kinds of faults repeat in turn.
    pub cycles: usize,
    /// Number of tasks submitted per second.
    pub rate: u32,
    /// Minimum duration of a fault.
    pub fault: Duration,
    /// Time without a fault after each recovery. Throughput is measured over the same time.
    pub calm: Duration,
    /// Speed of the sweep for tasks that only a sweep finds.
    pub sweeps: Sweeps,
}

/// Time at which the sweep finds tasks without a hint. Marks are minutes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweeps {
    /// The sweep finds them when their marks come, as for users.
    InTime,
    /// The next pass finds them: the test sets their timestamps in the table back.
    Hurried,
}

/// Result of a run.
#[derive(Debug)]
pub struct Report {
    /// Faults, one after another.
    pub cycles: Vec<Cycle>,
    /// Final content of the table.
    pub settlement: Settlement,
    /// Violations, in words.
    pub wrong: Vec<String>,
}

/// Maximum time after a fault until throughput is back.
pub const RECOVERY: Duration = Duration::from_mins(1);
/// Share of the earlier throughput that counts as recovered.
pub const ENOUGH: f64 = 0.9;

/// Carries out the plan.
pub async fn run(plan: Plan) -> anyhow::Result<Report> {
    let stage = Stage::set().await?;
    let users = Users::start(stage.address(), plan.rate);
    let (mut cycles, mut wrong): (Vec<Cycle>, _) = (Vec::new(), Vec::new());
    // One measurement to warm up, one as the baseline.
    tokio::time::sleep(2 * plan.calm).await;
    for number in 0..plan.cycles {
        let fault = Fault::ALL[number % Fault::ALL.len()];
        let best = cycles.last().map_or(0.0, |cycle| cycle.before);
        let cycle = Cycle::run(fault, plan, best, &stage, &users).await?;
        wrong.extend(cycle.wrong().into_iter().map(|what| format!("cycle {}, {fault}: {what}", number + 1)));
        println!("{}", cycle.row(number + 1));
        cycles.push(cycle);
    }
    let (accepted, complaints) = users.stop().await?;
    wrong.extend(complaints);
    let settlement = Settlement::reach(&stage, &accepted, plan.sweeps).await;
    wrong.extend(settlement.wrong());
    wrong.extend(stage.end().await?);
    Ok(Report { cycles, settlement, wrong })
}

impl Report {
    /// Returns true if there are no violations.
    pub fn is_clean(&self) -> bool {
        self.wrong.is_empty()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slowest = self.cycles.iter().map(|cycle| cycle.recovery).max().unwrap_or_default();
        let least = self.cycles.iter().map(Cycle::share).fold(f64::INFINITY, f64::min);
        writeln!(f, "{}", self.settlement)?;
        writeln!(
            f,
            "slowest recovery {:.1} s, least throughput afterwards {:.0} % of before",
            slowest.as_secs_f64(),
            100.0 * least
        )?;
        self.wrong.iter().try_for_each(|what| writeln!(f, "WRONG: {what}"))
    }
}
