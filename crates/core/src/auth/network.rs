//! Networks and client addresses of requests.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::authority::{Authority, Host};
use crate::types::serde_as_text::serde_as_text;

/// Network in CIDR notation. A single address is a network with one address.
///
/// An IPv4 network written as IPv6 (`::ffff:10.0.0.0/104`) counts as the IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Reason why a text is not accepted as a network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// The text is neither a network nor an address.
    #[error("expected a network such as 203.0.113.0/24, or an IP address")]
    Malformed,
    /// Bits after the prefix are set, so the intended network is unclear. Holds the network with these bits
    /// cleared.
    #[error("the address has bits set after the prefix; send {0} instead")]
    HostBits(IpNet),
    /// The network contains every address.
    #[error("the network contains every address; send a smaller network, or omit it")]
    Everybody,
}

impl Network {
    /// Returns true if the network contains the address. IPv4 addresses may be written as IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| InvalidNetwork::Malformed)?,
        };
        // The checks below must see the canonical network: IPv4 instead of IPv4 mapped to IPv6.
        let network = canonical(network);
        if network.trunc() != network {
            return Err(InvalidNetwork::HostBits(network.trunc()));
        }
        if network.prefix_len() == 0 {
            return Err(InvalidNetwork::Everybody);
        }
        Ok(Self(network))
    }
}

fn canonical(network: IpNet) -> IpNet {
    const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
    match network {
        IpNet::V6(six) if MAPPED.contains(&six) => {
            match six.addr().to_ipv4_mapped().map(|four| Ipv4Net::new(four, six.prefix_len() - 96)) {
                Some(Ok(four)) => IpNet::V4(four),
                _ => network,
            }
        }
        _ => network,
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

serde_as_text!(Network);

/// Returns true if a list admits a client. An empty list admits every client. Any other list refuses a client
/// whose address is unknown.
pub fn admits(list: &[Network], address: Option<IpAddr>) -> bool {
    list.is_empty() || address.is_some_and(|address| list.iter().any(|network| network.contains(address)))
}

/// Returns the address of the client that sent a request, or `None` if it is unknown.
///
/// `peer` is the remote address of the connection. `forwarded` holds the elements of `X-Forwarded-For`, in
/// the order of the header. The search begins at `peer` and continues at the end of `forwarded`. It ends at
/// the first address that does not belong to `proxies`. Elements before that address are ignored, because a
/// client can forge them.
///
/// If a trusted proxy's element is missing or unreadable, the client is unknown. The proxy's own address is
/// never returned. Otherwise an allow-list that admits the proxy would admit every client behind the proxy.
pub fn origin<'a>(
    peer: Option<IpAddr>,
    proxies: &[Network],
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
) -> Option<IpAddr> {
    let mut nearest = peer?.to_canonical();
    let mut elements = forwarded.rev();
    while proxies.iter().any(|proxy| proxy.contains(nearest)) {
        nearest = forwarded_address(elements.next()?)?;
    }
    Some(nearest)
}

/// Reads one element of `X-Forwarded-For`: an IP address, alone or with a port (`203.0.113.9:1234`,
/// `[2001:db8::1]:1234`). The element may be in brackets or in double quotes. Returns `None` for anything
/// else.
pub fn forwarded_address(element: &str) -> Option<IpAddr> {
    let text = element.trim_matches([' ', '\t']);
    let text = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => text,
    };
    let address = text.parse::<IpAddr>().ok().or_else(|| match Authority::parse(text)?.host {
        Host::Address(address) => Some(address),
        Host::Name(_) => None,
    });
    Some(address?.to_canonical())
}

/// Returns the network that a limit per address treats as one client. For IPv4, the network is the address
/// itself, also if the address is written as IPv6. For IPv6, the network is the /64 network, because one
/// client usually has all addresses of such a network.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).into(),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn address_matches_in_all_its_spellings() {
        for list in ["203.0.113.0/24", "::ffff:203.0.113.0/120"] {
            for inside in ["203.0.113.9", "::ffff:203.0.113.9"] {
                assert!(network(list).contains(address(inside)), "{inside} in {list}");
            }
            assert!(!network(list).contains(address("203.0.114.9")));
        }
        assert!(network("2001:db8::/32").contains(address("2001:db8::1")));
        assert!(network("198.51.100.7").contains(address("198.51.100.7")));
        assert!(!network("198.51.100.7").contains(address("198.51.100.8")));
    }

    #[test]
    fn ambiguous_or_malformed_network_is_refused() {
        assert_eq!(
            "10.0.0.1/8".parse::<Network>(),
            Err(InvalidNetwork::HostBits("10.0.0.0/8".parse().unwrap()))
        );
        for everybody in ["0.0.0.0/0", "::/0", "::ffff:0:0/96"] {
            assert_eq!(everybody.parse::<Network>(), Err(InvalidNetwork::Everybody));
        }
        // The prefix is shorter than the 96 bits that mark a mapped IPv4 address, so this is an IPv6 network.
        assert_eq!(
            "::ffff:0:0/90".parse::<Network>(),
            Err(InvalidNetwork::HostBits("::ffc0:0:0/90".parse().unwrap()))
        );
        for malformed in ["", "10", "10.0.0.0/33", "example.com", "10.0.0.0/8 "] {
            assert_eq!(malformed.parse::<Network>(), Err(InvalidNetwork::Malformed), "{malformed}");
        }
    }

    #[test]
    fn origin_is_the_nearest_address_that_is_no_trusted_proxy() {
        let proxies = [network("127.0.0.1"), network("10.0.0.0/8")];
        let of =
            |peer: &str, forwarded: &[&str]| origin(Some(address(peer)), &proxies, forwarded.iter().copied());
        assert_eq!(
            of("198.51.100.7", &["203.0.113.9"]),
            Some(address("198.51.100.7")),
            "the header of a client that is no proxy is ignored"
        );
        assert_eq!(of("127.0.0.1", &["203.0.113.9"]), Some(address("203.0.113.9")));
        let far = ["1.1.1.1", "203.0.113.9", " 10.1.2.3"];
        assert_eq!(
            of("::ffff:127.0.0.1", &far),
            Some(address("203.0.113.9")),
            "the first element can be forged"
        );
    }

    #[test]
    fn origin_is_unknown_if_a_trusted_proxy_names_no_client() {
        let proxies = [network("127.0.0.1"), network("10.0.0.0/8")];
        let of = |peer: Option<IpAddr>, forwarded: &[&str]| origin(peer, &proxies, forwarded.iter().copied());
        let proxy = Some(address("127.0.0.1"));
        for forwarded in
            [&[][..], &["203.0.113.9", "unknown"], &["203.0.113.9", ""], &["10.1.2.3"], &["x", "10.1.2.3"]]
        {
            assert_eq!(of(proxy, forwarded), None, "{forwarded:?}");
        }
        assert_eq!(of(None, &["203.0.113.9"]), None, "the peer of the connection is unknown");
    }

    #[test]
    fn forwarded_address_is_read_in_all_common_forms() {
        for text in [
            "203.0.113.9",
            " 203.0.113.9\t",
            "203.0.113.9:1234",
            "\"203.0.113.9\"",
            "\"203.0.113.9:1\"",
            "[::ffff:203.0.113.9]:1",
        ] {
            assert_eq!(forwarded_address(text), Some(address("203.0.113.9")), "{text}");
        }
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:1234", "\"[2001:db8::1]:1234\""] {
            assert_eq!(forwarded_address(text), Some(address("2001:db8::1")), "{text}");
        }
        for text in [
            "",
            "unknown",
            "_hidden",
            "203.0.113.9:x",
            "203.0.113.9:65536",
            "203.0.113.256",
            "\"203.0.113.9",
            "for=203.0.113.9",
        ] {
            assert_eq!(forwarded_address(text), None, "{text}");
        }
    }

    #[test]
    fn unknown_client_is_admitted_by_the_empty_list_alone() {
        assert!(admits(&[], None));
        assert!(!admits(
            &[network("0.0.0.0/1"), network("128.0.0.0/1"), network("::/1"), network("8000::/1")],
            None
        ));
        assert!(admits(&[network("203.0.113.0/24")], Some(address("203.0.113.9"))));
    }

    #[test]
    fn client_network_is_an_address_or_a_64() {
        for (one, same) in
            [("203.0.113.9", "::ffff:203.0.113.9"), ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2")]
        {
            assert_eq!(client_network(address(one)), client_network(address(same)));
        }
        for (one, other) in [("203.0.113.9", "203.0.113.10"), ("2001:db8:0:1::1", "2001:db8:0:2::1")] {
            assert_ne!(client_network(address(one)), client_network(address(other)));
        }
    }
}
