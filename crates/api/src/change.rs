//! What can be asked of a task once it is there: to be called off, or to be done again.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::audit::Action;
use nobat_core::backend::ApplyError;
use nobat_core::key::MAX_OVERLAP;
use nobat_core::lifecycle::{Event, ReplayKey};
use nobat_core::ports::TaskName;
use nobat_core::read::read_object;
use nobat_core::submit::Invalid;
use nobat_core::task::{CancelRequest, State as Standing, Task};
use nobat_core::view::TaskView;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::body;
use crate::door::{Allowed, TasksReplay, TasksWrite};
use crate::problem::Problem;
use crate::read::Named;
use crate::reply;

/// How to cancel; there is nothing to choose yet.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {}

/// How to replay.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Replay {
    /// Give downstream a new idempotency key, so that what was done already is done again; `false` unless said.
    #[schema(default = false)]
    new_key: bool,
    /// Generation to replay, as the task shows it in `generation`. If the task is at another one by now, nothing is replayed and the
    /// answer is 409 `generation_mismatch`. Any generation by default.
    #[schema(minimum = 1)]
    generation: Option<NonZeroU32>,
}

/// Cancel a task
///
/// A task that has not started is canceled at once. One that is running is asked to stop, and ends as its handler does.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/cancel",
    operation_id = "cancel_task",
    tag = "tasks",
    security(("key" = ["tasks:write"])),
    params(("id" = String, Path, pattern = "^task_[0-9a-z]{26}$", description = "The task's id.", example = "task_01jd8rkz5m3q4v9x2y7w6t0abc")),
    responses(
        (status = 200, description = "It is canceled.", body = TaskView<'static>),
        (status = 202, description = "It is running, and was asked to stop.", body = TaskView<'static>),
    ),
)]
pub(crate) async fn cancel(
    State(app): State<App>,
    Allowed(caller, _): Allowed<TasksWrite>,
    Named(id): Named,
    request: Request,
) -> Result<Response, Problem> {
    let _: Cancel = options(&app, request).await?;
    let now = app.clock.now();
    let name = TaskName { tenant: caller.tenant.clone(), id };
    let entry = caller.entry(&caller.tenant, Action::TaskCanceled, &id, now);
    let known = app.backend.store.get(&name, now).await?.ok_or(ApplyError::Missing)?;
    let task =
        if is_canceling(&known) { known } else { app.backend.apply_on_record(&name, Some(known), Event::Cancel, entry, now).await? };
    let status = match task.state {
        Standing::Ended(_) => StatusCode::OK,
        Standing::Running(_) | Standing::Waiting(_) => StatusCode::ACCEPTED,
    };
    reply::task(status, &task, &caller, now)
}

/// Whether it was asked to stop already: to ask again changes nothing, and is not put on record.
fn is_canceling(task: &Task) -> bool {
    matches!(&task.state, Standing::Running(lease) if lease.cancel == CancelRequest::Requested)
}

/// Replay a task
///
/// Starts a new generation of attempts of a task that has ended. Its history stays. Of many replays that name the same `generation`, one
/// starts a generation, even if that ends before the others arrive.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/replay",
    operation_id = "replay_task",
    tag = "tasks",
    security(("key" = ["tasks:replay"])),
    params(("id" = String, Path, pattern = "^task_[0-9a-z]{26}$", description = "The task's id.", example = "task_01jd8rkz5m3q4v9x2y7w6t0abc")),
    request_body(content = Replay, description = "May be left out.", example = json!({"new_key": true, "generation": 1})),
    responses((status = 202, description = "It will be done again.", body = TaskView<'static>)),
)]
pub(crate) async fn replay(
    State(app): State<App>,
    Allowed(caller, _): Allowed<TasksReplay>,
    Named(id): Named,
    request: Request,
) -> Result<Response, Problem> {
    let options: Replay = options(&app, request).await?;
    let key = if options.new_key { ReplayKey::New } else { ReplayKey::Same };
    let now = app.clock.now();
    let name = TaskName { tenant: caller.tenant.clone(), id };
    let entry = caller.entry(&caller.tenant, Action::TaskReplayed, &id, now);
    let event = Event::Replay { key, generation: options.generation.map(NonZeroU32::get) };
    let task = app.backend.apply_on_record(&name, None, event, entry, now).await?;
    reply::task(StatusCode::ACCEPTED, &task, &caller, now)
}

/// For how long what was replaced stays good beside what replaced it.
pub(crate) fn overlap(seconds: f64) -> Result<Duration, Problem> {
    let overlap = Duration::try_from_secs_f64(seconds).ok().filter(|overlap| *overlap <= MAX_OVERLAP);
    overlap.ok_or_else(|| vec![Invalid::new("/overlap", format!("expected seconds from 0 to {}", MAX_OVERLAP.as_secs()))].into())
}

/// What the body says, or what an absent one means.
pub(crate) async fn options<T: Default + for<'de> Deserialize<'de>>(app: &App, request: Request) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    match body::optional_json(app, &head.headers, body).await? {
        Some(body) => Ok(read_object(&body)?),
        None => Ok(T::default()),
    }
}
