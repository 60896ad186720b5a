//! The real program, killed again and again under load, and a check that nothing came of it.
//!
//! Clients submit tasks whose work is a call to a ledger. The ledger and the clients are never killed, and write down what
//! they did and saw; in the end the [`checker`] compares the two. The words are those of Jepsen's *total queue*.

pub mod checker;
pub mod client;
pub mod executioner;
pub mod history;
pub mod ledger;
pub mod subject;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nobat_core::ports::Clock;
use nobat_core::time::Timestamp;
use nobat_worker::system::SystemClock;
use serde::Serialize;

use crate::disk::{Cache, Losses};

pub use checker::{Verdict, check};
pub use executioner::run;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many tasks are submitted.
    pub tasks: usize,
    /// How often the program is ended before they are all done.
    pub ends: usize,
    /// How it is ended.
    pub how: How,
    /// Where it keeps its tasks.
    pub place: Place,
    /// What chance is made of.
    pub seed: u64,
}

/// Where the program keeps its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, which one process has to itself.
    File,
    /// In a file on a disk that has a cache. Whenever the program is killed, the power goes as well.
    Disk(Cache),
    /// In `DynamoDB` and SQS, which two copies of it share; they are ended by turns.
    Cloud,
}

/// How the program is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `kill -9`: at once, whatever it is doing.
    Kill,
    /// SIGTERM: it is to finish what it has begun, and to exit with 0.
    Terminate,
}

/// Everything that is known once a run is over.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What the clients did and saw, in the order of time.
    pub history: Vec<history::Event>,
    /// The calls that the ledger has taken down, in the order of time.
    pub executions: Vec<ledger::Execution>,
    /// The kills, in the order of time.
    pub kills: Vec<Kill>,
    /// All tasks as the program shows them in the end, by id.
    pub tasks: std::collections::BTreeMap<String, Standing>,
    /// How many tasks the program runs at a time.
    pub concurrency: usize,
    /// What the power cuts took, if the kills were such.
    pub losses: Losses,
}

/// One kill.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Kill {
    /// Before this moment the process was certainly alive.
    pub sent: Timestamp,
    /// From this moment on it was certainly dead.
    pub over: Timestamp,
}

/// How a task ended, if it did.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// The word for it.
    pub status: String,
    /// The attempts that are on record as crashed.
    pub crashed: Vec<Crash>,
}

/// An attempt that is on record as crashed.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Its number.
    pub attempt: u64,
    /// When a worker took the task.
    pub from: Timestamp,
    /// When it was found out that nothing would come of that.
    pub to: Timestamp,
}

/// A file of one JSON object a line.
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

/// The time by the clock that the program goes by too.
fn now() -> Timestamp {
    SystemClock.now()
}

/// What holds once a line is written.
#[derive(Clone, Copy)]
enum Durability {
    /// It survives this process.
    Written,
    /// It survives this machine.
    OnDisk,
}
