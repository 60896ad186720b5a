//! Attacker as a process: this program again, with the attack in an environment variable.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::noisy::attacks;

/// Environment variable of the attacking process: an [`Order`] as JSON.
const ORDER: &str = "NOISY_ORDER";

/// Attack by a stranger or a tenant on a server.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attack {
    /// A stranger requests long answers on 10,000 connections and never reads them.
    UnreadAnswers,
    /// A tenant lists tasks with filters that match nothing, on 3,000 connections.
    FilteredLists,
    /// A tenant sends most of a body on 1,000 connections, and never the rest.
    StalledBodies,
    /// A stranger sends endless bodies.
    EndlessBodies,
    /// A stranger connects and disconnects as often as it can.
    NewConnections,
    /// A stranger at the quiet tenant's own address tries 360 keys a second.
    BadKeys,
    /// A stranger holds 1,010 connections of a server that has 1,024 file handles.
    IdleConnections,
    /// A tenant creates 200,000 limit keys and tasks for them.
    LimitKeys,
    /// A tenant's tasks call an endpoint that answers with one byte a second.
    DrippingEndpoint,
    /// A tenant's tasks call names whose name server never answers.
    SilentNames,
    /// A tenant submits as fast as it can.
    Submissions,
}

/// Attack to make, and its target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The attack.
    pub attack: Attack,
    /// True if the attack has its full size.
    pub is_full: bool,
    /// The server.
    pub server: SocketAddr,
    /// Key of a tenant, for attacks that need one.
    pub key: String,
}

impl Order {
    /// Returns `full` if the attack has its full size, otherwise `small`.
    pub fn size(&self, small: usize, full: usize) -> usize {
        if self.is_full { full } else { small }
    }
}

/// Counts of an attack's events by name: connections, answers by status.
#[derive(Clone, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counts {
    /// Counts an event.
    pub fn add(&self, name: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.into()).or_default() += 1;
    }
}

/// Counts of a finished attack.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report(pub BTreeMap<String, u64>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.0.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        f.write_str(&counts.join(", "))
    }
}

/// Running attacker. Dropping it kills the process.
pub struct Attacker(Child);

/// Maximum time for an attacker to stop.
const PATIENCE: Duration = Duration::from_secs(30);

impl Attacker {
    /// Starts an attacker: this program with these arguments, at the lowest priority and with the maximum
    /// number of file handles.
    pub fn start(order: &Order, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -Sn $(ulimit -Hn) && exec nice -n 19 \"$0\" \"$@\""]);
        shell.arg(std::env::current_exe()?).args(arguments).env(ORDER, serde_json::to_string(order)?);
        Ok(Self(shell.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?))
    }

    /// Stops the attacker and returns its counts.
    pub async fn stop(mut self) -> anyhow::Result<Report> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        let mut stdout = self.0.stdout.take().context("the attacker has no standard output")?;
        timeout(PATIENCE, stdout.read_to_string(&mut said)).await.context("the attacker does not stop")??;
        let report: Report = said
            .lines()
            .find_map(|line| serde_json::from_str(line).ok())
            .with_context(|| format!("the attacker printed no report: {said}"))?;
        ensure!(!report.0.is_empty(), "the attacker did nothing");
        Ok(report)
    }
}

/// Makes the attack that the environment variable names, until standard input ends. Returns true if there was
/// one.
pub async fn obey() -> anyhow::Result<bool> {
    let Ok(order) = std::env::var(ORDER) else { return Ok(false) };
    let (order, counts) = (serde_json::from_str(&order)?, Counts::default());
    let attack = tokio::spawn(attacks::make(order, counts.clone()));
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    attack.abort();
    let counts = counts.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    println!("\n{}", serde_json::to_string(&Report(counts))?);
    Ok(true)
}
