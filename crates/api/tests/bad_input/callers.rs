//! Clients whose address is unknown, and clients that share an address with a guesser.

use nobat_api::{AccessPolicy, AuthMode};
use nobat_core::auth::api_key::{Key, KeyText};
use nobat_core::auth::network::Network;

use crate::world::World;

const READ: &str = "tasks:read";

fn networks(texts: &[&str]) -> Vec<Network> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Starts a server behind a proxy on this machine. The allow-list and the key admit the proxy's own address.
async fn behind_a_proxy(admitted: &[&str], key_networks: &[&str]) -> (World, String) {
    let door = AccessPolicy {
        keys: AuthMode::Required,
        admitted: networks(admitted),
        proxies: networks(&["127.0.0.1"]),
    };
    let world = World::behind(door).await;
    let key = world.key_that("acme", READ, |key| Key { networks: networks(key_networks), ..key }).await;
    (world, key)
}

/// Values of `X-Forwarded-For` that name no client.
const UNREADABLE: [&str; 11] = [
    "unknown",
    "",
    " ",
    "_hidden",
    "203.0.113.9:65536",
    "203.0.113.9:+80",
    "[2001:db8::1",
    "[203.0.113.9]",
    "\"203.0.113.9",
    "for=203.0.113.9",
    "203.0.113.9,",
];

#[tokio::test]
async fn unreadable_forwarded_address_is_refused_with_an_allow_list() {
    let inside = ["127.0.0.0/8"];
    for (admitted, key_networks) in [(&inside[..], &[][..]), (&[][..], &inside[..])] {
        let (world, key) = behind_a_proxy(admitted, key_networks).await;
        for hop in UNREADABLE {
            let header = format!("X-Forwarded-For: {hop}\r\n");
            world.ask_from(&header, &key, "GET", "/v1/tasks", "").await.problem(403, "address_not_allowed");
        }
        world.ask_with(&key, "GET", "/v1/tasks", "").await.problem(403, "address_not_allowed");
        world
            .ask_from("X-Forwarded-For: 127.0.0.1\r\n", &key, "GET", "/v1/tasks", "")
            .await
            .problem(403, "address_not_allowed");
    }
}

#[tokio::test]
async fn unreadable_forwarded_address_is_accepted_without_a_list() {
    let (world, key) = behind_a_proxy(&[], &[]).await;
    for hop in UNREADABLE {
        assert_eq!(
            world.ask_from(&format!("X-Forwarded-For: {hop}\r\n"), &key, "GET", "/v1/tasks", "").await.status,
            200,
            "{hop}"
        );
    }
    assert_eq!(world.ask_with(&key, "GET", "/v1/tasks", "").await.status, 200);
}

#[tokio::test]
async fn forwarded_address_is_read_with_port_brackets_and_quotes() {
    let own = ["203.0.113.9", "2001:db8::/32"];
    for (admitted, key_networks) in [(&own[..], &[][..]), (&[][..], &own[..])] {
        let (world, key) = behind_a_proxy(admitted, key_networks).await;
        for (hop, status) in [
            ("203.0.113.9:1234", 200),
            ("\"203.0.113.9\"", 200),
            ("\"203.0.113.9:1234\"", 200),
            ("[2001:db8::1]", 200),
            ("[2001:db8::1]:1234", 200),
            ("\"[2001:db8::1]:1234\"", 200),
            ("[::ffff:203.0.113.9]:1234", 200),
            ("203.0.113.9:1234, 127.0.0.1:80", 200),
            ("203.0.113.10:1234", 403),
            ("[2001:db9::1]:1234", 403),
        ] {
            let answer =
                world.ask_from(&format!("X-Forwarded-For: {hop}\r\n"), &key, "GET", "/v1/tasks", "").await;
            assert_eq!(answer.status, status, "{hop}");
        }
    }
}

#[tokio::test]
async fn valid_key_is_accepted_while_its_address_guesses() {
    let world = World::guarded().await;
    let mut guesses = 0;
    for round in 0..3_u8 {
        // Each good key is new to this process, as every key is after a restart.
        let key = world.key("acme", READ).await;
        for number in 0..40_u8 {
            let mut random = [round; 20];
            random[0] = number;
            let guess = KeyText::new(random);
            let answer = world.ask_with(guess.as_str(), "GET", "/v1/tasks", "").await;
            assert!([401, 429].contains(&answer.status), "{}", answer.text());
            guesses += usize::from(answer.status == 401);
        }
        assert_eq!(world.ask_with(&key, "GET", "/v1/tasks", "").await.status, 200);
    }
    assert_eq!(guesses, 20, "further guesses get 429");
}

#[tokio::test]
async fn keyless_server_refuses_a_foreign_authority() {
    let world = World::start().await;
    let ask = async |target: &str, headers: &str| {
        world.ask(format!("GET {target} HTTP/1.1\r\n{headers}\r\n\r\n")).await
    };
    for (target, headers) in [
        ("/v1/tasks", "Host: 127.0.0.1.evil.com"),
        ("http://evil.com/v1/tasks", "Host: localhost"),
        ("http://localhost/v1/tasks", "Host: evil.com"),
        ("/v1/tasks", "Host: localhost\r\nSec-Fetch-Site: cross-site"),
        ("/v1/tasks", "Host: localhost\r\nSec-Fetch-Site: same-site"),
        ("/v1/tasks", "Host: localhost\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site"),
        ("/v1/tasks", "Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.com"),
        ("/v1/tasks", "Host: localhost\r\nOrigin: http://localhost:80@evil.com"),
        ("/v1/tasks", "Host: localhost\r\nOrigin: http://[::1].evil.com"),
        ("/v1/tasks", "Host: localhost\r\nOrigin: http://localhost:evil.com"),
        ("/v1/tasks", "Host: localhost\r\nOrigin: http://localhost/path"),
        ("/v1/tasks", "Host: localhost\r\nOrigin: evil://localhost"),
    ] {
        ask(target, headers).await.problem(421, "misdirected_request");
    }
    // HTTP itself does not allow a `Host` that is no authority.
    for host in [
        "[::1].evil.com",
        "localhost:evil.com",
        "localhost:80@evil.com",
        "localhost:65536",
        "localhost:-1",
        "local host",
    ] {
        assert_eq!(ask("/v1/tasks", &format!("Host: {host}")).await.status, 400, "{host}");
    }
    for (target, headers) in [
        ("/v1/tasks", "Host: localhost:8080\r\nSec-Fetch-Site: same-origin\r\nOrigin: http://localhost:8080"),
        ("/v1/tasks", "Host: [::1]:8080\r\nSec-Fetch-Site: none"),
        ("http://127.0.0.1:8080/v1/tasks", "Host: 127.0.0.1:8080"),
    ] {
        assert_eq!(ask(target, headers).await.status, 200, "{target} {headers}");
    }
}
