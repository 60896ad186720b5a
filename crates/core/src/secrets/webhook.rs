//! Signatures that prove to a receiver that nobat sent a request: Standard Webhooks 1.0.0, symmetric (`v1`).

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use ring::hmac::{HMAC_SHA256, Key, sign};

use crate::types::encoding::decode_padded_base64;
use crate::types::time::Timestamp;

/// Secret shared by sender and receiver: 24 to 64 bytes, written as `whsec_` and base64.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

/// The text is not a webhook secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `whsec_` and 24 to 64 random bytes in base64")]
pub struct InvalidSecret;

const PREFIX: &str = "whsec_";

impl WebhookSecret {
    /// Length of a secret that nobat generates, in bytes.
    pub const BYTES: usize = 32;

    /// Creates a secret from bytes, which must be random.
    pub fn new(random: [u8; Self::BYTES]) -> Self {
        Self(random.to_vec())
    }

    /// Creates a secret from 24 to 64 bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidSecret> {
        if (24..=64).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(InvalidSecret) }
    }

    /// Returns the bytes of the secret.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the secret as text, `whsec_` and base64, for the receiver.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&self.0))
    }
}

impl FromStr for WebhookSecret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let bytes = text.strip_prefix(PREFIX).and_then(decode_padded_base64);
        bytes.ok_or(InvalidSecret).and_then(Self::from_bytes)
    }
}

impl fmt::Debug for WebhookSecret {
    /// Hides the secret: secrets must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// Returns the value of `webhook-signature` for the message `id` sent at `at`: one signature per secret, in
/// the order of `secrets`.
///
/// `webhook-timestamp` must hold the same time in whole seconds since the Unix epoch.
pub fn signature<'a>(
    secrets: impl IntoIterator<Item = &'a WebhookSecret>,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> String {
    let signed = [format!("{id}.{}.", seconds(at)).as_bytes(), body].concat();
    let signatures = secrets.into_iter().map(|secret| {
        let signature = sign(&Key::new(HMAC_SHA256, secret.as_bytes()), &signed);
        format!("v1,{}", BASE64.encode(signature.as_ref()))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

/// Returns the value of `webhook-timestamp`: whole seconds since the Unix epoch.
pub fn seconds(at: Timestamp) -> i64 {
    at.millis().div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> WebhookSecret {
        text.parse().unwrap()
    }

    /// Example from the specification's own libraries.
    #[test]
    fn signature_matches_the_reference_example() {
        let secret = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let at = Timestamp::from_millis(1_614_265_330_999);
        let signed = signature([&secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(
            (seconds(at), signed.as_str()),
            (1_614_265_330, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
    }

    #[test]
    fn every_secret_signs_newest_first() {
        let (new, old) = (WebhookSecret::new([1; 32]), WebhookSecret::new([2; 32]));
        let at = Timestamp::EPOCH;
        let both = signature([&new, &old], "a", at, b"b");
        assert_eq!(
            both,
            format!("{} {}", signature([&new], "a", at, b"b"), signature([&old], "a", at, b"b"))
        );
    }

    #[test]
    fn secrets_are_read_back_and_stay_out_of_logs() {
        let made = WebhookSecret::new([9; 32]);
        assert_eq!(secret(&made.to_text()), made);
        assert_eq!(format!("{made:?}"), "WebhookSecret(…)");
        let of = |bytes: usize| format!("whsec_{}", BASE64.encode(&vec![1; bytes]));
        assert!(of(24).parse::<WebhookSecret>().is_ok() && of(64).parse::<WebhookSecret>().is_ok());
        for text in [
            "",
            "whsec_",
            "hunter2",
            &of(23),
            &of(65),
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_    ",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!",
        ] {
            assert_eq!(text.parse::<WebhookSecret>(), Err(InvalidSecret), "{text}");
        }
    }
}
