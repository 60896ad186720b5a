//! Completion tokens: the right of a receiver to report the outcome of one attempt.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq;

use crate::types::name::Tenant;
use crate::types::sha256::sha256;

/// Completion token: the tenant's name, a colon, and 43 characters that encode 256 random bits.
///
/// nobat sends the text once, in the header `Nobat-Completion-Token` of a call, and never stores it. The name
/// of the tenant is part of the token, because a task id is unique only within a tenant. No name contains a
/// colon.
#[derive(Clone, PartialEq, Eq)]
pub struct CompletionToken {
    tenant: Tenant,
    text: String,
}

/// Number of random bytes of a token.
const RANDOM: usize = 32;

/// The text is not a completion token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a completion token: the name of a tenant, a colon, and 43 letters, digits, `-` and `_`")]
pub struct InvalidToken;

impl CompletionToken {
    /// Creates a token from random bytes.
    pub fn new(tenant: Tenant, random: [u8; RANDOM]) -> Self {
        let text = format!("{}:{}", tenant.as_str(), BASE64URL_NOPAD.encode(&random));
        Self { tenant, text }
    }

    /// Returns the tenant that the token names.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Returns the text of the token.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the SHA-256 of the text. Only this digest is stored.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(sha256(&[self.text.as_bytes()]))
    }
}

impl FromStr for CompletionToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let (tenant, secret) = text.split_once(':').ok_or(InvalidToken)?;
        let tenant = Tenant::new(tenant).map_err(|_| InvalidToken)?;
        let secret = BASE64URL_NOPAD.decode(secret.as_bytes()).map_err(|_| InvalidToken)?;
        Ok(Self::new(tenant, secret.try_into().map_err(|_| InvalidToken)?))
    }
}

impl fmt::Debug for CompletionToken {
    /// Hides the text: tokens must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompletionToken({}:…)", self.tenant)
    }
}

/// SHA-256 of a token's text.
#[derive(Clone, Copy)]
pub struct TokenDigest(pub [u8; 32]);

impl PartialEq for TokenDigest {
    /// Compares in constant time, so that the duration does not reveal the first byte that differs.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenDigest {}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// Completion token that a task has issued for an attempt.
///
/// The token is valid while the number of the attempt is the newest fencing token of the task. So the claim
/// that ends a wait also ends the token, without a change of this value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    /// Number of the attempt.
    pub attempt: u64,
    /// Digest of the token.
    pub digest: TokenDigest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_read_back_and_debug_output_hides_it() {
        let token = CompletionToken::new(Tenant::new("acme-1.x_").unwrap(), [7; RANDOM]);
        assert_eq!(token.as_str().parse(), Ok(token.clone()));
        assert_eq!(token.as_str().len(), "acme-1.x_:".len() + 43);
        let secret = token.as_str().split_once(':').unwrap().1;
        assert!(!format!("{token:?} {:?}", token.digest()).contains(secret));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let secret = BASE64URL_NOPAD.encode(&[7; RANDOM]);
        let shorter = BASE64URL_NOPAD.encode(&[7; RANDOM - 1]);
        for text in [
            String::new(),
            ":".to_owned(),
            secret.clone(),
            format!(":{secret}"),
            format!("a b:{secret}"),
            format!("acme:{shorter}"),
            format!("acme:{secret}A"),
            format!("acme:{secret}="),
            format!("acme:{secret}:"),
            format!("acme:{} ", &secret[1..]),
        ] {
            assert_eq!(text.parse::<CompletionToken>(), Err(InvalidToken), "{text}");
        }
    }
}
