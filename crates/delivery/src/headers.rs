//! Checks of the headers of a request.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Maximum number of headers of a request.
pub const MAX_HEADERS: usize = 50;
/// Maximum total size of the headers' names and values, in bytes: 8 KiB.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;

/// Name of the header that carries the idempotency key of a call.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Maximum length of an idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY: usize = 255;

/// Returns true if the text is a valid idempotency key: 1 to [`MAX_IDEMPOTENCY_KEY`] visible ASCII
/// characters.
pub fn is_idempotency_key(text: &str) -> bool {
    (1..=MAX_IDEMPOTENCY_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An error in the headers of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadHeader {
    /// Name of the header as given. `None` if the error concerns all headers together.
    pub name: Option<String>,
    /// The error.
    pub fault: HeaderFault,
}

/// Error in a header. No message repeats a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// The name is not a token (RFC 9110, section 5.6.2).
    #[error("expected a header name of letters, digits and hyphens")]
    Name,
    /// The value contains bytes that could end the header early, or that servers interpret in different ways.
    #[error("expected a value of visible ASCII characters, spaces and tabs")]
    Value,
    /// The connection, proxies or nobat itself set the header.
    #[error("this header cannot be set, because the connection, a proxy or nobat sets it; remove it")]
    Reserved,
    /// The value of `Idempotency-Key` is invalid, see [`is_idempotency_key`].
    #[error("expected a key of 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters, without spaces")]
    IdempotencyKey,
    /// The same name is given again in other letter case.
    #[error("this header is given twice; expected it once")]
    Twice,
    /// There are more than [`MAX_HEADERS`] headers.
    #[error("expected at most {MAX_HEADERS} headers")]
    TooMany,
    /// The headers are longer than [`MAX_HEADER_BYTES`].
    #[error("expected at most {MAX_HEADER_BYTES} bytes of headers")]
    TooLong,
}

/// Returns the headers in the form to be sent, or all errors.
///
/// The values are marked as sensitive, so that `Debug` output of a request omits them.
pub fn read(given: &BTreeMap<String, String>) -> Result<HeaderMap, Vec<BadHeader>> {
    let mut headers = HeaderMap::new();
    let mut wrong = Vec::from_iter(size(given).map(|fault| BadHeader { name: None, fault }));
    for (name, value) in given {
        if let Err(fault) = take(&mut headers, name, value) {
            wrong.push(BadHeader { name: Some(name.clone()), fault });
        }
    }
    if wrong.is_empty() { Ok(headers) } else { Err(wrong) }
}

fn size(given: &BTreeMap<String, String>) -> Option<HeaderFault> {
    let bytes: usize = given.iter().map(|(name, value)| name.len() + value.len()).sum();
    match (given.len() > MAX_HEADERS, bytes > MAX_HEADER_BYTES) {
        (true, _) => Some(HeaderFault::TooMany),
        (_, true) => Some(HeaderFault::TooLong),
        _ => None,
    }
}

fn take(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), HeaderFault> {
    let name: HeaderName = name.parse().map_err(|_| HeaderFault::Name)?;
    if is_reserved(name.as_str()) {
        return Err(HeaderFault::Reserved);
    }
    if headers.contains_key(&name) {
        return Err(HeaderFault::Twice);
    }
    if name == IDEMPOTENCY_KEY && !is_idempotency_key(value) {
        return Err(HeaderFault::IdempotencyKey);
    }
    headers.insert(name, sensitive(value)?);
    Ok(())
}

/// Returns the value, marked as sensitive. Also refuses bytes from 0x80 on: `HeaderValue` accepts these
/// bytes, but servers interpret them in different ways.
fn sensitive(value: &str) -> Result<HeaderValue, HeaderFault> {
    if !value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Err(HeaderFault::Value);
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| HeaderFault::Value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns true for headers that a client may not set: headers of the connection, headers of proxies, and
/// headers that receivers expect only from nobat.
fn is_reserved(lowercase: &str) -> bool {
    const NAMES: [&str; 10] = [
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    const PREFIXES: [&str; 4] = ["nobat-", "proxy-", "webhook-", "x-forwarded-"];
    NAMES.contains(&lowercase) || PREFIXES.iter().any(|prefix| lowercase.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(given: &[(&str, &str)]) -> Result<HeaderMap, Vec<BadHeader>> {
        read(&given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn fault(name: &str, value: &str) -> Option<HeaderFault> {
        read_all(&[(name, value)]).err().map(|wrong| wrong[0].fault)
    }

    #[test]
    fn valid_headers_are_accepted_and_hidden_in_debug_output() {
        let headers = read_all(&[
            ("X-A", "b\tc ~!\""),
            ("Authorization", "Bearer s3cret"),
            ("content-type", "text/plain"),
            ("x-e", ""),
        ])
        .unwrap();
        assert_eq!((headers["x-a"].as_bytes(), headers.len()), (&b"b\tc ~!\""[..], 4));
        assert!(!format!("{headers:?}").contains("s3cret"));
    }

    #[test]
    fn values_that_could_end_a_header_early_are_refused() {
        for value in ["a\r\nx-b: c", "a\nb", "a\rb", "a\0b", "caf\u{e9}", "\u{202e}", "\u{7f}", "a\u{b}b"] {
            assert_eq!(fault("x-a", value), Some(HeaderFault::Value), "{value:?}");
        }
    }

    #[test]
    fn header_names_that_are_not_tokens_are_refused() {
        for name in ["", "x a", "x:a", "x\r\na", "\u{ff58}-a", "x\0", "(x)"] {
            assert_eq!(fault(name, "b"), Some(HeaderFault::Name), "{name:?}");
        }
    }

    #[test]
    fn reserved_headers_are_refused() {
        let names = "Host content-length TRANSFER-ENCODING Connection Keep-Alive TE Trailer Upgrade Proxy-Authorization proxy-connection \
                     webhook-id Webhook-Signature X-Forwarded-For x-forwarded-host Forwarded Expect Nobat-Task-Id";
        for name in names.split_whitespace() {
            assert_eq!(fault(name, "b"), Some(HeaderFault::Reserved), "{name}");
        }
        for name in ["hosts", "x-webhook-id", "forwarded-by", "accept-encoding"] {
            assert_eq!(fault(name, "b"), None, "{name}");
        }
    }

    #[test]
    fn idempotency_key_is_visible_ascii() {
        for key in ["order-7", "!~", &"k".repeat(MAX_IDEMPOTENCY_KEY)] {
            assert_eq!(fault("Idempotency-Key", key), None, "{key}");
        }
        for key in ["", "a b", "a\t", "caf\u{e9}", "a\r\nb", &"k".repeat(MAX_IDEMPOTENCY_KEY + 1)] {
            assert_eq!(fault("idempotency-key", key), Some(HeaderFault::IdempotencyKey), "{key}");
        }
    }

    #[test]
    fn all_invalid_headers_are_reported_at_once() {
        let wrong = read_all(&[("Host", "a"), ("x-a", "\n"), ("x-b", "fine")]).unwrap_err();
        let named: Vec<_> = wrong.iter().map(|wrong| (wrong.name.as_deref(), wrong.fault)).collect();
        assert_eq!(named, [(Some("Host"), HeaderFault::Reserved), (Some("x-a"), HeaderFault::Value)]);
        assert_eq!(read_all(&[("X-A", "1"), ("x-a", "2")]).unwrap_err()[0].fault, HeaderFault::Twice);
    }

    #[test]
    fn header_count_and_size_limits_are_enforced() {
        let many: BTreeMap<_, _> =
            (0..=MAX_HEADERS).map(|number| (format!("x-{number}"), String::new())).collect();
        assert_eq!(read(&many).unwrap_err(), [BadHeader { name: None, fault: HeaderFault::TooMany }]);
        assert_eq!(fault("x-a", &"b".repeat(MAX_HEADER_BYTES - 3)), None);
        assert_eq!(fault("x-a", &"b".repeat(MAX_HEADER_BYTES - 2)), Some(HeaderFault::TooLong));
    }
}
