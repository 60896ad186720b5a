//! Tests of unresponsive name servers: a real one on loopback, and a client that uses it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method};
use nobat_core::types::name::Tenant;
use nobat_delivery::{Client, Destination, Guard, Request, SendError, SystemResolver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// Length of a message's header, which precedes the question, in bytes (RFC 1035, section 4.1.1).
const HEAD: usize = 12;
const TYPE_A: u16 = 1;

/// Starts a name server that answers 127.0.0.1 for names that begin with `quick`, and nothing for all others.
async fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 1_024];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            if let Some(reply) = reply(&query[..length]) {
                socket.send_to(&reply, from).await.unwrap();
            }
        }
    });
    address
}

fn reply(query: &[u8]) -> Option<Vec<u8>> {
    let name = query.get(HEAD + 1..)?;
    if !name.starts_with(b"quick") {
        return None;
    }
    let end = HEAD + 1 + name.iter().position(|byte| *byte == 0)? + 1;
    let is_a = u16::from_be_bytes([query[end], query[end + 1]]) == TYPE_A;
    let mut reply = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0];
    reply.extend_from_slice(&query[HEAD..end + 4]);
    if is_a {
        // The name of the question, type A, class IN, a TTL of 0 seconds, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    Some(reply)
}

/// Starts a web server that answers every connection with 204.
async fn web_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1_024]).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
            });
        }
    });
    address
}

fn client(server: SocketAddr) -> Client {
    let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
    Client::with_resolver(guard, Arc::new(SystemResolver::with_name_servers(&[server]).unwrap()))
}

fn request(tenant: &str, url: &str, timeout: Duration) -> Request {
    let destination = Destination::parse(url, &Guard::default()).unwrap();
    let tenant = Tenant::new(tenant).unwrap();
    Request {
        method: Method::GET,
        destination,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        authority: None,
        tenant,
        timeout,
    }
}

/// Returns the number of open sockets of this process.
#[cfg(target_os = "linux")]
fn sockets() -> usize {
    let handles = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    handles
        .filter(|handle| {
            std::fs::read_link(handle.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        })
        .count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn silent_name_server_delays_no_tenant_and_leaks_no_socket() {
    let (web, client) = (web_server().await, client(name_server().await));
    let quick = async |number: usize| {
        let began = Instant::now();
        let url = format!("http://quick{number}.test:{}/", web.port());
        (
            client
                .send(request("other", &url, Duration::from_secs(30)))
                .await
                .map(|answer| answer.status.as_u16()),
            began.elapsed(),
        )
    };
    assert_eq!(quick(0).await.0, Ok(204));
    let before = sockets();
    // 300 parallel look-ups. Each is abandoned after 20 ms and followed by another.
    let flood: Vec<_> = (0..300)
        .map(|lane| {
            let client = client.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let url = format!("http://slow{lane}-{round}.test/");
                    let sent =
                        client.send(request("flood", &url, Duration::from_millis(20))).await.unwrap_err();
                    assert!(matches!(sent, SendError::Timeout | SendError::LocalResources), "{sent}");
                }
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for number in 1..50 {
        let (answered, took) = quick(number).await;
        assert_eq!(answered, Ok(204));
        slowest = slowest.max(took);
    }
    // Requests that waited behind the flood would take seconds.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    for outcome in join_all(flood).await {
        outcome.unwrap();
    }
    let began = Instant::now();
    while sockets() > before {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{} sockets are open, {before} before the test",
            sockets()
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn silent_name_server_results_in_a_dns_error() {
    let client = client(name_server().await);
    let began = Instant::now();
    let sent = client.send(request("a", "http://slow.test/", Duration::from_mins(1))).await;
    assert_eq!(sent.unwrap_err(), SendError::Dns);
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    let began = Instant::now();
    let again = client.send(request("b", "http://slow.test/", Duration::from_mins(1))).await;
    assert_eq!(
        (again.unwrap_err(), began.elapsed() < Duration::from_secs(1)),
        (SendError::Dns, true),
        "a failed look-up is remembered for a moment"
    );
}
