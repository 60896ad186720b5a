//! Servers as separate processes. They are killed when dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// A server under measurement.
pub(crate) struct Server {
    child: Child,
    /// Address of the server.
    pub(crate) address: SocketAddr,
}

/// Disk of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// The machine's disk.
    Plain,
    /// The machine's disk, with 1 ms more for each sync.
    Slow,
}

/// Prints the address of this server for the process that started it.
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
}

impl Server {
    /// Starts this program again as a server, with an empty folder.
    pub(crate) fn start(data: &Path, disk: Disk, arguments: &[&str]) -> anyhow::Result<Self> {
        if data.exists() {
            std::fs::remove_dir_all(data)?;
        }
        std::fs::create_dir_all(data)?;
        let mut command = Command::new(std::env::current_exe()?);
        if disk == Disk::Slow {
            command.env("LD_PRELOAD", slow_disk(data)?);
        }
        let [server, rest @ ..] = arguments else { anyhow::bail!("the arguments name no server") };
        command.arg(server).arg(data.join("bench.db")).args(rest);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("the server has no standard output")?)
            .read_line(&mut line)?;
        let address = line.trim().parse().context("the server did not print its address")?;
        Ok(Self { child, address })
    }

    /// Returns the peak resident memory of the server, in MiB (Linux).
    pub(crate) fn peak_memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .context("the process status has no VmHWM")?;
        let kib: u64 = line.split_whitespace().nth(1).context("VmHWM has no number")?.parse()?;
        Ok(kib / 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the library that slows every sync.
fn slow_disk(data: &Path) -> anyhow::Result<PathBuf> {
    let library = std::path::absolute(data)?.join("slow_disk.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/slow_disk.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(&library)
        .args([source, "-ldl"])
        .status()?;
    anyhow::ensure!(status.success(), "cc could not build slow_disk.c");
    Ok(library)
}
