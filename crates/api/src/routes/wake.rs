//! Wakes held tasks after a change of the configuration that holds them.

use std::time::Duration;

use nobat_core::limits::{LimitScope, LimiterChange, LimiterKey};
use nobat_core::ports::ListQuery;
use nobat_core::task::{Status, Task, TaskOrigin};
use nobat_core::types::name::Name;

use crate::app::App;
use crate::auth::principal::Principal;

/// Maximum time that a request spends on waking tasks. nobat checks the remaining tasks at their next regular
/// check.
const LIMIT: Duration = Duration::from_secs(5);
/// Number of tasks in one page of the search.
const PAGE: usize = 100;

/// Tasks to wake.
pub(crate) enum WakeTarget<'a> {
    /// Tasks of an endpoint whose destination stays the same.
    Endpoint(&'a Name),
    /// Tasks of an endpoint that is new, resumed or moved. An earlier `Retry-After` or open circuit breaker
    /// no longer applies.
    EndpointAnew(&'a Name),
    Queue(&'a Name),
    Kind(&'a Name),
    /// Tasks that a subscription created.
    Subscription(&'a Name),
    /// Tasks of a limit key. An earlier `Retry-After` no longer applies.
    LimitKey(&'a Name),
}

impl WakeTarget<'_> {
    /// Returns the limiter to change, and the change. Each change drops all reservations of the limiter.
    /// Otherwise the start times of reservations that no task holds any more would stay unused.
    fn change(&self) -> (LimitScope, LimiterChange) {
        match *self {
            Self::EndpointAnew(name) => (LimitScope::Endpoint(name.clone()), LimiterChange::ClearPause),
            Self::LimitKey(name) => (LimitScope::Key(name.clone()), LimiterChange::ClearPause),
            Self::Endpoint(name) => (LimitScope::Endpoint(name.clone()), LimiterChange::ResetReservations),
            Self::Subscription(name) => {
                (LimitScope::Subscription(name.clone()), LimiterChange::ResetReservations)
            }
            Self::Queue(name) => (LimitScope::Queue(name.clone()), LimiterChange::ResetReservations),
            Self::Kind(name) => (LimitScope::Kind(name.clone()), LimiterChange::ResetReservations),
        }
    }
}

/// Wakes held tasks of the caller's tenant, newest first, for at most 5 s and up to about
/// [`MAX_WOKEN`](nobat_core::service::backend::MAX_WOKEN) tasks. Skips tasks whose hold a client cannot end,
/// such as tasks without a handler. A failure is logged and does not undo the change.
pub(crate) async fn wake(app: &App, caller: &Principal, of: WakeTarget<'_>) {
    let (tenant, status, now) = (caller.tenant.clone(), Some(Status::Held), app.clock.now());
    let (queue, kind) = match of {
        WakeTarget::Queue(name) => (Some(name.clone()), None),
        WakeTarget::Kind(name) => (None, Some(name.clone())),
        WakeTarget::Endpoint(_)
        | WakeTarget::EndpointAnew(_)
        | WakeTarget::LimitKey(_)
        | WakeTarget::Subscription(_) => (None, None),
    };
    let query = ListQuery { status, queue, kind, ..ListQuery::all(tenant, PAGE) };
    let is_meant = |task: &Task| match of {
        WakeTarget::Queue(_) | WakeTarget::Kind(_) => true,
        WakeTarget::Endpoint(name) | WakeTarget::EndpointAnew(name) => {
            task.options.endpoint.as_ref() == Some(name)
        }
        WakeTarget::LimitKey(name) => task.options.limit_key.as_ref() == Some(name),
        WakeTarget::Subscription(name) => {
            task.options.origin.as_ref().and_then(TaskOrigin::subscription) == Some(name)
        }
    };
    let work = async {
        let (limiter, change) = of.change();
        app.backend
            .limiters
            .change(&LimiterKey { tenant: caller.tenant.clone(), scope: limiter }, change, now)
            .await?;
        app.backend.wake(query, is_meant, now).await
    };
    tokio::select! {
        woken = work => {
            if let Err(error) = woken {
                tracing::warn!(%error, "held tasks could not be woken; these tasks are checked again later");
            }
        }
        () = app.clock.sleep(LIMIT) => tracing::info!("the time limit for waking held tasks was reached; tasks that were not woken are checked again later"),
    }
}
