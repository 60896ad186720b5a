//! Changes to an existing task: cancel and replay.

use std::num::NonZeroU32;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::auth::audit::Action;
use nobat_core::service::backend::{Applied, ApplyError};
use nobat_core::task::event::SCHEDULE_KIND;
use nobat_core::task::lifecycle::{Event, ReplayKey};
use nobat_core::task::view::TaskView;
use nobat_core::task::{CancelRequest, State as Standing, Task, TaskKey};
use nobat_core::types::bounds::Bounds;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::id::TaskId;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::extract::{Authorized, TasksReplay, TasksWrite};
use crate::http::options::keyed_options;
use crate::http::path::PathParam;
use crate::http::problem::Problem;
use crate::http::response;

/// Route, as a part of the stored idempotency key. The same key on another route counts as another key.
const CANCEL: &str = "/v1/tasks/{id}/cancel";

const REPLAY: &str = "/v1/tasks/{id}/replay";

/// Options of a cancellation: none yet.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {}

/// Options of a replay.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Replay {
    /// True to send a new idempotency key. The receiver then repeats work that it has already done. Default:
    /// `false`.
    #[schema(default = false)]
    new_key: bool,
    /// Generation to replay, from the task's field `generation`. If the task is at another generation, the
    /// response is 409 `generation_mismatch` and nothing is replayed. Default: any generation.
    #[schema(value_type = Option<u32>, minimum = 1)]
    generation: Option<f64>,
}

/// Cancel a task
///
/// Cancels a task at once if it is not running. Requests a running task to stop. The task's handler then
/// decides how the task ends.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/cancel",
    operation_id = "cancel_task",
    tag = "tasks",
    security(("key" = ["tasks:write"])),
    params(
        ("id" = String, Path, pattern = "^task_[0-9a-z]{26}$", description = "The task's id.", example = "task_01jd8rkz5m3q4v9x2y7w6t0abc"),
        ("Idempotency-Key" = String, Header, description = crate::routes::tasks::examples::CHANGE_KEY, example = "\"cancel-7\""),
    ),
    responses(
        (
            status = 200,
            description = "The task is canceled.",
            body = TaskView<'static>,
            headers(("Idempotency-Replayed" = String, description = "`true` if the same request was carried out before.")),
        ),
        (status = 202, description = "The task is running, and its handler is requested to stop.", body = TaskView<'static>),
    ),
)]
pub(crate) async fn cancel(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksWrite>,
    PathParam(id): PathParam<TaskId>,
    request: Request,
) -> Result<Response, Problem> {
    let (Cancel {}, keyed) = keyed_options(&app, &caller.tenant, request, CANCEL).await?;
    let now = app.clock.now();
    let name = TaskKey { tenant: caller.tenant.clone(), id };
    let entry = caller.entry(&caller.tenant, Action::TaskCanceled, &id, now);
    let known = app.backend.store.get(&name, now).await?.ok_or(ApplyError::Missing)?;
    if known.kind == *SCHEDULE_KIND {
        return Err(Problem::internal_task());
    }
    let canceled = if is_canceling(&known) && keyed.is_none() {
        Applied::Done(known)
    } else {
        app.backend.apply_on_record(&name, Some(known), Event::Cancel, entry, keyed, now).await?
    };
    let status = |task: &Task| match task.state {
        Standing::Ended(_) => StatusCode::OK,
        Standing::Running(_) | Standing::Waiting(_) => StatusCode::ACCEPTED,
    };
    response::changed(&canceled, status, &caller, now)
}

/// Returns true if a client has already requested the task to stop. Another request then changes nothing and
/// gets no audit entry.
fn is_canceling(task: &Task) -> bool {
    matches!(&task.state, Standing::Running(lease) if lease.cancel == CancelRequest::Requested)
}

/// Replay a task
///
/// Starts a new generation of attempts of a task that has ended. The task's history stays. If several
/// requests name the same `generation`, only the first request starts a new generation, even if the task has
/// ended again before the next request arrives.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/replay",
    operation_id = "replay_task",
    tag = "tasks",
    security(("key" = ["tasks:replay"])),
    params(
        ("id" = String, Path, pattern = "^task_[0-9a-z]{26}$", description = "The task's id.", example = "task_01jd8rkz5m3q4v9x2y7w6t0abc"),
        ("Idempotency-Key" = String, Header, description = crate::routes::tasks::examples::CHANGE_KEY, example = "\"replay-7\""),
    ),
    request_body(content = Replay, description = "May be left out.", example = json!({"new_key": true, "generation": 1})),
    responses((
        status = 202,
        description = "The task runs again.",
        body = TaskView<'static>,
        headers(("Idempotency-Replayed" = String, description = "`true` if the same request was carried out before.")),
    )),
)]
pub(crate) async fn replay(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksReplay>,
    PathParam(id): PathParam<TaskId>,
    request: Request,
) -> Result<Response, Problem> {
    let (options, keyed): (Replay, _) = keyed_options(&app, &caller.tenant, request, REPLAY).await?;
    let key = if options.new_key { ReplayKey::New } else { ReplayKey::Same };
    let now = app.clock.now();
    let name = TaskKey { tenant: caller.tenant.clone(), id };
    let entry = caller.entry(&caller.tenant, Action::TaskReplayed, &id, now);
    let generation = options.generation.map(|number| Bounds::count(u32::MAX).whole(number)).transpose();
    let generation =
        generation.map_err(|detail| Problem::from(vec![FieldError::new("/generation", detail)]))?;
    let event = Event::Replay { key, generation: generation.map(NonZeroU32::get) };
    let known = app.backend.store.get(&name, now).await?.ok_or(ApplyError::Missing)?;
    if known.kind == *SCHEDULE_KIND {
        return Err(Problem::internal_task());
    }
    let replayed = app.backend.apply_on_record(&name, Some(known), event, entry, keyed, now).await?;
    response::changed(&replayed, |_| StatusCode::ACCEPTED, &caller, now)
}
