//! Faults of the table and the queue.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::aws::fault_proxy::Flow;

/// Fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The part is unreachable, in the way that `Flow` says.
    Away(Part, Flow),
    /// The queue is down and comes back empty.
    Emptied,
}

/// Part of AWS on which the program depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The table.
    Table,
    /// The queue.
    Queue,
}

/// Delay that is longer than the program waits for one try of a call.
const LATE: Flow = Flow::Late(Duration::from_secs(5));

impl Fault {
    /// All faults. The program recovers quickly from the first three.
    pub const ALL: [Self; 11] = [
        Self::Away(Part::Table, Flow::Refused),
        Self::Emptied,
        Self::Away(Part::Table, Flow::BlackHole),
        Self::Away(Part::Queue, Flow::Swallowed),
        Self::Away(Part::Table, Flow::Reset),
        Self::Away(Part::Queue, Flow::Refused),
        Self::Away(Part::Table, LATE),
        Self::Away(Part::Queue, Flow::BlackHole),
        Self::Away(Part::Table, Flow::Swallowed),
        Self::Away(Part::Queue, Flow::Reset),
        Self::Away(Part::Queue, LATE),
    ];

    /// Returns the affected part.
    pub fn part(self) -> Part {
        match self {
            Self::Away(part, _) => part,
            Self::Emptied => Part::Queue,
        }
    }

    /// Returns the limiter to and from that part during the fault.
    pub fn limiter(self) -> Flow {
        match self {
            Self::Away(_, limiter) => limiter,
            Self::Emptied => Flow::Refused,
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part() {
            Part::Table => "table",
            Part::Queue => "queue",
        };
        let what = match self {
            Self::Emptied => "down, comes back empty".to_owned(),
            Self::Away(_, Flow::Late(delay)) => format!("{} s late", delay.as_secs()),
            Self::Away(_, Flow::Refused) => "refuses".to_owned(),
            Self::Away(_, Flow::Reset) => "resets".to_owned(),
            Self::Away(_, Flow::BlackHole) => "silent, answers late".to_owned(),
            Self::Away(_, Flow::Swallowed) => "silent, never answers".to_owned(),
            Self::Away(_, limiter) => format!("{limiter:?}"),
        };
        write!(f, "{part} {what}")
    }
}
