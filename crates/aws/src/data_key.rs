//! The master key of an AWS installation: 32 bytes in the table, encrypted by a key of AWS KMS.
//!
//! The first process that needs the key asks KMS to generate the key. Each process asks KMS once to decrypt
//! the key, at the first use, and then keeps the key in memory. KMS records each decryption in `CloudTrail`.
//! A process that loses the permission to decrypt can use the key until the process is restarted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use nobat_core::ports::StoreError;
use nobat_core::secrets::vault::{MasterKey, NoVault, Vault, VaultSource};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::error::{Unreadable, failed};
use crate::expression::Expression;
use crate::item::{Item, at};
use crate::keys;
use crate::table::{Table, WriteOutcome};

/// Encryption context. KMS decrypts only with the same context. The context does not contain the table's
/// name, since a restored table has another name.
const PURPOSE: (&str, &str) = ("nobat", "secrets");
/// Attribute that contains the encrypted master key.
const WRAPPED: &str = "wrapped";

/// A vault whose key is in the table.
pub(crate) struct DataKey {
    table: Table,
    kms: aws_sdk_kms::Client,
    /// Id or ARN of the key in KMS.
    key: String,
    vault: OnceCell<Arc<Vault>>,
    /// Error and time of the last decryption, if it failed.
    failed: Mutex<Option<(Instant, NoVault)>>,
}

/// Time for which a failed call to KMS is not repeated: callers get the error of that call. Otherwise waiting
/// callers would call KMS one after the other, each until the timeout.
const PAUSE: Duration = Duration::from_secs(5);

#[async_trait]
impl VaultSource for DataKey {
    async fn vault(&self) -> Result<Arc<Vault>, NoVault> {
        self.vault.get_or_try_init(|| self.open_or_pause()).await.map(Arc::clone)
    }
}

impl DataKey {
    pub(crate) fn new(table: Table, kms: aws_sdk_kms::Client, key: String) -> Self {
        Self { table, kms, key, vault: OnceCell::new(), failed: Mutex::default() }
    }

    async fn open_or_pause(&self) -> Result<Arc<Vault>, NoVault> {
        let last = self.failed.lock().clone();
        if let Some((_, error)) = last.filter(|(at, _)| at.elapsed() < PAUSE) {
            return Err(error);
        }
        let opened = self.open().await.map_err(|error| NoVault::Unavailable(error.to_string()));
        if let Err(error) = &opened {
            *self.failed.lock() = Some((Instant::now(), error.clone()));
        }
        opened
    }

    async fn open(&self) -> Result<Arc<Vault>, StoreError> {
        let wrapped = match self.table.read(at(keys::RECORDS, keys::DATA_KEY)).await? {
            Some(item) => wrapped(&item)?,
            None => self.make().await?,
        };
        let unwrap = self
            .kms
            .decrypt()
            .key_id(&self.key)
            .ciphertext_blob(wrapped)
            .encryption_context(PURPOSE.0, PURPOSE.1);
        let plain = unwrap.send().await.map_err(failed)?.plaintext.ok_or(Unreadable("plaintext"))?;
        let bytes = plain.into_inner().try_into().map_err(|_| Unreadable("plaintext"))?;
        Ok(Arc::new(Vault::new(MasterKey::new(bytes), Vec::new())))
    }

    /// Generates a key and stores it, encrypted. If another process was faster, returns the key that the
    /// other process stored.
    async fn make(&self) -> Result<Blob, StoreError> {
        let request =
            self.kms.generate_data_key_without_plaintext().key_id(&self.key).key_spec(DataKeySpec::Aes256);
        let answer = request.encryption_context(PURPOSE.0, PURPOSE.1).send().await.map_err(failed)?;
        let made = answer.ciphertext_blob.ok_or(Unreadable("ciphertext"))?;
        let mut item = Item::from(at(keys::RECORDS, keys::DATA_KEY));
        item.insert(WRAPPED.to_owned(), AttributeValue::B(made.clone()));
        match self.table.put(item, Expression::default().when("attribute_not_exists(#PK)")).await? {
            WriteOutcome::Done(_) => Ok(made),
            WriteOutcome::Refused(found) => Ok(wrapped(&found)?),
        }
    }
}

fn wrapped(item: &Item) -> Result<Blob, Unreadable> {
    item.get(WRAPPED).and_then(|value| value.as_b().ok()).cloned().ok_or(Unreadable(WRAPPED))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nobat_core::secrets::vault::NoVault;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn unavailable_key_is_requested_once_for_all_waiters() {
        let (asked, listener) =
            (Arc::new(AtomicUsize::new(0)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            // The server closes every connection at once.
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        let source = crate::vault_of_emulator("table", "key", &url).await;
        let first = source.vault().await.unwrap_err();
        assert!(matches!(first, NoVault::Unavailable(_)), "{first}");
        let tries = asked.load(Ordering::SeqCst);
        assert!(tries > 0);
        for again in futures_util::future::join_all((0..20).map(|_| source.vault())).await {
            assert_eq!(again.unwrap_err(), first);
        }
        assert_eq!(asked.load(Ordering::SeqCst), tries);
    }
}
