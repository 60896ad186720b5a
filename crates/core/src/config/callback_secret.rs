//! Signing secrets of a tenant's callbacks.

use std::time::Duration;

use crate::secrets::secret_set::{SecretSet, TooMany};
use crate::secrets::vault::Sealed;
use crate::types::name::Tenant;
use crate::types::time::Timestamp;
use crate::types::unreadable::Unreadable;

/// Signing secrets of a tenant's callbacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallbackSecrets {
    /// Sealed secrets, newest first.
    pub secrets: SecretSet,
    /// Number of writes to the record. 0 if there is no record.
    pub version: u64,
}

impl CallbackSecrets {
    /// Returns the `place` argument of [`Vault::seal`](crate::secrets::vault::Vault::seal) for this tenant's
    /// secrets.
    pub fn secret_context(tenant: &Tenant) -> String {
        format!("callback_secret/{tenant}")
    }

    /// Returns a copy with one more secret ([`SecretSet::with`]) and the next version.
    pub fn with(&self, sealed: Sealed, overlap: Duration, now: Timestamp) -> Result<Self, TooMany> {
        Ok(Self { secrets: self.secrets.with(sealed, overlap, now)?, version: self.version + 1 })
    }

    /// Returns a copy in which `renew` has sealed each secret again. The version stays the same.
    #[must_use]
    pub fn renewed(&self, renew: impl Fn(&Sealed) -> Sealed) -> Self {
        Self { secrets: self.secrets.renewed(renew), version: self.version }
    }

    /// Returns a copy without secrets and with the next version.
    #[must_use]
    pub fn none(&self) -> Self {
        Self { secrets: SecretSet::default(), version: self.version + 1 }
    }

    /// Returns the stored form: compact JSON, the same in every backend.
    pub fn to_text(&self) -> String {
        serde_json::to_string(&self.secrets).unwrap_or_else(|_| unreachable!("texts and times serialize"))
    }

    /// Inverse of [`CallbackSecrets::to_text`].
    pub fn from_text(text: &str, version: u64) -> Result<Self, Unreadable> {
        let secrets =
            serde_json::from_str(text).map_err(|_| Unreadable("the signing secrets of callbacks"))?;
        Ok(Self { secrets, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::vault::{MASTER_KEY_BYTES, MasterKey, Vault};

    #[test]
    fn renewed_secrets_keep_their_version() {
        let one = CallbackSecrets::default().with(sealed(1), Duration::ZERO, Timestamp::EPOCH).unwrap();
        let renewed = one.renewed(|_| sealed(2));
        assert_eq!(renewed.version, one.version);
        assert_eq!(
            renewed.secrets.live(Timestamp::EPOCH).map(|kept| kept.sealed.clone()).collect::<Vec<_>>(),
            [sealed(2)]
        );
    }

    fn sealed(byte: u8) -> Sealed {
        Vault::new(MasterKey::new([1; MASTER_KEY_BYTES]), Vec::new()).seal("", &[byte], [byte; 12])
    }

    #[test]
    fn a_secret_is_sealed_for_its_tenant() {
        let [one, other] =
            ["acme", "other"].map(|name| CallbackSecrets::secret_context(&Tenant::new(name).unwrap()));
        assert_eq!(one, "callback_secret/acme", "stored secrets were sealed for this context");
        assert_ne!(one, other);
    }

    #[test]
    fn secrets_are_read_back_and_count_their_writes() {
        let (now, hour) = (Timestamp::EPOCH, Duration::from_hours(1));
        let secrets = CallbackSecrets::default()
            .with(sealed(1), hour, now)
            .unwrap()
            .with(sealed(2), hour, now)
            .unwrap();
        assert_eq!(CallbackSecrets::from_text(&secrets.to_text(), 2).unwrap(), secrets);
        assert!(CallbackSecrets::from_text("{}", 1).is_err());
        let none = secrets.none();
        assert_eq!((none.version, none.secrets.live(now).count()), (3, 0));
    }
}
