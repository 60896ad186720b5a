//! Limits of a run: rates, concurrency, and the endpoint of tasks.

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::FutureExt;
use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::config::endpoint::EndpointStatus;
use nobat_core::config::queue::QueueConfig;
use nobat_core::config::record::RecordKind;
use nobat_core::limits::{LimitScope, Limits, RateLimit};
use nobat_core::ports::config_store::RecordResult;
use nobat_core::service::backend::Backend;

use super::plan::Plan;
use crate::sample;
use crate::simulation::context::Stage;
use crate::simulation::external_server::{PARTNER, Partner};
use crate::simulation::rng::Dice;

/// Tenants of the tasks.
pub const TENANTS: [&str; 2] = ["default", "other"];
/// Limit keys of the tasks.
pub const KEYS: [&str; 2] = ["key-a", "key-b"];
/// Queue of some tasks.
pub const QUEUE: &str = "narrow";

/// Limits of a scope.
#[derive(Clone, Debug)]
pub struct Laid {
    /// Scope of the limits.
    pub of: LimitScope,
    /// Limits of the scope.
    pub limits: Limits,
}

/// Limits of a run, and how often an operator pauses something.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    limits: Vec<Laid>,
    partner: Option<Partner>,
    changes: u64,
}

impl Drawn {
    /// Returns the plan with these limits.
    pub fn over(self, plan: Plan) -> Plan {
        Plan { limits: self.limits, partner: self.partner, changes: self.changes, ..plan }
    }
}

/// Draws the limits of a run. Half of the runs have none.
pub fn drawn(dice: &Dice) -> Drawn {
    if dice.per_mille(500) {
        return Drawn::default();
    }
    let [first, second] = KEYS.map(|key| LimitScope::Key(sample::name(key)));
    let queue = LimitScope::Queue(sample::name(QUEUE));
    let kind = LimitScope::Kind(sample::name(dice.pick(&["work", "rare"]).unwrap_or("work")));
    let mut laid = Vec::new();
    for (of, per_mille, more) in [(first, 800, 1), (second, 400, 1), (queue, 400, 2), (kind, 300, 5)] {
        if dice.per_mille(per_mille) {
            laid.push(Laid { of, limits: limits(dice, more) });
        }
    }
    let partner = dice.per_mille(600).then(|| {
        let limits = if dice.per_mille(700) { limits(dice, 2) } else { Limits::default() };
        Partner::drawn(dice, limits)
    });
    laid.extend(
        partner
            .as_ref()
            .map(|partner| Laid { of: LimitScope::Endpoint(sample::name(PARTNER)), limits: partner.limits }),
    );
    let changes = if dice.per_mille(500) { dice.between(20, 200) } else { 0 };
    Drawn { limits: laid, partner, changes }
}

/// Draws limits. `more` multiplies the small base values.
fn limits(dice: &Dice, more: u32) -> Limits {
    let count = |of: &[u32]| NonZeroU32::MIN.saturating_add(dice.pick(of).unwrap_or(1) * more - 1);
    let period = Duration::from_secs(dice.pick(&[1, 10, 60]).unwrap_or(1));
    let rate_limit = RateLimit { rate: count(&[1, 2, 5]), period, burst: count(&[1, 1, 3]) };
    let concurrency = Some(count(&[1, 2, 4]));
    match dice.below(3) {
        0 => Limits { rate: Some(rate_limit), ..Limits::default() },
        1 => Limits { concurrency, ..Limits::default() },
        _ => Limits { rate: Some(rate_limit), concurrency, breaker: None },
    }
}

/// Writes the limits for every tenant, as the API does.
pub fn write_limits(stage: &Stage, backend: &Backend) {
    for tenant in TENANTS.map(sample::tenant) {
        for (place, Laid { of, limits }) in (0..).zip(&stage.plan.limits) {
            let (sort, action) = match of {
                LimitScope::Key(_) => (RecordKind::LimitKey, Action::LimitsChanged),
                LimitScope::Queue(_) => (RecordKind::Queue, Action::QueueChanged),
                LimitScope::Endpoint(_) => (RecordKind::Endpoint, Action::EndpointChanged),
                _ => (RecordKind::Kind, Action::KindChanged),
            };
            let Some(name) = of.name() else { continue };
            let record = match &stage.plan.partner {
                Some(partner) if sort == RecordKind::Endpoint => {
                    partner.endpoint(EndpointStatus::Open, 1).record(&tenant, name)
                }
                _ => QueueConfig { limits: *limits, version: 1, ..QueueConfig::default() }
                    .record(QueueConfig::record_name(&tenant, sort, name)),
            };
            let entry = Entry {
                tenant: tenant.clone(),
                at: stage.time.now(),
                actor: Actor::Anonymous,
                action,
                target: name.to_string(),
                mark: place,
            };
            let written = backend.config.write(vec![record], entry).now_or_never();
            assert!(
                matches!(written, Some(Ok(RecordResult::Done))),
                "the simulated registry answers at once"
            );
        }
    }
}
