//! Tests of bad destinations and bad responses: RELIABILITY.md, section 2, D, row by row. They use only the
//! public interface of this crate.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};
use nobat_core::types::name::Tenant;
use nobat_delivery::coding::MAX_BODY;
use nobat_delivery::headers::{self, HeaderFault};
use nobat_delivery::{Answer, BadUrl, Client, Destination, Extent, Guard, Request, Resolve, SendError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A test case with its expected result.
enum Case {
    /// These URLs are refused with that code.
    Refused(&'static str, &'static [&'static str]),
    /// These addresses are refused in a URL, and not dialed if a name resolves to them. No network is
    /// allowed.
    Closed(&'static [&'static str]),
    /// The same with all networks allowed.
    ClosedForGood(&'static [&'static str]),
    /// A name that resolves to all of these addresses is not dialed.
    LeadsTo(&'static [&'static [&'static str]]),
    /// A name that alternates between addresses never reaches a forbidden one. The value is the number of
    /// requests.
    Turns(usize),
    /// These addresses in a URL are neither dialed nor looked up.
    Literals(&'static [&'static str]),
    /// A redirect with one of these statuses to an internal server is not followed.
    Redirects(&'static [u16]),
    /// A refused socket of this process is not reached, even if its network is allowed.
    Itself,
    /// Headers with these values are refused.
    Values(&'static [&'static str]),
    /// Headers with these names are refused.
    Names(&'static [&'static str]),
    /// A response with this beginning, then this text repeated endlessly, has that outcome.
    Answers(&'static str, &'static str, Outcome),
    /// Needs private interfaces or another crate. That test in that file covers it.
    Elsewhere(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A response with a body of that many bytes, and true if it is complete.
    Body(usize, bool),
    Fails(SendError),
}

const BLOCKED: &str = "blocked_address";
const INVALID: &str = "invalid_url";

/// The rows of the document, by number.
const ROWS: &[(u8, Case)] = &[
    (
        52,
        Case::Closed(&[
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.168.255.255",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "192.0.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
        ]),
    ),
    (
        53,
        Case::Refused(
            BLOCKED,
            &[
                "http://2130706433/",
                "http://0x7f.1",
                "http://0177.0.0.1",
                "http://127.1",
                "http://%31%32%37.0.0.1/",
            ],
        ),
    ),
    (
        53,
        Case::Refused(
            INVALID,
            &["http://１２７.0.0.1/", "http://127。0。0。1/", "http://127.0.\t0.1/", "http://127.0.0.1\n/"],
        ),
    ),
    (54, Case::Closed(&["::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1"])),
    (
        55,
        Case::ClosedForGood(&[
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "fec0::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "4000::1",
        ]),
    ),
    (
        56,
        Case::LeadsTo(&[
            &["127.0.0.1"],
            &["1.1.1.1", "127.0.0.1"],
            &["127.0.0.1", "1.1.1.1"],
            &["2606:4700::1", "::1"],
            &["1.1.1.1", "::ffff:127.0.0.1"],
        ]),
    ),
    (57, Case::Turns(1_000)),
    (58, Case::Literals(&["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"])),
    (59, Case::Redirects(&[301, 302, 303, 307, 308])),
    (60, Case::Elsewhere("src/client/tests.rs", "a_proxy_in_the_environment_is_not_used")),
    (
        61,
        Case::Refused(
            INVALID,
            &["file:///etc/passwd", "ftp://example.com", "gopher://example.com", "javascript:alert(1)"],
        ),
    ),
    (
        61,
        Case::Refused(
            INVALID,
            &[
                "https://example.com:22",
                "https://example.com:25/",
                "http://example.com:6379",
                "http://example.com:0",
            ],
        ),
    ),
    (
        62,
        Case::Refused(
            INVALID,
            &["https://user:pass@example.com/", "https://user@example.com", "https://:pass@example.com"],
        ),
    ),
    (
        63,
        Case::Refused(
            BLOCKED,
            &[
                "http://localhost",
                "http://foo.localhost",
                "http://a.internal",
                "http://metadata.google.internal/",
            ],
        ),
    ),
    (63, Case::Refused(INVALID, &["http://localhost.", "http://metadata.google.internal./"])),
    (63, Case::Itself),
    (
        64,
        Case::ClosedForGood(&[
            "169.254.169.254",
            "169.254.170.2",
            "169.254.100.1",
            "100.100.100.200",
            "fd00:ec2::254",
            "fd00:ec2::23",
        ]),
    ),
    // Lambda's Runtime API listens on a port of this machine. It is refused like the process's own sockets.
    (64, Case::Itself),
    (65, Case::Values(&["a\r\nx-b: c", "a\nb", "a\rb", "a\0b", "caf\u{e9}", "\u{80}", "\u{ff}", "\u{7f}"])),
    (
        66,
        Case::Names(&[
            "Host",
            "CONTENT-LENGTH",
            "transfer-encoding",
            "Connection",
            "TE",
            "trailer",
            "Upgrade",
            "Proxy-Authorization",
            "proxy-connection",
            "Webhook-Id",
            "webhook-timestamp",
            "WEBHOOK-SIGNATURE",
            "X-Forwarded-For",
            "x-forwarded-host",
            "Forwarded",
        ]),
    ),
    (
        67,
        Case::Answers(
            "HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n",
            "xxxxxxxxxxxxxxxx",
            Outcome::Body(MAX_BODY, false),
        ),
    ),
    (
        67,
        Case::Answers(
            "HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n",
            "",
            Outcome::Fails(SendError::Timeout),
        ),
    ),
    (
        67,
        Case::Answers(
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x0b\x08\0",
            "",
            Outcome::Body(4, true),
        ),
    ),
    (67, Case::Answers("HTTP/1.1 200 OK\r\n", "x-a: b\r\n", Outcome::Fails(SendError::Protocol))),
    (67, Case::Answers("", "HTTP/1.1 103 Early Hints\r\n\r\n", Outcome::Fails(SendError::Timeout))),
    (68, Case::Elsewhere("src/retry_after.rs", "invalid_values_are_ignored")),
    (68, Case::Elsewhere("../worker/src/handlers/http/tests.rs", "pause_is_a_day_at_most")),
    (
        69,
        Case::Elsewhere(
            "../../tests/tests/e2e/endpoint.rs",
            "gone_endpoint_holds_its_tasks_until_it_is_resumed",
        ),
    ),
    (70, Case::Elsewhere("src/client/tests.rs", "tls_error_names_its_cause")),
];

/// Longer than any case takes. Endless responses end earlier, by their limits.
const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn every_row_has_its_expected_result() {
    let numbers: BTreeSet<u8> = ROWS.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (52..=70).collect());
    for (number, case) in ROWS {
        case.check(&format!("row {number}")).await;
    }
}

impl Case {
    async fn check(&self, row: &str) {
        match self {
            Self::Refused(code, urls) => {
                urls.iter().for_each(|url| refused(url, &Guard::default(), code, row));
            }
            Self::Closed(addresses) => closed(addresses, &Guard::default(), row).await,
            Self::ClosedForGood(addresses) => closed(addresses, &opening(&["0.0.0.0/0", "::/0"]), row).await,
            Self::LeadsTo(answers) => leads_to(answers, row).await,
            Self::Turns(times) => turns(*times, row).await,
            Self::Literals(hosts) => literals(hosts, row).await,
            Self::Redirects(statuses) => redirects(statuses, row).await,
            Self::Itself => itself(row).await,
            Self::Values(values) => {
                values.iter().for_each(|value| header("x-a", value, HeaderFault::Value, row));
            }
            Self::Names(names) => names.iter().for_each(|name| header(name, "b", HeaderFault::Reserved, row)),
            Self::Answers(begin, rest, outcome) => answers(begin, rest, *outcome, row).await,
            Self::Elsewhere(file, test) => {
                let source =
                    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
                assert!(source.contains(&format!("fn {test}()")), "{row}: {file} has no {test}");
            }
        }
    }
}

fn refused(url: &str, guard: &Guard, code: &str, row: &str) {
    let read = Destination::parse(url, guard).map_err(BadUrl::code);
    assert_eq!(read, Err(code), "{row}: {url:?}");
}

async fn closed(addresses: &[&'static str], guard: &Guard, row: &str) {
    for address in addresses {
        let host = if address.contains(':') { format!("[{address}]") } else { (*address).to_owned() };
        for url in [format!("http://{host}"), format!("https://{host}:8443/a?b#c")] {
            refused(&url, guard, BLOCKED, row);
        }
        for addresses in [&[*address][..], &["1.1.1.1", *address]] {
            let sent = send(guard, Names::leading_to(&[addresses]), "http://shop.test/", LONG).await;
            assert_eq!(sent.unwrap_err(), SendError::BlockedAddress, "{row}: {addresses:?}");
        }
    }
}

async fn leads_to(answers: &[&[&'static str]], row: &str) {
    let server = Server::start("127.0.0.1:0", |_| OK.to_owned()).await;
    for addresses in answers {
        let sent =
            send(&Guard::default(), Names::leading_to(&[addresses]), &server.url("shop.test"), LONG).await;
        assert_eq!(sent.unwrap_err(), SendError::BlockedAddress, "{row}: {addresses:?}");
    }
    assert_eq!(server.hits(), 0, "{row}");
}

/// The permitted server listens on the IPv4 loopback address, the internal one on the IPv6 loopback address
/// and the same port.
async fn turns(times: usize, row: &str) {
    let open = Server::start("127.0.0.1:0", |_| OK.to_owned()).await;
    let internal = Server::start(&format!("[::1]:{}", open.address.port()), |_| OK.to_owned()).await;
    let (guard, url) = (opening(&["127.0.0.0/8"]), open.url("shop.test"));
    let names = Names::leading_to(&[&["127.0.0.1"], &["::1"], &["127.0.0.1", "::1"]]);
    let client = Client::with_resolver(guard.clone(), names.clone());
    let (mut reached, mut blocked) = (0, 0);
    for _ in 0..times {
        match client.send(request(&url, &guard, LONG)).await {
            Ok(_) => reached += 1,
            Err(SendError::BlockedAddress) => blocked += 1,
            Err(other) => panic!("{row}: {other}"),
        }
    }
    assert_eq!(
        (open.hits(), internal.hits(), names.asked()),
        (reached, 0, times),
        "{row}: each connection makes one look-up"
    );
    assert_eq!((reached, blocked), (times.div_ceil(3), times - times.div_ceil(3)), "{row}");
}

async fn literals(hosts: &[&str], row: &str) {
    let open = opening(&["127.0.0.0/8", "::1/128"]);
    let server = Server::start("127.0.0.1:0", |_| OK.to_owned()).await;
    for host in hosts {
        let names = Names::leading_to(&[&["1.1.1.1"]]);
        let client = Client::with_resolver(Guard::default(), names.clone());
        let sent = client.send(request(&server.url(host), &open, LONG)).await;
        assert_eq!(sent.unwrap_err(), SendError::BlockedAddress, "{row}: {host}");
        assert_eq!(names.asked(), 0, "{row}: {host}");
    }
    assert_eq!(server.hits(), 0, "{row}");
}

async fn redirects(statuses: &[u16], row: &str) {
    let internal = Server::start("127.0.0.1:0", |_| OK.to_owned()).await;
    let to = internal.url("127.0.0.1");
    for status in statuses {
        let head = format!(
            "HTTP/1.1 {status} Moved\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let server = Server::start("127.0.0.1:0", move |_| head.clone()).await;
        let sent =
            send(&opening(&["127.0.0.0/8"]), Names::leading_to(&[]), &server.url("127.0.0.1"), LONG).await;
        assert_eq!(sent.unwrap().status.as_u16(), *status, "{row}");
        assert_eq!((server.hits(), internal.hits()), (1, 0), "{row}: {status}");
    }
}

async fn itself(row: &str) {
    let server = Server::start("127.0.0.1:0", |_| OK.to_owned()).await;
    let open = opening(&["127.0.0.0/8", "::1/128"]);
    let guard = open.clone().refusing(vec![server.address]);
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "2130706433"] {
        refused(&server.url(host), &guard, BLOCKED, row);
        let client = Client::with_resolver(guard.clone(), Names::leading_to(&[]));
        let sent = client.send(request(&server.url(host), &open, LONG)).await;
        assert_eq!(sent.unwrap_err(), SendError::BlockedAddress, "{row}: {host}");
    }
    let sent = send(&guard, Names::leading_to(&[&["127.0.0.1"]]), &server.url("shop.test"), LONG).await;
    assert_eq!(sent.unwrap_err(), SendError::BlockedAddress, "{row}");
    assert_eq!(server.hits(), 0, "{row}");
}

fn header(name: &str, value: &str, fault: HeaderFault, row: &str) {
    let given = [(name.to_owned(), value.to_owned())].into();
    let faults: Vec<HeaderFault> =
        headers::read(&given).unwrap_err().into_iter().map(|bad| bad.fault).collect();
    assert_eq!(faults, [fault], "{row}: {name}: {value:?}");
}

async fn answers(begin: &'static str, rest: &'static str, outcome: Outcome, row: &str) {
    let server = Server::start(
        "127.0.0.1:0",
        move |number| if number == 0 { begin.to_owned() } else { rest.to_owned() },
    )
    .await;
    let limit = if outcome == Outcome::Fails(SendError::Timeout) { SHORT } else { LONG };
    let sent =
        send(&opening(&["127.0.0.0/8"]), Names::leading_to(&[]), &server.url("127.0.0.1"), limit).await;
    let came = match sent {
        Ok(answer) => Outcome::Body(answer.body.len(), answer.extent == Extent::Whole),
        Err(error) => Outcome::Fails(error),
    };
    assert_eq!(came, outcome, "{row}: {begin:?} and {rest:?}");
}

fn opening(networks: &[&str]) -> Guard {
    Guard::new(networks.iter().map(|network| network.parse().unwrap()).collect())
}

fn request(url: &str, guard: &Guard, timeout: Duration) -> Request {
    let destination = Destination::parse(url, guard).unwrap();
    Request {
        method: Method::POST,
        destination,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        authority: None,
        tenant: Tenant::default(),
        timeout,
    }
}

/// Sends with a new client, so that no open connection is reused.
async fn send(guard: &Guard, names: Arc<Names>, url: &str, timeout: Duration) -> Result<Answer, SendError> {
    Client::with_resolver(guard.clone(), names).send(request(url, guard, timeout)).await
}

/// Answers every name with the next of these lists, in turn.
struct Names {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Names {
    fn leading_to(answers: &[&[&str]]) -> Arc<Self> {
        let read = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self { answers: answers.iter().map(read).collect(), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        self.answers
            .get(number % self.answers.len().max(1))
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// A server that counts its connections. On each it sends one text after the other, until `says` returns an
/// empty one.
struct Server {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
}

impl Server {
    async fn start(address: &str, says: impl Fn(usize) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), hits: Arc::default() };
        let (hits, says) = (Arc::clone(&server.hits), Arc::new(says));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                hits.fetch_add(1, Ordering::SeqCst);
                let says = Arc::clone(&says);
                tokio::spawn(async move { serve(stream, &*says).await });
            }
        });
        server
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.address.port())
    }
}

/// After the last text the server keeps the connection open, as a server that stalls does.
async fn serve(mut stream: TcpStream, says: &(impl Fn(usize) -> String + Sync)) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let mut number = 0;
    loop {
        let words = says(number);
        number += 1;
        stream.write_all(words.as_bytes()).await?;
        if words.contains("connection: close") {
            return stream.shutdown().await;
        }
        if words.is_empty() && number > 1 {
            return std::future::pending().await;
        }
    }
}
