//! Shows one task, at once or when it has ended.

use std::pin::pin;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::maybe_done;
use futures_util::poll;
use nobat_core::ports::StoreError;
use nobat_core::task::view::TaskView;
use nobat_core::task::{State as Standing, Task, TaskKey};
use nobat_core::types::id::TaskId;

use crate::app::App;
use crate::auth::extract::{Authorized, TasksRead};
use crate::http::path::PathParam;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::response;

/// First pause between two reads of a task that a client waits for. The pause doubles after each read.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Maximum pause between two reads of a task that a client waits for.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Get a task
///
/// With `wait`, the server holds the response until the task has ended or the time is up. The response shows
/// the current state in both cases. Only keys with the scope `payload:view` see the payload and the result.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}",
    operation_id = "get_task",
    tag = "tasks",
    security(("key" = ["tasks:read"])),
    params(
        ("id" = String, Path, pattern = "^task_[0-9a-z]{26}$", description = "The task's id.", example = "task_01jd8rkz5m3q4v9x2y7w6t0abc"),
        ("wait" = Option<f64>, Query, minimum = 0, description = "Maximum time in seconds for which the server holds the response until the task has ended. Default 0. The server lowers a longer time to its maximum: 25, in Lambda 5.", example = 25),
    ),
    responses((status = 200, description = "The task in its current state.", body = TaskView<'static>, example = json!(crate::routes::tasks::examples::retrying()))),
)]
pub(crate) async fn one(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksRead>,
    PathParam(id): PathParam<TaskId>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let name = TaskKey { tenant: caller.tenant.clone(), id };
    let mut query = Query::read(query.as_deref(), &["wait"]);
    let wait = query.get("wait", "seconds, 0 or more", |text| seconds(text, app.max_wait));
    query.finish()?;
    let task = match wait {
        None | Some(Duration::ZERO) => app.backend.store.get(&name, app.clock.now()).await?,
        Some(wait) => ended(&app, &name, wait).await?,
    };
    response::task(StatusCode::OK, &task.ok_or_else(Problem::task_not_found)?, &caller, app.clock.now())
}

/// Parses seconds, and limits them to `max`.
fn seconds(text: &str, max: Duration) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    // This excludes negative numbers and NaN. Infinity becomes `max`.
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).map_or(max, |wait| wait.min(max)))
}

/// Returns the task as soon as it has ended, or in its current state when the time is up or the server stops.
async fn ended(app: &App, name: &TaskKey, wait: Duration) -> Result<Option<Task>, StoreError> {
    let store = &app.backend.store;
    let mut time_is_up = pin!(async {
        tokio::select! {
            () = app.clock.sleep(wait) => {}
            () = app.shutdown.cancelled() => {}
        }
    });
    let mut pause = FIRST_PAUSE;
    loop {
        // Subscribing before the read ensures that no write in between is missed.
        let mut changed = maybe_done(store.changed(name));
        let _ = poll!(&mut changed);
        let task = store.get(name, app.clock.now()).await?;
        if task.as_ref().is_none_or(|task| matches!(task.state, Standing::Ended(_))) {
            return Ok(task);
        }
        tokio::select! {
            biased;
            () = &mut time_is_up => return store.get(name, app.clock.now()).await,
            () = &mut changed => {}
            // Some stores cannot report changes, so the task is also read again after a pause.
            () = app.clock.sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_limited_to_the_maximum() {
        let max = Duration::from_secs(25);
        for (text, wait) in
            [("0", 0.0), ("-0", 0.0), ("1.5", 1.5), ("25", 25.0), ("1e300", 25.0), ("inf", 25.0)]
        {
            assert_eq!(seconds(text, max), Some(Duration::from_secs_f64(wait)), "{text}");
        }
        for text in ["", "-1", "NaN", "-inf", "25s", "0x1", "1,5"] {
            assert_eq!(seconds(text, max), None, "{text}");
        }
    }
}
