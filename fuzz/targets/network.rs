//! Networks, and the client address of a request: a list, a `|`, and a value of `X-Forwarded-For`.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use nobat_core::auth::network::{Network, admits, forwarded_address, origin};

fuzz_target!(|text: &str| {
    let (list, forwarded) = text.split_once('|').unwrap_or((text, ""));
    let networks: Vec<Network> = list.split(',').filter_map(|network| network.parse().ok()).collect();
    for network in &networks {
        assert_eq!(network.to_string().parse(), Ok(*network));
        let all_of_four =
            network.contains(Ipv4Addr::UNSPECIFIED.into()) && network.contains(Ipv4Addr::BROADCAST.into());
        let all_of_six = network.contains(Ipv6Addr::UNSPECIFIED.into())
            && network.contains(Ipv6Addr::from_bits(u128::MAX).into());
        assert!(!all_of_four && !all_of_six, "{network} contains all addresses");
    }
    let is_trusted = |address| networks.iter().any(|network| network.contains(address));
    for peer in [
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([203, 0, 113, 7]),
        "::ffff:10.0.0.1".parse().expect("valid address"),
    ] {
        let from = origin(Some(peer), &networks, forwarded.split(','));
        let Some(from) = from else {
            assert!(is_trusted(peer), "the address of an untrusted peer is known");
            continue;
        };
        let mut elements = forwarded.split(',').filter_map(forwarded_address);
        assert!(
            from == peer.to_canonical() || elements.any(|element| element == from),
            "{from} is neither the peer nor in the header"
        );
        assert!(!is_trusted(from), "{from}: a trusted proxy is not the client");
        assert!(
            is_trusted(peer) || from == peer.to_canonical(),
            "the header of an untrusted peer is ignored"
        );
        assert!(admits(&networks, None) == networks.is_empty());
        // Elements farther from the server must not be read.
        let farther = format!("198.51.100.1,{forwarded}");
        assert_eq!(origin(Some(peer), &networks, farther.split(',')), Some(from), "{farther}");
    }
    for element in forwarded.split(',') {
        let Some(address) = forwarded_address(element) else { continue };
        assert_eq!(address, address.to_canonical());
        for form in [format!("{address}"), format!("\"{address}\""), SocketAddr::new(address, 80).to_string()]
        {
            assert_eq!(forwarded_address(&form), Some(address), "{form}");
        }
    }
});
