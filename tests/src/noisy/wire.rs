//! Plain HTTP/1.1 over a socket, for requests that no well-behaved client would send.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Address of the attacker, so that limits by address tell it from the quiet tenant.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// Ports of the attacker's connections.
///
/// They are below the range from which Linux chooses ports (32,768 to 60,999). If the attacker bound ports in
/// that range, Linux would not choose them for the quiet tenant either, at any address. The quiet tenant
/// would run out of ports.
const PORTS: Range<u16> = 2_000..32_000;

/// Connects from an address of this machine. `receive_buffer` is the size of the receive buffer in bytes.
pub async fn connect(
    from: Ipv4Addr,
    to: SocketAddr,
    receive_buffer: Option<u32>,
) -> std::io::Result<TcpStream> {
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
    let count = COUNT.try_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
        Some((count + 1) % (PORTS.end - PORTS.start))
    });
    PORTS.start + count.unwrap_or_default()
}

/// Returns the bytes of a request.
pub fn request(method: &str, path: &str, key: Option<&str>, body: &str) -> String {
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let length = if body.is_empty() { "" } else { &length };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{key}{length}\r\n{body}")
}

/// Connection that sends one request after another.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects to the server.
    pub async fn open(from: Ipv4Addr, to: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { stream: connect(from, to, None).await?, buffer: Vec::new() })
    }

    /// Sends bytes unchanged.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a request and reads its whole answer. Returns the status.
    pub async fn exchange(&mut self, request: &str) -> anyhow::Result<u16> {
        self.send(request.as_bytes()).await?;
        self.answer().await
    }

    /// Reads one whole answer. Returns the status.
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

/// Returns the status of an answer and the offset of its end, or `None` if its head is incomplete.
fn head(answer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end])?;
    let status = head.get(9..12).context("the response has no status")?.parse()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(Some((status, end + 4 + length.unwrap_or(0))))
}
