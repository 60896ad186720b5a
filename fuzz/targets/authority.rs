//! Authorities: `Authority` reads them as other URL parsers do, and classifies only this machine as loopback.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nobat_core::types::authority::{Authority, Host};
use url::Url;

fuzz_target!(|text: &str| {
    let Some(authority) = Authority::parse(text) else { return };
    assert!(!text.contains(['@', '/', '?', '#', '\\', ' ']), "{text:?}");
    // In debug builds the other parser panics on names that are not ASCII after decoding, since it has no
    // Unicode tables here.
    if text.contains('%') || text.to_ascii_lowercase().contains("xn--") {
        return;
    }
    let Ok(url) = Url::parse(&format!("ws://{text}/")) else { return };
    assert_eq!((url.username(), url.password(), url.path()), ("", None, "/"), "{text:?}");
    if let (Host::Address(address), Some(host)) = (authority.host, url.host_str()) {
        assert_eq!(host.trim_matches(['[', ']']).parse(), Ok(address), "{text:?}");
    }
    if let Some(port) = authority.port {
        assert_eq!(url.port_or_known_default(), Some(port), "{text:?}");
    }
    if authority.is_loopback() {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_name = host == "localhost" || host.ends_with(".localhost");
        assert!(
            is_name
                || host.parse().is_ok_and(|address: std::net::IpAddr| address.to_canonical().is_loopback()),
            "{text:?}: {host}"
        );
    }
});
