//! URLs to call: an accepted URL leads to no blocked address, whatever the spelling of its host. It is dialed
//! as it was parsed, and its canonical form parses to the same URL.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use nobat_core::types::http_url::{HttpUrl, UrlHost};

use crate::destination::Destination;
use crate::guard::Guard;

#[allow(dead_code, reason = "this target does not read the error texts")]
#[path = "../../crates/delivery/src/destination.rs"]
mod destination;
#[allow(dead_code, reason = "only the connector uses these parts")]
#[path = "../../crates/delivery/src/guard.rs"]
mod guard;

fuzz_target!(|text: &str| {
    check(text, &[]);
    check(text, &["10.0.0.0/8", "fd00::/8"]);
});

fn check(text: &str, opened: &[&str]) {
    let guard = &Guard::new(opened.iter().map(|network| network.parse().expect("valid network")).collect());
    let Ok(destination) = Destination::parse(text, guard) else { return };
    let url = destination.url().clone();
    assert!(text.len() <= HttpUrl::MAX_LENGTH && url.as_str().len() <= HttpUrl::MAX_LENGTH);
    let read_again = HttpUrl::parse(url.as_str()).expect("the canonical form parses");
    assert!(
        read_again == url && read_again.same_destination(&url) && read_again.as_str() == url.as_str(),
        "{url}"
    );
    let shown = format!("{destination:?}");
    let uri = destination.clone().into_uri();
    assert!(matches!(uri.scheme_str(), Some("http" | "https")), "{uri}");
    let authority = uri.authority().expect("the URI has an authority").as_str();
    assert!(!authority.contains(['@', '%']), "{uri}");
    let host = uri.host().expect("the URI has a host");
    // The dialed host and port must be those that were checked.
    match url.host() {
        UrlHost::Name(name) => assert_eq!(name, host),
        UrlHost::Address(parsed) => assert_eq!(Some(parsed), address(host)),
    }
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    assert_eq!(
        (url.scheme(), url.port()),
        (uri.scheme_str().unwrap_or_default(), uri.port_u16().unwrap_or(default))
    );
    assert_eq!(uri.to_string(), url.as_str());
    assert_eq!(shown, format!("Destination({host})"));
    if let Some(address) = address(host) {
        assert!(guard.permits(address), "{uri} leads to {address}");
    } else {
        // A resolver must not be able to take the name for this machine or its network.
        assert!(host.is_ascii() && !host.ends_with('.') && host == host.to_ascii_lowercase(), "{uri}");
        let top = host.rsplit('.').next().unwrap_or_default();
        assert!(!matches!(top, "localhost" | "internal"), "{uri}");
        assert!(top != "local" || !opened.is_empty(), "{uri}");
    }
    let again = Destination::parse(&uri.to_string(), guard).expect("the accepted URL parses again");
    assert!(again == destination, "{uri} is read as {}", again.into_uri());
}

/// Returns the address of a host by the most permissive parser: `getaddrinfo` of the C library. It takes one
/// to four numbers, each decimal, octal or hexadecimal.
fn address(host: &str) -> Option<IpAddr> {
    if let Some(literal) = host.strip_prefix('[') {
        return Some(literal.strip_suffix(']')?.parse().expect("valid IPv6 address"));
    }
    let parts: Vec<u64> = host.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last().filter(|(_, first)| first.len() <= 3)?;
    let room = 8 * (4 - first.len());
    if first.iter().any(|part| *part > 255) || (*last >> room) > 0 {
        return None;
    }
    let high = first.iter().fold(0, |bits, part| bits << 8 | part);
    Some(Ipv4Addr::from_bits(u32::try_from(high << room | last).ok()?).into())
}

fn number(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.starts_with('0') && text.len() > 1 => u64::from_str_radix(&text, 8).ok(),
        None => text.parse().ok(),
    }
}
