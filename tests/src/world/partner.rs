//! Another server to be called, written with other tools than nobat, and in a process of its own.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::world::PATIENCE;
use crate::world::program::workspace;

/// A server that is running. Dropped, it is killed.
pub struct Partner {
    address: SocketAddr,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Partner {
    /// A script of `tests/partners`, in Python. It says in its first line where it listens.
    pub async fn start(script: &str, arguments: &[&str]) -> Self {
        let mut python = Command::new("python3");
        python.arg(workspace().join("tests/partners").join(script)).args(arguments);
        let mut child = python.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("python3");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let address = next(&mut lines).await.parse().expect("where it listens");
        Self { address, lines, _child: child }
    }

    /// The URL of a path there.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next thing that it says.
    pub async fn says(&mut self) -> String {
        next(&mut self.lines).await
    }
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = timeout(PATIENCE, lines.next_line()).await.expect("a partner that says something");
    line.expect("output that can be read").expect("a partner that goes on")
}
