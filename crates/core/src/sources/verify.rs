//! Verification of requests. A request is verified over its bytes, before nobat parses it.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use ring::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, HMAC_SHA512, Key};
use subtle::ConstantTimeEq;

use crate::auth::network::{Network, admits};
use crate::sources::request::InboundRequest;
use crate::sources::scheme::{
    Algorithm, BasicScheme, Encoding, HmacScheme, KeyEncoding, Part, Scheme, TimestampPlace, TokenScheme,
};
use crate::types::encoding::decode_base64;
use crate::types::http_url::HttpUrl;
use crate::types::sha256::sha256;
use crate::types::time::Timestamp;

/// Rules that a request of a source must meet.
#[derive(Clone, Copy, Debug)]
pub struct Verifier<'a> {
    /// Proof that each request must contain. `None`: the networks alone decide.
    pub scheme: Option<&'a Scheme>,
    /// Maximum difference between the time of a signature and the current time.
    pub tolerance: Duration,
    /// Networks of the provider. If the list is empty, any client may send requests.
    pub networks: &'a [Network],
    /// URL of the source, as the provider calls it.
    pub url: Option<&'a str>,
    /// Pointer to a value that no request may have, because the signature does not cover it.
    pub absent: Option<&'a str>,
}

/// Reason why a request is not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// The client's address is in none of the networks.
    Network,
    /// The request has no signature, token or password, or has it twice.
    Missing,
    /// The signature cannot be read.
    Malformed,
    /// The signature, token or password is wrong.
    Wrong,
    /// The signature is valid, but its time is missing, or too far from the current time.
    Timestamp,
}

/// Maximum number of signatures of a request that are compared.
const MAX_SIGNATURES: usize = 10;

impl Verifier<'_> {
    /// Checks that the provider sent the request. One valid secret is enough.
    pub fn verify<S: AsRef<[u8]>>(
        &self,
        request: &InboundRequest<'_>,
        secrets: &[S],
        now: Timestamp,
    ) -> Result<(), Unverified> {
        if !admits(self.networks, request.address) {
            return Err(Unverified::Network);
        }
        match self.scheme {
            None => Ok(()),
            Some(Scheme::Hmac(scheme)) => self.signature(scheme, request, secrets, now),
            Some(Scheme::Token(TokenScheme { header, prefix })) => {
                let text = request.header(header).ok_or(Unverified::Missing)?;
                let token = text.strip_prefix(prefix.as_str()).ok_or(Unverified::Malformed)?;
                equals_one(token.as_bytes(), secrets.iter().map(|secret| secret.as_ref().to_vec()))
            }
            Some(Scheme::Basic(BasicScheme { user })) => {
                let text = request.header("authorization").ok_or(Unverified::Missing)?;
                let (scheme, credentials) = text.split_once(' ').ok_or(Unverified::Malformed)?;
                let credentials = Some(credentials).filter(|_| scheme.eq_ignore_ascii_case("basic"));
                let credentials =
                    credentials.and_then(|text| decode_base64(text.trim())).ok_or(Unverified::Malformed)?;
                let expected = secrets.iter().map(|secret| [user.as_bytes(), b":", secret.as_ref()].concat());
                equals_one(&credentials, expected)
            }
        }
    }

    fn signature<S: AsRef<[u8]>>(
        &self,
        scheme: &HmacScheme,
        request: &InboundRequest<'_>,
        secrets: &[S],
        now: Timestamp,
    ) -> Result<(), Unverified> {
        let text = match (&scheme.header, &scheme.pointer) {
            (Some(header), _) => request.header(header).map(str::to_owned),
            (None, Some(pointer)) => request.field(pointer),
            (None, None) => None,
        };
        let text = text.filter(|text| !text.is_empty()).ok_or(Unverified::Missing)?;
        let elements: Vec<&str> = match &scheme.separator {
            Some(separator) => text.split(separator.as_str()).map(str::trim).collect(),
            None => vec![&text],
        };
        let signatures: Vec<Vec<u8>> = elements
            .iter()
            .filter_map(|element| scheme.encoding.decode(element.strip_prefix(scheme.prefix.as_str())?))
            .take(MAX_SIGNATURES)
            .collect();
        if signatures.is_empty() {
            return Err(Unverified::Malformed);
        }
        let timestamp = match &scheme.timestamp {
            None => None,
            Some(TimestampPlace::Header(header)) => Some(request.header(header).unwrap_or_default()),
            Some(TimestampPlace::Prefix(prefix)) => {
                let mut found = elements.iter().filter_map(|element| element.strip_prefix(prefix.as_str()));
                Some(found.next().filter(|_| found.next().is_none()).unwrap_or_default())
            }
        };
        // The signature would not cover such a body.
        let is_uncovered = scheme.content.contains(&Part::Form) && !request.is_form()
            || self.absent.is_some_and(|pointer| request.find(pointer).is_some());
        if is_uncovered {
            return Err(Unverified::Malformed);
        }
        let timestamp_text = timestamp.unwrap_or_default();
        let keys: Vec<Key> = secrets
            .iter()
            .filter_map(|secret| scheme.key.key(secret.as_ref()))
            .map(|key| Key::new(scheme.algorithm.of_ring(), &key))
            .collect();
        let is_valid = self.urls(scheme).iter().any(|spelling| {
            let content = content(scheme, request, timestamp_text, spelling);
            keys.iter().any(|key| {
                let expected = hmac::sign(key, &content);
                // The comparison takes the same time for each signature of the right length.
                signatures.iter().any(|signature| bool::from(signature.as_slice().ct_eq(expected.as_ref())))
            })
        });
        match timestamp {
            _ if !is_valid => Err(Unverified::Wrong),
            None => Ok(()),
            Some(text) if is_within(text, self.tolerance, now) => Ok(()),
            Some(_) => Err(Unverified::Timestamp),
        }
    }

    /// Returns the spellings of the URL that the provider may have signed: with and without the port,
    /// as Twilio's libraries try them.
    fn urls(&self, scheme: &HmacScheme) -> Vec<String> {
        match self.url {
            Some(url) if scheme.content.contains(&Part::Url) => HttpUrl::port_spellings(url),
            _ => vec![String::new()],
        }
    }
}

/// Returns the content that the provider signed. `spelling` is the URL of the source.
fn content(scheme: &HmacScheme, request: &InboundRequest<'_>, timestamp: &str, spelling: &str) -> Vec<u8> {
    let mut content = Vec::with_capacity(request.body.len() + 128);
    let field = |pointer: &str| request.field(pointer).unwrap_or_default();
    for part in &scheme.content.0 {
        match part {
            Part::Text(text) => content.extend_from_slice(text.as_bytes()),
            Part::Body => content.extend_from_slice(request.body),
            Part::Timestamp => content.extend_from_slice(timestamp.as_bytes()),
            Part::Url => content.extend_from_slice(spelling.as_bytes()),
            Part::Form => {
                let mut fields: Vec<_> = form_urlencoded::parse(request.body).collect();
                fields.sort();
                fields.dedup();
                content.extend(
                    fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()].concat()),
                );
            }
            Part::Header(name) => {
                content.extend_from_slice(request.header(name).unwrap_or_default().as_bytes());
            }
            Part::Pointer(pointer) => content.extend_from_slice(field(pointer).as_bytes()),
        }
    }
    content
}

impl Algorithm {
    fn of_ring(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => HMAC_SHA256,
            Self::Sha512 => HMAC_SHA512,
        }
    }
}

impl Encoding {
    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok(),
            Self::Base64 => BASE64.decode(text.as_bytes()).ok(),
        }
    }
}

impl KeyEncoding {
    /// Returns the key for a secret. `None` if the secret is not in this encoding.
    pub(crate) fn key(self, secret: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Text => Some(secret.to_vec()),
            Self::Hex => HEXLOWER_PERMISSIVE.decode(secret).ok(),
            Self::Base64 => {
                let text = std::str::from_utf8(secret).ok()?;
                decode_base64(text.strip_prefix("whsec_").unwrap_or(text))
            }
        }
    }
}

/// Compares hashes, so that the time of the comparison tells nothing about the expected texts or their length.
fn equals_one(given: &[u8], expected: impl Iterator<Item = Vec<u8>>) -> Result<(), Unverified> {
    let given = sha256(&[given]);
    let mut is_equal = subtle::Choice::from(0);
    for text in expected {
        is_equal |= given.ct_eq(&sha256(&[&text]));
    }
    if is_equal.into() { Ok(()) } else { Err(Unverified::Wrong) }
}

/// Returns true if the time in whole seconds since the Unix epoch differs from `now` by at most `tolerance`.
fn is_within(text: &str, tolerance: Duration, now: Timestamp) -> bool {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(seconds) = Some(text).filter(|_| is_number).and_then(|text| text.parse::<i64>().ok()) else {
        return false;
    };
    let difference = i128::from(now.millis().div_euclid(1_000)) - i128::from(seconds);
    difference.unsigned_abs() <= u128::from(tolerance.as_secs())
}

#[cfg(test)]
mod tests;
