//! A tap in front of a server: what flows through it can be stopped, as a network stops it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A port that passes on to another. It goes with the runtime it was made in.
pub struct Tap {
    address: SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

struct Inner {
    target: OnceLock<SocketAddr>,
    flow: watch::Sender<Flow>,
    /// How many connections were closed because it refuses them, or are dead because it swallows them.
    refused: watch::Sender<usize>,
}

/// What becomes of what flows through a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It arrives.
    Open,
    /// Connections are closed, those that are open and those that are made: the server is down.
    Refused,
    /// The same, but nobody takes leave: connections are reset (RST).
    Reset,
    /// It arrives nowhere, and nobody is told. What is on its way arrives late, if the tap is opened in time.
    BlackHole,
    /// It arrives nowhere, and never will: what is being said is lost, and its connection is dead for good, though nobody closes it.
    Swallowed,
    /// It arrives after so long.
    Late(Duration),
    /// The next reply is lost with its connection, after what it replies to has been done; then the tap is open.
    LosesNextReply,
}

impl Flow {
    /// Whether connections come to their end.
    fn is_closed(self) -> bool {
        matches!(self, Self::Refused | Self::Reset)
    }
}

/// Why a connection is at its end.
struct Closed;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Reply,
}

impl Tap {
    /// A tap on a port that is free, in front of nothing yet: until then it refuses everybody.
    pub async fn new() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, flow) = (listener.local_addr()?, watch::Sender::new(Flow::Open));
        let inner = Arc::new(Inner { target: OnceLock::new(), flow, refused: watch::Sender::new(0) });
        Ok(Self { address, server: tokio::spawn(serve(listener, Arc::clone(&inner))), inner })
    }

    /// A tap in front of a server.
    pub async fn before(target: SocketAddr) -> std::io::Result<Self> {
        let tap = Self::new().await?;
        tap.aim_at(target);
        Ok(tap)
    }

    /// Says what it is in front of, once.
    pub fn aim_at(&self, target: SocketAddr) {
        self.inner.target.set(target).expect("a tap that is in front of nothing");
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets things flow so from now on.
    pub fn set(&self, flow: Flow) {
        self.inner.flow.send_replace(flow);
    }

    /// Resolves when so many more connections were refused, or swallowed.
    pub async fn refuses(&self, count: usize) {
        let mut refused = self.inner.refused.subscribe();
        let enough = *refused.borrow_and_update() + count;
        // It cannot be closed: the sender is here.
        let _ = refused.wait_for(|refused| *refused >= enough).await;
    }

    /// How they flow now.
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
    /// Passes on what one client and the server have to say to each other, until one of them, or the tap, has enough.
    async fn relay(&self, mut client: TcpStream) {
        let mut flow = self.flow.subscribe();
        let Some(target) = self.target.get() else { return };
        let Ok(mut server) = TcpStream::connect(target).await else { return };
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.split(), server.split());
        let requests = self.pump(&mut from_client, &mut to_server, Direction::Request);
        let replies = self.pump(&mut from_server, &mut to_client, Direction::Reply);
        tokio::select! {
            // In this order: what comes while the tap refuses goes nowhere.
            biased;
            _ = flow.wait_for(|flow| flow.is_closed()) => self.refused.send_modify(|count| *count += 1),
            _ = async { tokio::try_join!(requests, replies) } => {}
        }
        if *flow.borrow() == Flow::Reset {
            // If it cannot be, it is closed: as good a fault as any.
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
            self.passable().await;
            if length == 0 {
                return to.shutdown().await.map_err(|_| Closed);
            }
            if direction == Direction::Reply && self.loses_this_one() {
                return Err(Closed);
            }
            to.write_all(&chunk[..length]).await.map_err(|_| Closed)?;
        }
    }

    /// Resolves when what has arrived may go on.
    async fn passable(&self) {
        let (flow, mut changes) = (*self.flow.borrow(), self.flow.subscribe());
        // It cannot be closed: the sender is here.
        if let Flow::Late(delay) = flow {
            let _ = timeout(delay, changes.wait_for(|now| *now != flow)).await;
        }
        let _ = changes.wait_for(|flow| *flow != Flow::BlackHole).await;
    }

    fn loses_this_one(&self) -> bool {
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
    use crate::world::exchange::{Answer, ExchangeError, exchange};
    use crate::world::receiver::Receiver;

    async fn tapped() -> (Receiver, Tap) {
        let receiver = Receiver::start().await.unwrap();
        let tap = Tap::before(receiver.address()).await.unwrap();
        (receiver, tap)
    }

    async fn post(address: SocketAddr, body: &str) -> Result<Answer, ExchangeError> {
        exchange(address, "POST", "/", &[], body).await
    }

    fn bodies(receiver: &Receiver) -> Vec<String> {
        receiver.received("/").iter().map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
    }

    #[tokio::test]
    async fn what_is_refused_never_arrives() {
        let (receiver, tap) = tapped().await;
        tap.set(Flow::Refused);
        assert!(post(tap.address(), "lost").await.is_err());
        tap.set(Flow::Open);
        assert_eq!(post(tap.address(), "found").await.unwrap().status, 200);
        assert_eq!(bodies(&receiver), ["found"]);
    }

    #[tokio::test]
    async fn what_fell_into_a_black_hole_arrives_late() {
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
    async fn what_is_reset_never_arrives_and_says_so() {
        let (receiver, tap) = tapped().await;
        tap.set(Flow::Reset);
        let Err(ExchangeError::Unanswered(error)) = post(tap.address(), "lost").await else { panic!("an answer") };
        assert!(format!("{error:?}").contains("reset"), "{error:?}");
        tap.set(Flow::Open);
        assert_eq!(post(tap.address(), "found").await.unwrap().status, 200);
        assert_eq!(bodies(&receiver), ["found"]);
    }

    #[tokio::test]
    async fn what_is_swallowed_never_arrives_and_the_next_connection_is_as_good_as_new() {
        let (receiver, tap) = tapped().await;
        let mut caught = TcpStream::connect(tap.address()).await.unwrap();
        tap.set(Flow::Swallowed);
        let (written, ()) = tokio::join!(caught.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n\r\n"), tap.refuses(1));
        written.unwrap();
        tap.set(Flow::Open);
        assert_eq!(post(tap.address(), "found").await.unwrap().status, 200);
        assert!(caught.read_u8().now_or_never().is_none(), "it is neither answered nor closed");
        assert_eq!(bodies(&receiver), ["found"]);
    }

    #[tokio::test]
    async fn what_is_late_arrives_late() {
        let (receiver, tap) = tapped().await;
        let (lateness, before) = (Duration::from_millis(50), std::time::Instant::now());
        tap.set(Flow::Late(lateness));
        assert_eq!(post(tap.address(), "late").await.unwrap().status, 200);
        assert!(before.elapsed() >= 2 * lateness, "there and back");
        assert_eq!(bodies(&receiver), ["late"]);
    }

    #[tokio::test]
    async fn one_reply_is_lost_and_what_it_replied_to_is_done() {
        let (receiver, tap) = tapped().await;
        tap.set(Flow::LosesNextReply);
        assert!(matches!(post(tap.address(), "first").await, Err(ExchangeError::Unanswered(_))));
        assert_eq!(tap.flow(), Flow::Open);
        assert_eq!(post(tap.address(), "second").await.unwrap().status, 200);
        assert_eq!(bodies(&receiver), ["first", "second"]);
    }
}
