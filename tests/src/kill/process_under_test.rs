//! Program under test: one process on a file, or two that share a table and a queue.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rusqlite::Connection;
use tokio::sync::watch;

use crate::aws::emulator::Emulator;
use crate::aws::queues::Queues;
use crate::aws::table::Table;
use crate::disk::{Disk, Losses};
use crate::harness::complaints;
use crate::harness::process::{Process, Starting};
use crate::harness::program::Program;
use crate::kill::{How, Kill, Place, Plan, now};

/// Number of tasks that an instance runs at a time.
pub(crate) const CONCURRENCY: usize = 128;
/// Visibility timeout: a hint that a dead instance received reappears some time after the lease has expired.
const VISIBILITY: Duration = Duration::from_secs(65);

/// Instances of the program, and the channel that tells clients their addresses.
pub(crate) struct Subject {
    program: PathBuf,
    flags: Vec<String>,
    variables: Vec<(&'static str, String)>,
    /// Database file, if the backend is a file.
    data: Option<PathBuf>,
    copies: Vec<Option<Process>>,
    /// Number of ends so far, which selects the instance that is ended next.
    next: usize,
    alive: watch::Sender<Vec<SocketAddr>>,
    /// Disk of the file, if kills cut the power.
    disk: Option<Disk>,
    chance: StdRng,
    losses: Losses,
}

impl Subject {
    pub(crate) async fn new(
        plan: Plan,
        folder: &Path,
        alive: watch::Sender<Vec<SocketAddr>>,
    ) -> anyhow::Result<Self> {
        let concurrency = CONCURRENCY.to_string();
        let flags = ["--concurrency", &concurrency, "--allow-private-networks", "127.0.0.0/8"]
            .map(str::to_owned)
            .to_vec();
        let mut subject = Self {
            program: Program::Nobat.path(),
            flags,
            variables: Vec::new(),
            data: None,
            copies: vec![None],
            next: 0,
            alive,
            disk: None,
            chance: StdRng::seed_from_u64(plan.seed),
            losses: Losses::default(),
        };
        match plan.place {
            Place::File => subject.use_file(folder.join("nobat.db")),
            Place::Disk(cache) => subject.use_disk(Disk::new(folder, cache)?),
            Place::Cloud => subject.use_emulator(Emulator::shared()).await,
        }
        Ok(subject)
    }

    fn use_file(&mut self, data: PathBuf) {
        self.flags.extend(["--data".to_owned(), data.display().to_string()]);
        self.data = Some(data);
    }

    fn use_disk(&mut self, disk: Disk) {
        self.variables = disk.variables();
        self.use_file(disk.data());
        self.disk = Some(disk);
    }

    async fn use_emulator(&mut self, emulator: &Emulator) {
        let (table, queues) =
            (Table::create(emulator.client()).await, Queues::create(emulator.client(), VISIBILITY).await);
        self.flags.extend(
            ["--backend", "aws", "--table", table.name(), "--queue-url", queues.hints()].map(str::to_owned),
        );
        self.variables = emulator.variables().to_vec();
        self.copies.push(None);
    }

    /// Returns the time after the last start within which a task must end. Longer on AWS: the sweeper finds a
    /// dead instance's tasks only when their marks come, minutes later.
    pub(crate) fn patience(&self) -> Duration {
        if self.data.is_some() { Duration::from_mins(2) } else { Duration::from_mins(8) }
    }

    /// Starts the instances that do not run, and returns the address of one.
    pub(crate) async fn start(&mut self) -> anyhow::Result<SocketAddr> {
        for copy in self.copies.iter_mut().filter(|copy| copy.is_none()) {
            *copy = Some(Process::start(&self.program, &self.flags, &self.variables).await?);
        }
        self.publish_addresses();
        self.addresses().first().copied().context("no instance runs")
    }

    /// Ends the next instance and checks its log. Clients learn of it only afterwards, so that requests in
    /// progress are part of the test.
    pub(crate) async fn end_one(&mut self, how: How) -> anyhow::Result<Option<Kill>> {
        let turn = self.next % self.copies.len();
        self.next += 1;
        let process = self.copies[turn].take().context("the instance does not run")?;
        let kill = end(process, how).await?;
        self.publish_addresses();
        self.cut_power_and_check_file()?;
        Ok(kill)
    }

    /// Kills the program before it has started.
    pub(crate) async fn kill_while_starting(&mut self, moment: Duration) -> anyhow::Result<Kill> {
        let sent = now();
        let log = Starting::new(&self.program, &self.flags, &self.variables)?.kill_after(moment).await?;
        let kill = Kill { sent, over: now() };
        refuse_complaints(&log)?;
        self.cut_power_and_check_file()?;
        Ok(kill)
    }

    /// Returns the losses by power cuts so far.
    pub(crate) fn losses(&self) -> Losses {
        self.losses
    }

    /// Cuts the power if the disk is to lose power, and checks the file.
    fn cut_power_and_check_file(&mut self) -> anyhow::Result<()> {
        if let Some(disk) = &self.disk {
            disk.cut(&mut self.chance, &mut self.losses)?;
        }
        self.data.as_deref().filter(|data| data.exists()).map_or(Ok(()), integrity)
    }

    /// Stops all instances with SIGTERM.
    pub(crate) async fn end_all(&mut self) -> anyhow::Result<()> {
        for process in self.copies.iter_mut().filter_map(Option::take) {
            end(process, How::Terminate).await?;
        }
        Ok(())
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.copies.iter().flatten().map(Process::address).collect()
    }

    fn publish_addresses(&self) {
        self.alive.send_replace(self.addresses());
    }
}

async fn end(process: Process, how: How) -> anyhow::Result<Option<Kill>> {
    let sent = now();
    let (kill, log) = match how {
        How::Kill => {
            let log = process.kill().await?;
            (Some(Kill { sent, over: now() }), log)
        }
        How::Terminate => {
            let (status, log) = process.terminate().await?;
            ensure!(
                status.code() == Some(0),
                "after SIGTERM, the program ended with {status}:\n{}",
                log.join("\n")
            );
            (None, log)
        }
    };
    refuse_complaints(&log)?;
    Ok(kill)
}

fn refuse_complaints(log: &[String]) -> anyhow::Result<()> {
    let complaints = complaints(log);
    ensure!(complaints.is_empty(), "the log contains errors:\n{}", complaints.join("\n"));
    Ok(())
}

/// Lets SQLite check the file as the dead process left it.
///
/// It checks a copy. The last process that closes a file checkpoints its write-ahead log, and recovery from a
/// leftover log is part of the program's test.
fn integrity(data: &Path) -> anyhow::Result<()> {
    let with = |suffix: &str| {
        let mut name = data.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    std::fs::copy(data, with("-copy"))?;
    let (log, copied_log) = (with("-wal"), with("-copy-wal"));
    if log.exists() {
        std::fs::copy(log, &copied_log)?;
    }
    let connection = Connection::open(with("-copy"))?;
    let verdict: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    ensure!(verdict == "ok", "the file is damaged: {verdict}");
    drop(connection);
    std::fs::remove_file(with("-copy"))?;
    if copied_log.exists() {
        std::fs::remove_file(copied_log)?;
    }
    Ok(())
}
