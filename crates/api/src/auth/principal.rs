//! Authenticated client.

use nobat_core::auth::api_key::KeyId;
use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::auth::scope::{Scope, Scopes};
use nobat_core::config::tenant::TenantSettings;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

/// Authenticated client of a request.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// Tenant that the client belongs to.
    pub(crate) tenant: Tenant,
    /// Scopes that the client has.
    pub(crate) scopes: Scopes,
    /// Name of the client in the audit trail.
    pub(crate) actor: Actor,
    /// Configuration of the client's tenant.
    pub(crate) settings: TenantSettings,
}

impl Principal {
    /// Returns true if the client may see payloads and results (scope `payload:view`).
    pub(crate) fn sees_bodies(&self) -> bool {
        self.scopes.contains(Scope::PayloadView)
    }

    /// Id of the API key that the request was made with. `None` if the server required no key.
    pub(crate) fn key(&self) -> Option<KeyId> {
        match self.actor {
            Actor::Key(id) => Some(id),
            Actor::Anonymous | Actor::Operator | Actor::Worker => None,
        }
    }

    /// Returns the audit entry for an action of this client.
    pub(crate) fn entry(
        &self,
        tenant: &Tenant,
        action: Action,
        target: &impl ToString,
        now: Timestamp,
    ) -> Entry {
        Entry {
            tenant: tenant.clone(),
            at: now,
            actor: self.actor,
            action,
            target: target.to_string(),
            mark: rand::random(),
        }
    }
}
