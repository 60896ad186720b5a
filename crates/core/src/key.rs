//! Keys to the API: what they look like, what they open, and for how long.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::base32;
use crate::name::{Name, Tenant};
use crate::network::{Network, admits};
use crate::scope::{Scope, Scopes};
use crate::time::Timestamp;

/// A key, as its holder has it: `nb_live_`, and 39 digits that stand for 160 random bits and their CRC-32.
///
/// It is shown once, when it is made, and never stored. The checksum tells a mistyped key, and finds leaked ones in text, without
/// asking a store. What is random needs no slow hash: nobody tries 2^160 of them.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(String);

const PREFIX: &str = "nb_live_";
const RANDOM: usize = 20;
const CHECKED: usize = RANDOM + 4;

/// The text is not a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is `nb_live_` and 39 letters and digits; this is none, or it was mistyped")]
pub struct InvalidKey;

impl KeyText {
    /// How every key begins.
    pub const PREFIX: &'static str = PREFIX;

    /// A new key of these random bytes.
    pub fn new(random: [u8; RANDOM]) -> Self {
        let mut bytes = [0; CHECKED];
        bytes[..RANDOM].copy_from_slice(&random);
        bytes[RANDOM..].copy_from_slice(&crc32fast::hash(&random).to_be_bytes());
        let mut digits = [0; base32::length(CHECKED)];
        base32::encode(&bytes, &mut digits);
        Self(digits.iter().fold(PREFIX.to_owned(), |text, digit| text + char::from(*digit).encode_utf8(&mut [0; 4])))
    }

    /// The key as its holder sends it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the text: all of it that is stored.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest(Sha256::digest(&self.0).into())
    }
}

impl FromStr for KeyText {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes: [u8; CHECKED] = text.strip_prefix(PREFIX).and_then(base32::decode).ok_or(InvalidKey)?;
        let (random, sum) = bytes.split_at(RANDOM);
        if crc32fast::hash(random).to_be_bytes() == sum { Ok(Self(text.to_owned())) } else { Err(InvalidKey) }
    }
}

impl fmt::Debug for KeyText {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(…)")
    }
}

/// SHA-256 of a key's text.
#[derive(Clone, Copy, Debug)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    /// The id of the key: the first 128 bits. Whoever knows it cannot find the key.
    pub fn id(&self) -> KeyId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[..16]);
        KeyId(id)
    }
}

impl PartialEq for KeyDigest {
    /// Takes as long whether the first byte differs or the last.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
    }
}

impl Eq for KeyDigest {}

/// What a key is called, wherever it is spoken of: `key_` and 26 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

const ID_PREFIX: &str = "key_";

/// The text is not the id of a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key's id is `key_` and 26 letters and digits")]
pub struct InvalidKeyId;

impl KeyId {
    /// The name of its record.
    pub fn name(self) -> Name {
        Name::new(&self.to_string()).unwrap_or_else(|_| unreachable!("an id is made of the characters of a name"))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; base32::length(16)];
        base32::encode(&self.0, &mut digits);
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
        text.strip_prefix(ID_PREFIX).and_then(base32::decode).map(Self).ok_or(InvalidKeyId)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// All that is known of a key but the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What it is found by, and compared with.
    pub digest: KeyDigest,
    /// Inside which tenant it opens anything.
    pub tenant: Tenant,
    /// What it is for, in its maker's words; may be empty.
    pub label: String,
    /// What it may do.
    pub scopes: Scopes,
    /// From where it may be used; from anywhere if empty.
    pub networks: Vec<Network>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when it opens nothing any more.
    pub expires_at: Option<Timestamp>,
    /// Since when it opens nothing any more, because somebody said so.
    pub revoked_at: Option<Timestamp>,
    /// That another took its place, and `expires_at` is therefore the end of an overlap.
    pub replaced: Option<Replaced>,
    /// Counts the writes to its record, from 1.
    pub version: u64,
}

/// What a key was before another took its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// From when it was to open nothing any more.
    pub was_to_expire_at: Option<Timestamp>,
}

/// The longest label, in bytes.
pub const MAX_LABEL: usize = 200;
/// The most networks that a key can be bound to.
pub const MAX_NETWORKS: usize = 50;
/// The longest time for which a key or a secret that was replaced stays good.
pub const MAX_OVERLAP: Duration = Duration::from_hours(30 * 24);

/// Why a request with a key that there is goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// It was revoked, or its time is over.
    Over,
    /// It may not be used from there.
    Elsewhere,
}

impl Key {
    /// Its id.
    pub fn id(&self) -> KeyId {
        self.digest.id()
    }

    /// Checks that the key is valid at `now` for a client at `from`. `None` is an unknown address: a key that is bound to networks refuses it.
    pub fn admit(&self, from: Option<IpAddr>, now: Timestamp) -> Result<(), Barred> {
        if self.is_over(now) {
            return Err(Barred::Over);
        }
        if admits(&self.networks, from) { Ok(()) } else { Err(Barred::Elsewhere) }
    }

    /// Whether it was revoked, or its time is over.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.revoked_at.is_some() || self.expires_at.is_some_and(|end| end <= now)
    }

    /// Another key that may do the same for as long as this one was made for, and this one with its end after an overlap.
    pub fn rotate(self, digest: KeyDigest, overlap: Duration, now: Timestamp) -> (Self, Self) {
        let end = self.replaced.map_or(self.expires_at, |replaced| replaced.was_to_expire_at);
        let new = Self { digest, created_at: now, expires_at: end, replaced: None, version: 1, ..self.clone() };
        // It may have been going to expire sooner.
        let overlap = self.expires_at.map_or(now + overlap, |sooner| sooner.min(now + overlap));
        (Self { expires_at: Some(overlap), replaced: Some(Replaced { was_to_expire_at: end }), ..self }, new)
    }

    /// Its record: compact JSON, the same in every backend.
    pub fn to_text(&self) -> String {
        let stored = Stored {
            digest: hex(&self.digest.0),
            tenant: self.tenant.clone(),
            label: self.label.clone(),
            scopes: self.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            networks: self.networks.clone(),
            created_at: self.created_at.millis(),
            expires_at: self.expires_at.map(Timestamp::millis),
            revoked_at: self.revoked_at.map(Timestamp::millis),
            replaced: self.replaced,
        };
        serde_json::to_string(&stored).unwrap_or_else(|_| unreachable!("texts and numbers"))
    }

    /// The opposite of [`Key::to_text`]. A scope that this version does not know allows nothing here.
    pub fn from_text(text: &str, version: u64) -> Result<Self, crate::stored::Unreadable> {
        let unreadable = || crate::stored::Unreadable("a key");
        let stored: Stored = serde_json::from_str(text).map_err(|_| unreadable())?;
        Ok(Self {
            digest: KeyDigest(unhex(&stored.digest).ok_or_else(unreadable)?),
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
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
    fn a_key_is_read_back_and_a_mistyped_one_is_not() {
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
    fn an_id_names_a_key_and_no_other() {
        let (one, other) = (KeyText::new([1; RANDOM]).digest(), KeyText::new([2; RANDOM]).digest());
        assert!(one != other && one.id() != other.id() && one == KeyText::new([1; RANDOM]).digest());
        assert_eq!(one.id().to_string().parse(), Ok(one.id()));
        assert_eq!(format!("{:?}", one.id()), one.id().to_string());
        let mut twice = one;
        twice.0[0] ^= 1;
        twice.0[31] ^= 1;
        assert_ne!(one, twice, "one difference does not make up for another");
        assert_eq!(one.id().name().as_str(), one.id().to_string());
        assert!("task_01jd0000000000000000000000".parse::<KeyId>().is_err());
    }

    #[test]
    fn an_overlap_is_a_month_at_most() {
        assert_eq!(MAX_OVERLAP.as_secs(), 30 * 86_400);
    }

    #[test]
    fn opens_in_its_time_from_its_place() {
        let (inside, outside) = ("10.1.2.3".parse().ok(), "192.0.2.1".parse().ok());
        let (during, after) = (Timestamp::from_millis(99), Timestamp::from_millis(100));
        assert_eq!(key().admit(inside, during), Ok(()));
        assert_eq!(key().admit(inside, after), Err(Barred::Over));
        assert_eq!(key().admit(outside, during), Err(Barred::Elsewhere));
        assert_eq!(key().admit(None, during), Err(Barred::Elsewhere), "an unknown address");
        let revoked = Key { revoked_at: Some(Timestamp::from_millis(50)), ..key() };
        assert_eq!(revoked.admit(inside, during), Err(Barred::Over));
        let anywhere = Key { networks: Vec::new(), expires_at: None, ..key() };
        assert_eq!((anywhere.admit(outside, after), anywhere.admit(None, after)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_key_that_takes_anothers_place_is_good_for_as_long_as_that_was_made_for() {
        let (now, minute) = (Timestamp::from_millis(9), Duration::from_mins(1));
        let digest = |byte| KeyText::new([byte; RANDOM]).digest();
        for end in [None, Some(now + 2 * minute)] {
            let first = Key { expires_at: end, ..key() };
            let (old, new) = first.rotate(digest(8), minute, now);
            assert_eq!((old.expires_at, new.expires_at, new.created_at, new.version), (Some(now + minute), end, now, 1));
            assert_eq!((old.digest, new.digest, new.replaced), (key().digest, digest(8), None));
            // The answer was lost, so it is asked for again.
            let (old, again) = old.rotate(digest(9), 2 * minute, now);
            assert_eq!((old.expires_at, again.expires_at, again.replaced), (Some(now + minute), end, None));
        }
        let soon = Key { expires_at: Some(now + minute), ..key() };
        let (old, new) = soon.rotate(digest(8), 2 * minute, now);
        assert_eq!((old.expires_at, new.expires_at), (Some(now + minute), Some(now + minute)));
    }

    #[test]
    fn is_read_back_as_stored() {
        let plain = Key { label: String::new(), networks: Vec::new(), expires_at: None, ..key() };
        let revoked = Key { revoked_at: Some(Timestamp::from_millis(9)), ..key() };
        let (replaced, _) = plain.clone().rotate(key().digest, Duration::ZERO, Timestamp::EPOCH);
        for key in [key(), plain, revoked, replaced] {
            assert_eq!(Key::from_text(&key.to_text(), key.version).unwrap(), key);
        }
        let newer = key().to_text().replace("tasks:write", "tasks:paint");
        assert_eq!(Key::from_text(&newer, 3).unwrap().scopes.to_string(), "payload:view");
        assert!(Key::from_text("{}", 1).is_err());
        let digest = hex(&key().digest.0);
        for other in [format!("{digest}00"), digest[2..].to_owned(), format!("é{}", &digest[2..]), digest.replace(&digest[..1], "g")] {
            assert!(Key::from_text(&key().to_text().replace(&digest, &other), 3).is_err(), "{other}");
        }
    }
}
