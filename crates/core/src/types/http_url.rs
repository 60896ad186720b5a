//! HTTP URLs, parsed once.
//!
//! [`HttpUrl`] is the only parser of URLs in the program. Validation, comparison, storage and dialling all
//! use its value, so they cannot disagree about the host that a text names.

use std::cell::Cell;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Position, SyntaxViolation, Url};

/// An absolute `http` or `https` URL without credentials and fragment, as the WHATWG URL Standard parses it.
///
/// The URL is kept in its canonical form: lower-case scheme and host, IPv4 addresses in decimal, no default
/// port, a path of at least `/`. Parsing the canonical form again returns an equal value.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HttpUrl(Url);

/// Host of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlHost<'a> {
    /// A DNS name in lower case.
    Name(&'a str),
    /// An IP address.
    Address(IpAddr),
}

/// Reason why a text is not an [`HttpUrl`]. No message repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// The text or its canonical form is longer than [`HttpUrl::MAX_LENGTH`].
    #[error("expected a URL of at most {} bytes", HttpUrl::MAX_LENGTH)]
    TooLong,
    /// The text is not an absolute URL.
    #[error("expected an absolute URL such as https://example.com/path")]
    Malformed,
    /// The text contains a character that URL parsers drop or replace.
    #[error("expected a URL with no control characters, no backslashes, and no space at its start or end")]
    Character,
    /// The scheme is neither `http` nor `https`.
    #[error("expected a URL that begins with https:// or http://")]
    Scheme,
    /// The scheme is not followed by exactly two slashes and a host.
    #[error("expected `//` and a host after the scheme, as in https://example.com/path")]
    Authority,
    /// The URL contains a user name or a password, which could appear in logs.
    #[error("expected a URL without user name and password; send an authorization header instead")]
    Credentials,
    /// The host is not a valid ASCII name, or has a dot at its end.
    #[error(
        "expected a host of ASCII letters, digits, hyphens and dots, without a dot at its end; write a host with other letters in its `xn--` form"
    )]
    Host,
    /// The path has a segment `.` or `..`, which URL parsers resolve.
    #[error("expected a path without the segments `.` and `..`; resolve these segments before sending")]
    DotSegment,
}

impl HttpUrl {
    /// Maximum length in bytes, of the text and of the canonical form.
    pub const MAX_LENGTH: usize = 2_048;

    /// Parses a URL. The fragment is dropped: it is never sent to a server.
    ///
    /// A text that the WHATWG parser would repair into another URL is refused.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        check_text(text)?;
        let repair = Cell::new(None);
        let note = |violation| {
            if let Some(invalid) = repaired(violation) {
                repair.set(Some(invalid));
            }
        };
        let parsed = Url::options().syntax_violation_callback(Some(&note)).parse(text);
        if let Some(invalid) = repair.get() {
            return Err(invalid);
        }
        let mut url = parsed.map_err(|_| InvalidUrl::Malformed)?;
        match url.host().ok_or(InvalidUrl::Authority)? {
            Host::Domain(name) if !is_host_name(name) => return Err(InvalidUrl::Host),
            Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_) => {}
        }
        url.set_fragment(None);
        if url.as_str().len() > Self::MAX_LENGTH { Err(InvalidUrl::TooLong) } else { Ok(Self(url)) }
    }

    /// Returns the canonical form.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns `http` or `https`.
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// Returns the host.
    pub fn host(&self) -> UrlHost<'_> {
        match self.0.host() {
            Some(Host::Domain(name)) => UrlHost::Name(name),
            Some(Host::Ipv4(address)) => UrlHost::Address(address.into()),
            Some(Host::Ipv6(address)) => UrlHost::Address(address.into()),
            None => unreachable!("parse refuses a URL without a host"),
        }
    }

    /// Returns the port; the scheme's default port if the URL names none.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_else(|| unreachable!("http and https have default ports"))
    }

    /// Returns host and port as a `Host` header has them: an IPv6 address in brackets, and no default port.
    pub fn authority(&self) -> &str {
        self.0.authority()
    }

    /// Returns a URL as given, without its port, and with its port or the scheme's default port.
    pub fn port_spellings(text: &str) -> Vec<String> {
        let mut spellings = vec![text.to_owned()];
        if let Ok(url) = Self::parse(text) {
            let port = format!(":{}", url.port());
            let host = url.authority().trim_end_matches(&port);
            spellings.push(text.replacen(&format!("//{host}{port}"), &format!("//{host}"), 1));
            spellings.push(text.replacen(&format!("//{host}/"), &format!("//{host}{port}/"), 1));
            spellings.dedup();
        }
        spellings
    }

    /// Returns the path, which begins with `/`, and the query.
    pub fn path_and_query(&self) -> &str {
        &self.0[Position::BeforePath..]
    }

    /// Returns true if both URLs have the same scheme, host and port.
    pub fn same_destination(&self, other: &Self) -> bool {
        self.scheme() == other.scheme() && self.host() == other.host() && self.port() == other.port()
    }

    /// Returns the URL of a path below this URL.
    ///
    /// An empty `path`, or a `path` that begins with `?`, is appended to the unchanged URL. Before a `path`
    /// that begins with `/`, a slash at the end of the URL is dropped. The URL must have no query.
    pub fn join(&self, path: &str) -> Result<Self, InvalidUrl> {
        let base = if path.starts_with('/') {
            self.as_str().strip_suffix('/').unwrap_or(self.as_str())
        } else {
            self.as_str()
        };
        let joined = Self::parse(&format!("{base}{path}"))?;
        if joined.same_destination(self) { Ok(joined) } else { Err(InvalidUrl::Malformed) }
    }

    /// Returns the URL with `address` as its host, and with the same port.
    #[must_use]
    pub fn with_address(&self, address: IpAddr) -> Self {
        let mut url = self.0.clone();
        url.set_ip_host(address).unwrap_or_else(|()| unreachable!("http and https URLs have hosts"));
        Self(url)
    }
}

/// Checks the rules that apply to the text itself, before the URL parser reads the text.
fn check_text(text: &str) -> Result<(), InvalidUrl> {
    if text.len() > HttpUrl::MAX_LENGTH {
        return Err(InvalidUrl::TooLong);
    }
    if text.starts_with(' ')
        || text.ends_with(' ')
        || text.chars().any(|character| character.is_control() || character == '\\')
    {
        return Err(InvalidUrl::Character);
    }
    let (scheme, rest) = text.split_once(':').ok_or(InvalidUrl::Malformed)?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(InvalidUrl::Scheme);
    }
    let rest = rest.strip_prefix("//").ok_or(InvalidUrl::Authority)?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(InvalidUrl::Credentials);
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err(InvalidUrl::Authority);
    }
    if !has_ascii_host(authority) {
        return Err(InvalidUrl::Host);
    }
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    if path.split('/').any(is_dot_segment) { Err(InvalidUrl::DotSegment) } else { Ok(()) }
}

/// Returns the reason to refuse a text that the parser repaired. `None` if the repair changes only the
/// encoding.
fn repaired(violation: SyntaxViolation) -> Option<InvalidUrl> {
    match violation {
        SyntaxViolation::Backslash
        | SyntaxViolation::C0SpaceIgnored
        | SyntaxViolation::TabOrNewlineIgnored => Some(InvalidUrl::Character),
        SyntaxViolation::ExpectedDoubleSlash => Some(InvalidUrl::Authority),
        SyntaxViolation::EmbeddedCredentials | SyntaxViolation::UnencodedAtSign => {
            Some(InvalidUrl::Credentials)
        }
        _ => None,
    }
}

/// Returns true if the authority is ASCII after its escapes are decoded. The URL parser is built without
/// Unicode tables. The parser refuses all other hosts, and panics in debug builds if such a host has capital
/// letters.
fn has_ascii_host(authority: &str) -> bool {
    let escapes_more = authority
        .as_bytes()
        .windows(2)
        .any(|pair| matches!(pair, [b'%', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F']));
    authority.is_ascii() && !escapes_more
}

/// Returns true if a path segment means "here" or "up", written plainly or percent-encoded
/// (<https://url.spec.whatwg.org/#single-dot-path-segment>).
fn is_dot_segment(segment: &str) -> bool {
    segment.len() <= "%2e%2e".len()
        && matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// Returns true if a DNS name is valid and has no dot at its end. With that dot, the same host would have
/// another `Host` header and another key in the connection pool.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

impl FromStr for HttpUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        Self::parse(text)
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = InvalidUrl;

    fn try_from(text: String) -> Result<Self, InvalidUrl> {
        Self::parse(&text)
    }
}

impl From<HttpUrl> for String {
    fn from(url: HttpUrl) -> Self {
        url.0.into()
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for HttpUrl {
    /// Shows only the host: paths and queries of webhooks hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpUrl({})", self.0.host_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> HttpUrl {
        HttpUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn parse_returns_the_canonical_form() {
        for (text, canonical) in [
            ("https://example.com", "https://example.com/"),
            ("HTTP://EXAMPLE.com:80/A?b=c#d", "http://example.com/A?b=c"),
            ("https://example.com:8443/hook/", "https://example.com:8443/hook/"),
            ("https://[2606:4700:4700::1111]:443/", "https://[2606:4700:4700::1111]/"),
            ("http://127.1:8080", "http://127.0.0.1:8080/"),
            ("http://0X7F000001/", "http://127.0.0.1/"),
            ("https://a_b.example.com/x y?q={|}`^", "https://a_b.example.com/x%20y?q={|}`^"),
            ("http://example.com/a?b=../c", "http://example.com/a?b=../c"),
            ("http://example.com/...", "http://example.com/..."),
        ] {
            assert_eq!(url(text).as_str(), canonical);
        }
    }

    #[test]
    fn parse_refuses_what_a_parser_would_repair() {
        let long = format!("https://{}.com", "x".repeat(64));
        let growing = format!("https://example.com/{}", " x".repeat(700));
        for (text, invalid) in [
            ("http:///x", InvalidUrl::Authority),
            ("http:////example.com/x", InvalidUrl::Authority),
            ("http:example.com", InvalidUrl::Authority),
            ("http:/example.com", InvalidUrl::Authority),
            ("http:127.0.0.1:1/x", InvalidUrl::Authority),
            ("https://", InvalidUrl::Authority),
            ("https://:80/", InvalidUrl::Authority),
            ("https://?a", InvalidUrl::Authority),
            ("http:\\\\example.com\\x", InvalidUrl::Character),
            ("http://example.com\\x", InvalidUrl::Character),
            ("http://example.com/a\\b", InvalidUrl::Character),
            (" http://example.com/", InvalidUrl::Character),
            ("http://example.com/ ", InvalidUrl::Character),
            ("http://exa\tmple.com/", InvalidUrl::Character),
            ("http://example.com/\n", InvalidUrl::Character),
            ("http://example.com/\u{0}", InvalidUrl::Character),
            ("http://user@example.com/", InvalidUrl::Credentials),
            ("http://:pass@example.com/", InvalidUrl::Credentials),
            ("http://@example.com/", InvalidUrl::Credentials),
            ("http://example.com./", InvalidUrl::Host),
            ("http://a..b/", InvalidUrl::Host),
            ("http://b\u{fc}CHER.example/", InvalidUrl::Host),
            ("http://%D0%96A.example/", InvalidUrl::Host),
            (&long, InvalidUrl::Host),
            ("http://example.com/a/../b", InvalidUrl::DotSegment),
            ("http://example.com/a/%2E./b", InvalidUrl::DotSegment),
            ("http://example.com/.", InvalidUrl::DotSegment),
            ("ftp://example.com/", InvalidUrl::Scheme),
            ("", InvalidUrl::Malformed),
            ("example.com", InvalidUrl::Malformed),
            ("http://example.com:99999", InvalidUrl::Malformed),
            ("http://exa mple.com", InvalidUrl::Malformed),
            ("http://[::1", InvalidUrl::Malformed),
            (&growing, InvalidUrl::TooLong),
        ] {
            assert_eq!(HttpUrl::parse(text), Err(invalid), "{text:?}");
        }
    }

    #[test]
    fn same_destination_compares_the_parsed_values() {
        let base = url("http://127.0.0.1:80/x");
        for (text, is_same) in [
            ("HTTP://127.0.0.1/y", true),
            ("http://127.1/", true),
            ("http://0x7f000001:80", true),
            ("https://127.0.0.1:80/x", false),
            ("http://127.0.0.1:81/x", false),
            ("http://127.0.0.2/x", false),
            ("http://127.0.0.1.example.com/x", false),
        ] {
            assert_eq!(
                (base.same_destination(&url(text)), url(text).same_destination(&base)),
                (is_same, is_same),
                "{text}"
            );
        }
    }

    #[test]
    fn join_keeps_the_url_as_registered() {
        for (base, path, joined) in [
            ("http://h/services/T0/B0", "", "http://h/services/T0/B0"),
            ("http://h/services/T0/B0/", "", "http://h/services/T0/B0/"),
            ("http://h", "", "http://h/"),
            ("http://h/api", "?x=1", "http://h/api?x=1"),
            ("http://h/api/", "?x=1", "http://h/api/?x=1"),
            ("http://h", "?x=1", "http://h/?x=1"),
            ("http://h/api", "/", "http://h/api/"),
            ("http://h/api/", "/", "http://h/api/"),
            ("http://h/api", "/charge?now=1", "http://h/api/charge?now=1"),
            ("http://h/api/", "/charge", "http://h/api/charge"),
            ("http://h", "//charge", "http://h//charge"),
        ] {
            assert_eq!(url(base).join(path).unwrap().as_str(), joined, "{base} and {path}");
        }
        assert_eq!(url("http://h/api").join("/../x"), Err(InvalidUrl::DotSegment));
    }

    #[test]
    fn debug_shows_the_host_alone() {
        assert_eq!(
            format!("{:?}", url("https://example.com/T000/secret?token=secret")),
            "HttpUrl(example.com)"
        );
    }

    #[test]
    fn serde_uses_the_canonical_form() {
        let read: HttpUrl = serde_json::from_str(r#""HTTP://Example.com:80""#).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), r#""http://example.com/""#);
        assert!(serde_json::from_str::<HttpUrl>(r#""http:///x""#).is_err());
    }

    /// Generates texts near the border between URLs and other texts.
    fn text() -> impl Strategy<Value = String> {
        let scheme = prop::sample::select(vec!["http:", "https:", "HTTP:", "hTTps:", " http:", "ftp:"]);
        let slashes = prop::sample::select(vec!["//", "//", "//", "", "/", "///", "\\\\"]);
        let host = prop::sample::select(vec![
            "example.com",
            "EXAMPLE.com",
            "127.1",
            "0x7f.1",
            "[::1]",
            "[::ffff:1.2.3.4]",
            "a_b",
            "%31.2",
            "u@h",
            "",
        ]);
        let port = prop::sample::select(vec!["", ":80", ":443", ":0080", ":", ":8080", ":x"]);
        (scheme, slashes, host, port, "([/?#]|[ -~\u{e9}]{0,6}){0,6}")
            .prop_map(|(a, b, c, d, e)| format!("{a}{b}{c}{d}{e}"))
    }

    proptest! {
        #[test]
        fn parsing_the_canonical_form_is_the_identity(text in text()) {
            if let Ok(url) = HttpUrl::parse(&text) {
                let again = HttpUrl::parse(url.as_str()).unwrap();
                prop_assert_eq!(again.as_str(), url.as_str());
                prop_assert!(again == url && again.same_destination(&url));
                prop_assert_eq!(format!("{}://{}{}", url.scheme(), url.authority(), url.path_and_query()), url.as_str());
            }
        }
    }
}
