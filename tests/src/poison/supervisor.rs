//! Supervisor: starts the program, and restarts it when it ends by itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::harness::process::Process;
use crate::harness::program::Program;

/// Program with the bad kinds, on one file.
pub struct Supervisor {
    address: watch::Receiver<SocketAddr>,
    stop: oneshot::Sender<()>,
    loop_: JoinHandle<anyhow::Result<usize>>,
}

/// Address space of the program, in KiB. With this limit, endless allocation ends the program and not the
/// machine.
const ADDRESS_SPACE: u32 = 2 * 1024 * 1024;

impl Supervisor {
    /// Starts the program.
    pub async fn start(data: PathBuf) -> anyhow::Result<Self> {
        let program = Program::Poison.path();
        let first = launch(&program, &data).await?;
        let (tell, address) = watch::channel(first.address());
        let (stop, stopped) = oneshot::channel();
        Ok(Self { address, stop, loop_: tokio::spawn(supervise(program, data, first, tell, stopped)) })
    }

    /// Returns the address on which the program listens or listened last.
    pub fn address(&self) -> SocketAddr {
        *self.address.borrow()
    }

    /// Stops the program and returns the number of restarts.
    pub async fn stop(self) -> anyhow::Result<usize> {
        let _ = self.stop.send(());
        self.loop_.await?
    }
}

async fn launch(program: &Path, data: &Path) -> anyhow::Result<Process> {
    Process::start_limited(program, data, ADDRESS_SPACE).await
}

async fn supervise(
    program: PathBuf,
    data: PathBuf,
    mut process: Process,
    tell: watch::Sender<SocketAddr>,
    mut stopped: oneshot::Receiver<()>,
) -> anyhow::Result<usize> {
    let mut restarts = 0;
    loop {
        tokio::select! {
            biased;
            ended = process.ended() => {
                let status = ended?;
                ensure!(!status.success(), "the program ended by itself with exit code 0");
                restarts += 1;
                process = launch(&program, &data).await.context("the program could not be restarted")?;
                tell.send_replace(process.address());
            }
            _ = &mut stopped => break,
        }
    }
    let (status, log) = process.terminate().await?;
    ensure!(status.code() == Some(0), "after SIGTERM, the program ended with {status}:\n{}", log.join("\n"));
    Ok(restarts)
}
