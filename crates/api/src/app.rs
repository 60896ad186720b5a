//! State that the request handlers share.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use nobat_core::config::endpoint::EndpointTester;
use nobat_core::config::kind::KindRegistry;
use nobat_core::config::tenant::TenantSettings;
use nobat_core::ports::{Clock, QueueLoad, StoreError};
use nobat_core::secrets::vault::VaultSource;
use nobat_core::service::backend::Backend;
use nobat_core::service::config_cache::{ConfigCache, ConfigEpoch};
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::auth::cache::AuthCache;
use crate::auth::policy::{AccessPolicy, AuthMode};
use crate::quotas::body_budget::BodyBudget;
use crate::quotas::endpoint_test_slots::TestSlots;
use crate::quotas::pending_quota::PendingQuota;
use crate::quotas::request_rate::RequestRates;
use crate::readiness::Readiness;
use crate::routes::sources::counters::SourceCounters;

/// State that all request handlers share.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    parts: AppConfig,
    auth_cache: AuthCache,
    bodies: Arc<BodyBudget>,
    permits: RequestRates,
    pending_quota: PendingQuota,
    readiness: Readiness,
    config_cache: ConfigCache,
    test_slots: TestSlots,
    source_counters: SourceCounters,
}

/// Parts of an [`App`].
pub struct AppConfig {
    /// Stores of tasks, configuration and limiter state, and the message queue.
    pub backend: Backend,
    /// Clock and timer.
    pub clock: Arc<dyn Clock>,
    /// Kinds that this server runs. The registry also validates submissions.
    pub kinds: Arc<dyn KindRegistry>,
    /// Access policy of the API.
    pub access_policy: AccessPolicy,
    /// Minimum time between two counts of a tenant's pending tasks, because a count can be costly.
    pub recount: Duration,
    /// Maximum timeout that workers grant to one attempt.
    pub max_timeout: Duration,
    /// Maximum time for which `?wait=` holds a response.
    pub max_wait: Duration,
    /// Client that makes test calls to endpoints.
    pub tester: Arc<dyn EndpointTester>,
    /// Source of the vault, which encrypts secrets before the server stores them.
    pub vault: Arc<dyn VaultSource>,
    /// Key that authenticates the cursors of lists. All processes behind one address need the same key.
    pub cursor_key: [u8; 32],
    /// Counters of configuration changes. The API and the workers of this process share the counters, so a
    /// change by the API applies to the workers at once.
    pub epoch: ConfigEpoch,
    /// Shutdown signal. Once it fires, the server sends the responses that `?wait=` holds.
    pub shutdown: CancellationToken,
}

impl App {
    /// Creates the shared state of the handlers.
    pub fn new(parts: AppConfig) -> Self {
        let auth_cache = AuthCache::new(parts.access_policy.keys);
        let config_cache = ConfigCache::new(
            Arc::clone(&parts.backend.config),
            Arc::clone(&parts.clock),
            parts.epoch.clone(),
        );
        let (permits, pending_quota, readiness) =
            (RequestRates::default(), PendingQuota::default(), Readiness::default());
        let test_slots = TestSlots::default();
        Self(Arc::new(Inner {
            parts,
            auth_cache,
            bodies: Arc::default(),
            permits,
            pending_quota,
            readiness,
            config_cache,
            test_slots,
            source_counters: SourceCounters::default(),
        }))
    }

    /// Returns the cache of keys and of tenants' limits.
    pub(crate) fn auth_cache(&self) -> &AuthCache {
        &self.0.auth_cache
    }

    /// Returns the limit on the memory that request bodies occupy.
    pub(crate) fn bodies(&self) -> &Arc<BodyBudget> {
        &self.0.bodies
    }

    /// Returns the request rate limits of tenants.
    pub(crate) fn permits(&self) -> &RequestRates {
        &self.0.permits
    }

    /// Returns the latest result of the readiness check.
    pub(crate) fn readiness(&self) -> &Readiness {
        &self.0.readiness
    }

    /// Returns the cached configuration of endpoints, queues and kinds.
    pub(crate) fn config_cache(&self) -> &ConfigCache {
        &self.0.config_cache
    }

    /// Returns the limits on endpoint tests in progress.
    pub(crate) fn test_slots(&self) -> &TestSlots {
        &self.0.test_slots
    }

    /// Returns the limits of a tenant. A server that never asks for keys has none.
    pub(crate) async fn tenant_settings(
        &self,
        tenant: &Tenant,
        now: Timestamp,
    ) -> Result<TenantSettings, StoreError> {
        if self.access_policy.keys == AuthMode::Never {
            return Ok(TenantSettings::default());
        }
        self.auth_cache().settings(&self.backend, tenant, now).await
    }

    /// Returns the counters of the requests to sources.
    pub(crate) fn source_counters(&self) -> &SourceCounters {
        &self.0.source_counters
    }

    /// Returns the load of each limited resource that the tenants of this process share.
    pub(crate) fn loads(&self) -> Vec<QueueLoad> {
        let own = [self.bodies().load(), self.auth_cache().lookups().load(), self.test_slots().load()];
        self.backend.store.load().into_iter().chain(own).collect()
    }

    /// Returns the counts of tenants' pending tasks.
    pub(crate) fn pending_quota(&self) -> &PendingQuota {
        &self.0.pending_quota
    }
}

impl Deref for App {
    type Target = AppConfig;

    fn deref(&self) -> &AppConfig {
        &self.0.parts
    }
}
