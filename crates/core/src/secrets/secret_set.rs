//! Signing secrets and their rotation.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::secrets::vault::Sealed;
use crate::types::time::Timestamp;

/// Sealed signing secrets, newest first. During the grace period of a rotation, the new and the old secrets
/// sign every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretSet(Vec<StoredSecret>);

/// One signing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSecret {
    /// Sealed secret.
    pub sealed: Sealed,
    /// Time at which the secret was set.
    pub created_at: Timestamp,
    /// Time from which the secret no longer signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Maximum number of secrets that sign at the same time.
pub const MAX_LIVE: usize = 5;

/// The set already has [`MAX_LIVE`] secrets that sign.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_LIVE} secrets are in use; wait until one of them expires")]
pub struct TooMany;

impl SecretSet {
    /// Returns the secrets that sign at `now`, newest first.
    pub fn live(&self, now: Timestamp) -> impl Iterator<Item = &StoredSecret> {
        self.0.iter().filter(move |kept| kept.expires_at.is_none_or(|end| now < end))
    }

    /// Returns the set with a new secret added. Each other secret signs until the end of the grace period, or
    /// until its own expiry if that is earlier.
    pub fn with(&self, sealed: Sealed, grace_period: Duration, now: Timestamp) -> Result<Self, TooMany> {
        let end = now + grace_period;
        let ending = self.live(now).filter(|_| !grace_period.is_zero());
        let ending = ending.map(|kept| StoredSecret {
            expires_at: Some(kept.expires_at.map_or(end, |sooner| sooner.min(end))),
            ..kept.clone()
        });
        let newest = StoredSecret { sealed, created_at: now, expires_at: None };
        let kept: Vec<StoredSecret> = [newest].into_iter().chain(ending).collect();
        if kept.len() > MAX_LIVE { Err(TooMany) } else { Ok(Self(kept)) }
    }

    /// Returns the set in which `renew` has sealed each secret again.
    #[must_use]
    pub fn renewed(&self, renew: impl Fn(&Sealed) -> Sealed) -> Self {
        Self(self.0.iter().map(|kept| StoredSecret { sealed: renew(&kept.sealed), ..kept.clone() }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::vault::{MASTER_KEY_BYTES, MasterKey, Vault};

    const HOUR: Duration = Duration::from_hours(1);

    fn sealed(byte: u8) -> Sealed {
        Vault::new(MasterKey::new([1; MASTER_KEY_BYTES]), Vec::new()).seal("", &[byte], [byte; 12])
    }

    fn live(secrets: &SecretSet, now: Timestamp) -> Vec<Sealed> {
        secrets.live(now).map(|kept| kept.sealed.clone()).collect()
    }

    #[test]
    fn new_secret_replaces_the_old_after_the_grace_period() {
        let now = Timestamp::EPOCH;
        let one = SecretSet::default().with(sealed(1), HOUR, now).unwrap();
        assert_eq!(live(&one, now), [sealed(1)]);
        let both = one.with(sealed(2), HOUR, now).unwrap();
        assert_eq!(live(&both, now + HOUR - Duration::from_millis(1)), [sealed(2), sealed(1)]);
        assert_eq!(live(&both, now + HOUR), [sealed(2)]);
        assert_eq!(live(&both.with(sealed(3), Duration::ZERO, now).unwrap(), now), [sealed(3)]);
    }

    #[test]
    fn longer_grace_period_does_not_extend_an_earlier_end() {
        let now = Timestamp::EPOCH;
        let one =
            SecretSet::default().with(sealed(1), HOUR, now).unwrap().with(sealed(2), HOUR, now).unwrap();
        let three = one.with(sealed(3), 3 * HOUR, now).unwrap();
        assert_eq!(live(&three, now + HOUR), [sealed(3), sealed(2)]);
        assert_eq!(live(&three, now + 3 * HOUR), [sealed(3)]);
    }

    #[test]
    fn sixth_live_secret_is_refused() {
        let now = Timestamp::EPOCH;
        let full = (1..=5)
            .fold(SecretSet::default(), |secrets, byte| secrets.with(sealed(byte), HOUR, now).unwrap());
        assert_eq!(full.with(sealed(6), HOUR, now), Err(TooMany));
        assert!(full.with(sealed(6), HOUR, now + HOUR).is_ok(), "expired secrets do not count");
        assert!(full.with(sealed(6), Duration::ZERO, now).is_ok());
    }

    #[test]
    fn renewed_secrets_keep_their_expiry() {
        let now = Timestamp::EPOCH;
        let two =
            SecretSet::default().with(sealed(1), HOUR, now).unwrap().with(sealed(2), HOUR, now).unwrap();
        let renewed = two.renewed(|_| sealed(9));
        assert_eq!(
            (live(&renewed, now), live(&renewed, now + HOUR)),
            (vec![sealed(9), sealed(9)], vec![sealed(9)])
        );
    }
}
