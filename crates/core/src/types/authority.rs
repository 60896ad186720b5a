//! Authorities: the host and the port in a `Host` header, a URL, an `Origin` or an element of
//! `X-Forwarded-For`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host and an optional port, without user information (RFC 3986, sections 3.2.2 and 3.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host.
    pub host: Host<'a>,
    /// The port. `None` if it is missing or empty.
    pub port: Option<u16>,
}

/// The host of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A registered name, as it was written. Can be empty.
    Name(&'a str),
    /// An IP address.
    Address(IpAddr),
}

impl<'a> Authority<'a> {
    /// Parses an authority. Returns `None` if the text is not an authority, has user information
    /// (`user@host`), or a port that is not a number from 0 to 65535.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, rest) = if let Some(bracketed) = text.strip_prefix('[') {
            let (address, rest) = bracketed.split_once(']')?;
            (Host::Address(address.parse::<Ipv6Addr>().ok()?.into()), rest)
        } else {
            let (name, rest) =
                text.split_at(text.bytes().position(|byte| byte == b':').unwrap_or(text.len()));
            (Host::parse_name(name)?, rest)
        };
        let port = match rest {
            "" | ":" => None,
            _ => Some(parse_port(rest.strip_prefix(':')?)?),
        };
        Some(Self { host, port })
    }

    /// Returns true if the host is a loopback address, `localhost` or a name below `localhost` (RFC 6761,
    /// section 6.3).
    pub fn is_loopback(&self) -> bool {
        match self.host {
            Host::Address(address) => address.to_canonical().is_loopback(),
            Host::Name(name) => {
                let labels =
                    name.len().checked_sub("localhost".len()).and_then(|start| name.split_at_checked(start));
                labels.is_some_and(|(below, last)| {
                    last.eq_ignore_ascii_case("localhost") && (below.is_empty() || below.ends_with('.'))
                })
            }
        }
    }
}

impl<'a> Host<'a> {
    fn parse_name(text: &'a str) -> Option<Self> {
        let is_allowed = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$'..=b',' | b';' | b'=')
        };
        if !text.bytes().all(is_allowed) {
            return None;
        }
        // Most hosts are names, and no name that starts with a letter is an address.
        let address = if text.starts_with(|first: char| first.is_ascii_digit()) {
            text.parse::<Ipv4Addr>().ok()
        } else {
            None
        };
        Some(address.map_or(Self::Name(text), |address| Self::Address(address.into())))
    }
}

/// Parses a port. `str::parse` alone would accept a leading `+`.
fn parse_port(digits: &str) -> Option<u16> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_is_split_into_host_and_port() {
        let address = |text: &str| Host::Address(text.parse().unwrap());
        for (text, host, port) in [
            ("", Host::Name(""), None),
            ("example.com", Host::Name("example.com"), None),
            ("example.com:8080", Host::Name("example.com"), Some(8080)),
            ("example.com:", Host::Name("example.com"), None),
            ("127.0.0.1:0", address("127.0.0.1"), Some(0)),
            ("[::1]", address("::1"), None),
            ("[2001:db8::1]:65535", address("2001:db8::1"), Some(65535)),
            ("127.1", Host::Name("127.1"), None),
            ("-._~!$&'()*+,;=%", Host::Name("-._~!$&'()*+,;=%"), None),
        ] {
            assert_eq!(Authority::parse(text), Some(Authority { host, port }), "{text}");
        }
    }

    #[test]
    fn malformed_authority_is_refused() {
        for text in [
            "[::1].evil.com",
            "localhost:evil.com",
            "localhost:80@evil.com",
            "user@localhost",
            "localhost:65536",
            "localhost:+80",
            "localhost:-1",
            "localhost:80:80",
            "[::1",
            "::1",
            "[127.0.0.1]",
            "[fe80::1%1]",
            "local host",
            "localhost/",
            "localhost?",
            "localhost#",
            "localhost\\",
            "münchen.example",
            "a\"b",
            "a#b",
            "a<b",
            "a>b",
            "a^b",
            "a`b",
            "a{b}",
            "a|b",
        ] {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }

    #[test]
    fn loopback_hosts_are_known_by_name_and_address() {
        let is_loopback =
            |text: &str| Authority::parse(text).is_some_and(|authority| authority.is_loopback());
        for text in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1:80",
            "[::1]:8080",
            "[::1]",
            "a.localhost",
            "127.9.9.9",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(text), "{text}");
        }
        for text in [
            "",
            "example.com",
            "localhost.example.com",
            "10.0.0.1",
            "[2001:db8::1]:8080",
            "notlocalhost",
            "é.localhos",
            "127.0.0.1.example.com",
        ] {
            assert!(!is_loopback(text), "{text}");
        }
    }
}
