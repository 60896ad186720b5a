//! Decides which addresses may be called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Permits addresses of the public internet. Refuses this machine, its network, and the metadata services of
/// clouds.
///
/// Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
    refused: Arc<[SocketAddr]>,
}

impl Guard {
    /// Creates a guard that permits the public internet and those private networks that the operator allows.
    ///
    /// Some addresses stay blocked even if the operator allows them. Examples are the metadata services of
    /// clouds, which serve credentials, and IPv6 addresses that embed an IPv4 address.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed: allowed.into(), refused: Arc::default() }
    }

    /// Returns the guard, extended to refuse the sockets that this process listens on.
    ///
    /// An unspecified address means all addresses of this machine.
    #[must_use]
    pub fn refusing(self, refused: Vec<SocketAddr>) -> Self {
        Self { refused: refused.into(), ..self }
    }

    /// Returns true if this port of this address may be dialed.
    pub fn permits_port(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        let leads_to = |own: &SocketAddr| {
            let is_everywhere =
                own.ip().is_unspecified() && (address.is_loopback() || address.is_unspecified());
            own.port() == port && (is_everywhere || own.ip().to_canonical() == address)
        };
        self.permits(address) && !self.refused.iter().any(leads_to)
    }

    /// Returns true if a connection leads to a socket of this process that listens on all addresses.
    ///
    /// A connection to an address of the same machine has that address at both ends.
    pub(crate) fn is_own(&self, here: SocketAddr, there: SocketAddr) -> bool {
        let is_here = here.ip().to_canonical() == there.ip().to_canonical();
        is_here && self.refused.iter().any(|own| own.ip().is_unspecified() && own.port() == there.port())
    }

    /// Returns true if this address may be dialed.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address)
            || (is_private(address) && self.allowed.iter().any(|network| network.contains(&address)))
    }

    /// Returns true if a loopback address is allowed. Names of this machine are then permitted.
    pub(crate) fn permits_loopback(&self) -> bool {
        self.permits(Ipv4Addr::LOCALHOST.into()) || self.permits(Ipv6Addr::LOCALHOST.into())
    }

    /// Returns true if at least one network is allowed. Names of the local network are then permitted.
    pub(crate) fn permits_private_networks(&self) -> bool {
        !self.allowed.is_empty()
    }
}

/// IPv4 networks that are not public: the special-purpose registry (RFC 6890), multicast, and one address of
/// Azure.
const SPECIAL_V4: [Ipv4Net; 17] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    // Link-local, including the metadata services of all clouds.
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
    // An address in a public range, through which every Azure machine reaches its host.
    v4([168, 63, 129, 16], 32),
];

/// The part of IPv6 that is assigned to the public internet.
const GLOBAL_V6: Ipv6Net = v6(0x2000_0000, 3);

/// Networks in [`GLOBAL_V6`] that are not public. Teredo and 6to4 embed an IPv4 address of the sender's
/// choice.
const SPECIAL_V6: [Ipv6Net; 4] =
    [v6(0x2001_0000, 23), v6(0x2001_0db8, 32), v6(0x2002_0000, 16), v6(0x3fff_0000, 20)];

/// Networks that an operator can allow. All other non-public networks stay blocked.
const PRIVATE: [IpNet; 8] = [
    IpNet::V4(v4([10, 0, 0, 0], 8)),
    IpNet::V4(v4([100, 64, 0, 0], 10)),
    IpNet::V4(v4([127, 0, 0, 0], 8)),
    IpNet::V4(v4([172, 16, 0, 0], 12)),
    IpNet::V4(v4([192, 168, 0, 0], 16)),
    IpNet::V4(v4([198, 18, 0, 0], 15)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    IpNet::V6(v6(0xfc00_0000, 7)),
];

/// Metadata services of clouds inside private ranges. They serve credentials.
const METADATA: [IpNet; 3] = [
    // Alibaba.
    IpNet::V4(v4([100, 100, 100, 200], 32)),
    // AWS: instance metadata at `::254`, credentials of EKS at `::23`.
    IpNet::V6(v6(0xfd00_0ec2, 32)),
    // Google.
    IpNet::V6(v6(0xfd20_00ce, 32)),
];

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            GLOBAL_V6.contains(&address) && !SPECIAL_V6.iter().any(|network| network.contains(&address))
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    let in_any = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
    in_any(&PRIVATE) && !in_any(&METADATA)
}

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// Builds a network from the first 32 bits of its address. No network here needs more.
const fn v6(start: u128, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from_bits(start << 96), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(networks: &[&str]) -> Guard {
        Guard::new(networks.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn permitted<'a>(guard: &Guard, addresses: &[&'a str]) -> Vec<&'a str> {
        addresses.iter().copied().filter(|address| guard.permits(address.parse().unwrap())).collect()
    }

    const PUBLIC: [&str; 14] = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "223.255.255.255",
        "::ffff:1.1.1.1",
        "2001:200::",
        "2606:4700:4700::1111",
        "2a00:1450:4001:830::200e",
    ];

    const CLOSED_UNLESS_ALLOWED: [&str; 14] = [
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "198.18.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "fc00::1",
        "fd12:3456::1",
    ];

    const NEVER: [&str; 37] = [
        "0.0.0.0",
        "0.1.2.3",
        "169.254.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "100.100.100.200",
        "168.63.129.16",
        "::",
        "::127.0.0.1",
        "::10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "100::1",
        "2001::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];

    #[test]
    fn default_guard_permits_only_public_addresses() {
        let guard = Guard::default();
        assert_eq!(permitted(&guard, &PUBLIC), PUBLIC);
        assert!(permitted(&guard, &CLOSED_UNLESS_ALLOWED).is_empty());
        assert!(permitted(&guard, &NEVER).is_empty());
    }

    #[test]
    fn allowed_networks_are_permitted_and_no_others() {
        let guard = guard(&["10.1.0.0/16", "127.0.0.1/32", "fd12::/16"]);
        assert_eq!(
            permitted(&guard, &["10.1.2.3", "10.2.0.1", "127.0.0.1", "127.0.0.2"]),
            ["10.1.2.3", "127.0.0.1"]
        );
        assert_eq!(permitted(&guard, &["fd12:3456::1", "fd13::1", "::1"]), ["fd12:3456::1"]);
        assert_eq!(
            permitted(&guard, &["::ffff:10.1.2.3", "::10.1.2.3", "64:ff9b::a01:203"]),
            ["::ffff:10.1.2.3"]
        );
        assert_eq!(permitted(&guard, &PUBLIC), PUBLIC);
    }

    #[test]
    fn refused_sockets_stay_refused_with_all_networks_allowed() {
        let guard = guard(&["0.0.0.0/0", "::/0"])
            .refusing(vec!["127.0.0.1:9001".parse().unwrap(), "[::1]:9001".parse().unwrap()]);
        let permits = |address: &str, port| guard.permits_port(address.parse().unwrap(), port);
        assert_eq!(
            ["127.0.0.1", "::ffff:127.0.0.1", "::1", "127.0.0.2"].map(|address| permits(address, 9001)),
            [false, false, false, true]
        );
        assert!(permits("127.0.0.1", 9002) && !permits("169.254.169.254", 80));
    }

    #[test]
    fn own_listener_on_all_addresses_is_refused_at_each() {
        for listens in ["0.0.0.0:9001", "[::]:9001"] {
            let guard = guard(&["0.0.0.0/0", "::/0"]).refusing(vec![listens.parse().unwrap()]);
            let permits = |address: &str, port| guard.permits_port(address.parse().unwrap(), port);
            for address in ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.9.9.9"] {
                assert!(!permits(address, 9001) && permits(address, 9002), "{address}");
            }
            assert!(
                permits("10.0.0.1", 9001),
                "the guard learns at dial time if this is an address of this machine"
            );
        }
    }

    #[test]
    fn special_addresses_stay_blocked_with_all_networks_allowed() {
        let guard = guard(&["0.0.0.0/0", "::/0"]);
        assert_eq!(permitted(&guard, &CLOSED_UNLESS_ALLOWED), CLOSED_UNLESS_ALLOWED);
        assert!(permitted(&guard, &NEVER).is_empty());
    }
}
