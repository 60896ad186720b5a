//! Policy that decides which clients may send requests, and which clients need a key.

use std::net::IpAddr;

use nobat_core::auth::network::Network;

/// Access policy of the API.
#[derive(Clone, Debug)]
pub struct AccessPolicy {
    /// Rule for when a request needs an API key.
    pub keys: AuthMode,
    /// Networks from which requests are accepted. Empty: any.
    pub admitted: Vec<Network>,
    /// Proxies in front of the server. Only their `X-Forwarded-For` is trusted.
    pub proxies: Vec<Network>,
}

/// Rule for when a request needs an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Every request needs a key.
    Required,
    /// No request needs a key until the first key is created. For a server that only programs on this machine
    /// can reach.
    NotYet,
    /// No request needs a key. For a program that has opened the store itself and so has full access.
    Never,
}

/// Remote IP address of the TCP connection of a request, as an extension of the request.
///
/// Without this extension, the client's address is unknown. The server then refuses the request in three
/// cases: the server has an allow-list, the server has no keys, or the request's key is limited to networks.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);
