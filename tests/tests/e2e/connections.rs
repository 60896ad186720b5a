use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nobat_tests::harness::{PATIENCE, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Maximum number of connections of one address.
const SHARE: usize = 60;
/// Maximum length of a body, in bytes.
const BODY: usize = 256 * 1024;
const DOCUMENT: &str = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Connects from an address of this machine, with a receive buffer of `buffer` bytes.
async fn connect(from: &str, to: SocketAddr, buffer: u32) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(buffer)?;
    socket.bind(SocketAddr::new(from.parse::<IpAddr>().expect("an address"), 0))?;
    socket.connect(to).await
}

/// Returns true if the server answers a new connection from this address.
async fn is_answered(from: &str, to: SocketAddr) -> bool {
    let answer = async {
        let mut stream = connect(from, to, 64 * 1024).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    answer.await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// One address opens more connections than it may have, requests a long answer on each, and reads nothing.
#[tokio::test]
async fn clients_that_do_not_read_are_closed_and_block_no_others() {
    let world = World::with(&["--max-connections-per-address", &SHARE.to_string()]).await;
    let address = world.address();
    let mut stalled = Vec::new();
    for _ in 0..2 * SHARE {
        let mut stream = connect("127.0.0.2", address, 2 * 1024).await.expect("a connection");
        // The server may have closed the connections beyond the share already.
        let _ = stream.write_all(DOCUMENT.repeat(100).as_bytes()).await;
        stalled.push(stream);
    }
    assert!(!is_answered("127.0.0.2", address).await, "the address has no connection left");
    assert!(is_answered("127.0.0.3", address).await, "another address is answered");
    let begun = Instant::now();
    while !is_answered("127.0.0.2", address).await {
        assert!(begun.elapsed() < PATIENCE, "the stalled connections are not closed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(stalled);
    world.end().await;
}

/// Starts a submission with a body of [`BODY`] bytes, and sends the first `sent` bytes of the body.
async fn start_body(to: SocketAddr, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {BODY}\r\n\r\n"
    );
    let request = [head.as_bytes(), &vec![b' '; sent]].concat();
    stream.write_all(&request).await.expect("the server reads");
    stream
}

#[tokio::test]
async fn body_beyond_the_memory_limit_is_refused_before_it_is_sent() {
    let world = World::start().await;
    // All memory for bodies that one tenant may use, less some bytes.
    let mut stalled = Vec::new();
    for _ in 0..128 {
        stalled.push(start_body(world.address(), BODY - 1).await);
    }
    let begun = Instant::now();
    loop {
        let ready = world.get("/readyz").await.json();
        let bodies =
            ready["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == "body_bytes").unwrap();
        if bodies["length"] == 128 * (BODY - 1) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{bodies}");
    }
    let mut answer = String::new();
    start_body(world.address(), 1).await.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("too many request bodies"), "{answer}");
    let task = world.submit(&serde_json::json!({"kind": "noop"})).await;
    drop(stalled);
    world.ended(&task).await;
    world.end().await;
}
