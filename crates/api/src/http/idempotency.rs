//! `Idempotency-Key` header, and the ids of new tasks. An id derives from the key, or is random without a
//! key.
//!
//! Follows draft-ietf-httpapi-idempotency-key-header-07, except that a key is valid as long as its task is
//! kept.

use axum::http::{HeaderMap, HeaderName};
use nobat_core::task::{Fingerprint, KeyedRequest};
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Tenant;
use nobat_core::types::sha256::sha256;
use nobat_core::types::time::Timestamp;

use crate::http::error_code::Code;
use crate::http::problem::Problem;
use crate::http::structured_field;

static HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Source of the ids of a request's tasks.
pub(crate) enum Identity {
    /// Random ids, because the request has no key.
    Fresh,
    /// Ids derived from the key, so that a repeated request gets the same ids.
    Keyed {
        /// Route of the request. The same key on another route counts as another key.
        route: &'static str,
        /// Key, without its quotes.
        key: Box<str>,
        /// Fingerprint of the request. It distinguishes a repeated request from a different request with the
        /// same key.
        fingerprint: Fingerprint,
    },
}

impl Identity {
    /// Returns the identity of a `POST` to `route`.
    pub(crate) fn of(headers: &HeaderMap, route: &'static str, body: &[u8]) -> Result<Self, Problem> {
        let mut keys = headers.get_all(&HEADER).iter();
        let key = match (keys.next(), keys.next()) {
            (None, _) => return Ok(Self::Fresh),
            (Some(one), None) => structured_field::parse(one.as_bytes()),
            (Some(_), Some(_)) => None,
        };
        let key = key.ok_or_else(|| Problem::new(Code::InvalidIdempotencyKey, EXPECTED))?;
        Ok(Self::Keyed { route, key: key.into(), fingerprint: fingerprint(route, body) })
    }

    /// Returns the id of the task at this index of the request.
    pub(crate) fn id(&self, tenant: &Tenant, place: usize, now: Timestamp) -> TaskId {
        match self {
            Self::Fresh => TaskId::new(now, rand::random()),
            Self::Keyed { route, key, .. } => TaskId::from_key(tenant, route, key, place),
        }
    }

    /// Returns the fingerprint that the request's tasks store. `None` without a key.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Fresh => None,
            Self::Keyed { fingerprint, .. } => Some(*fingerprint),
        }
    }
}

/// Returns digests of the key and of the body. The changed task stores the digests. `None` without a key.
pub(crate) fn keyed_request(
    headers: &HeaderMap,
    route: &'static str,
    body: &[u8],
) -> Result<Option<KeyedRequest>, Problem> {
    let Identity::Keyed { key, fingerprint, .. } = Identity::of(headers, route, body)? else {
        return Ok(None);
    };
    let digest = sha256(&[route.as_bytes(), b"\n", key.as_bytes()]);
    Ok(Some(KeyedRequest { key: first(&digest), body: first(&fingerprint.0) }))
}

/// Returns the first bytes of the digest of a request. The changed task stores them.
pub(crate) fn body_digest(route: &str, body: &[u8]) -> [u8; 8] {
    first(&fingerprint(route, body).0)
}

fn first<const N: usize>(digest: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|place| digest[place])
}

/// Refuses an idempotency key on a route that does not support it. `instead` is the error text. It says what
/// to send instead.
pub(crate) fn refuse_key(headers: &HeaderMap, instead: &'static str) -> Result<(), Problem> {
    if headers.contains_key(&HEADER) {
        Err(Problem::new(Code::IdempotencyKeyNotSupported, instead))
    } else {
        Ok(())
    }
}

const EXPECTED: &str = "expected one key of 1 to 255 ASCII characters, in quotes if it contains a space, a comma, a quote or a backslash";

fn fingerprint(route: &str, body: &[u8]) -> Fingerprint {
    // Method and route contain no line feed, so two different requests never hash the same text.
    Fingerprint(sha256(&[b"POST\n", route.as_bytes(), b"\n", body]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn request_with_two_keys_is_refused() {
        let mut headers = HeaderMap::new();
        headers.append(&HEADER, HeaderValue::from_static("a"));
        assert!(Identity::of(&headers, "/v1/tasks", b"{}").is_ok());
        headers.append(&HEADER, HeaderValue::from_static("a"));
        assert!(Identity::of(&headers, "/v1/tasks", b"{}").is_err());
    }

    #[test]
    fn fingerprint_differs_by_body_and_route() {
        let prints = [fingerprint("/a", b"1"), fingerprint("/a", b"2"), fingerprint("/b", b"1")];
        assert!(prints[0] != prints[1] && prints[0] != prints[2] && prints[1] != prints[2]);
    }
}
