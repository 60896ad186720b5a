//! Explains why a task is not running. The core builds the explanation. This module reads the current
//! configuration and limiter state.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::{OptionFuture, try_join_all};
use nobat_core::config::kind::{KindError, Target};
use nobat_core::config::queue::QueueConfig;
use nobat_core::config::record::RecordKind;
use nobat_core::config::task_config::TaskConfig;
use nobat_core::limits::LimiterKey;
use nobat_core::policy::decide;
use nobat_core::policy::explain::ExplanationView;
use nobat_core::policy::explain::{ExplainInput, LimiterSnapshot, explain};
use nobat_core::ports::StoreError;
use nobat_core::task::event::is_internal;
use nobat_core::task::{State as Standing, Task, TaskKey, TaskOrigin};
use nobat_core::types::id::TaskId;

use crate::app::App;
use crate::auth::extract::{Authorized, TasksRead};
use crate::http::path::PathParam;
use crate::http::problem::Problem;
use crate::http::response;

/// Approximate size of an explanation in a response, in bytes.
const EXPLANATION_BYTES: usize = 600;

/// Explain why a task is not running
///
/// Returns a code, a sentence, and the time until which the reason holds. The explanation uses the task's
/// state, the current configuration of the task's queue, kind, endpoint and limit key, and the current state
/// of those limits.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/explain",
    operation_id = "explain_task",
    tag = "tasks",
    security(("key" = ["tasks:read"])),
    params(("id" = String, Path, pattern = "^task_[0-9a-z]{26}$", description = "The task's id.", example = "task_01jd8rkz5m3q4v9x2y7w6t0abc")),
    responses((status = 200, description = "The reason why the task is not running, or that it is running.", body = ExplanationView<'static>, example = json!(crate::routes::tasks::examples::explained()))),
)]
pub(crate) async fn one(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksRead>,
    PathParam(id): PathParam<TaskId>,
) -> Result<Response, Problem> {
    let name = TaskKey { tenant: caller.tenant, id };
    let task = app.backend.store.get(&name, app.clock.now()).await?.ok_or_else(Problem::task_not_found)?;
    let input = read_input(&app, &task).await?;
    let now = app.clock.now();
    response::value(
        StatusCode::OK,
        EXPLANATION_BYTES,
        &ExplanationView::new(&task, explain(&task, &input, now), now),
    )
}

/// Reads the current configuration and limiter state for a task from the store, not from a cache.
async fn read_input(app: &App, task: &Task) -> Result<ExplainInput, StoreError> {
    if matches!(task.state, Standing::Ended(_)) {
        return Ok(ExplainInput::default());
    }
    let (config, tenant, options) = (&app.backend.config, &task.tenant, &task.options);
    let queue_config =
        async |kind, name| config.queue_config(&QueueConfig::record_name(tenant, kind, name)).await;
    let endpoint = async {
        OptionFuture::from(options.endpoint.as_ref().map(|name| config.endpoint(tenant, name)))
            .await
            .transpose()
    };
    let limit_key = async {
        OptionFuture::from(options.limit_key.as_ref().map(|key| queue_config(RecordKind::LimitKey, key)))
            .await
            .transpose()
    };
    let (queue, kind) =
        (queue_config(RecordKind::Queue, &task.queue), queue_config(RecordKind::Kind, &task.kind));
    let subscription = async {
        OptionFuture::from(
            options
                .origin
                .as_ref()
                .and_then(TaskOrigin::subscription)
                .map(|name| config.subscription(tenant, name)),
        )
        .await
        .transpose()
    };
    let of_task = async { tokio::try_join!(endpoint, limit_key, subscription) };
    let (queue, kind, settings, (endpoint, limit_key, subscription)) =
        tokio::try_join!(queue, kind, config.tenant(tenant), of_task)?;
    let aim = if options.endpoint.is_some() { Target::Endpoint } else { Target::Payload };
    let checked = app.kinds.check(&task.kind, &task.payload, aim);
    let input = ExplainInput {
        task_config: TaskConfig { queue, kind, tenant: settings.limits },
        endpoint: endpoint.flatten(),
        limit_key,
        limiters: Vec::new(),
        is_subscription_paused: subscription.flatten().is_some_and(|subscription| subscription.paused),
        has_handler: is_internal(&task.kind) || !matches!(checked, Err(KindError::UnknownKind(_))),
        then: checked.ok().flatten().map(|wait| wait.then),
    };
    let limiters = decide(task, input.configuration()).limiters.into_iter().map(async |(of, limits)| {
        let name = LimiterKey { tenant: tenant.clone(), scope: of };
        let limiter = app.backend.limiters.read(&name).await?.limiter;
        Ok::<_, StoreError>(LimiterSnapshot { of: name.scope, limits, limiter })
    });
    let limiters = try_join_all(limiters).await?;
    Ok(ExplainInput { limiters, ..input })
}
