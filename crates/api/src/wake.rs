//! Waking those who are held by what somebody has just ended.

use std::time::Duration;

use nobat_core::flow::{FlowChange, FlowName, FlowOf};
use nobat_core::name::Name;
use nobat_core::ports::ListQuery;
use nobat_core::task::{Status, Task};

use crate::app::App;
use crate::door::Caller;

/// How long a request waits for that. Who is not woken by then asks by itself, later.
const LIMIT: Duration = Duration::from_secs(5);
/// How many tasks a page has.
const PAGE: usize = 100;

/// Whose tasks are meant.
pub(crate) enum Of<'a> {
    /// Of an endpoint that is where it was.
    Endpoint(&'a Name),
    /// Of an endpoint of which nothing that was said before holds any more: neither that it is to be left alone, nor that it is down.
    EndpointAnew(&'a Name),
    Queue(&'a Name),
    Kind(&'a Name),
    /// Of a flow key, which is not to be left alone any more.
    FlowKey(&'a Name),
}

impl Of<'_> {
    /// The flow that begins anew, and in which way. Reservations always do: no task waits for those that were lost.
    fn change(&self) -> (FlowOf, FlowChange) {
        match *self {
            Self::EndpointAnew(name) => (FlowOf::Endpoint(name.clone()), FlowChange::Lift),
            Self::FlowKey(name) => (FlowOf::Key(name.clone()), FlowChange::Lift),
            Self::Endpoint(name) => (FlowOf::Endpoint(name.clone()), FlowChange::Restart),
            Self::Queue(name) => (FlowOf::Queue(name.clone()), FlowChange::Restart),
            Self::Kind(name) => (FlowOf::Kind(name.clone()), FlowChange::Restart),
        }
    }
}

/// Has those tasks of the caller's tenant ask again that are held by what somebody can end. Whatever becomes of that, the change holds.
pub(crate) async fn wake(app: &App, caller: &Caller, of: Of<'_>) {
    let (tenant, status, now) = (caller.tenant.clone(), Some(Status::Held), app.clock.now());
    let (queue, kind) = match of {
        Of::Queue(name) => (Some(name.clone()), None),
        Of::Kind(name) => (None, Some(name.clone())),
        Of::Endpoint(_) | Of::EndpointAnew(_) | Of::FlowKey(_) => (None, None),
    };
    let query = ListQuery { tenant, status, queue, kind, created_after: None, created_before: None, limit: PAGE, after: None };
    let is_meant = |task: &Task| match of {
        Of::Queue(_) | Of::Kind(_) => true,
        Of::Endpoint(name) | Of::EndpointAnew(name) => task.settings.endpoint.as_ref() == Some(name),
        Of::FlowKey(name) => task.settings.flow_key.as_ref() == Some(name),
    };
    let work = async {
        let (flow, change) = of.change();
        app.backend.flows.change(&FlowName { tenant: caller.tenant.clone(), of: flow }, change, now).await?;
        app.backend.wake(query, is_meant, now).await
    };
    tokio::select! {
        woken = work => {
            if let Err(error) = woken {
                tracing::warn!(%error, "those who were held could not all be woken; they ask again by themselves");
            }
        }
        () = app.clock.sleep(LIMIT) => tracing::info!("not all who were held could be woken in time; the others ask again by themselves"),
    }
}
