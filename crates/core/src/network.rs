//! From where a request may come.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A network in CIDR notation; an address alone is a network of one.
///
/// An IPv4 network written inside IPv6 (`::ffff:10.0.0.0/104`) is taken for what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is not taken for a network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// It is not one.
    #[error("expected a network such as 203.0.113.0/24, or an address")]
    Malformed,
    /// Bits behind the prefix are set, so that it is not clear what is meant.
    #[error("bits behind the prefix are set: did you mean {0}?")]
    HostBits(IpNet),
    /// It is everybody.
    #[error("this admits everybody; leave the list out if that is meant")]
    Everybody,
}

impl Network {
    /// Whether the address is in it, however either of them is written.
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
        // First, so that what is said of it below is said of what it means.
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

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Whether a list lets this address in: an empty one lets in everybody.
pub fn admits(list: &[Network], address: IpAddr) -> bool {
    list.is_empty() || list.iter().any(|network| network.contains(address))
}

/// Whom a request comes from: the other side of the connection, or, if that is a proxy one trusts, whom the proxy says it had it
/// from. `forwarded` is what `X-Forwarded-For` says, the nearest last.
///
/// Whoever is farther away than the last proxy that is trusted can have written anything there, so the search ends with it.
/// What cannot be read is not passed over: then nobody is known behind the proxy that passed it on.
pub fn origin<'a>(peer: IpAddr, proxies: &[Network], forwarded: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
    let is_trusted = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let mut nearest = peer.to_canonical();
    for hop in forwarded.rev() {
        if !is_trusted(nearest) {
            break;
        }
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        nearest = address.to_canonical();
    }
    nearest
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
    fn takes_an_address_by_any_of_its_spellings() {
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
    fn refuses_what_is_not_clear() {
        assert_eq!("10.0.0.1/8".parse::<Network>(), Err(InvalidNetwork::HostBits("10.0.0.0/8".parse().unwrap())));
        for everybody in ["0.0.0.0/0", "::/0", "::ffff:0:0/96"] {
            assert_eq!(everybody.parse::<Network>(), Err(InvalidNetwork::Everybody));
        }
        // Wider than what is written inside IPv6, so it is no IPv4 network.
        assert_eq!("::ffff:0:0/90".parse::<Network>(), Err(InvalidNetwork::HostBits("::ffc0:0:0/90".parse().unwrap())));
        for malformed in ["", "10", "10.0.0.0/33", "example.com", "10.0.0.0/8 "] {
            assert_eq!(malformed.parse::<Network>(), Err(InvalidNetwork::Malformed), "{malformed}");
        }
    }

    #[test]
    fn the_origin_is_the_nearest_that_no_trusted_proxy_vouches_for() {
        let proxies = [network("127.0.0.1"), network("10.0.0.0/8")];
        let of = |peer: &str, forwarded: &[&str]| origin(address(peer), &proxies, forwarded.iter().copied()).to_string();
        assert_eq!(of("198.51.100.7", &["203.0.113.9"]), "198.51.100.7", "not a proxy: what it says is not looked at");
        assert_eq!(of("127.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(of("::ffff:127.0.0.1", &["1.1.1.1", "203.0.113.9", " 10.1.2.3"]), "203.0.113.9", "the first is anybody's word");
        assert_eq!(of("127.0.0.1", &["203.0.113.9", "unknown"]), "127.0.0.1", "nobody is known behind it");
        assert_eq!(of("127.0.0.1", &[]), "127.0.0.1");
    }
}
