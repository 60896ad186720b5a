//! Signs callbacks with the tenant's secrets, and requests to an endpoint with that endpoint's secrets, by
//! Standard Webhooks 1.0.0.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use nobat_core::config::callback_secret::CallbackSecrets;
use nobat_core::config::endpoint::Endpoint;
use nobat_core::ports::config_store::ConfigStore;
use nobat_core::ports::{Clock, StoreError};
use nobat_core::secrets::secret_set::{SecretSet, StoredSecret};
use nobat_core::secrets::vault::{CannotOpen, NoVault, VaultSource};
use nobat_core::secrets::webhook::{InvalidSecret, WebhookSecret, seconds, signature};
use nobat_core::service::config_cache::{ConfigCache, ConfigEpoch};
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;

/// Signs callbacks and requests to endpoints.
pub struct Signer {
    config_cache: ConfigCache,
    vault: Arc<dyn VaultSource>,
    clock: Arc<dyn Clock>,
}

/// Error while signing. An unsigned request is not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotSign {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Vault(#[from] NoVault),
    #[error("a secret cannot be read: {0}")]
    Closed(#[from] CannotOpen),
    #[error("a secret cannot be read: {0}")]
    Misread(#[from] InvalidSecret),
    #[error("a stored header of the endpoint is not a valid HTTP header")]
    Header,
}

/// An endpoint with its tenant and name.
pub(crate) struct NamedEndpoint<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) name: &'a Name,
    pub(crate) endpoint: &'a Endpoint,
}

impl NamedEndpoint<'_> {
    fn secret_context(&self) -> String {
        Endpoint::secret_context(self.tenant, self.name)
    }
}

fn add(signature: String, id: &str, now: Timestamp, headers: &mut HeaderMap) {
    headers.insert("webhook-timestamp", HeaderValue::from(seconds(now)));
    for (name, value) in [("webhook-id", id.to_owned()), ("webhook-signature", signature)] {
        headers.insert(
            name,
            HeaderValue::try_from(value)
                .unwrap_or_else(|_| unreachable!("ids and signatures are valid header values")),
        );
    }
}

impl Signer {
    /// Creates a signer that reads secrets from `registry` and decrypts them with `vault`.
    ///
    /// A configuration change that this process makes with the same `epoch` applies at once. Other changes
    /// apply within [`nobat_core::types::intervals::CONFIG_TTL`].
    pub fn new(
        registry: Arc<dyn ConfigStore>,
        vault: Arc<dyn VaultSource>,
        clock: Arc<dyn Clock>,
        epoch: ConfigEpoch,
    ) -> Self {
        Self { config_cache: ConfigCache::new(registry, Arc::clone(&clock), epoch), vault, clock }
    }

    /// Adds the signature headers of a callback. Adds none if the tenant has no secret.
    ///
    /// `id` is the same for all attempts, so that the receiver recognizes repetitions. A replay can request a
    /// new id.
    pub(crate) async fn sign(
        &self,
        tenant: &Tenant,
        id: &str,
        body: &[u8],
        headers: &mut HeaderMap,
    ) -> Result<(), CannotSign> {
        let secrets = self.config_cache.callback_secrets(tenant).await?;
        self.sign_with(&secrets.secrets, &CallbackSecrets::secret_context(tenant), id, body, headers).await
    }

    /// Adds the signature headers of a request to an endpoint.
    pub(crate) async fn sign_for(
        &self,
        at: &NamedEndpoint<'_>,
        id: &str,
        body: &[u8],
        headers: &mut HeaderMap,
    ) -> Result<(), CannotSign> {
        self.sign_with(&at.endpoint.secrets, &at.secret_context(), id, body, headers).await
    }

    /// Adds one signature for each valid secret. Adds no headers if no secret is valid.
    async fn sign_with(
        &self,
        secrets: &SecretSet,
        place: &str,
        id: &str,
        body: &[u8],
        headers: &mut HeaderMap,
    ) -> Result<(), CannotSign> {
        let now = self.clock.now();
        if secrets.live(now).next().is_none() {
            // Without secrets no vault is needed, and the program may have none.
            return Ok(());
        }
        let vault = self.vault.vault().await?;
        let open = |kept: &StoredSecret| {
            Ok::<_, CannotSign>(WebhookSecret::from_bytes(vault.open(place, &kept.sealed)?)?)
        };
        let live: Vec<WebhookSecret> = secrets.live(now).map(open).collect::<Result<_, _>>()?;
        add(signature(&live, id, now, body), id, now, headers);
        Ok(())
    }

    /// Returns the headers that every request to the endpoint gets.
    pub(crate) async fn headers_of(&self, at: &NamedEndpoint<'_>) -> Result<HeaderMap, CannotSign> {
        let mut headers = HeaderMap::new();
        if at.endpoint.headers.is_empty() {
            return Ok(headers);
        }
        let vault = self.vault.vault().await?;
        for (name, sealed) in &at.endpoint.headers {
            let name = HeaderName::try_from(name).map_err(|_| CannotSign::Header)?;
            let mut value = HeaderValue::try_from(vault.open(&at.secret_context(), sealed)?)
                .map_err(|_| CannotSign::Header)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }
}
