//! Signs callbacks with what their tenant has set, and what goes to an endpoint with that endpoint's secrets, so that receivers know who
//! calls: Standard Webhooks 1.0.0.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use nobat_core::callback_secret::CallbackSecrets;
use nobat_core::endpoint::Endpoint;
use nobat_core::name::{Name, Tenant};
use nobat_core::ports::{Clock, StoreError};
use nobat_core::registry::Registry;
use nobat_core::time::Timestamp;
use nobat_core::vault::{CannotOpen, NoVault, VaultSource};
use nobat_core::webhook::{InvalidSecret, WebhookSecret, seconds, signature};

/// For how long a process believes what it has read of a tenant's secrets.
const FRESH: Duration = Duration::from_secs(10);
/// Callbacks of more tenants than that are seldom on their way at the same time; what is forgotten is read again.
const MAX_KNOWN: usize = 1_000;

/// Signs callbacks, and what goes to endpoints.
pub struct Signer {
    registry: Arc<dyn Registry>,
    vault: Arc<dyn VaultSource>,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<Tenant, Known>>,
}

/// A tenant's secrets, as they were read at a moment.
#[derive(Clone)]
struct Known {
    secrets: Arc<[Opened]>,
    read_at: Timestamp,
}

/// One of them, and from when it signs no more.
struct Opened {
    secret: WebhookSecret,
    expires_at: Option<Timestamp>,
}

/// Why something cannot be signed. It is not sent without.
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
    #[error("a header cannot be sent")]
    Header,
}

/// An endpoint, and where it is kept.
pub(crate) struct At<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) name: &'a Name,
    pub(crate) endpoint: &'a Endpoint,
}

impl At<'_> {
    fn place(&self) -> String {
        Endpoint::place(self.tenant, self.name)
    }
}

fn add(signature: String, id: &str, now: Timestamp, headers: &mut HeaderMap) {
    headers.insert("webhook-timestamp", HeaderValue::from(seconds(now)));
    for (name, value) in [("webhook-id", id.to_owned()), ("webhook-signature", signature)] {
        headers.insert(name, HeaderValue::try_from(value).unwrap_or_else(|_| unreachable!("digits, letters and base64")));
    }
}

impl Signer {
    /// Signs with what stands in that registry, sealed by that vault.
    pub fn new(registry: Arc<dyn Registry>, vault: Arc<dyn VaultSource>, clock: Arc<dyn Clock>) -> Self {
        Self { registry, vault, clock, known: Mutex::default() }
    }

    /// Adds the headers by which the receiver of that body knows whose callback it is; none, if the tenant has set no secret.
    ///
    /// `id` is the same over all attempts, so that the receiver knows one that was repeated, and another after a replay that asks for that.
    pub(crate) async fn sign(&self, tenant: &Tenant, id: &str, body: &[u8], headers: &mut HeaderMap) -> Result<(), CannotSign> {
        let now = self.clock.now();
        let secrets = self.secrets(tenant, now).await?;
        let mut live =
            secrets.iter().filter(|opened| opened.expires_at.is_none_or(|end| now < end)).map(|opened| &opened.secret).peekable();
        if live.peek().is_some() {
            add(signature(live, id, now, body), id, now, headers);
        }
        Ok(())
    }

    /// The same for what goes to an endpoint.
    pub(crate) async fn sign_for(&self, at: &At<'_>, id: &str, body: &[u8], headers: &mut HeaderMap) -> Result<(), CannotSign> {
        let now = self.clock.now();
        let vault = self.vault.vault().await?;
        let open = |sealed| Ok::<_, CannotSign>(WebhookSecret::from_bytes(vault.open(&at.place(), sealed)?)?);
        let secrets: Vec<WebhookSecret> = at.endpoint.secrets.live(now).map(|kept| open(&kept.sealed)).collect::<Result<_, _>>()?;
        if !secrets.is_empty() {
            add(signature(&secrets, id, now, body), id, now, headers);
        }
        Ok(())
    }

    /// The headers that every request to an endpoint gets.
    pub(crate) async fn headers_of(&self, at: &At<'_>) -> Result<HeaderMap, CannotSign> {
        let mut headers = HeaderMap::new();
        if at.endpoint.headers.is_empty() {
            return Ok(headers);
        }
        let vault = self.vault.vault().await?;
        for (name, sealed) in &at.endpoint.headers {
            let name = HeaderName::try_from(name).map_err(|_| CannotSign::Header)?;
            let mut value = HeaderValue::try_from(vault.open(&at.place(), sealed)?).map_err(|_| CannotSign::Header)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    async fn secrets(&self, tenant: &Tenant, now: Timestamp) -> Result<Arc<[Opened]>, CannotSign> {
        // A clock that was set back makes nothing fresh for longer.
        let known = self.lock().get(tenant).filter(|known| known.read_at <= now && now < known.read_at + FRESH).cloned();
        if let Some(known) = known {
            return Ok(known.secrets);
        }
        let secrets = self.read(tenant, now).await?;
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(tenant.clone(), Known { secrets: Arc::clone(&secrets), read_at: now });
        Ok(secrets)
    }

    async fn read(&self, tenant: &Tenant, now: Timestamp) -> Result<Arc<[Opened]>, CannotSign> {
        let sealed = self.registry.callback_secrets(tenant).await?;
        let mut live = sealed.secrets.live(now).peekable();
        if live.peek().is_none() {
            // Whoever has none needs no vault.
            return Ok(Arc::default());
        }
        let (vault, place) = (self.vault.vault().await?, CallbackSecrets::place(tenant));
        live.map(|kept| {
            let secret = WebhookSecret::from_bytes(vault.open(&place, &kept.sealed)?)?;
            Ok(Opened { secret, expires_at: kept.expires_at })
        })
        .collect()
    }

    /// Nothing is left half done under the lock, so a panic elsewhere does not spoil what it guards.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Tenant, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
