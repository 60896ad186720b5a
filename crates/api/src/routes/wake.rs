//! Wakes held tasks after a change of what held them.

use std::time::Duration;

use nobat_core::limits::{LimitScope, LimiterChange, LimiterKey};
use nobat_core::ports::ListQuery;
use nobat_core::task::{Status, Task};
use nobat_core::types::name::Name;

use crate::app::App;
use crate::auth::principal::Principal;

/// Maximum time that a request spends on waking tasks. The other tasks are checked again later by themselves.
const LIMIT: Duration = Duration::from_secs(5);
/// Number of tasks in one page of the search.
const PAGE: usize = 100;

/// Tasks to wake.
pub(crate) enum WakeTarget<'a> {
    /// Tasks of an endpoint whose destination stays the same.
    Endpoint(&'a Name),
    /// Tasks of an endpoint that is new, reopened or moved. An earlier `Retry-After` or open circuit breaker
    /// no longer applies.
    EndpointAnew(&'a Name),
    Queue(&'a Name),
    Kind(&'a Name),
    /// Tasks of a limit key. An earlier `Retry-After` no longer applies.
    LimitKey(&'a Name),
}

impl WakeTarget<'_> {
    /// Returns the limits to reset, and in which way. Reservations always reset, since no task would take up
    /// those that are lost.
    fn change(&self) -> (LimitScope, LimiterChange) {
        match *self {
            Self::EndpointAnew(name) => (LimitScope::Endpoint(name.clone()), LimiterChange::ClearPause),
            Self::LimitKey(name) => (LimitScope::Key(name.clone()), LimiterChange::ClearPause),
            Self::Endpoint(name) => (LimitScope::Endpoint(name.clone()), LimiterChange::ResetReservations),
            Self::Queue(name) => (LimitScope::Queue(name.clone()), LimiterChange::ResetReservations),
            Self::Kind(name) => (LimitScope::Kind(name.clone()), LimiterChange::ResetReservations),
        }
    }
}

/// Wakes held tasks of the caller's tenant, newest first, for at most 5 s and up to about
/// [`MAX_WOKEN`](nobat_core::service::backend::MAX_WOKEN) tasks. Only tasks whose hold a client can end are
/// woken. A failure is logged and does not undo the change.
pub(crate) async fn wake(app: &App, caller: &Principal, of: WakeTarget<'_>) {
    let (tenant, status, now) = (caller.tenant.clone(), Some(Status::Held), app.clock.now());
    let (queue, kind) = match of {
        WakeTarget::Queue(name) => (Some(name.clone()), None),
        WakeTarget::Kind(name) => (None, Some(name.clone())),
        WakeTarget::Endpoint(_) | WakeTarget::EndpointAnew(_) | WakeTarget::LimitKey(_) => (None, None),
    };
    let query = ListQuery {
        tenant,
        status,
        queue,
        kind,
        created_after: None,
        created_before: None,
        limit: PAGE,
        after: None,
    };
    let is_meant = |task: &Task| match of {
        WakeTarget::Queue(_) | WakeTarget::Kind(_) => true,
        WakeTarget::Endpoint(name) | WakeTarget::EndpointAnew(name) => {
            task.options.endpoint.as_ref() == Some(name)
        }
        WakeTarget::LimitKey(name) => task.options.limit_key.as_ref() == Some(name),
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
                tracing::warn!(%error, "held tasks could not be woken; they are checked again later");
            }
        }
        () = app.clock.sleep(LIMIT) => tracing::info!("not all held tasks were woken in time; the others are checked again later"),
    }
}
