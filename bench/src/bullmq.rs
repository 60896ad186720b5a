//! Durable BullMQ behind Fastify, on a Redis that syncs every write. Measured in the same run as nobat.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

use crate::load::Connection;

/// Redis and the server in front of it. Both are killed when dropped.
pub(crate) struct BullMq {
    redis: Child,
    server: Child,
    /// Address of the server.
    pub(crate) address: SocketAddr,
}

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bullmq");

impl BullMq {
    /// Starts both with empty data. Needs `redis-server`, `node` and `npm`.
    pub(crate) fn start(data: &Path, concurrency: usize) -> anyhow::Result<Self> {
        let modules = std::path::absolute(data)?.with_file_name("bench-bullmq");
        install(&modules)?;
        let folder = std::path::absolute(data)?.join("redis");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let port = free_port()?.to_string();
        let redis = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port,
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--dir",
            ])
            .arg(&folder)
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server cannot be started")?;
        let mut server = Command::new("node")
            .arg(modules.join("server.js"))
            .args([&port, &concurrency.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("node cannot be started")?;
        let mut line = String::new();
        BufReader::new(server.stdout.take().context("the server has no standard output")?)
            .read_line(&mut line)?;
        let address = line.trim().parse().context("the BullMQ server did not print its address")?;
        Ok(Self { redis, server, address })
    }

    /// Returns the number of tasks that are done.
    pub(crate) async fn done(&self, connection: &mut Connection) -> anyhow::Result<usize> {
        let (_, answer) = connection.exchange("GET /done HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let answer: serde_json::Value = serde_json::from_str(answer)?;
        Ok(usize::try_from(answer["done"].as_u64().context("the response has no number of tasks")?)?)
    }
}

impl Drop for BullMq {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.redis] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn install(modules: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(modules)?;
    for file in ["package.json", "package-lock.json", "server.js"] {
        std::fs::copy(Path::new(SOURCE).join(file), modules.join(file))?;
    }
    if !modules.join("node_modules").exists() {
        let installed = Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund"])
            .current_dir(modules)
            .status()
            .context("npm cannot be started")?;
        ensure!(installed.success(), "npm could not install BullMQ");
    }
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
