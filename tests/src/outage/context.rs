//! Program, table and queue, with a tap in front of both.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;

use crate::aws::emulator::Emulator;
use crate::aws::fault_proxy::{Flow, Tap};
use crate::aws::queues::Queues;
use crate::aws::table::Table;
use crate::harness::complaints;
use crate::harness::process::Process;
use crate::harness::program::Program;
use crate::outage::fault::{Fault, Part};

/// One instance of the program with its own table and queue.
pub struct Stage {
    /// Table, accessed without the tap.
    pub table: Table,
    /// Queue, accessed without the tap.
    pub queues: Queues,
    table_tap: Tap,
    queue_tap: Tap,
    process: Process,
}

/// Visibility timeout: an unsettled hint reappears some time after the lease has expired.
const VISIBILITY: Duration = Duration::from_secs(65);

impl Stage {
    /// Starts the program.
    pub async fn set() -> anyhow::Result<Self> {
        let emulator = Emulator::shared();
        let (table, queues) =
            (Table::create(emulator.client()).await, Queues::create(emulator.client(), VISIBILITY).await);
        let (table_tap, queue_tap) =
            (Tap::before(emulator.address()).await?, Tap::before(emulator.address()).await?);
        let flags =
            ["--backend", "aws", "--table", table.name(), "--queue-url", queues.hints()].map(str::to_owned);
        let taps =
            [("AWS_ENDPOINT_URL_DYNAMODB", table_tap.url()), ("AWS_ENDPOINT_URL_SQS", queue_tap.url())];
        let variables = [&emulator.variables()[..], &taps].concat();
        let process = Process::start(&Program::Nobat.path(), &flags, &variables).await?;
        Ok(Self { table, queues, table_tap, queue_tap, process })
    }

    /// Returns the address on which the program listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// Causes a fault.
    pub async fn cause(&self, fault: Fault) -> anyhow::Result<()> {
        self.tap(fault.part()).set(fault.limiter());
        if fault == Fault::Emptied {
            self.queues.purge().await;
            let left = self.queues.depth().await;
            ensure!(left == 0, "{left} messages are left in a queue that was emptied");
        }
        Ok(())
    }

    /// Ends a fault.
    pub fn heal(&self, fault: Fault) {
        self.tap(fault.part()).set(Flow::Open);
    }

    /// Stops the program and returns the complaints of its log.
    pub async fn end(self) -> anyhow::Result<Vec<String>> {
        let (status, log) = self.process.terminate().await?;
        ensure!(
            status.code() == Some(0),
            "after SIGTERM, the program ended with {status}:\n{}",
            log.join("\n")
        );
        Ok(complaints(&log).into_iter().map(str::to_owned).collect())
    }

    fn tap(&self, part: Part) -> &Tap {
        match part {
            Part::Table => &self.table_tap,
            Part::Queue => &self.queue_tap,
        }
    }
}
