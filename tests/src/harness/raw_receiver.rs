//! Receiver that works on bytes: it sends answers, and breaks connections, as no HTTP library would.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Server on loopback. Dropping it stops it.
pub struct RawReceiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<RawRequest>>>,
    server: JoinHandle<()>,
}

/// Request as it arrived.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// Number of its connection, from 1.
    pub connection: usize,
    /// Number of the request on its connection, from 1.
    pub number: usize,
    /// Request line and headers, without the empty line. Header names are in lower case, as nobat sends them.
    pub head: String,
    /// Body, of the length in `content-length`.
    pub body: Vec<u8>,
}

/// Reaction to a request.
#[derive(Clone)]
pub enum Reaction {
    /// Sends these bytes and keeps the connection open.
    Send(Vec<u8>),
    /// Sends these bytes and closes the connection with a FIN.
    SendAndClose(Vec<u8>),
    /// Closes the connection with a RST and sends nothing.
    Reset,
}

impl RawReceiver {
    /// Starts a server that reacts to each request as `react` says.
    pub async fn start(react: impl Fn(&RawRequest) -> Reaction + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let (address, received) =
            (listener.local_addr().expect("the listener has an address"), Arc::default());
        let (react, kept) = (Arc::new(react), Arc::clone(&received));
        let server = tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connection += 1;
                tokio::spawn(serve(stream, connection, Arc::clone(&react), Arc::clone(&kept)));
            }
        });
        Self { address, received, server }
    }

    /// Starts a server that sends the same bytes for every request and keeps connections.
    pub async fn sending(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_| Reaction::Send(answer.clone())).await
    }

    /// Returns the URL of a path on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns all requests so far, in order of arrival.
    pub fn received(&self) -> Vec<RawRequest> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns connection and number of every request so far.
    pub fn places(&self) -> Vec<(usize, usize)> {
        self.received().iter().map(|request| (request.connection, request.number)).collect()
    }
}

impl Drop for RawReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl RawRequest {
    /// Returns the values of a header, one for each line.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

/// Returns an HTTP/1.1 answer with these headers, each ended by CR LF, and a body of known length.
pub fn answer(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Status\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    react: Arc<impl Fn(&RawRequest) -> Reaction>,
    received: Arc<Mutex<Vec<RawRequest>>>,
) -> std::io::Result<()> {
    for number in 1.. {
        let (head, body) = read(&mut stream).await?;
        let request = RawRequest { connection, number, head, body };
        let reaction = react(&request);
        received.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        match reaction {
            Reaction::Send(bytes) => stream.write_all(&bytes).await?,
            Reaction::SendAndClose(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reaction::Reset => {
                #[allow(deprecated, reason = "zero seconds do not block")]
                stream.set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn read(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    head.truncate(head.len() - 4);
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    Ok((head, body))
}
