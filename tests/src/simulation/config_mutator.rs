//! Operator that pauses queues, kinds and endpoints, removes endpoints, and opens everything again.

use std::time::Duration;

use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::config::endpoint::EndpointStatus;
use nobat_core::config::queue::QueueConfig;
use nobat_core::config::record::{RecordKind, RecordName};
use nobat_core::limits::{LimitScope, LimiterChange, LimiterKey};
use nobat_core::ports::config_store::RecordResult;
use nobat_core::ports::{Clock, ListQuery, Random, StoreError};
use nobat_core::service::backend::Backend;
use nobat_core::task::{Status, Task};
use nobat_core::types::name::Tenant;

use super::limits::{QUEUE, TENANTS};
use crate::sample;
use crate::simulation::context::Stage;
use crate::simulation::external_server::{PARTNER, Partner};

/// Operator.
pub struct Keeper<'a> {
    /// State that all actors share.
    pub stage: &'a Stage,
    /// Name in the trace.
    pub actor: &'a str,
    /// Access to the backend.
    pub backend: &'a Backend,
    /// Clock of the operator.
    pub clock: &'a dyn Clock,
}

/// Wanted state of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Open,
    Paused,
    /// Removed. A record that cannot be removed is paused.
    Away,
}

/// Pause before a retry of a necessary change.
const PAUSE: Duration = Duration::from_secs(5);

impl Keeper<'_> {
    /// Changes a random record and ignores errors.
    pub async fn change(&self) {
        let dice = &self.stage.dice;
        let Some(name) = dice.pick(&all(self.stage)) else { return };
        let wanted =
            dice.pick(&[Wanted::Open, Wanted::Paused, Wanted::Paused, Wanted::Away]).unwrap_or(Wanted::Open);
        let _ = self.set(&name, wanted).await;
    }

    /// Opens every record, and retries until each is open.
    pub async fn open_everything(&self) {
        for name in all(self.stage) {
            while !matches!(self.set(&name, Wanted::Open).await, Ok(RecordResult::Done)) {
                self.clock.sleep(PAUSE).await;
            }
        }
    }

    async fn set(&self, name: &RecordName, wanted: Wanted) -> Result<RecordResult, StoreError> {
        self.stage.trace(self.actor, format_args!("sets {} {} to {wanted:?}", name.kind.as_str(), name.name));
        let recorded = match (&name.tenant, &self.stage.plan.partner) {
            (Some(tenant), Some(partner)) if name.kind == RecordKind::Endpoint => {
                self.set_endpoint(tenant, name, partner, wanted).await?
            }
            _ => self.set_lane(name, wanted).await?,
        };
        if wanted == Wanted::Open && recorded == RecordResult::Done {
            self.wake(name).await;
        }
        Ok(recorded)
    }

    async fn set_lane(&self, name: &RecordName, wanted: Wanted) -> Result<RecordResult, StoreError> {
        let current = self.backend.config.queue_config(name).await?;
        let lane = QueueConfig { paused: wanted != Wanted::Open, version: current.version + 1, ..current };
        let action = if name.kind == RecordKind::Kind { Action::KindChanged } else { Action::QueueChanged };
        self.backend.config.write(vec![lane.record(name.clone())], self.entry(name, action)).await
    }

    async fn set_endpoint(
        &self,
        tenant: &Tenant,
        name: &RecordName,
        partner: &Partner,
        wanted: Wanted,
    ) -> Result<RecordResult, StoreError> {
        let registry = &self.backend.config;
        let version = registry.endpoint(tenant, &name.name).await?.map(|endpoint| endpoint.version);
        let status = match (wanted, version) {
            (Wanted::Away, Some(version)) => {
                return registry.remove(name, version, self.entry(name, Action::EndpointRemoved)).await;
            }
            (Wanted::Away, None) => return Ok(RecordResult::Done),
            (Wanted::Paused, _) => EndpointStatus::Paused,
            (Wanted::Open, _) => EndpointStatus::Open,
        };
        let endpoint = partner.endpoint(status, version.unwrap_or(0) + 1);
        registry
            .write(vec![endpoint.record(tenant, &name.name)], self.entry(name, Action::EndpointChanged))
            .await
    }

    fn entry(&self, name: &RecordName, action: Action) -> Entry {
        Entry {
            tenant: name.tenant.clone().unwrap_or_default(),
            at: self.clock.now(),
            actor: Actor::Anonymous,
            action,
            target: name.name.to_string(),
            mark: self.stage.dice.next_u64(),
        }
    }

    /// Wakes held tasks, as the API does. Tasks that it does not reach only start later.
    async fn wake(&self, name: &RecordName) {
        let of = |sort| (name.kind == sort).then(|| name.name.clone());
        let (queue, kind, endpoint) = (of(RecordKind::Queue), of(RecordKind::Kind), of(RecordKind::Endpoint));
        let (tenant, status) = (name.tenant.clone().unwrap_or_default(), Some(Status::Held));
        let query = ListQuery { status, queue, kind, ..ListQuery::all(tenant, 10) };
        if let (Some(endpoint), Some(tenant)) = (&endpoint, &name.tenant) {
            let of = LimiterKey { tenant: tenant.clone(), scope: LimitScope::Endpoint(endpoint.clone()) };
            let _ = self.backend.limiters.change(&of, LimiterChange::ClearPause, self.clock.now()).await;
        }
        let is_meant = |task: &Task| endpoint.is_none() || task.options.endpoint == endpoint;
        let _ = self.backend.wake(query, is_meant, self.clock.now()).await;
    }
}

/// Returns the names of all records that can be closed.
fn all(stage: &Stage) -> Vec<RecordName> {
    let lanes = [(RecordKind::Queue, QUEUE), (RecordKind::Kind, "work"), (RecordKind::Kind, "rare")];
    let endpoint = stage.plan.partner.as_ref().map(|_| (RecordKind::Endpoint, PARTNER));
    let of = |tenant: Tenant| {
        let named = lanes.into_iter().chain(endpoint);
        named.map(move |(sort, name)| RecordName {
            tenant: Some(tenant.clone()),
            kind: sort,
            name: sample::name(name),
        })
    };
    TENANTS.map(sample::tenant).into_iter().flat_map(of).collect()
}
