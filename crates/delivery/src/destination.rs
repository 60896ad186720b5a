//! Checks of URLs that tasks may call.

use std::fmt;

use http::Uri;
use nobat_core::task::ErrorCode;
use nobat_core::types::http_url::{HttpUrl, InvalidUrl, UrlHost};

use crate::guard::Guard;

/// A URL that has passed the checks that need no network.
///
/// These checks refuse a URL early, with a reason. The addresses of a name are not known yet and may change.
/// So the guard checks every address again when it is dialed.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    url: HttpUrl,
    /// The URL of the destination, in the HTTP client's type.
    uri: Uri,
}

/// Reason why a URL is not called. No message repeats the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// The text is not an HTTP URL.
    #[error(transparent)]
    Invalid(#[from] InvalidUrl),
    /// The port belongs to another protocol.
    #[error("this port belongs to a protocol other than HTTP")]
    Port,
    /// The host is an address that tasks may not call, or a name of such an address.
    #[error("the host is not a public address")]
    Blocked,
}

impl BadUrl {
    /// Returns a stable code, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Blocked => ErrorCode::BLOCKED_ADDRESS,
            Self::Invalid(_) | Self::Port => ErrorCode::INVALID_URL,
        }
    }
}

impl Destination {
    /// Parses and checks a URL.
    pub fn parse(text: &str, guard: &Guard) -> Result<Self, BadUrl> {
        Self::new(HttpUrl::parse(text)?, guard)
    }

    /// Checks a URL.
    pub fn new(url: HttpUrl, guard: &Guard) -> Result<Self, BadUrl> {
        let is_permitted = match url.host() {
            UrlHost::Address(address) => guard.permits_port(address, url.port()),
            UrlHost::Name(name) => permits_name(name, guard),
        };
        if !is_permitted {
            return Err(BadUrl::Blocked);
        }
        if PORTS_OF_OTHERS.contains(&url.port()) {
            return Err(BadUrl::Port);
        }
        let uri = Uri::builder()
            .scheme(url.scheme())
            .authority(url.authority())
            .path_and_query(url.path_and_query())
            .build();
        let uri = uri.map_err(|_| InvalidUrl::Malformed)?;
        Ok(Self { url, uri })
    }

    /// Returns the URL that is called.
    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    pub(crate) fn into_uri(self) -> Uri {
        self.uri
    }
}

impl fmt::Debug for Destination {
    /// Prints only the host: paths and queries of webhooks contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({})", self.uri.host().unwrap_or_default())
    }
}

/// Returns false for local names that the operator has not allowed: `.localhost` (RFC 6761), `.local` (RFC
/// 6762) and `.internal`, which ICANN reserved for private use.
///
/// `.internal` is never permitted, because clouds serve credentials under it. `.local` is permitted with any
/// allowed network, because Kubernetes names services under it.
fn permits_name(name: &str, guard: &Guard) -> bool {
    match name.rsplit('.').next().unwrap_or_default() {
        "localhost" => guard.permits_loopback(),
        "local" => guard.permits_private_networks(),
        "internal" => false,
        _ => true,
    }
}

/// Ports of protocols other than HTTP. Servers of these protocols could interpret a request as commands.
///
/// These are the "bad ports" of <https://fetch.spec.whatwg.org/#port-blocking>, and the ports of Redis and
/// memcached, which read commands line by line. Other ports are permitted, since APIs do run on ports such as
/// 3000 or 9443. The guard blocks sensitive services by their addresses.
const PORTS_OF_OTHERS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103,
    104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514,
    515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723,
    2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
    11211,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(networks: &[&str]) -> Guard {
        Guard::new(networks.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn parse(url: &str) -> Result<String, BadUrl> {
        Destination::parse(url, &Guard::default()).map(|destination| destination.into_uri().to_string())
    }

    fn all_are(wrong: BadUrl, urls: &[&str]) {
        for url in urls {
            assert_eq!(parse(url), Err(wrong), "{url:?}");
        }
    }

    #[test]
    fn public_destinations_are_accepted() {
        for (url, uri) in [
            ("https://example.com", "https://example.com/"),
            ("HTTP://EXAMPLE.com:80/A?b=c#d", "http://example.com/A?b=c"),
            ("https://example.com:8443/hook", "https://example.com:8443/hook"),
            ("http://1.1.1.1:3000/", "http://1.1.1.1:3000/"),
            ("https://[2606:4700:4700::1111]/", "https://[2606:4700:4700::1111]/"),
            ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
            ("https://a_b.example.com/x y?q={|}`^", "https://a_b.example.com/x%20y?q={|}`^"),
        ] {
            assert_eq!(parse(url).as_deref(), Ok(uri), "{url}");
        }
    }

    #[test]
    fn private_address_is_blocked_in_every_notation() {
        all_are(
            BadUrl::Blocked,
            &[
                "http://127.0.0.1",
                "http://127.0.0.1./",
                "http://127.1",
                "http://2130706433/",
                "http://0x7f.1",
                "http://0X7F000001",
                "http://0177.0.0.1",
                "http://127.0.0.1:8080/",
                "http://%31%32%37.0.0.1/",
                "http://10.0.0.1",
                "http://192.168.0.1",
                "http://169.254.169.254/latest/meta-data/",
                "http://0/",
                "http://[::1]",
                "http://[::]",
                "http://[::ffff:127.0.0.1]",
                "http://[::ffff:7f00:1]",
                "http://[0:0:0:0:0:ffff:127.0.0.1]",
                "http://[::127.0.0.1]",
                "http://[64:ff9b::7f00:1]",
                "http://[2002:7f00:1::]",
                "http://[fec0::1]",
                "http://[fe80::1]",
                "http://[fd00:ec2::254]/",
            ],
        );
    }

    #[test]
    fn ambiguous_hosts_are_refused() {
        for url in [
            "http://１２７.0.0.1/",
            "http://127。0。0。1/",
            "http://127.0.\t0.1/",
            "http://exa\nmple.com/",
            "http://ex\u{ad}ample.com",
            "http://[fe80::1%25eth0]/",
            "http://999.1.1.1/",
            "http://bücher.example/",
            "http://büCHER.example/",
            "http://%D0%96A.example/",
            "http:\\\\127.0.0.1\\",
            "http:127.0.0.1",
            "http:///127.0.0.1",
        ] {
            assert_eq!(parse(url).map_err(BadUrl::code), Err("invalid_url"), "{url:?}");
        }
        let long = format!("https://{}.com", "x".repeat(64));
        // The parser has no tables for such names, so the error must name the host.
        all_are(
            BadUrl::Invalid(InvalidUrl::Host),
            &["http://bücher.example/", "http://büCHER.example/", "http://%D0%96A.example/"],
        );
        all_are(
            BadUrl::Invalid(InvalidUrl::Host),
            &["http://example.com.", "http://localhost./", "http://a..b/", "http://a!b.com/", &long],
        );
    }

    #[test]
    fn url_length_limit_is_enforced() {
        let long = |length: usize| {
            format!("https://example.com/{}", "x".repeat(length - "https://example.com/".len()))
        };
        assert!(parse(&long(HttpUrl::MAX_LENGTH)).is_ok());
        assert_eq!(parse(&long(HttpUrl::MAX_LENGTH + 1)), Err(BadUrl::Invalid(InvalidUrl::TooLong)));
    }

    #[test]
    fn local_names_are_blocked() {
        all_are(
            BadUrl::Blocked,
            &[
                "http://localhost",
                "http://LocalHost:3000/",
                "http://foo.localhost",
                "http://metadata.google.internal/computeMetadata/v1/",
                "http://host.docker.internal",
                "http://printer.local",
                "http://app.default.svc.cluster.local",
            ],
        );
        assert!(parse("http://localhost.example.com").is_ok());
    }

    #[test]
    fn local_names_are_permitted_with_their_networks() {
        let takes = |url: &str, networks: &[&str]| Destination::parse(url, &guard(networks)).is_ok();
        assert!(
            takes("http://localhost:3000", &["127.0.0.0/8"]) && takes("http://localhost:3000", &["::1/128"])
        );
        assert!(
            takes("http://127.1", &["127.0.0.0/8"]) && takes("http://[::ffff:127.0.0.1]", &["127.0.0.0/8"])
        );
        assert!(
            !takes("http://localhost", &["10.0.0.0/8"])
                && takes("http://app.svc.cluster.local", &["10.0.0.0/8"])
        );
        assert!(!takes("http://metadata.google.internal", &["0.0.0.0/0", "::/0"]));
        assert!(!takes("http://169.254.169.254", &["0.0.0.0/0"]));
    }

    #[test]
    fn invalid_urls_are_refused_with_their_reason() {
        all_are(
            BadUrl::Invalid(InvalidUrl::Scheme),
            &[
                "file:///etc/passwd",
                "ftp://example.com",
                "gopher://example.com",
                "javascript:alert(1)",
                "ws://example.com",
                "unix:/x",
            ],
        );
        all_are(
            BadUrl::Invalid(InvalidUrl::Malformed),
            &["", "example.com", "/hook", "http://exa mple.com", "http://example.com:99999", "http://[::1"],
        );
        all_are(
            BadUrl::Invalid(InvalidUrl::Credentials),
            &["https://user:pass@example.com/", "https://user@example.com", "https://:pass@example.com"],
        );
        all_are(
            BadUrl::Port,
            &[
                "http://example.com:22",
                "https://example.com:25/",
                "http://example.com:6379",
                "http://example.com:0",
            ],
        );
        all_are(
            BadUrl::Invalid(InvalidUrl::TooLong),
            &[&format!("https://example.com/{}", "x".repeat(2_048))],
        );
    }

    #[test]
    fn debug_output_contains_only_the_host() {
        let destination =
            Destination::parse("https://example.com/T000/secret?token=secret", &Guard::default()).unwrap();
        assert_eq!(format!("{destination:?}"), "Destination(example.com)");
    }
}
