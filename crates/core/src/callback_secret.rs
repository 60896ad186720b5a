//! What a tenant's callbacks are signed with.

use std::time::Duration;

use crate::name::Tenant;
use crate::secrets::{Secrets, TooMany};
use crate::stored::Unreadable;
use crate::time::Timestamp;
use crate::vault::Sealed;

/// The secrets of a tenant's callbacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallbackSecrets {
    /// The secrets.
    pub secrets: Secrets,
    /// Counts the writes to their record; 0 if there is none.
    pub version: u64,
}

impl CallbackSecrets {
    /// What a secret of that tenant is sealed for.
    pub fn place(tenant: &Tenant) -> String {
        format!("callback_secret/{tenant}")
    }

    /// The same with a new secret, as [`Secrets::with`] has it.
    pub fn with(&self, sealed: Sealed, overlap: Duration, now: Timestamp) -> Result<Self, TooMany> {
        Ok(Self { secrets: self.secrets.with(sealed, overlap, now)?, version: self.version + 1 })
    }

    /// The same with each sealed as `renew` has it.
    #[must_use]
    pub fn renewed(&self, renew: impl Fn(&Sealed) -> Sealed) -> Self {
        Self { secrets: self.secrets.renewed(renew), version: self.version }
    }

    /// The same without any.
    #[must_use]
    pub fn none(&self) -> Self {
        Self { secrets: Secrets::default(), version: self.version + 1 }
    }

    /// Its record: compact JSON, the same in every backend.
    pub fn to_text(&self) -> String {
        serde_json::to_string(&self.secrets).unwrap_or_else(|_| unreachable!("text and moments"))
    }

    /// The opposite of [`CallbackSecrets::to_text`].
    pub fn from_text(text: &str, version: u64) -> Result<Self, Unreadable> {
        let secrets = serde_json::from_str(text).map_err(|_| Unreadable("the secrets of callbacks"))?;
        Ok(Self { secrets, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::{MASTER_KEY_BYTES, MasterKey, Vault};

    #[test]
    fn what_is_sealed_anew_is_the_same_version_of_the_same() {
        let one = CallbackSecrets::default().with(sealed(1), Duration::ZERO, Timestamp::EPOCH).unwrap();
        let renewed = one.renewed(|_| sealed(2));
        assert_eq!(renewed.version, one.version);
        assert_eq!(renewed.secrets.live(Timestamp::EPOCH).map(|kept| kept.sealed.clone()).collect::<Vec<_>>(), [sealed(2)]);
    }

    fn sealed(byte: u8) -> Sealed {
        Vault::new(MasterKey::new([1; MASTER_KEY_BYTES]), Vec::new()).seal("", &[byte], [byte; 12])
    }

    #[test]
    fn a_secret_is_sealed_for_its_tenant() {
        let [one, other] = ["acme", "other"].map(|name| CallbackSecrets::place(&Tenant::new(name).unwrap()));
        assert_eq!(one, "callback_secret/acme", "what is stored was sealed for that");
        assert_ne!(one, other);
    }

    #[test]
    fn are_read_back_as_stored_and_count_their_writes() {
        let (now, hour) = (Timestamp::EPOCH, Duration::from_hours(1));
        let secrets = CallbackSecrets::default().with(sealed(1), hour, now).unwrap().with(sealed(2), hour, now).unwrap();
        assert_eq!(CallbackSecrets::from_text(&secrets.to_text(), 2).unwrap(), secrets);
        assert!(CallbackSecrets::from_text("{}", 1).is_err());
        let none = secrets.none();
        assert_eq!((none.version, none.secrets.live(now).count()), (3, 0));
    }
}
