//! Waking those who are held by what somebody has just ended.

use std::time::Duration;

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
    Endpoint(&'a Name),
    Queue(&'a Name),
    Kind(&'a Name),
}

/// Has those tasks of the caller's tenant ask again that are held by what somebody can end. Whatever becomes of that, the change holds.
pub(crate) async fn wake(app: &App, caller: &Caller, of: Of<'_>) {
    let (queue, kind, endpoint) = match of {
        Of::Endpoint(name) => (None, None, Some(name)),
        Of::Queue(name) => (Some(name.clone()), None, None),
        Of::Kind(name) => (None, Some(name.clone()), None),
    };
    let (tenant, status) = (caller.tenant.clone(), Some(Status::Held));
    let query = ListQuery { tenant, status, queue, kind, created_after: None, created_before: None, limit: PAGE, after: None };
    let is_meant = |task: &Task| endpoint.is_none_or(|name| task.settings.endpoint.as_ref() == Some(name));
    tokio::select! {
        woken = app.backend.wake(query, is_meant, app.clock.now()) => {
            if let Err(error) = woken {
                tracing::warn!(%error, "those who were held could not all be woken; they ask again by themselves");
            }
        }
        () = app.clock.sleep(LIMIT) => tracing::info!("not all who were held could be woken in time; the others ask again by themselves"),
    }
}
