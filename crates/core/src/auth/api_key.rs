//! API keys: their format, scopes and lifetime.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::auth::network::{Network, admits};
use crate::auth::scope::{Scope, Scopes};
use crate::types::encoding;
use crate::types::name::{Name, Tenant};
use crate::types::serde_as_text::serde_as_text;
use crate::types::sha256::sha256;
use crate::types::time::Timestamp;

/// Text of an API key: `nb_live_` and 39 base-32 digits, which encode 160 random bits and their CRC-32.
///
/// nobat shows the text once, when it creates the key, and never stores it. The checksum detects a mistyped
/// key without access to the store, and lets scanners recognize a leaked key in any text. The stored digest
/// needs no slow hash, because an attacker cannot try 2^160 random keys.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(String);

const PREFIX: &str = "nb_live_";
const RANDOM: usize = 20;
const CHECKED: usize = RANDOM + 4;

/// The text is not an API key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an API key, or mistyped; expected `nb_live_` and 39 letters and digits")]
pub struct InvalidKey;

impl KeyText {
    /// Prefix of every API key.
    pub const PREFIX: &'static str = PREFIX;

    /// Creates an API key from random bytes.
    pub fn new(random: [u8; RANDOM]) -> Self {
        let mut bytes = [0; CHECKED];
        bytes[..RANDOM].copy_from_slice(&random);
        bytes[RANDOM..].copy_from_slice(&crc32fast::hash(&random).to_be_bytes());
        let mut digits = [0; encoding::length(CHECKED)];
        encoding::encode(&bytes, &mut digits);
        Self(
            digits
                .iter()
                .fold(PREFIX.to_owned(), |text, digit| text + char::from(*digit).encode_utf8(&mut [0; 4])),
        )
    }

    /// Returns the text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 of the text. Only this digest is stored.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest(sha256(&[self.0.as_bytes()]))
    }
}

impl FromStr for KeyText {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes: [u8; CHECKED] = text.strip_prefix(PREFIX).and_then(encoding::decode).ok_or(InvalidKey)?;
        let (random, sum) = bytes.split_at(RANDOM);
        if crc32fast::hash(random).to_be_bytes() == sum { Ok(Self(text.to_owned())) } else { Err(InvalidKey) }
    }
}

impl fmt::Debug for KeyText {
    /// Hides the text: keys must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(…)")
    }
}

/// SHA-256 of a key's text.
#[derive(Clone, Copy, Debug)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    /// Returns the id of the key: the first 128 bits of the digest. The key cannot be computed from its id.
    pub fn id(&self) -> KeyId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[..16]);
        KeyId(id)
    }
}

impl PartialEq for KeyDigest {
    /// Compares in constant time, so that the duration does not reveal the first byte that differs.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyDigest {}

/// Id of an API key, as shown in logs and responses: `key_` and 26 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

const ID_PREFIX: &str = "key_";

/// The text is not the id of an API key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the id of an API key: `key_` and 26 letters and digits")]
pub struct InvalidKeyId;

impl KeyId {
    /// Returns the name of the key's record.
    pub fn name(self) -> Name {
        Name::new(&self.to_string())
            .unwrap_or_else(|_| unreachable!("an id has only characters that a name allows"))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; encoding::length(16)];
        encoding::encode(&self.0, &mut digits);
        write!(f, "{ID_PREFIX}{}", std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        text.strip_prefix(ID_PREFIX).and_then(encoding::decode).map(Self).ok_or(InvalidKeyId)
    }
}

serde_as_text!(KeyId);

/// Stored data of an API key: everything except its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Digest that identifies the key.
    pub digest: KeyDigest,
    /// Tenant in which the key is valid.
    pub tenant: Tenant,
    /// Description of the key's purpose. At most [`MAX_LABEL`] bytes; may be empty.
    pub label: String,
    /// Scopes of the key.
    pub scopes: Scopes,
    /// Networks from which the key may be used, at most [`MAX_NETWORKS`]. Empty means any address.
    pub networks: Vec<Network>,
    /// Time at which the key was created.
    pub created_at: Timestamp,
    /// Time at which the key expires.
    pub expires_at: Option<Timestamp>,
    /// Time at which the key was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Rotation of the key, if a new key replaced it. `expires_at` is then the end of the grace period.
    pub replaced: Option<Replaced>,
    /// Number of writes to the key's record. Starts at 1.
    pub version: u64,
}

/// State of a key before its rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Value of `expires_at` before the rotation.
    pub was_to_expire_at: Option<Timestamp>,
}

/// Maximum length of an API key's label, in bytes.
pub const MAX_LABEL: usize = 200;
/// Maximum number of networks of an API key.
pub const MAX_NETWORKS: usize = 50;
/// Maximum grace period after rotation: a replaced key or secret stays valid for at most 30 days.
pub const MAX_GRACE_PERIOD: Duration = Duration::from_hours(30 * 24);

/// Reason why an existing key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRejection {
    /// The key is revoked or expired.
    Over,
    /// The key may not be used from the client's address.
    Elsewhere,
}

impl Key {
    /// Returns the id of the key.
    pub fn id(&self) -> KeyId {
        self.digest.id()
    }

    /// Checks that the key is valid at `now` for a client at `from`. A key with networks refuses an unknown
    /// address (`None`).
    pub fn admit(&self, from: Option<IpAddr>, now: Timestamp) -> Result<(), KeyRejection> {
        if self.is_over(now) {
            return Err(KeyRejection::Over);
        }
        if admits(&self.networks, from) { Ok(()) } else { Err(KeyRejection::Elsewhere) }
    }

    /// Returns true if the key is revoked or expired.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.revoked_at.is_some() || self.expires_at.is_some_and(|end| end <= now)
    }

    /// Replaces the key. Returns this key and a new key with the same scopes and networks. This key expires
    /// after the grace period `overlap`. The new key takes over the expiry that this key had before its
    /// rotation.
    pub fn rotate(self, digest: KeyDigest, overlap: Duration, now: Timestamp) -> (Self, Self) {
        let end = self.replaced.map_or(self.expires_at, |replaced| replaced.was_to_expire_at);
        let new =
            Self { digest, created_at: now, expires_at: end, replaced: None, version: 1, ..self.clone() };
        // A rotation must not extend the life of a key that expires before the grace period ends.
        let overlap = self.expires_at.map_or(now + overlap, |sooner| sooner.min(now + overlap));
        (Self { expires_at: Some(overlap), replaced: Some(Replaced { was_to_expire_at: end }), ..self }, new)
    }

    /// Returns the stored form: compact JSON, the same in every backend.
    pub fn to_text(&self) -> String {
        let stored = Stored {
            digest: HEXLOWER.encode(&self.digest.0),
            tenant: self.tenant.clone(),
            label: self.label.clone(),
            scopes: self.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            networks: self.networks.clone(),
            created_at: self.created_at.millis(),
            expires_at: self.expires_at.map(Timestamp::millis),
            revoked_at: self.revoked_at.map(Timestamp::millis),
            replaced: self.replaced,
        };
        serde_json::to_string(&stored).unwrap_or_else(|_| unreachable!("texts and numbers always serialize"))
    }

    /// Inverse of [`Key::to_text`]. Ignores scopes that this version does not know.
    pub fn from_text(text: &str, version: u64) -> Result<Self, crate::types::unreadable::Unreadable> {
        let unreadable = || crate::types::unreadable::Unreadable("an API key");
        let stored: Stored = serde_json::from_str(text).map_err(|_| unreadable())?;
        let digest = HEXLOWER.decode(stored.digest.as_bytes()).map_err(|_| unreadable())?;
        Ok(Self {
            digest: KeyDigest(digest.try_into().map_err(|_| unreadable())?),
            tenant: stored.tenant,
            label: stored.label,
            scopes: stored.scopes.iter().filter_map(|word| word.parse::<Scope>().ok()).collect(),
            networks: stored.networks,
            created_at: Timestamp::from_millis(stored.created_at),
            expires_at: stored.expires_at.map(Timestamp::from_millis),
            revoked_at: stored.revoked_at.map(Timestamp::from_millis),
            replaced: stored.replaced,
            version,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    digest: String,
    tenant: Tenant,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    label: String,
    scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    networks: Vec<Network>,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced: Option<Replaced>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            digest: KeyText::new([7; RANDOM]).digest(),
            tenant: Tenant::new("acme").unwrap(),
            label: "the shop's".to_owned(),
            scopes: "tasks:write,payload:view".parse().unwrap(),
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            created_at: Timestamp::from_millis(1),
            expires_at: Some(Timestamp::from_millis(100)),
            revoked_at: None,
            replaced: None,
            version: 3,
        }
    }

    #[test]
    fn key_is_read_back_and_a_mistyped_one_is_refused() {
        let text = KeyText::new(std::array::from_fn(|place| u8::try_from(place * 11).unwrap()));
        assert_eq!(text.as_str().len(), PREFIX.len() + 39);
        assert_eq!(text.as_str().parse(), Ok(text.clone()));
        for place in 0..text.as_str().len() {
            let mut mistyped = text.as_str().to_owned();
            let other = if mistyped.as_bytes()[place] == b'3' { "4" } else { "3" };
            mistyped.replace_range(place..=place, other);
            assert_eq!(mistyped.parse::<KeyText>(), Err(InvalidKey), "{mistyped}");
        }
        for none in ["", "nb_live_", &text.as_str()[..20], &format!("{} ", text.as_str())] {
            assert_eq!(none.parse::<KeyText>(), Err(InvalidKey));
        }
        assert_eq!(format!("{text:?}"), "KeyText(…)");
    }

    #[test]
    fn key_id_identifies_one_key() {
        let (one, other) = (KeyText::new([1; RANDOM]).digest(), KeyText::new([2; RANDOM]).digest());
        assert!(one != other && one.id() != other.id() && one == KeyText::new([1; RANDOM]).digest());
        assert_eq!(one.id().to_string().parse(), Ok(one.id()));
        assert_eq!(format!("{:?}", one.id()), one.id().to_string());
        let mut twice = one;
        twice.0[0] ^= 1;
        twice.0[31] ^= 1;
        assert_ne!(one, twice, "two equal differences do not cancel each other");
        assert_eq!(one.id().name().as_str(), one.id().to_string());
        assert!("task_01jd0000000000000000000000".parse::<KeyId>().is_err());
    }

    #[test]
    fn grace_period_is_at_most_30_days() {
        assert_eq!(MAX_GRACE_PERIOD.as_secs(), 30 * 86_400);
    }

    #[test]
    fn key_is_admitted_within_its_time_and_networks() {
        let (inside, outside) = ("10.1.2.3".parse().ok(), "192.0.2.1".parse().ok());
        let (during, after) = (Timestamp::from_millis(99), Timestamp::from_millis(100));
        assert_eq!(key().admit(inside, during), Ok(()));
        assert_eq!(key().admit(inside, after), Err(KeyRejection::Over));
        assert_eq!(key().admit(outside, during), Err(KeyRejection::Elsewhere));
        assert_eq!(key().admit(None, during), Err(KeyRejection::Elsewhere), "an unknown address is refused");
        let revoked = Key { revoked_at: Some(Timestamp::from_millis(50)), ..key() };
        assert_eq!(revoked.admit(inside, during), Err(KeyRejection::Over));
        let anywhere = Key { networks: Vec::new(), expires_at: None, ..key() };
        assert_eq!((anywhere.admit(outside, after), anywhere.admit(None, after)), (Ok(()), Ok(())));
    }

    #[test]
    fn rotated_key_keeps_the_expiry_of_the_old_key() {
        let (now, minute) = (Timestamp::from_millis(9), Duration::from_mins(1));
        let digest = |byte| KeyText::new([byte; RANDOM]).digest();
        for end in [None, Some(now + 2 * minute)] {
            let first = Key { expires_at: end, ..key() };
            let (old, new) = first.rotate(digest(8), minute, now);
            assert_eq!(
                (old.expires_at, new.expires_at, new.created_at, new.version),
                (Some(now + minute), end, now, 1)
            );
            assert_eq!((old.digest, new.digest, new.replaced), (key().digest, digest(8), None));
            // The client lost the response and repeats the rotation.
            let (old, again) = old.rotate(digest(9), 2 * minute, now);
            assert_eq!((old.expires_at, again.expires_at, again.replaced), (Some(now + minute), end, None));
        }
        let soon = Key { expires_at: Some(now + minute), ..key() };
        let (old, new) = soon.rotate(digest(8), 2 * minute, now);
        assert_eq!((old.expires_at, new.expires_at), (Some(now + minute), Some(now + minute)));
    }

    #[test]
    fn key_is_read_back_as_stored() {
        let plain = Key { label: String::new(), networks: Vec::new(), expires_at: None, ..key() };
        let revoked = Key { revoked_at: Some(Timestamp::from_millis(9)), ..key() };
        let (replaced, _) = plain.clone().rotate(key().digest, Duration::ZERO, Timestamp::EPOCH);
        for key in [key(), plain, revoked, replaced] {
            assert_eq!(Key::from_text(&key.to_text(), key.version).unwrap(), key);
        }
        let newer = key().to_text().replace("tasks:write", "tasks:paint");
        assert_eq!(Key::from_text(&newer, 3).unwrap().scopes.to_string(), "payload:view");
        assert!(Key::from_text("{}", 1).is_err());
        let digest = HEXLOWER.encode(&key().digest.0);
        for other in [
            format!("{digest}00"),
            digest[2..].to_owned(),
            format!("é{}", &digest[2..]),
            digest.replace(&digest[..1], "g"),
        ] {
            assert!(Key::from_text(&key().to_text().replace(&digest, &other), 3).is_err(), "{other}");
        }
    }
}
