//! Program as a process: started, stopped, killed, or run to its end.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Running server. Dropping this value kills it.
pub struct Process {
    child: Child,
    address: SocketAddr,
    log: JoinHandle<Vec<String>>,
}

/// Started server that has not printed its address yet.
pub struct Starting {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    seen: Vec<String>,
}

/// Finished program.
#[derive(Debug)]
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Maximum time to start or stop, far more than usual. A stop includes up to 25 seconds for running tasks.
const PATIENCE: Duration = Duration::from_secs(90);

impl Process {
    /// Starts `program serve` on a free port with these additional variables, and resolves once it listens.
    pub async fn start(
        program: &Path,
        flags: &[String],
        variables: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        Starting::new(program, flags, variables)?.listening().await
    }

    /// Starts `program serve` on a file, with a limit of its address space in KiB, and without core dumps.
    pub async fn start_limited(program: &Path, data: &Path, kibibytes: u32) -> anyhow::Result<Self> {
        let setup = format!("ulimit -c 0 && ulimit -v {kibibytes}");
        Self::start_after(&setup, program, &["--data".to_owned(), data.display().to_string()], &[]).await
    }

    /// Starts `program serve` in a shell that runs `setup` first, with these additional variables.
    pub async fn start_after(
        setup: &str,
        program: &Path,
        flags: &[String],
        variables: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let mut shell = command(Path::new("sh"));
        shell.args(["-c", &format!("{setup} && exec \"$0\" \"$@\"")]).arg(program);
        shell.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
        Starting::launch(shell, flags)?.listening().await
    }

    /// Returns the peak resident set size so far (`VmHWM`), in KiB. Linux only.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let id = self.child.id().context("the program has already ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .context("the process status has no VmHWM")?;
        line.trim().trim_end_matches(" kB").parse().context("VmHWM is not a number")
    }

    /// Resolves when the process has ended by itself.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Returns the process id, or `None` if the process has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the process (SIGKILL), and returns its log.
    pub async fn kill(mut self) -> anyhow::Result<Vec<String>> {
        self.child.kill().await?;
        Ok(self.log.await?)
    }

    /// Stops the process (SIGTERM), waits for its end, and returns its exit status and its log.
    pub async fn terminate(mut self) -> anyhow::Result<(ExitStatus, Vec<String>)> {
        let id = self.child.id().context("the program has already ended")?;
        // The shell's built-in `kill`, because not every machine has a program of that name.
        let told = Command::new("sh").args(["-c", "kill -TERM \"$0\""]).arg(id.to_string()).status().await?;
        ensure!(told.success(), "SIGTERM cannot be sent");
        let status =
            timeout(PATIENCE, self.child.wait()).await.context("the program does not stop in time")??;
        Ok((status, self.log.await?))
    }
}

impl Starting {
    /// Starts `program serve` on a free port with these additional variables.
    pub fn new(program: &Path, flags: &[String], variables: &[(&str, String)]) -> anyhow::Result<Self> {
        let mut program = command(program);
        program.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
        Self::launch(program, flags)
    }

    fn launch(mut program: Command, flags: &[String]) -> anyhow::Result<Self> {
        program.args(["serve", "--listen", "127.0.0.1:0"]).args(flags);
        let mut child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stderr.take().context("the program has no standard error")?).lines();
        Ok(Self { child, lines, seen: Vec::new() })
    }

    /// Resolves once the process listens.
    pub async fn listening(mut self) -> anyhow::Result<Process> {
        let announced = announced(&mut self.lines, &mut self.seen);
        let address = timeout(PATIENCE, announced)
            .await
            .context("the program does not print its address in time")??;
        Ok(Process { child: self.child, address, log: tokio::spawn(rest(self.lines, self.seen)) })
    }

    /// Kills the process (SIGKILL) after `time`, and returns its log.
    pub async fn kill_after(mut self, time: Duration) -> anyhow::Result<Vec<String>> {
        let end = timeout(time, self.child.wait()).await;
        ensure!(end.is_err(), "the program ended by itself");
        self.child.kill().await?;
        Ok(rest(self.lines, self.seen).await)
    }
}

/// Runs a program to its end, as a client of the nobat at `url`.
pub async fn run(program: &Path, arguments: &[&str], url: Option<&str>) -> anyhow::Result<Ran> {
    let mut command = command(program);
    if let Some(url) = url {
        command.env("NOBAT_URL", url);
    }
    let output = timeout(PATIENCE, command.args(arguments).output())
        .await
        .context("the program does not end in time")??;
    Ok(Ran {
        code: output.status.code().context("the program was killed by a signal")?,
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// Returns a command without the `NOBAT_` variables of the user who runs the tests.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NOBAT_")) {
        command.env_remove(name);
    }
    command
}

/// Reads the log up to the line with the address.
async fn announced(
    lines: &mut Lines<BufReader<ChildStderr>>,
    seen: &mut Vec<String>,
) -> anyhow::Result<SocketAddr> {
    while let Some(line) = lines.next_line().await? {
        let address = address(&line);
        seen.push(line);
        if let Some(address) = address {
            return Ok(address);
        }
    }
    bail!("the program ended before it printed its address: {}", seen.join("\n"))
}

fn address(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    line["fields"]["address"].as_str()?.parse().ok()
}

async fn rest(mut lines: Lines<BufReader<ChildStderr>>, mut seen: Vec<String>) -> Vec<String> {
    while let Ok(Some(line)) = lines.next_line().await {
        seen.push(line);
    }
    seen
}
