//! Secrets at rest: what is stored is sealed, and only a process that has the master key can open it.
//!
//! AES-256-GCM, with a random nonce for each secret and the place where it is stored as additional data: what is copied from one
//! place to another there opens nothing. A random nonce of 96 bits may be drawn 2^32 times under one key (NIST SP 800-38D, section
//! 8.3); nobody sets so many secrets.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

/// How long a master key is, in bytes.
pub const MASTER_KEY_BYTES: usize = 32;

/// What secrets are sealed under: 32 random bytes, written in base64, as `openssl rand -base64 32` makes them.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; MASTER_KEY_BYTES]);

/// The text is no master key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 32 bytes in base64, as `openssl rand -base64 32` makes them")]
pub struct InvalidMasterKey;

impl MasterKey {
    /// A key of these bytes, which must be random.
    pub fn new(random: [u8; MASTER_KEY_BYTES]) -> Self {
        Self(random)
    }

    /// The key as it is written down.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// What tells it from others, in what it has sealed: the first 32 bits of its SHA-256. Whoever knows them cannot find the key.
    fn mark(&self) -> [u8; 4] {
        let digest = Sha256::digest(self.0);
        [digest[0], digest[1], digest[2], digest[3]]
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).unwrap_or_else(|_| unreachable!("a key of AES-256 is 32 bytes"));
        LessSafeKey::new(key)
    }
}

impl FromStr for MasterKey {
    type Err = InvalidMasterKey;

    fn from_str(text: &str) -> Result<Self, InvalidMasterKey> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| InvalidMasterKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidMasterKey)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// A secret as it is stored: text, which is none to whoever has no master key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sealed(String);

impl Sealed {
    /// The mark of the key, the nonce, and the cipher text with its tag.
    fn bytes(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.0.strip_prefix(PREFIX)?).ok()
    }
}

/// Seals secrets, and opens them again.
pub struct Vault {
    newest: (MasterKey, LessSafeKey),
    older: Vec<(MasterKey, LessSafeKey)>,
}

/// Why a sealed secret stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotOpen {
    /// It was sealed under a master key that is not here.
    #[error("it was sealed under another master key")]
    OtherKey,
    /// It was changed, or moved here from another place.
    #[error("it was damaged, or does not belong here")]
    Damaged,
}

/// How a sealed secret begins: the version of what follows, which is base64 of the key's mark, the nonce, and the cipher text with its tag.
const PREFIX: &str = "a1.";
const MARK: usize = 4;

impl Vault {
    /// Seals under `newest`, and opens what was sealed under any of them.
    pub fn new(newest: MasterKey, older: Vec<MasterKey>) -> Self {
        let with_cipher = |key: MasterKey| {
            let cipher = key.cipher();
            (key, cipher)
        };
        Self { newest: with_cipher(newest), older: older.into_iter().map(with_cipher).collect() }
    }

    /// Seals a secret for that place. `nonce` must be random.
    pub fn seal(&self, place: &str, secret: &[u8], nonce: [u8; NONCE_LEN]) -> Sealed {
        let (key, cipher) = &self.newest;
        let mut text = secret.to_vec();
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut text)
            .unwrap_or_else(|_| unreachable!("secrets are not gigabytes long"));
        Sealed(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([&key.mark()[..], &nonce, &text].concat())))
    }

    /// The same secret, sealed under the newest key; as it is, if that is so already or it cannot be opened.
    pub fn renew(&self, place: &str, sealed: &Sealed, nonce: [u8; NONCE_LEN]) -> Sealed {
        let is_newest = sealed.bytes().is_some_and(|bytes| bytes.starts_with(&self.newest.0.mark()));
        let opened = self.open(place, sealed).ok().filter(|_| !is_newest);
        opened.map_or_else(|| sealed.clone(), |secret| self.seal(place, &secret, nonce))
    }

    /// The secret that was sealed for that place.
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<Vec<u8>, CannotOpen> {
        let bytes = sealed.bytes().ok_or(CannotOpen::Damaged)?;
        let (mark, rest) = bytes.split_first_chunk::<MARK>().ok_or(CannotOpen::Damaged)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(CannotOpen::Damaged)?;
        let mut keys = [&self.newest].into_iter().chain(&self.older);
        let (_, cipher) = keys.find(|(key, _)| key.mark() == *mark).ok_or(CannotOpen::OtherKey)?;
        let mut text = text.to_vec();
        let opened = cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place), &mut text);
        opened.map(|secret| secret.to_vec()).map_err(|_| CannotOpen::Damaged)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(…)")
    }
}

/// Where a process has its vault from.
#[async_trait]
pub trait VaultSource: Send + Sync {
    /// The vault. The first call may have to ask for its key.
    async fn vault(&self) -> Result<Arc<Vault>, NoVault>;
}

/// Why there is no vault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVault {
    /// This process was given no master key.
    #[error("there is no master key here: secrets can neither be kept nor used")]
    NoKey,
    /// Whoever keeps the master key did not give it.
    #[error("the master key cannot be had: {0}")]
    Unavailable(String),
}

#[async_trait]
impl VaultSource for Arc<Vault> {
    async fn vault(&self) -> Result<Arc<Vault>, NoVault> {
        Ok(Self::clone(self))
    }
}

/// No vault at all.
#[derive(Clone, Copy, Debug)]
pub struct Without;

#[async_trait]
impl VaultSource for Without {
    async fn vault(&self) -> Result<Arc<Vault>, NoVault> {
        Err(NoVault::NoKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"hunter2 and some more bytes";

    fn key(byte: u8) -> MasterKey {
        MasterKey::new([byte; MASTER_KEY_BYTES])
    }

    fn vault(byte: u8) -> Vault {
        Vault::new(key(byte), Vec::new())
    }

    #[test]
    fn opens_what_it_sealed_and_shows_nothing_of_it() {
        let sealed = vault(1).seal("here", SECRET, [7; NONCE_LEN]);
        assert_eq!(vault(1).open("here", &sealed).unwrap(), SECRET);
        let bytes = URL_SAFE_NO_PAD.decode(sealed.0.strip_prefix(PREFIX).unwrap()).unwrap();
        assert_eq!(bytes.len(), MARK + NONCE_LEN + SECRET.len() + AES_256_GCM.tag_len());
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
        assert_ne!(sealed, vault(1).seal("here", SECRET, [8; NONCE_LEN]), "another nonce, another text");
    }

    #[test]
    fn opens_nothing_elsewhere_nor_what_was_changed() {
        let sealed = vault(1).seal("here", SECRET, [7; NONCE_LEN]);
        assert_eq!(vault(1).open("there", &sealed), Err(CannotOpen::Damaged));
        let bytes = URL_SAFE_NO_PAD.decode(sealed.0.strip_prefix(PREFIX).unwrap()).unwrap();
        for place in MARK..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let changed = Sealed(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(changed)));
            assert_eq!(vault(1).open("here", &changed), Err(CannotOpen::Damaged), "byte {place}");
        }
        for text in ["", "a1.", "a1.AAAA", "a2.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "a1.!"] {
            assert_eq!(vault(1).open("here", &Sealed(text.to_owned())), Err(CannotOpen::Damaged), "{text}");
        }
    }

    #[test]
    fn knows_what_was_sealed_under_another_key() {
        let sealed = vault(1).seal("here", SECRET, [7; NONCE_LEN]);
        assert_eq!(vault(2).open("here", &sealed), Err(CannotOpen::OtherKey));
        let both = Vault::new(key(2), vec![key(1)]);
        assert_eq!(both.open("here", &sealed).unwrap(), SECRET);
        let renewed = both.renew("here", &sealed, [9; NONCE_LEN]);
        assert_eq!(vault(2).open("here", &renewed).unwrap(), SECRET);
        assert_eq!(
            (both.renew("here", &renewed, [9; NONCE_LEN]), vault(2).renew("here", &sealed, [9; NONCE_LEN])),
            (renewed, sealed.clone())
        );
        let anew = both.seal("here", SECRET, [7; NONCE_LEN]);
        assert_eq!(vault(2).open("here", &anew).unwrap(), SECRET, "what is new is sealed under the newest");
    }

    /// Test case 14 of the GCM specification's AES-256 vectors: key, nonce and text of zeros.
    #[test]
    fn seals_as_the_specification_says() {
        let sealed = vault(0).seal("", &[0; 16], [0; NONCE_LEN]);
        let bytes = URL_SAFE_NO_PAD.decode(sealed.0.strip_prefix(PREFIX).unwrap()).unwrap();
        let hex = bytes[MARK + NONCE_LEN..].iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(hex, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    }

    #[test]
    fn master_keys_are_read_back_and_stay_out_of_logs() {
        let written = key(200).to_text();
        assert_eq!(format!(" {written}\n").parse(), Ok(key(200)));
        assert_eq!(format!("{:?} {:?}", key(200), vault(200)), "MasterKey(…) Vault(…)");
        for text in ["", "hunter2", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33]), &written[1..]] {
            assert_eq!(text.parse::<MasterKey>(), Err(InvalidMasterKey), "{text}");
        }
    }
}
