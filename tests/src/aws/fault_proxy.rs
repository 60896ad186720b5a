//! Tap in front of a server: tests stop, delay and cut its traffic, as a network fault would.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Port that relays to another port. It ends with the runtime in which it was created.
pub struct Tap {
    address: SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

struct Inner {
    target: OnceLock<SocketAddr>,
    flow: watch::Sender<Flow>,
    /// Number of connections that the tap closed (`Refused`, `Reset`) or swallowed.
    refused: watch::Sender<usize>,
}

/// Fate of the traffic through a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The tap relays everything.
    Open,
    /// The tap closes open and new connections: the server is down.
    Refused,
    /// The tap resets open and new connections (RST) instead of closing them.
    Reset,
    /// The tap holds back all traffic without an error. Held traffic arrives late if the tap is opened in
    /// time.
    BlackHole,
    /// The tap drops all traffic for good. An affected connection stays dead but open.
    Swallowed,
    /// The tap relays traffic after this delay.
    Late(Duration),
    /// The tap drops the next reply and closes its connection, after the server handled the request. Then the
    /// tap is open.
    LosesNextReply,
}

impl Flow {
    /// Returns true if the tap ends connections.
    fn is_closed(self) -> bool {
        matches!(self, Self::Refused | Self::Reset)
    }
}

/// Marker: the connection has ended.
struct Closed;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Reply,
}

impl Tap {
    /// Creates a tap on a free port without a target. Until [`Tap::aim_at`], it closes every connection.
    pub async fn new() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, flow) = (listener.local_addr()?, watch::Sender::new(Flow::Open));
        let inner = Arc::new(Inner { target: OnceLock::new(), flow, refused: watch::Sender::new(0) });
        Ok(Self { address, server: tokio::spawn(serve(listener, Arc::clone(&inner))), inner })
    }

    /// Creates a tap in front of a server.
    pub async fn before(target: SocketAddr) -> std::io::Result<Self> {
        let tap = Self::new().await?;
        tap.aim_at(target);
        Ok(tap)
    }

    /// Sets the target. Panics at the second call.
    pub fn aim_at(&self, target: SocketAddr) {
        self.inner.target.set(target).expect("the tap has no target yet");
    }

    /// Returns the address on which the tap listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of the tap.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the flow from now on.
    pub fn set(&self, flow: Flow) {
        self.inner.flow.send_replace(flow);
    }

    /// Resolves when the tap has refused or swallowed `count` more connections.
    pub async fn refuses(&self, count: usize) {
        let mut refused = self.inner.refused.subscribe();
        let enough = *refused.borrow_and_update() + count;
        // The channel cannot close: the sender lives in `self`.
        let _ = refused.wait_for(|refused| *refused >= enough).await;
    }

    /// Returns the current flow.
    pub fn flow(&self) -> Flow {
        *self.inner.flow.borrow()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, inner: Arc<Inner>) {
    while let Ok((client, _)) = listener.accept().await {
        let inner = Arc::clone(&inner);
        tokio::spawn(async move { inner.relay(client).await });
    }
}

impl Inner {
    /// Relays between one client and the server until one of them or the tap ends the connection.
    async fn relay(&self, mut client: TcpStream) {
        let mut flow = self.flow.subscribe();
        let Some(target) = self.target.get() else { return };
        let Ok(mut server) = TcpStream::connect(target).await else { return };
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.split(), server.split());
        let requests = self.pump(&mut from_client, &mut to_server, Direction::Request);
        let replies = self.pump(&mut from_server, &mut to_client, Direction::Reply);
        tokio::select! {
            // `biased` checks the flow first: bytes that arrive while the tap refuses must go nowhere.
            biased;
            _ = flow.wait_for(|flow| flow.is_closed()) => self.refused.send_modify(|count| *count += 1),
            _ = async { tokio::try_join!(requests, replies) } => {}
        }
        if *flow.borrow() == Flow::Reset {
            // If the call fails, the connection is closed instead of reset, which is a fault as well.
            let _ = client.set_zero_linger();
        }
    }

    async fn pump<R, W>(&self, from: &mut R, to: &mut W, direction: Direction) -> Result<(), Closed>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut chunk = vec![0; 64 * 1024];
        let mut is_dead = false;
        loop {
            let length = from.read(&mut chunk).await.map_err(|_| Closed)?;
            if length > 0 && (is_dead || *self.flow.borrow() == Flow::Swallowed) {
                self.refused.send_modify(|count| *count += usize::from(!is_dead));
                is_dead = true;
                continue;
            }
            self.wait_until_open().await;
            if length == 0 {
                return to.shutdown().await.map_err(|_| Closed);
            }
            if direction == Direction::Reply && self.loses_reply() {
                return Err(Closed);
            }
            to.write_all(&chunk[..length]).await.map_err(|_| Closed)?;
        }
    }

    /// Resolves when received bytes may be relayed.
    async fn wait_until_open(&self) {
        let (flow, mut changes) = (*self.flow.borrow(), self.flow.subscribe());
        // The channel cannot close: the sender lives in `self`.
        if let Flow::Late(delay) = flow {
            let _ = timeout(delay, changes.wait_for(|now| *now != flow)).await;
        }
        let _ = changes.wait_for(|flow| *flow != Flow::BlackHole).await;
    }

    fn loses_reply(&self) -> bool {
        self.flow.send_if_modified(|flow| {
            let is_lost = *flow == Flow::LosesNextReply;
            if is_lost {
                *flow = Flow::Open;
            }
            is_lost
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::harness::exchange::{Answer, ExchangeError, exchange};
    use crate::harness::receiver::Receiver;

    async fn tapped() -> (Receiver, Tap) {
        let receiver = Receiver::start().await.unwrap();
        let tap = Tap::before(receiver.address()).await.unwrap();
        (receiver, tap)
    }

    async fn post(address: SocketAddr, body: &str) -> Result<Answer, ExchangeError> {
        exchange(address, "POST", "/", &[], body).await
    }

    fn bodies(receiver: &Receiver) -> Vec<String> {
        receiver
            .received("/")
            .iter()
            .map(|request| String::from_utf8_lossy(&request.body).into_owned())
            .collect()
    }

    #[tokio::test]
    async fn refused_request_never_arrives() {
        let (receiver, tap) = tapped().await;
        tap.set(Flow::Refused);
        assert!(post(tap.address(), "lost").await.is_err());
        tap.set(Flow::Open);
        assert_eq!(post(tap.address(), "found").await.unwrap().status, 200);
        assert_eq!(bodies(&receiver), ["found"]);
    }

    #[tokio::test]
    async fn black_holed_request_arrives_late() {
        let (receiver, tap) = tapped().await;
        tap.set(Flow::BlackHole);
        let address = tap.address();
        let late = tokio::spawn(async move { post(address, "late").await.unwrap().status });
        for _ in 0..3 {
            post(receiver.address(), "direct").await.unwrap();
        }
        assert!(!late.is_finished());
        tap.set(Flow::Open);
        assert_eq!(late.await.unwrap(), 200);
        assert_eq!(bodies(&receiver), ["direct", "direct", "direct", "late"]);
    }

    #[tokio::test]
    async fn reset_request_never_arrives_and_fails() {
        let (receiver, tap) = tapped().await;
        tap.set(Flow::Reset);
        let Err(ExchangeError::Unanswered(error)) = post(tap.address(), "lost").await else {
            panic!("the request got a response")
        };
        assert!(format!("{error:?}").contains("reset"), "{error:?}");
        tap.set(Flow::Open);
        assert_eq!(post(tap.address(), "found").await.unwrap().status, 200);
        assert_eq!(bodies(&receiver), ["found"]);
    }

    #[tokio::test]
    async fn swallowed_request_never_arrives_and_later_ones_do() {
        let (receiver, tap) = tapped().await;
        let mut caught = TcpStream::connect(tap.address()).await.unwrap();
        tap.set(Flow::Swallowed);
        let (written, ()) =
            tokio::join!(caught.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n\r\n"), tap.refuses(1));
        written.unwrap();
        tap.set(Flow::Open);
        assert_eq!(post(tap.address(), "found").await.unwrap().status, 200);
        assert!(
            caught.read_u8().now_or_never().is_none(),
            "the caught connection is neither answered nor closed"
        );
        assert_eq!(bodies(&receiver), ["found"]);
    }

    #[tokio::test]
    async fn request_and_reply_arrive_late() {
        let (receiver, tap) = tapped().await;
        let (lateness, before) = (Duration::from_millis(50), std::time::Instant::now());
        tap.set(Flow::Late(lateness));
        assert_eq!(post(tap.address(), "late").await.unwrap().status, 200);
        assert!(before.elapsed() >= 2 * lateness, "the request and the reply are both delayed");
        assert_eq!(bodies(&receiver), ["late"]);
    }

    #[tokio::test]
    async fn lost_reply_leaves_its_request_handled() {
        let (receiver, tap) = tapped().await;
        tap.set(Flow::LosesNextReply);
        assert!(matches!(post(tap.address(), "first").await, Err(ExchangeError::Unanswered(_))));
        assert_eq!(tap.flow(), Flow::Open);
        assert_eq!(post(tap.address(), "second").await.unwrap().status, 200);
        assert_eq!(bodies(&receiver), ["first", "second"]);
    }
}
