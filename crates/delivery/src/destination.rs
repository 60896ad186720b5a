//! Which URLs may be called.

use std::fmt;

use http::Uri;
use nobat_core::task::ErrorCode;
use url::{Host, Url};

use crate::guard::Guard;

/// A URL that has passed the checks that need no network.
///
/// They are made for the sake of an early and friendly answer. A name says nothing of where it leads, and may lead elsewhere
/// tomorrow, so the decision is made again for every address that is dialled.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination(Uri);

/// Why a URL is not called. None of the sentences repeats the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// It is longer than [`Destination::MAX_LENGTH`].
    #[error("expected a URL of at most {} bytes", Destination::MAX_LENGTH)]
    TooLong,
    /// It does not read as a URL with a host.
    #[error("expected an absolute URL such as https://example.com/path, without control characters")]
    Malformed,
    /// It is another scheme's.
    #[error("expected a URL that begins with https:// or http://")]
    Scheme,
    /// It names a user, which would end in logs.
    #[error("a URL does not carry a user name or a password; send an authorization header instead")]
    Credentials,
    /// Its host is not a name that is looked up as it stands.
    #[error("expected a host of ASCII letters, digits, hyphens and dots (other scripts as xn--), with no dot at its end")]
    Host,
    /// Other protocols live on its port.
    #[error("this port belongs to a protocol other than HTTP")]
    Port,
    /// It leads to where strangers may not be sent.
    #[error("the host is not a public one")]
    Blocked,
}

impl BadUrl {
    /// A stable code, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Blocked => ErrorCode::BLOCKED_ADDRESS,
            Self::TooLong | Self::Malformed | Self::Scheme | Self::Credentials | Self::Host | Self::Port => ErrorCode::INVALID_URL,
        }
    }
}

impl Destination {
    /// The longest URL that is taken, in bytes.
    pub const MAX_LENGTH: usize = 2_048;

    /// Reads and checks a URL. Its fragment, which no server ever sees, is dropped.
    pub fn parse(text: &str, guard: &Guard) -> Result<Self, BadUrl> {
        let mut url = read(text)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadUrl::Credentials);
        }
        check_host(&url, guard)?;
        if url.port().is_some_and(|port| PORTS_OF_OTHERS.contains(&port)) {
            return Err(BadUrl::Port);
        }
        url.set_fragment(None);
        url.as_str().parse().map(Self).map_err(|_| BadUrl::Malformed)
    }

    pub(crate) fn into_uri(self) -> Uri {
        self.0
    }
}

impl fmt::Debug for Destination {
    /// The host alone: paths and queries of webhooks hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({})", self.0.host().unwrap_or_default())
    }
}

/// A URL parser drops tabs and line ends wherever they stand. What reads otherwise than it is written is refused instead.
fn read(text: &str) -> Result<Url, BadUrl> {
    if text.len() > Destination::MAX_LENGTH {
        return Err(BadUrl::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(BadUrl::Malformed);
    }
    let (scheme, rest) = text.trim_start_matches(' ').split_once(':').ok_or(BadUrl::Malformed)?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(BadUrl::Scheme);
    }
    if !has_ascii_host(rest) {
        return Err(BadUrl::Host);
    }
    Url::parse(text).map_err(|_| BadUrl::Malformed)
}

/// Whether what stands between the scheme and the path is ASCII, with its escapes undone: a parser without Unicode's tables refuses
/// all else, but takes it for a bug of its own, and panics in debug builds, if capitals follow.
fn has_ascii_host(after_the_scheme: &str) -> bool {
    let authority = after_the_scheme.trim_start_matches(['/', '\\']).split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let escapes_more = host.as_bytes().windows(2).any(|pair| matches!(pair, [b'%', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F']));
    host.is_ascii() && !escapes_more
}

/// Goes by what the parser made of the host, never by how it was spelt: `127.1`, `0x7f.1` and `2130706433` are all one address.
fn check_host(url: &Url, guard: &Guard) -> Result<(), BadUrl> {
    let port = url.port_or_known_default().ok_or(BadUrl::Malformed)?;
    let permitted = match url.host().ok_or(BadUrl::Malformed)? {
        Host::Ipv4(address) => guard.permits_port(address.into(), port),
        Host::Ipv6(address) => guard.permits_port(address.into(), port),
        Host::Domain(name) if !is_host_name(name) => return Err(BadUrl::Host),
        Host::Domain(name) => permits_name(name, guard),
    };
    if permitted { Ok(()) } else { Err(BadUrl::Blocked) }
}

/// One spelling for one host. A name that ends in a dot is the same host under another `Host` header and pool key.
fn is_host_name(name: &str) -> bool {
    let fits =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
    name.len() <= 253 && name.split('.').all(fits)
}

/// Names that are local by what they mean: RFC 6761 and 6762, and `.internal`, which ICANN set apart for private use.
///
/// Clouds serve credentials under `.internal`, so no allowed network opens it. `.local` is also how Kubernetes names services.
fn permits_name(name: &str, guard: &Guard) -> bool {
    match name.rsplit('.').next().unwrap_or_default() {
        "localhost" => guard.permits_loopback(),
        "local" => guard.permits_private_networks(),
        "internal" => false,
        _ => true,
    }
}

/// Ports on which something other than HTTP listens, and could take a request for a command of its own.
///
/// These are the "bad ports" of <https://fetch.spec.whatwg.org/#port-blocking>, and two more stores that read line by line. All
/// others are open: partners do put their APIs on 3000 or 9443, and what must not be reached at all is closed by its address.
const PORTS_OF_OTHERS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113, 115,
    117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601,
    636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679,
    6697, 10080, 11211,
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
    fn takes_public_destinations() {
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
    fn blocks_an_address_however_it_is_spelt() {
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
                "http:\\\\127.0.0.1\\",
                "http:127.0.0.1",
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
    fn refuses_hosts_that_read_otherwise_than_they_are_written() {
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
            "http:\\\\%D0%96A.example/",
        ] {
            assert_eq!(parse(url).map_err(BadUrl::code), Err("invalid_url"), "{url:?}");
        }
        let long = format!("https://{}.com", "x".repeat(64));
        // Told what is wrong with it, and not handed to a parser without tables for it.
        all_are(
            BadUrl::Host,
            &["http://bücher.example/", "http://büCHER.example/", "http://%D0%96A.example/", "http:\\\\%D0%96A.example/"],
        );
        all_are(BadUrl::Host, &["http://example.com.", "http://localhost./", "http://a..b/", "http://a!b.com/", &long]);
    }

    #[test]
    fn takes_a_url_of_its_longest_and_no_longer() {
        let long = |length: usize| format!("https://example.com/{}", "x".repeat(length - "https://example.com/".len()));
        assert!(parse(&long(Destination::MAX_LENGTH)).is_ok());
        assert_eq!(parse(&long(Destination::MAX_LENGTH + 1)), Err(BadUrl::TooLong));
    }

    #[test]
    fn blocks_names_that_mean_something_local() {
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
    fn local_names_follow_the_networks_that_are_allowed() {
        let takes = |url: &str, networks: &[&str]| Destination::parse(url, &guard(networks)).is_ok();
        assert!(takes("http://localhost:3000", &["127.0.0.0/8"]) && takes("http://localhost:3000", &["::1/128"]));
        assert!(takes("http://127.1", &["127.0.0.0/8"]) && takes("http://[::ffff:127.0.0.1]", &["127.0.0.0/8"]));
        assert!(!takes("http://localhost", &["10.0.0.0/8"]) && takes("http://app.svc.cluster.local", &["10.0.0.0/8"]));
        assert!(!takes("http://metadata.google.internal", &["0.0.0.0/0", "::/0"]));
        assert!(!takes("http://169.254.169.254", &["0.0.0.0/0"]));
    }

    #[test]
    fn refuses_what_is_not_plain_http_to_a_host() {
        all_are(
            BadUrl::Scheme,
            &["file:///etc/passwd", "ftp://example.com", "gopher://example.com", "javascript:alert(1)", "ws://example.com", "unix:/x"],
        );
        all_are(
            BadUrl::Malformed,
            &["", "example.com", "/hook", "https://", "http://exa mple.com", "http://example.com:99999", "http://[::1"],
        );
        all_are(BadUrl::Credentials, &["https://user:pass@example.com/", "https://user@example.com", "https://:pass@example.com"]);
        all_are(BadUrl::Port, &["http://example.com:22", "https://example.com:25/", "http://example.com:6379", "http://example.com:0"]);
        all_are(BadUrl::TooLong, &[&format!("https://example.com/{}", "x".repeat(2_048))]);
    }

    #[test]
    fn what_is_logged_is_the_host() {
        let destination = Destination::parse("https://example.com/T000/secret?token=secret", &Guard::default()).unwrap();
        assert_eq!(format!("{destination:?}"), "Destination(example.com)");
    }
}
