//! The real program while its table or its queue is away, and a check that it recovers by itself once they are back.
//!
//! Users submit tasks at a steady rate and wait for their ends, whatever becomes of table and queue: what they get is the throughput.
//! The faults are those of a network (see [`crate::aws::tap`]), and a queue that comes back empty. In the end the table itself is
//! looked at: what was accepted is there, and done.

pub mod cycle;
pub mod fault;
pub mod settlement;
pub mod stage;
pub mod users;

use std::fmt::{self, Display};
use std::time::Duration;

pub use fault::Fault;

use crate::outage::cycle::Cycle;
use crate::outage::settlement::Settlement;
use crate::outage::stage::Stage;
use crate::outage::users::Users;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many faults there are, one after the other; their kinds come round.
    pub cycles: usize,
    /// How many tasks are submitted in a second.
    pub rate: u32,
    /// How long a fault lasts at least.
    pub fault: Duration,
    /// How long there is none before the next, once all is well again. Throughput is measured over as long.
    pub calm: Duration,
    /// What becomes of that which only a sweep finds.
    pub sweeps: Sweeps,
}

/// How the sweep finds what nobody was told of. Marks are minutes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweeps {
    /// When its mark comes, as it does for users.
    InTime,
    /// In the next pass: moments in the table are set back, as if the minutes had passed.
    Hurried,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// One fault after the other.
    pub cycles: Vec<Cycle>,
    /// What was found in the table in the end.
    pub settlement: Settlement,
    /// What should not have been, in words.
    pub wrong: Vec<String>,
}

/// How soon throughput must be back after a fault.
pub const RECOVERY: Duration = Duration::from_mins(1);
/// How much of the throughput before the fault is taken for all of it.
pub const ENOUGH: f64 = 0.9;

/// Goes through with the plan.
pub async fn run(plan: Plan) -> anyhow::Result<Report> {
    let stage = Stage::set().await?;
    let users = Users::start(stage.address(), plan.rate);
    let (mut cycles, mut wrong): (Vec<Cycle>, _) = (Vec::new(), Vec::new());
    // One measure to warm up, one to have something to compare with.
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
    /// Whether all is as it should be.
    pub fn is_clean(&self) -> bool {
        self.wrong.is_empty()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slowest = self.cycles.iter().map(|cycle| cycle.recovery).max().unwrap_or_default();
        let least = self.cycles.iter().map(Cycle::share).fold(f64::INFINITY, f64::min);
        writeln!(f, "{}", self.settlement)?;
        writeln!(f, "slowest recovery {:.1} s, least throughput afterwards {:.0} % of before", slowest.as_secs_f64(), 100.0 * least)?;
        self.wrong.iter().try_for_each(|what| writeln!(f, "WRONG: {what}"))
    }
}
