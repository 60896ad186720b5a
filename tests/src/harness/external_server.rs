//! External server to be called, written with other tools than nobat, in its own process.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::harness::PATIENCE;
use crate::harness::program::workspace;

/// Running server. Dropping this value kills it.
pub struct Partner {
    address: SocketAddr,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Partner {
    /// Starts a Python script of `tests/partners`. Its first line of output is its address.
    pub async fn start(script: &str, arguments: &[&str]) -> Self {
        let mut python = Command::new("python3");
        python.arg(workspace().join("tests/partners").join(script)).args(arguments);
        let mut child = python
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let address = next(&mut lines).await.parse().expect("the first line is an address");
        Self { address, lines, _child: child }
    }

    /// Returns the URL of a path on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the next line of its output.
    pub async fn says(&mut self) -> String {
        next(&mut self.lines).await
    }
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = timeout(PATIENCE, lines.next_line()).await.expect("the partner prints a line in time");
    line.expect("the output can be read").expect("the partner is still running")
}
