//! What a tenant's callbacks are signed with.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::Tenant;
use crate::stored::Unreadable;
use crate::time::Timestamp;
use crate::vault::Sealed;

/// The secrets of a tenant's callbacks, sealed. While one takes the place of another, both sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallbackSecrets {
    kept: Vec<Kept>,
    /// Counts the writes to its record; 0 if there is none.
    pub version: u64,
}

/// One secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The secret.
    pub sealed: Sealed,
    /// When it was set.
    pub created_at: Timestamp,
    /// From when it signs no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// The most secrets that sign at a time.
pub const MAX_LIVE: usize = 5;

/// As many secrets sign as may.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_LIVE} secrets are in use")]
pub struct TooMany;

impl CallbackSecrets {
    /// What a secret of that tenant is sealed for.
    pub fn place(tenant: &Tenant) -> String {
        format!("callback_secret/{tenant}")
    }

    /// Those that sign at that moment, the newest first.
    pub fn live(&self, now: Timestamp) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(move |kept| kept.expires_at.is_none_or(|end| now < end))
    }

    /// The same with a new secret, beside which the others sign for `overlap` more, unless their time is over before.
    pub fn with(&self, sealed: Sealed, overlap: Duration, now: Timestamp) -> Result<Self, TooMany> {
        let end = now + overlap;
        let ending = self.live(now).filter(|_| !overlap.is_zero());
        let ending = ending.map(|kept| Kept { expires_at: Some(kept.expires_at.map_or(end, |sooner| sooner.min(end))), ..kept.clone() });
        let newest = Kept { sealed, created_at: now, expires_at: None };
        let kept: Vec<Kept> = [newest].into_iter().chain(ending).collect();
        if kept.len() > MAX_LIVE { Err(TooMany) } else { Ok(Self { kept, version: self.version + 1 }) }
    }

    /// The same with each sealed as `renew` has it.
    #[must_use]
    pub fn renewed(&self, renew: impl Fn(&Sealed) -> Sealed) -> Self {
        let kept = self.kept.iter().map(|kept| Kept { sealed: renew(&kept.sealed), ..kept.clone() }).collect();
        Self { kept, version: self.version }
    }

    /// The same without any.
    #[must_use]
    pub fn none(&self) -> Self {
        Self { kept: Vec::new(), version: self.version + 1 }
    }

    /// Its record: compact JSON, the same in every backend.
    pub fn to_text(&self) -> String {
        serde_json::to_string(&self.kept).unwrap_or_else(|_| unreachable!("text and moments"))
    }

    /// The opposite of [`CallbackSecrets::to_text`].
    pub fn from_text(text: &str, version: u64) -> Result<Self, Unreadable> {
        let kept = serde_json::from_str(text).map_err(|_| Unreadable("the secrets of callbacks"))?;
        Ok(Self { kept, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::{MASTER_KEY_BYTES, MasterKey, Vault};

    const HOUR: Duration = Duration::from_hours(1);

    fn sealed(byte: u8) -> Sealed {
        Vault::new(MasterKey::new([1; MASTER_KEY_BYTES]), Vec::new()).seal("", &[byte], [byte; 12])
    }

    fn live(secrets: &CallbackSecrets, now: Timestamp) -> Vec<Sealed> {
        secrets.live(now).map(|kept| kept.sealed.clone()).collect()
    }

    #[test]
    fn one_replaces_another_at_once_or_after_an_overlap() {
        let now = Timestamp::EPOCH;
        let one = CallbackSecrets::default().with(sealed(1), HOUR, now).unwrap();
        assert_eq!((live(&one, now), one.version), (vec![sealed(1)], 1));
        let both = one.with(sealed(2), HOUR, now).unwrap();
        assert_eq!(live(&both, now + HOUR - Duration::from_millis(1)), [sealed(2), sealed(1)]);
        assert_eq!(live(&both, now + HOUR), [sealed(2)]);
        assert_eq!(live(&both.with(sealed(3), Duration::ZERO, now).unwrap(), now), [sealed(3)]);
        assert_eq!((live(&both.none(), now), both.none().version), (vec![], 3));
    }

    #[test]
    fn a_longer_overlap_does_not_bring_more_time_to_one_that_ends() {
        let now = Timestamp::EPOCH;
        let one = CallbackSecrets::default().with(sealed(1), HOUR, now).unwrap().with(sealed(2), HOUR, now).unwrap();
        let three = one.with(sealed(3), 3 * HOUR, now).unwrap();
        assert_eq!(live(&three, now + HOUR), [sealed(3), sealed(2)]);
        assert_eq!(live(&three, now + 3 * HOUR), [sealed(3)]);
    }

    #[test]
    fn so_many_sign_at_a_time_and_not_more() {
        let now = Timestamp::EPOCH;
        let full = (1..=5).fold(CallbackSecrets::default(), |secrets, byte| secrets.with(sealed(byte), HOUR, now).unwrap());
        assert_eq!(full.with(sealed(6), HOUR, now), Err(TooMany));
        assert!(full.with(sealed(6), HOUR, now + HOUR).is_ok(), "those that ended make room");
        assert!(full.with(sealed(6), Duration::ZERO, now).is_ok());
    }

    #[test]
    fn a_secret_is_sealed_for_its_tenant() {
        let [one, other] = ["acme", "other"].map(|name| CallbackSecrets::place(&Tenant::new(name).unwrap()));
        assert_eq!(one, "callback_secret/acme", "what is stored was sealed for that");
        assert_ne!(one, other);
    }

    #[test]
    fn are_read_back_as_stored() {
        let secrets =
            CallbackSecrets::default().with(sealed(1), HOUR, Timestamp::EPOCH).unwrap().with(sealed(2), HOUR, Timestamp::EPOCH).unwrap();
        assert_eq!(CallbackSecrets::from_text(&secrets.to_text(), 2).unwrap(), secrets);
        assert!(CallbackSecrets::from_text("{}", 1).is_err());
    }
}
