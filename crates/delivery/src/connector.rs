//! Opens connections to hosts. The guard checks every address here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use crate::connect_error::{ConnectError, is_local};
use crate::guard::Guard;
use crate::lookup::{Lookups, Origin};
use crate::resolver::Resolve;

/// Maximum time to connect, for all addresses of a host together. The look-up has its own limits. The
/// request's timeout covers the look-up and the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens connections only to addresses that the guard permits.
///
/// A name is resolved once, and the connector dials the checked address. A DNS answer that changes in between
/// has no effect. No other code in this crate opens connections.
#[derive(Clone)]
pub(crate) struct Connector {
    guard: Guard,
    lookups: Arc<Lookups>,
}

impl Connector {
    pub(crate) fn new(guard: Guard, resolver: Arc<dyn Resolve>) -> Self {
        Self { guard, lookups: Arc::new(Lookups::new(resolver)) }
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    async fn connect(&self, uri: &Uri, origin: &Origin) -> Result<TcpStream, ConnectError> {
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let addresses = self.resolve(uri.host().unwrap_or_default(), origin).await?;
        let stream = dial(self.check(&addresses, port)?, port).await?;
        // Nothing has been written yet. If an address is missing, the connection is already broken.
        let (here, there) =
            stream.local_addr().and_then(|here| Ok((here, stream.peer_addr()?))).map_err(ConnectError::Io)?;
        if self.guard.is_own(here, there) { Err(ConnectError::Blocked) } else { Ok(stream) }
    }

    /// Returns the addresses of a host. A literal address needs no look-up. `Uri` keeps the brackets of an
    /// IPv6 address, which `IpAddr` cannot parse.
    async fn resolve(&self, host: &str, origin: &Origin) -> Result<Vec<IpAddr>, ConnectError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        self.lookups.resolve(host, origin).await
    }

    /// Fails if any address is forbidden. A name that mixes public and private addresses is an attack or a
    /// mistake.
    fn check<'a>(&self, addresses: &'a [IpAddr], port: u16) -> Result<&'a [IpAddr], ConnectError> {
        let permitted = addresses.iter().all(|address| self.guard.permits_port(*address, port));
        if permitted { Ok(addresses) } else { Err(ConnectError::Blocked) }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        // Read here, because the future may continue in a task of the HTTP client, which has no origin.
        let origin = Origin::current();
        Box::pin(async move { connector.connect(&uri, &origin).await.map(TokioIo::new) })
    }
}

/// Returns the maximum time to connect to each address of a host that has this number of addresses.
fn share(addresses: usize) -> Duration {
    CONNECT_TIMEOUT / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)
}

/// Tries one address after the other, each for its share of the time. So an address that does not respond
/// leaves time for the next address.
async fn dial(addresses: &[IpAddr], port: u16) -> Result<TcpStream, ConnectError> {
    let share = share(addresses.len());
    let mut failure = ConnectError::Dns;
    for address in addresses {
        match timeout(share, open(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            // The next address needs the same resources, so dialing it would fail too.
            Ok(Err(error)) if is_local(&error) => return Err(ConnectError::Io(error)),
            Ok(Err(error)) => failure = ConnectError::Io(error),
            Err(_) => failure = ConnectError::Timeout,
        }
    }
    Err(failure)
}

/// Opens a connection without Nagle's algorithm, which would only delay requests.
async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.map_err(|error| unreachable_by_ipv6(error, address))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Replaces the error `EADDRNOTAVAIL` for an IPv6 address. A machine without IPv6 returns this error, and the
/// address is then unreachable. For IPv4, this error means that all local ports are in use.
fn unreachable_by_ipv6(error: io::Error, address: SocketAddr) -> io::Error {
    let is_lacking = address.is_ipv6() && error.kind() == io::ErrorKind::AddrNotAvailable;
    if is_lacking { io::ErrorKind::NetworkUnreachable.into() } else { error }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;
    use crate::testing::{Names, OK, Server, open_guard};
    use async_trait::async_trait;

    async fn connect(guard: Guard, names: &[&[&str]], url: &str) -> Result<TcpStream, ConnectError> {
        Connector::new(guard, Names::leading_to(names))
            .connect(&url.parse().unwrap(), &Origin::current())
            .await
    }

    fn is_blocked(connected: &Result<TcpStream, ConnectError>) -> bool {
        matches!(connected, Err(ConnectError::Blocked))
    }

    #[tokio::test]
    async fn literal_addresses_are_checked_like_names() {
        let server = Server::saying(OK).await;
        for host in [
            "127.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "0.0.0.0",
            "[::]",
            "169.254.169.254",
        ] {
            assert!(is_blocked(&connect(Guard::default(), &[], &server.url_as(host)).await), "{host}");
        }
        assert_eq!(server.hits(), 0);
    }

    #[tokio::test]
    async fn refused_port_is_not_reached_by_any_name() {
        let server = Server::saying(OK).await;
        let guard = open_guard().refusing(vec![server.address]);
        for (names, host) in
            [(&[][..], "127.0.0.1"), (&[], "[::ffff:127.0.0.1]"), (&[&["127.0.0.1"][..]], "shop.test")]
        {
            assert!(is_blocked(&connect(guard.clone(), names, &server.url_as(host)).await), "{host}");
        }
        assert_eq!(server.hits(), 0);
    }

    /// The guard refuses a port on all addresses, and every address of this machine leads to it.
    #[tokio::test]
    async fn own_listener_on_all_addresses_is_not_reached() {
        let server = Server::saying(OK).await;
        let guard =
            open_guard().refusing(vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), server.address.port())]);
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (here, there) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert!(
            guard.is_own(here, there) && !open_guard().refusing(vec![server.address]).is_own(here, there)
        );
        while server.hits() == 0 {
            tokio::task::yield_now().await;
        }
        for host in ["127.0.0.1", "127.0.0.2", "127.255.255.254", "[::ffff:127.9.9.9]", "[::1]"] {
            assert!(is_blocked(&connect(guard.clone(), &[], &server.url_as(host)).await), "{host}");
        }
        assert!(is_blocked(&connect(guard, &[&["127.3.3.3"]], &server.url_as("shop.test")).await));
        assert_eq!(server.hits(), 1, "only the test itself has connected");
    }

    #[tokio::test]
    async fn url_without_port_uses_the_default_of_its_scheme() {
        let refusing = |port| open_guard().refusing(vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)]);
        for (url, port, other) in [("http://127.0.0.1/", 80, 443), ("https://127.0.0.1/", 443, 80)] {
            assert!(is_blocked(&connect(refusing(port), &[], url).await), "{url}");
            assert!(!is_blocked(&connect(refusing(other), &[], url).await), "{url}");
        }
    }

    #[test]
    fn several_addresses_share_one_connect_timeout() {
        assert_eq!([0, 1, 4].map(share), [CONNECT_TIMEOUT, CONNECT_TIMEOUT, CONNECT_TIMEOUT / 4]);
    }

    #[tokio::test]
    async fn name_with_any_private_address_is_blocked() {
        let server = Server::saying(OK).await;
        let url = server.url_as("shop.test");
        for answers in [
            &["127.0.0.1"][..],
            &["1.1.1.1", "127.0.0.1"],
            &["127.0.0.1", "1.1.1.1"],
            &["2606:4700::1", "::1"],
            &["::ffff:10.0.0.1"],
        ] {
            assert!(is_blocked(&connect(Guard::default(), &[answers], &url).await), "{answers:?}");
        }
        assert_eq!(server.hits(), 0);
    }

    /// Each connection makes one look-up, so it cannot dial an address of a later answer.
    #[tokio::test]
    async fn dialed_address_is_the_checked_address() {
        let server = Server::saying(OK).await;
        let names = Names::leading_to(&[&["127.0.0.1"], &["10.0.0.1"]]);
        let connector = Connector::new(open_guard(), names);
        let url: Uri = server.url_as("shop.test").parse().unwrap();
        assert_eq!(
            connector.connect(&url, &Origin::current()).await.unwrap().peer_addr().unwrap(),
            server.address
        );
        assert!(
            is_blocked(&connector.connect(&url, &Origin::current()).await),
            "the second look-up returns a blocked address"
        );
    }

    /// Names that resolve to a different address each time, with concurrent requests.
    #[tokio::test]
    async fn alternating_name_never_reaches_a_private_address() {
        struct Turning(AtomicUsize);
        #[async_trait]
        impl Resolve for Turning {
            async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
                tokio::task::yield_now().await;
                let private = self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
                Ok(vec![if private { [10, 0, 0, 1].into() } else { Ipv4Addr::LOCALHOST.into() }])
            }
        }
        let server = Server::saying(OK).await;
        let connector = Connector::new(open_guard(), Arc::new(Turning(AtomicUsize::new(0))));
        let url: Uri = server.url_as("shop.test").parse().unwrap();
        let (mut reached, mut blocked) = (0, 0);
        for _ in 0..100 {
            for connected in
                join_all((0..100).map(async |_| connector.connect(&url, &Origin::current()).await)).await
            {
                match connected {
                    Ok(stream) if stream.peer_addr().unwrap() == server.address => reached += 1,
                    Err(ConnectError::Blocked) => blocked += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((reached, blocked), (5_000, 5_000));
    }

    #[tokio::test]
    async fn unreachable_address_is_followed_by_the_next() {
        let server = Server::saying(OK).await;
        let connected =
            connect(open_guard(), &[&["127.0.0.2", "127.0.0.1"]], &server.url_as("shop.test")).await;
        assert_eq!(connected.unwrap().peer_addr().unwrap(), server.address);
    }

    #[tokio::test]
    async fn a_name_without_addresses_does_not_resolve() {
        for names in [&[][..], &[&[][..]]] {
            assert!(matches!(
                connect(open_guard(), names, "http://shop.test/").await,
                Err(ConnectError::Dns)
            ));
        }
    }
}
