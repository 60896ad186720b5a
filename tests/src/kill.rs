//! The real program, killed repeatedly under load, and a check that no task is lost.
//!
//! Clients submit tasks that call a ledger. The ledger and the clients are never killed, and record what they
//! did and saw. At the end, the [`checker`] compares both records. Its terms are those of Jepsen's *total
//! queue*.

pub mod checker;
pub mod client;
pub mod history;
pub mod kill_runner;
pub mod ledger;
pub mod process_under_test;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nobat_core::ports::Clock;
use nobat_core::types::time::Timestamp;
use nobat_worker::system::SystemClock;
use serde::Serialize;

use crate::disk::{Cache, Losses};

pub use checker::{Verdict, check};
pub use kill_runner::run;

/// Parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of tasks that are submitted.
    pub tasks: usize,
    /// Number of times that the program is ended before all tasks are done.
    pub ends: usize,
    /// Way of ending the program.
    pub how: How,
    /// Backend of the program.
    pub place: Place,
    /// Seed of all random choices.
    pub seed: u64,
}

/// Backend of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// File, which one process owns.
    File,
    /// File on a disk with a cache. Each kill of the program also cuts the power.
    Disk(Cache),
    /// `DynamoDB` and SQS, shared by two instances, which are ended in turns.
    Cloud,
}

/// Way of ending the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `kill -9`: the program ends at once.
    Kill,
    /// SIGTERM: the program finishes its running tasks and must exit with code 0.
    Terminate,
}

/// Evidence of a finished run.
#[derive(Debug, Default)]
pub struct Evidence {
    /// History of the clients, in order of time.
    pub history: Vec<history::Event>,
    /// Calls that the ledger recorded, in order of time.
    pub executions: Vec<ledger::Execution>,
    /// Kills, in order of time.
    pub kills: Vec<Kill>,
    /// Final state of all tasks as the program shows them, by id.
    pub tasks: std::collections::BTreeMap<String, Standing>,
    /// Number of tasks that the program runs at a time.
    pub concurrency: usize,
    /// Losses by power cuts, if the kills were power cuts.
    pub losses: Losses,
}

/// One kill.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Kill {
    /// Time up to which the process was certainly alive.
    pub sent: Timestamp,
    /// Time from which the process was certainly dead.
    pub over: Timestamp,
}

/// Final state of a task.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Status of the task, as in the API.
    pub status: String,
    /// Attempts that are on record as crashed.
    pub crashed: Vec<Crash>,
}

/// Attempt that is on record as crashed.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Number of the attempt.
    pub attempt: u64,
    /// Time when a worker claimed the task.
    pub from: Timestamp,
    /// Time when the program recorded the crash.
    pub to: Timestamp,
}

/// File with one JSON object per line.
struct Record(Mutex<File>);

impl Record {
    fn create(path: &Path) -> std::io::Result<Self> {
        Ok(Self(Mutex::new(File::create(path)?)))
    }

    /// Writes a line.
    fn write<T: Serialize>(&self, entry: &T, durability: Durability) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)?;
        match durability {
            Durability::OnDisk => file.sync_data(),
            Durability::Written => Ok(()),
        }
    }
}

/// Returns the time of the clock that the program uses, too.
fn now() -> Timestamp {
    SystemClock.now()
}

/// Durability of a written line.
#[derive(Clone, Copy)]
enum Durability {
    /// The line survives this process.
    Written,
    /// The line survives this machine.
    OnDisk,
}
