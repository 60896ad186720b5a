//! Encryption of stored secrets. Only a process with the master key can decrypt the secrets.
//!
//! The method is AES-256-GCM with a random nonce for each secret. The additional data names the record in
//! which the secret is stored. So a secret that is copied to another record cannot be opened there. One key
//! allows 2^32 random nonces of 96 bits (NIST SP 800-38D, section 8.3). No installation stores that many
//! secrets.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::types::encoding::decode_padded_base64;
use crate::types::sha256::sha256;

/// Length of a master key, in bytes.
pub const MASTER_KEY_BYTES: usize = 32;

/// Key that seals secrets: 32 random bytes, written in base64. `openssl rand -base64 32` makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; MASTER_KEY_BYTES]);

/// The text is not a master key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a master key: 32 bytes in base64, as `openssl rand -base64 32` makes them")]
pub struct InvalidMasterKey;

impl MasterKey {
    /// Creates a key from bytes, which must be random.
    pub fn new(random: [u8; MASTER_KEY_BYTES]) -> Self {
        Self(random)
    }

    /// Returns the key in base64.
    pub fn to_text(&self) -> String {
        BASE64.encode(&self.0)
    }

    /// Returns the mark of the key: the first 32 bits of its SHA-256. Each sealed secret contains the mark of
    /// its key. The key cannot be computed from the mark.
    fn mark(&self) -> [u8; 4] {
        let [first, second, third, fourth, ..] = sha256(&[&self.0]);
        [first, second, third, fourth]
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.0)
            .unwrap_or_else(|_| unreachable!("a key of AES-256 is 32 bytes"));
        LessSafeKey::new(key)
    }
}

impl FromStr for MasterKey {
    type Err = InvalidMasterKey;

    fn from_str(text: &str) -> Result<Self, InvalidMasterKey> {
        let bytes = decode_padded_base64(text.trim()).ok_or(InvalidMasterKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidMasterKey)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// Sealed secret, as stored. A sealed secret is useless without the master key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sealed(String);

impl Sealed {
    /// Returns the decoded bytes: the key's mark ([`MasterKey::mark`]), the nonce, and the cipher text with
    /// its tag.
    fn bytes(&self) -> Option<Vec<u8>> {
        BASE64URL_NOPAD.decode(self.0.strip_prefix(PREFIX)?.as_bytes()).ok()
    }
}

/// Encrypts ("seals") and decrypts ("opens") secrets.
pub struct Vault {
    newest: (MasterKey, LessSafeKey),
    older: Vec<(MasterKey, LessSafeKey)>,
}

/// Reason why a sealed secret cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotOpen {
    /// The secret was sealed under a master key that this process does not have.
    #[error("the secret is encrypted with a master key that this process does not have")]
    OtherKey,
    /// The sealed text was changed, or copied from another record.
    #[error("the secret is damaged, or was copied from another record")]
    Damaged,
}

/// Prefix of a sealed secret: the version of the format. Base64 of the key's mark ([`MasterKey::mark`]), the
/// nonce, and the cipher text with its tag follows.
const PREFIX: &str = "a1.";
const MARK: usize = 4;

impl Vault {
    /// Creates a vault that seals under `newest` and opens secrets sealed under any of the keys.
    pub fn new(newest: MasterKey, older: Vec<MasterKey>) -> Self {
        let with_cipher = |key: MasterKey| {
            let cipher = key.cipher();
            (key, cipher)
        };
        Self { newest: with_cipher(newest), older: older.into_iter().map(with_cipher).collect() }
    }

    /// Encrypts a secret. `place` names the record that stores the secret, and [`Vault::open`] needs the same
    /// `place`. `nonce` must be random.
    pub fn seal(&self, place: &str, secret: &[u8], nonce: [u8; NONCE_LEN]) -> Sealed {
        let (key, cipher) = &self.newest;
        let mut text = secret.to_vec();
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut text)
            .unwrap_or_else(|_| unreachable!("secrets are not gigabytes long"));
        Sealed(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&[&key.mark()[..], &nonce, &text].concat())))
    }

    /// Seals a secret again under the newest key. Returns the secret unchanged if it is sealed under that key
    /// already, or cannot be opened.
    pub fn renew(&self, place: &str, sealed: &Sealed, nonce: [u8; NONCE_LEN]) -> Sealed {
        let is_newest = sealed.bytes().is_some_and(|bytes| bytes.starts_with(&self.newest.0.mark()));
        let opened = self.open(place, sealed).ok().filter(|_| !is_newest);
        opened.map_or_else(|| sealed.clone(), |secret| self.seal(place, &secret, nonce))
    }

    /// Decrypts a secret that was sealed with the same `place`.
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

/// Source of a process's vault.
#[async_trait]
pub trait VaultSource: Send + Sync {
    /// Returns the vault. The first call may have to request the master key.
    async fn vault(&self) -> Result<Arc<Vault>, NoVault>;
}

/// Reason why no vault is available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVault {
    /// The process has no master key.
    #[error(
        "the process has no master key, so it can neither store nor use secrets; set NOBAT_MASTER_KEY or NOBAT_KMS_KEY"
    )]
    NoKey,
    /// The service that keeps the master key did not return the key.
    #[error("the master key is not available: {0}")]
    Unavailable(String),
}

#[async_trait]
impl VaultSource for Arc<Vault> {
    async fn vault(&self) -> Result<Arc<Vault>, NoVault> {
        Ok(Self::clone(self))
    }
}

/// [`VaultSource`] of a process without a master key.
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
    use data_encoding::HEXLOWER;

    const SECRET: &[u8] = b"hunter2 and some more bytes";

    fn key(byte: u8) -> MasterKey {
        MasterKey::new([byte; MASTER_KEY_BYTES])
    }

    fn vault(byte: u8) -> Vault {
        Vault::new(key(byte), Vec::new())
    }

    #[test]
    fn sealed_secret_hides_its_text_and_opens_again() {
        let sealed = vault(1).seal("here", SECRET, [7; NONCE_LEN]);
        assert_eq!(vault(1).open("here", &sealed).unwrap(), SECRET);
        let bytes = BASE64URL_NOPAD.decode(sealed.0.strip_prefix(PREFIX).unwrap().as_bytes()).unwrap();
        assert_eq!(bytes.len(), MARK + NONCE_LEN + SECRET.len() + AES_256_GCM.tag_len());
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
        assert_ne!(sealed, vault(1).seal("here", SECRET, [8; NONCE_LEN]), "another nonce gives another text");
    }

    #[test]
    fn moved_or_changed_secret_does_not_open() {
        let sealed = vault(1).seal("here", SECRET, [7; NONCE_LEN]);
        assert_eq!(vault(1).open("there", &sealed), Err(CannotOpen::Damaged));
        let bytes = BASE64URL_NOPAD.decode(sealed.0.strip_prefix(PREFIX).unwrap().as_bytes()).unwrap();
        for place in MARK..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let changed = Sealed(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&changed)));
            assert_eq!(vault(1).open("here", &changed), Err(CannotOpen::Damaged), "byte {place}");
        }
        for text in ["", "a1.", "a1.AAAA", "a2.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "a1.!"] {
            assert_eq!(vault(1).open("here", &Sealed(text.to_owned())), Err(CannotOpen::Damaged), "{text}");
        }
    }

    #[test]
    fn secret_under_an_older_key_opens_and_is_renewed() {
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
        assert_eq!(
            vault(2).open("here", &anew).unwrap(),
            SECRET,
            "a new secret is sealed under the newest key"
        );
    }

    /// Test case 14 of the GCM specification's AES-256 vectors: key, nonce and text of zeros.
    #[test]
    fn sealing_matches_the_gcm_test_vector() {
        let sealed = vault(0).seal("", &[0; 16], [0; NONCE_LEN]);
        let bytes = BASE64URL_NOPAD.decode(sealed.0.strip_prefix(PREFIX).unwrap().as_bytes()).unwrap();
        assert_eq!(
            HEXLOWER.encode(&bytes[MARK + NONCE_LEN..]),
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
        );
    }

    #[test]
    fn master_keys_are_read_back_and_stay_out_of_logs() {
        let written = key(200).to_text();
        assert_eq!(format!(" {written}\n").parse(), Ok(key(200)));
        assert_eq!(format!("{:?} {:?}", key(200), vault(200)), "MasterKey(…) Vault(…)");
        for text in ["", "hunter2", &BASE64.encode(&[1; 31]), &BASE64.encode(&[1; 33]), &written[1..]] {
            assert_eq!(text.parse::<MasterKey>(), Err(InvalidMasterKey), "{text}");
        }
    }
}
