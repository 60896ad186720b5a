//! Plain HTTP/1.1 over a socket, for requests that no well-behaved client would send.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The attacker's own address, so that limits by address tell it from the quiet tenant.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// Ports of the attacker's connections.
///
/// They lie below the range from which Linux chooses ports (32,768 to 60,999). A port that is bound in that range is not chosen for the
/// quiet tenant's connections either, at any address: an attacker of many connections would use up the quiet tenant's ports.
const PORTS: Range<u16> = 2_000..32_000;

/// Connects from an address of this machine, with a receive buffer of so many bytes if that is given.
pub async fn connect(from: Ipv4Addr, to: SocketAddr, receive_buffer: Option<u32>) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind((from, next_port()).into())?;
    socket.connect(to).await
}

fn next_port() -> u16 {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    let count = COUNT.try_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some((count + 1) % (PORTS.end - PORTS.start)));
    PORTS.start + count.unwrap_or_default()
}

/// A request's bytes.
pub fn request(method: &str, path: &str, key: Option<&str>, body: &str) -> String {
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let length = if body.is_empty() { "" } else { &length };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{key}{length}\r\n{body}")
}

/// A connection that sends one request after the other.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub async fn open(from: Ipv4Addr, to: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { stream: connect(from, to, None).await?, buffer: Vec::new() })
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a request and reads its answer to the end. Returns the status.
    pub async fn exchange(&mut self, request: &str) -> anyhow::Result<u16> {
        self.send(request.as_bytes()).await?;
        self.answer().await
    }

    /// Reads one answer to its end. Returns the status.
    pub async fn answer(&mut self) -> anyhow::Result<u16> {
        self.buffer.clear();
        loop {
            if let Some((status, end)) = head(&self.buffer)?
                && self.buffer.len() >= end
            {
                return Ok(status);
            }
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
        }
    }
}

/// The status of an answer and where its body ends, once its head is there.
fn head(answer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end])?;
    let status = head.get(9..12).context("no status")?.parse()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(Some((status, end + 4 + length.unwrap_or(0))))
}
