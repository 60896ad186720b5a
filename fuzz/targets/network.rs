//! Networks, and whom a request comes from: a list, a `|`, and what `X-Forwarded-For` says.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use nobat_core::network::{Network, admits, origin};

fuzz_target!(|text: &str| {
    let (list, forwarded) = text.split_once('|').unwrap_or((text, ""));
    let networks: Vec<Network> = list.split(',').filter_map(|network| network.parse().ok()).collect();
    for network in &networks {
        assert_eq!(network.to_string().parse(), Ok(*network));
        let all_of_four = network.contains(Ipv4Addr::UNSPECIFIED.into()) && network.contains(Ipv4Addr::BROADCAST.into());
        let all_of_six = network.contains(Ipv6Addr::UNSPECIFIED.into()) && network.contains(Ipv6Addr::from_bits(u128::MAX).into());
        assert!(!all_of_four && !all_of_six, "{network} is everybody");
    }
    let is_trusted = |address| !networks.is_empty() && admits(&networks, address);
    for peer in [IpAddr::from([127, 0, 0, 1]), IpAddr::from([203, 0, 113, 7]), "::ffff:10.0.0.1".parse().expect("an address")] {
        let from = origin(peer, &networks, forwarded.split(','));
        let hops = || forwarded.split(',').filter_map(|hop| hop.trim().parse::<IpAddr>().ok()).map(|hop| hop.to_canonical());
        assert!(from == peer.to_canonical() || hops().any(|hop| hop == from), "{from} stands nowhere");
        assert!(is_trusted(peer) || from == peer.to_canonical(), "whoever is not trusted has no say");
        if !is_trusted(from) {
            let farther = format!("198.51.100.1,{forwarded}");
            // Nothing that stands farther away is read, unless there is nothing else.
            let again = origin(peer, &networks, farther.split(','));
            assert!(again == from || forwarded.trim().is_empty(), "{farther}: {again} and {from}");
        }
    }
});
