//! Checks of a request's head that hyper leaves to the server (RFC 9112).

use axum::http::header::{HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, StatusCode, Uri, Version};
use nobat_core::types::authority::Authority;

/// Returns the status to refuse the request with, or `None` if its head is valid.
pub(crate) fn refusal(version: Version, target: &Uri, headers: &HeaderMap) -> Option<StatusCode> {
    let is_authority = |text: &str| Authority::parse(text).is_some();
    if !has_valid_host(version, headers)
        || target.authority().is_some_and(|authority| !is_authority(authority.as_str()))
    {
        return Some(StatusCode::BAD_REQUEST);
    }
    (!has_known_coding(headers)).then_some(StatusCode::NOT_IMPLEMENTED)
}

/// Returns true if there is one valid `Host`. HTTP/1.0 needs no `Host` (RFC 9112, section 3.2).
fn has_valid_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(|host| Authority::parse(host).is_some()),
        (Some(_), Some(_)) => false,
        (None, _) => version < Version::HTTP_11,
    }
}

/// Returns true if the body has no transfer coding, or `chunked` once (RFC 9112, section 6.1).
fn has_known_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
        (None, _) => true,
    }
}
