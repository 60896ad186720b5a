//! Tests of the client with real connections.

use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::client::{Answer, Client, Request};
use crate::coding::{Extent, MAX_BODY};
use crate::destination::Destination;
use crate::error::{SendError, TlsFault};
use crate::guard::Guard;
use crate::testing::{Names, OK, Server, open_guard, read_head};

/// Timeout that is longer than any test takes, except the tests of timeouts.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

fn request(url: &str, guard: &Guard, timeout: Duration) -> Request {
    let destination = Destination::parse(url, guard).unwrap();
    Request {
        method: Method::POST,
        destination,
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
        authority: None,
        tenant: Tenant::default(),
        timeout,
    }
}

async fn send_within(url: &str, timeout: Duration) -> Result<Answer, SendError> {
    Client::with_resolver(open_guard(), Names::leading_to(&[&["127.0.0.1"]]))
        .send(request(url, &open_guard(), timeout))
        .await
}

async fn send(url: &str) -> Result<Answer, SendError> {
    send_within(url, LONG).await
}

async fn answer_to(bytes: impl Into<Vec<u8>>) -> Result<Answer, SendError> {
    send(&Server::saying(bytes).await.url()).await
}

async fn write_for_ever(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    loop {
        stream.write_all(bytes).await?;
    }
}

/// Starts a server that answers one request per connection. Returns it with the heads of the requests.
async fn recording() -> (Server, mpsc::UnboundedReceiver<String>) {
    let (said, heard) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream| {
        let said = said.clone();
        async move {
            said.send(read_head(&mut stream).await?).unwrap();
            stream.write_all(OK).await
        }
    });
    (server.await, heard)
}

#[tokio::test]
async fn request_is_sent_and_its_response_returned() {
    let (server, mut heard) = recording().await;
    let answer = send(&server.url_as("shop.test")).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..], answer.extent), (200, &b"ok"[..], Extent::Whole));
    let expected =
        format!("POST / HTTP/1.1\r\nhost: shop.test:{}\r\ncontent-length: 2\r\n\r\n", server.address.port());
    assert_eq!(heard.recv().await.unwrap(), expected, "no header is added, such as accept-encoding");
}

/// Skips the check at submission, so that only the check at connection time counts.
#[tokio::test]
async fn private_address_is_reached_only_if_allowed() {
    let mut servers = vec![Server::saying(OK).await];
    servers.extend(Server::start_on(IpAddr::V6(Ipv6Addr::LOCALHOST), |_| async { Ok(()) }).await);
    for server in &servers {
        for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "shop.test"] {
            let request = request(&server.url_as(host), &open_guard(), LONG);
            let client = Client::with_resolver(Guard::default(), Names::leading_to(&[&["127.0.0.1", "::1"]]));
            assert_eq!(client.send(request).await.unwrap_err(), SendError::BlockedAddress, "{host}");
        }
        assert_eq!(server.hits(), 0);
    }
    assert!(
        send(&servers[0].url()).await.is_ok() && servers[0].hits() == 1,
        "the server is reached if its address is allowed"
    );
}

#[tokio::test]
async fn name_that_turns_private_is_blocked() {
    let server = Server::saying(OK).await;
    let (url, guard) = (server.url_as("shop.test"), open_guard());
    let client =
        Client::with_resolver(guard.clone(), Names::leading_to(&[&["127.0.0.1"], &["169.254.169.254"]]));
    assert!(client.send(request(&url, &guard, LONG)).await.is_ok());
    assert_eq!(client.send(request(&url, &guard, LONG)).await.unwrap_err(), SendError::BlockedAddress);
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let inner = Server::saying(OK).await;
    let head = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", inner.url());
    let answer = answer_to(head).await.unwrap();
    assert_eq!((answer.status.as_u16(), inner.hits()), (302, 0));
}

/// Environment variables cannot be changed safely at run time, so the part with the proxy runs in its own
/// process.
#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    let proxy = Server::saying(OK).await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "client::tests::request_in_child_process_with_proxy_variables_succeeds",
        "--include-ignored",
    ]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, proxy.url());
    }
    let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(proxy.hits(), 0);
}

#[tokio::test]
#[ignore = "run in a child process by `a_proxy_in_the_environment_is_not_used`"]
async fn request_in_child_process_with_proxy_variables_succeeds() {
    assert_eq!(answer_to(&b"HTTP/1.1 204 No Content\r\n\r\n"[..]).await.unwrap().status.as_u16(), 204);
}

#[tokio::test]
async fn endless_response_is_cut_and_its_connection_closed() {
    let (ended, mut end) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream| {
        let ended = ended.clone();
        async move {
            read_head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n").await?;
            let cut = write_for_ever(&mut stream, &[b'x'; 1_000]).await;
            ended.send(()).unwrap();
            cut
        }
    })
    .await;
    let answer = send(&server.url()).await.unwrap();
    assert_eq!((answer.body.len(), answer.extent), (MAX_BODY, Extent::Cut));
    end.recv().await.unwrap();
}

#[tokio::test]
async fn response_at_the_size_limit_is_complete() {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {MAX_BODY}\r\n\r\n");
    let answer = answer_to(head + &"x".repeat(MAX_BODY)).await.unwrap();
    assert_eq!((answer.body.len(), answer.extent), (MAX_BODY, Extent::Whole));
}

#[tokio::test]
async fn compressed_response_is_decoded() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 22\r\n\r\n";
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\xcf\x06\x00\x47\xdd\xdc\x79\x02\x00\x00\x00";
    let answer = answer_to([&head[..], gzip].concat()).await.unwrap();
    assert_eq!(
        (&answer.body[..], answer.extent, answer.headers.is_empty()),
        (&b"ok"[..], Extent::Whole, true)
    );
}

#[tokio::test]
async fn compressed_response_has_the_same_size_limit() {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: zstd\r\ncontent-length: {}\r\n\r\n", 2 * MAX_BODY);
    let answer = answer_to(head + &"x".repeat(2 * MAX_BODY)).await.unwrap();
    assert_eq!((answer.body.len(), answer.extent), (MAX_BODY, Extent::Cut));
}

#[tokio::test]
async fn empty_post_put_and_patch_state_their_length() {
    let (server, mut heard) = recording().await;
    let client = Client::with_resolver(open_guard(), Names::leading_to(&[]));
    let bodiless =
        |method| Request { method, body: Bytes::new(), ..request(&server.url(), &open_guard(), LONG) };
    for (method, has_length) in
        [("POST", true), ("PUT", true), ("PATCH", true), ("GET", false), ("DELETE", false), ("HEAD", false)]
    {
        client.send(bodiless(method.parse().unwrap())).await.unwrap();
        assert_eq!(heard.recv().await.unwrap().contains("content-length: 0\r\n"), has_length, "{method}");
    }
}

#[tokio::test]
async fn many_headers_are_accepted() {
    let headers = |count| (0..count).map(|number| format!("x-{number}: y\r\n")).collect::<Vec<_>>().concat();
    let answer =
        answer_to(format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", headers(2_000))).await.unwrap();
    assert_eq!(answer.headers.len(), 2_001);
    let more = answer_to(format!("HTTP/1.1 200 OK\r\n{}\r\n", headers(3_000))).await;
    assert_eq!(more.unwrap_err(), SendError::Protocol);
}

/// Starts a server that answers the first request of every connection. The server ends a second request with
/// these bytes and a RST or a FIN.
async fn answering_once(last: &'static [u8], is_reset: bool) -> Server {
    Server::start(move |mut stream| async move {
        for answer in [OK, last] {
            read_head(&mut stream).await?;
            tokio::io::AsyncReadExt::read_u16(&mut stream).await?;
            stream.write_all(answer).await?;
        }
        #[allow(deprecated, reason = "zero seconds do not block")]
        stream.set_linger(is_reset.then_some(Duration::ZERO))?;
        Ok(())
    })
    .await
}

/// Sends two requests in a row and returns the outcome of the second one.
async fn second_answer(client: &Client, url: &str) -> Result<Answer, SendError> {
    client.send(request(url, &open_guard(), LONG)).await.unwrap();
    // Hyper returns a connection to its pool in a separate task.
    tokio::task::yield_now().await;
    client.send(request(url, &open_guard(), LONG)).await
}

#[tokio::test]
async fn request_lost_with_an_idle_connection_is_sent_again() {
    for is_reset in [true, false] {
        let server = answering_once(b"", is_reset).await;
        let client = Client::with_resolver(open_guard(), Names::leading_to(&[]));
        assert!(second_answer(&client, &server.url()).await.is_ok());
        assert_eq!(
            server.hits(),
            2,
            "the second request is sent on the first connection and again on a new one"
        );
    }
}

#[tokio::test]
async fn request_lost_within_its_response_is_not_sent_again() {
    for is_reset in [true, false] {
        let server = answering_once(b"HTTP/1.1 2", is_reset).await;
        let client = Client::with_resolver(open_guard(), Names::leading_to(&[]));
        assert_eq!(second_answer(&client, &server.url()).await.unwrap_err(), SendError::ConnectionReset);
        assert_eq!(server.hits(), 1);
    }
}

#[tokio::test]
async fn request_lost_with_a_fresh_connection_is_not_sent_again() {
    let server = Server::start(|mut stream| async move { read_head(&mut stream).await.map(drop) }).await;
    assert_eq!(send(&server.url()).await.unwrap_err(), SendError::ConnectionReset);
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn silent_or_slow_server_runs_into_the_timeout() {
    let silent = Server::start(|stream| async move {
        stream.writable().await?;
        std::future::pending().await
    })
    .await;
    let dripping = Server::start(|mut stream| async move {
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await?;
        let mut drip = tokio::time::interval(Duration::from_millis(10));
        loop {
            drip.tick().await;
            stream.write_all(b"x").await?;
        }
    })
    .await;
    let promising = Server::start(|mut stream| async move {
        read_head(&mut stream).await?;
        write_for_ever(&mut stream, b"HTTP/1.1 103 Early Hints\r\n\r\n").await
    })
    .await;
    for server in [silent, dripping, promising] {
        assert_eq!(send_within(&server.url(), SHORT).await.unwrap_err(), SendError::Timeout);
    }
}

#[tokio::test]
async fn response_that_is_not_http_is_a_protocol_error() {
    let flood = "x-a: y\r\n".repeat(10_000);
    let wide = format!("HTTP/1.1 200 OK\r\nx-a: {}\r\n\r\n", "y".repeat(1_000_000));
    let answers = [
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot a length\r\n",
        &format!("HTTP/1.1 200 OK\r\n{flood}\r\n"),
        &wide,
    ];
    for answer in answers {
        assert_eq!(answer_to(answer).await.unwrap_err(), SendError::Protocol, "{answer:.60}");
    }
}

#[tokio::test]
async fn connection_failures_have_distinct_errors() {
    // The port of this end of a connection is taken, but nothing listens on it.
    let server = Server::saying(OK).await;
    let taken = TcpStream::connect(server.address).await.unwrap();
    let unused = format!("http://{}/", taken.local_addr().unwrap());
    assert_eq!(send(&unused).await.unwrap_err(), SendError::ConnectionRefused);
    // A socket that is closed with unread data answers with a reset.
    let resetting = Server::start(|stream| async move { stream.readable().await }).await;
    assert_eq!(send(&resetting.url()).await.unwrap_err(), SendError::ConnectionReset);
    for answer in ["", "HTTP/1.1 200 OK\r\nx-", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort"] {
        assert_eq!(answer_to(answer).await.unwrap_err(), SendError::ConnectionReset, "{answer:?}");
    }
    let client = Client::with_resolver(open_guard(), Names::leading_to(&[]));
    let unknown = client.send(request("http://shop.test/", &open_guard(), LONG)).await;
    assert_eq!(unknown.unwrap_err(), SendError::Dns);
}

/// A server at `shop.test` with a certificate for `name`, whose issuer the client may or may not trust.
struct Tls {
    name: &'static str,
    until: i32,
    trusted: bool,
}

const GOOD: Tls = Tls { name: "shop.test", until: 4000, trusted: true };

impl Tls {
    async fn call(self) -> Result<Answer, SendError> {
        let (authority, issuer) = authority();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([self.name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1999, 1, 1);
        params.not_after = rcgen::date_time_ymd(self.until, 1, 1);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let server =
            serve_tls(certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap()).await;
        let client = trusting(self.trusted.then_some(authority));
        client.send(request(&secure(&server), &open_guard(), LONG)).await
    }
}

/// Returns the URL of a server with a certificate for `shop.test`.
fn secure(server: &Server) -> String {
    server.url_as("shop.test").replace("http:", "https:")
}

fn certified(issuer: &Issuer<'static, KeyPair>) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["shop.test".to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn authority() -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.der().clone(), Issuer::new(params, key))
}

fn authority_as_pem(name: &str) -> (Arc<str>, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    (params.self_signed(&key).unwrap().pem().into(), Issuer::new(params, key))
}

fn acceptor(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    speaks: &[&[u8]],
) -> TlsAcceptor {
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
    config.alpn_protocols = speaks.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve_tls(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Server {
    let acceptor = acceptor(certificate, key, &[]);
    Server::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await?;
            read_head(&mut stream).await?;
            stream.write_all(OK).await?;
            stream.shutdown().await
        }
    })
    .await
}

fn trusting(authority: Option<CertificateDer<'static>>) -> Client {
    let mut roots = RootCertStore::empty();
    if let Some(authority) = authority {
        roots.add(authority).unwrap();
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::assemble(open_guard(), Names::leading_to(&[&["127.0.0.1"]]), tls)
}

#[tokio::test]
async fn tls_error_names_its_cause() {
    assert_eq!(GOOD.call().await.unwrap().status.as_u16(), 200);
    let fails = [
        (Tls { name: "other.test", ..GOOD }, TlsFault::WrongName),
        (Tls { until: 2000, ..GOOD }, TlsFault::Expired),
        (Tls { trusted: false, ..GOOD }, TlsFault::UnknownIssuer),
    ];
    for (tls, fault) in fails {
        assert_eq!(tls.call().await.unwrap_err(), SendError::Tls(fault));
    }
    let plain = Server::start(|mut stream| async move {
        stream.write_all(OK).await?;
        std::future::pending().await
    })
    .await;
    let spoken_to = send(&plain.url().replace("http:", "https:")).await;
    assert_eq!(spoken_to.unwrap_err(), SendError::Tls(TlsFault::Handshake));
}

#[tokio::test]
async fn custom_authority_is_trusted_only_for_its_own_requests() {
    let ((one, issuer), (other, _)) = (authority_as_pem("one"), authority_as_pem("other"));
    let (certificate, key) = certified(&issuer);
    let server = serve_tls(certificate, key).await;
    let client = trusting(None);
    let call = async |authority| {
        client.send(Request { authority, ..request(&secure(&server), &open_guard(), LONG) }).await
    };
    for _ in 0..2 {
        assert!(call(Some(one.clone())).await.is_ok());
        assert_eq!(call(Some(other.clone())).await.unwrap_err(), SendError::Tls(TlsFault::UnknownIssuer));
        assert_eq!(call(None).await.unwrap_err(), SendError::Tls(TlsFault::UnknownIssuer));
    }
    assert_eq!(call(Some("hunter2".into())).await.unwrap_err(), SendError::Tls(TlsFault::Authority));
}

#[tokio::test]
async fn http_2_is_used_if_the_server_offers_it() {
    let (root, issuer) = authority();
    let (certificate, key) = certified(&issuer);
    let acceptor = acceptor(certificate, key, &[b"h2", b"http/1.1"]);
    let server = Server::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let stream = TokioIo::new(acceptor.accept(stream).await?);
            let answer = service_fn(async |request: http::Request<Incoming>| {
                let head = format!("{:?} {} {}", request.version(), request.method(), request.uri());
                let said = request.into_body().collect().await?.to_bytes();
                let endless = head + " " + &String::from_utf8_lossy(&said) + &"x".repeat(2 * MAX_BODY);
                Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(endless))))
            });
            http2::Builder::new(TokioExecutor::new())
                .serve_connection(stream, answer)
                .await
                .map_err(std::io::Error::other)
        }
    })
    .await;
    let client = trusting(Some(root));
    for _ in 0..3 {
        let answer = client.send(request(&secure(&server), &open_guard(), LONG)).await.unwrap();
        assert!(
            answer.body.starts_with(format!("HTTP/2.0 POST {} {{}}xx", secure(&server)).as_bytes()),
            "{:.80?}",
            answer.body
        );
        assert_eq!((answer.body.len(), answer.extent), (MAX_BODY, Extent::Cut));
    }
    assert_eq!(server.hits(), 1, "all requests share one connection");
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Speaks HTTP/2 by hand: answers the streams of a connection with these bytes in turn, then closes it.
async fn speak_http_2(
    stream: &mut (impl tokio::io::AsyncRead + AsyncWriteExt + Unpin),
    reactions: &[Vec<u8>],
) -> std::io::Result<()> {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    use tokio::io::AsyncReadExt;
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let mut reactions = reactions.iter();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        stream.read_exact(&mut vec![0; usize::from(head[1]) << 8 | usize::from(head[2])]).await?;
        match (head[3], head[4]) {
            (HEADERS, _) => match reactions.next() {
                Some(bytes) => stream.write_all(bytes).await?,
                None => return Ok(()),
            },
            (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, 1, 0, &[])).await?,
            _ => {}
        }
    }
}

async fn serve_http_2(reactions: Vec<Vec<u8>>) -> (Server, Client) {
    let (root, issuer) = authority();
    let (certificate, key) = certified(&issuer);
    let acceptor = acceptor(certificate, key, &[b"h2"]);
    let reactions = Arc::new(reactions);
    let server = Server::start(move |stream| {
        let (acceptor, reactions) = (acceptor.clone(), Arc::clone(&reactions));
        async move { speak_http_2(&mut acceptor.accept(stream).await?, &reactions).await }
    })
    .await;
    (server, trusting(Some(root)))
}

/// Returns the headers of a 200 without a body, on that stream.
fn ok_on(stream: u8) -> Vec<u8> {
    frame(1, 0x5, stream, &[0x88])
}

#[tokio::test]
async fn request_that_http_2_did_not_process_is_sent_again() {
    let refused = frame(3, 0, 3, &[0, 0, 0, 7]);
    let going_away = frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    for (lost, name) in
        [(Some(refused), "REFUSED_STREAM"), (Some(going_away), "GOAWAY"), (None, "closed while idle")]
    {
        let (server, client) = serve_http_2([Some(ok_on(1)), lost].into_iter().flatten().collect()).await;
        let answer = second_answer(&client, &secure(&server)).await;
        assert_eq!(answer.unwrap().status.as_u16(), 200, "{name}");
        assert_eq!(server.hits(), 2, "{name}");
    }
}

#[tokio::test]
async fn request_that_http_2_may_have_processed_is_not_sent_again() {
    let internal_error = frame(3, 0, 3, &[0, 0, 0, 2]);
    let (server, client) = serve_http_2(vec![ok_on(1), internal_error]).await;
    assert!(second_answer(&client, &secure(&server)).await.is_err());
    assert_eq!(server.hits(), 1);
    // A GOAWAY that covers the request, and the end of a new connection.
    let covering = [ok_on(1), frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0])].to_vec();
    for (reactions, is_second) in [(covering, true), (Vec::new(), false)] {
        let (server, client) = serve_http_2(reactions).await;
        let url = secure(&server);
        let within = async |timeout| client.send(request(&url, &open_guard(), timeout)).await;
        if is_second {
            within(LONG).await.unwrap();
        }
        assert!(within(if is_second { SHORT } else { LONG }).await.is_err());
        assert_eq!(server.hits(), 1);
    }
}

#[tokio::test]
async fn kept_connection_is_reused() {
    let server = Server::start(|mut stream| async move {
        loop {
            read_head(&mut stream).await?;
            tokio::io::AsyncReadExt::read_u16(&mut stream).await?;
            stream.write_all(OK).await?;
        }
    })
    .await;
    let client = Client::with_resolver(open_guard(), Names::leading_to(&[]));
    for _ in 0..3 {
        assert!(client.send(request(&server.url(), &open_guard(), LONG)).await.is_ok());
        // Hyper returns a connection to its pool in a separate task.
        tokio::task::yield_now().await;
    }
    assert_eq!(server.hits(), 1);
}

#[test]
fn debug_output_of_a_request_contains_no_secrets() {
    let mut request = request("https://example.com/hook?token=s3cret", &Guard::default(), LONG);
    request.headers.insert("authorization", "s3cret".parse().unwrap());
    request.body = Bytes::from_static(b"s3cret");
    assert_eq!(format!("{request:?}"), "Request(POST Destination(example.com), 1 headers, 6 bytes)");
}
