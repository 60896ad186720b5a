//! Configuration of queues, kinds and limit keys: pause, start rate, concurrency, and the retries of queues.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::auth::audit::Action;
use nobat_core::config::queue::{QueueConfig, QueueSubmission};
use nobat_core::config::record::RecordKind;
use nobat_core::json::decode::{Patch, read_object};
use nobat_core::limits::{LimitScope, LimiterKey, LimiterStatus, Limits, LimitsSubmission, LimitsView};
use nobat_core::task::view::RetryView;
use nobat_core::types::name::Name;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::extract::{Authorized, ConfigWrite};
use crate::auth::principal::Principal;
use crate::http::path::PathParam;
use crate::http::problem::Problem;
use crate::http::{body, response};
use crate::routes::config_update::{Change, update};
use crate::routes::wake::{WakeTarget, wake};

/// Approximate size of a queue, a kind or a limit key in a response, in bytes.
const LANE_BYTES: usize = 400;

/// Changes to a kind. Omitted fields keep their values.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutKind)]
pub(crate) struct PutKind {
    /// True to pause the kind: nobat then starts none of its tasks.
    paused: Option<bool>,
    /// Start rate and concurrency of the kind's tasks. `null` removes all limits.
    #[serde(default, deserialize_with = "nobat_core::json::decode::patch_object")]
    #[schema(value_type = Option<LimitsSubmission>, required = false)]
    limits: Patch<LimitsSubmission>,
}

/// Configuration of a queue.
#[derive(Serialize, ToSchema)]
#[schema(as = Queue)]
pub(crate) struct QueueView {
    /// Name of the queue.
    #[schema(value_type = String)]
    name: Name,
    /// True if a client paused the queue. nobat then holds the queue's tasks.
    paused: bool,
    /// Start rate and concurrency of the queue's tasks.
    limits: LimitsView,
    /// Retry policy of the queue's tasks, if neither the task nor its endpoint sets a retry policy. `null`:
    /// the default policy.
    #[schema(required)]
    retry: Option<RetryView>,
    /// Current state of the queue's limits. Only in responses to `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    state: Option<LimiterStatus>,
}

/// Configuration of a kind.
#[derive(Serialize, ToSchema)]
#[schema(as = Kind)]
pub(crate) struct KindView {
    /// Name of the kind.
    #[schema(value_type = String)]
    name: Name,
    /// True if a client paused the kind. nobat then holds the kind's tasks.
    paused: bool,
    /// Start rate and concurrency of the kind's tasks.
    limits: LimitsView,
    /// Current state of the kind's limits. Only in responses to `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    state: Option<LimiterStatus>,
}

/// Limits of the tasks with the same limit key.
#[derive(Serialize, ToSchema)]
#[schema(as = LimitKey)]
pub(crate) struct LimitKeyView {
    /// Limit key.
    #[schema(value_type = String)]
    key: Name,
    /// Start rate and concurrency of the tasks that name this key in `limit_key`.
    #[serde(flatten)]
    limits: LimitsView,
    /// Current state of the key's limits. Only in responses to `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    state: Option<LimiterStatus>,
}

/// Update a queue
///
/// Omitted fields keep their values. `null` removes all limits (`limits`) or resets the retries to the
/// defaults (`retry`). Every process applies the change within 10 seconds.
///
/// If the limits or the pause change and the queue is not paused, nobat also wakes the queue's held tasks,
/// newest first. nobat wakes up to about 1,000 tasks, for at most five seconds. It checks woken tasks within
/// 10 seconds, and other held tasks at their next regular check.
#[utoipa::path(
    put,
    path = "/v1/queues/{name}",
    operation_id = "put_queue",
    tag = "limits",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The queue's name.", example = "default")),
    request_body(content = QueueSubmission, example = json!({"paused": false, "limits": {"concurrency": 10}, "retry": {"max_attempts": 8}})),
    responses((status = 200, description = "The queue is changed.", body = QueueView)),
)]
pub(crate) async fn put_queue(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let queue_config =
        put(&app, &caller, RecordKind::Queue, Action::QueueChanged, &name, request, |said| said).await?;
    response::value(StatusCode::OK, LANE_BYTES, &QueueView::new(name, &queue_config))
}

/// Get a queue and the state of its limits
///
/// Returns the defaults (not paused, no limits) if the queue has no configuration.
#[utoipa::path(
    get,
    path = "/v1/queues/{name}",
    operation_id = "get_queue",
    tag = "limits",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The queue's name.", example = "default")),
    responses((status = 200, description = "The queue and the state of its limits.", body = QueueView)),
)]
pub(crate) async fn get_queue(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
) -> Result<Response, Problem> {
    let queue_config = get(&app, &caller, RecordKind::Queue, &name).await?;
    let state = Some(state(&app, &caller, LimitScope::Queue(name.clone()), &queue_config.limits).await?);
    response::value(StatusCode::OK, LANE_BYTES, &QueueView { state, ..QueueView::new(name, &queue_config) })
}

/// Update a kind
///
/// Applies to the tasks of the caller's tenant. Omitted fields keep their values. `null` in `limits` removes
/// all limits. Every process applies the change within 10 seconds.
///
/// If the limits or the pause change and the kind is not paused, nobat also wakes the kind's held tasks,
/// newest first. nobat wakes up to about 1,000 tasks, for at most five seconds. It checks woken tasks within
/// 10 seconds, and other held tasks at their next regular check.
#[utoipa::path(
    put,
    path = "/v1/kinds/{name}",
    operation_id = "put_kind",
    tag = "limits",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The kind's name.", example = "http")),
    request_body(content = PutKind, example = json!({"paused": true})),
    responses((status = 200, description = "The kind is changed.", body = KindView)),
)]
pub(crate) async fn put_kind(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let said = |PutKind { paused, limits }| QueueSubmission { paused, limits, ..QueueSubmission::default() };
    let queue_config =
        put(&app, &caller, RecordKind::Kind, Action::KindChanged, &name, request, said).await?;
    response::value(StatusCode::OK, LANE_BYTES, &KindView::new(name, &queue_config))
}

/// Get a kind and the state of its limits
///
/// Returns the defaults (not paused, no limits) if the kind has no configuration.
#[utoipa::path(
    get,
    path = "/v1/kinds/{name}",
    operation_id = "get_kind",
    tag = "limits",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The kind's name.", example = "http")),
    responses((status = 200, description = "The kind and the state of its limits.", body = KindView)),
)]
pub(crate) async fn get_kind(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
) -> Result<Response, Problem> {
    let queue_config = get(&app, &caller, RecordKind::Kind, &name).await?;
    let state = Some(state(&app, &caller, LimitScope::Kind(name.clone()), &queue_config.limits).await?);
    response::value(StatusCode::OK, LANE_BYTES, &KindView { state, ..KindView::new(name, &queue_config) })
}

/// Replace the limits of a limit key
///
/// The limits apply to all tasks of the tenant that name the key in `limit_key`, of any kind, queue and
/// endpoint. Omitted fields are not limited. Every process applies the change within 10 seconds.
///
/// The request also ends a pause that an endpoint requested (`Retry-After`), even if the limits stay the
/// same. nobat then wakes the key's held tasks, newest first. nobat wakes up to about 1,000 tasks, for at
/// most five seconds. It checks woken tasks within 10 seconds, and other held tasks at their next regular
/// check.
#[utoipa::path(
    put,
    path = "/v1/limits/{name}",
    operation_id = "put_limits",
    tag = "limits",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The limit key.", example = "customer-42")),
    request_body(content = LimitsSubmission, example = json!({"rate": 10, "period": 1, "concurrency": 4})),
    responses((status = 200, description = "The limits are replaced.", body = LimitKeyView)),
)]
pub(crate) async fn put_limits(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let said = |limits| QueueSubmission { limits: Patch::This(limits), ..QueueSubmission::default() };
    let queue_config =
        put(&app, &caller, RecordKind::LimitKey, Action::LimitsChanged, &name, request, said).await?;
    response::value(
        StatusCode::OK,
        LANE_BYTES,
        &LimitKeyView { key: name, limits: queue_config.limits.into(), state: None },
    )
}

/// Get the limits of a limit key and their state
///
/// Returns no limits if the key has no configuration.
#[utoipa::path(
    get,
    path = "/v1/limits/{name}",
    operation_id = "get_limits",
    tag = "limits",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The limit key.", example = "customer-42")),
    responses((status = 200, description = "The limits and their state.", body = LimitKeyView)),
)]
pub(crate) async fn get_limits(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
) -> Result<Response, Problem> {
    let queue_config = get(&app, &caller, RecordKind::LimitKey, &name).await?;
    let state = Some(state(&app, &caller, LimitScope::Key(name.clone()), &queue_config.limits).await?);
    response::value(
        StatusCode::OK,
        LANE_BYTES,
        &LimitKeyView { key: name, limits: queue_config.limits.into(), state },
    )
}

/// Returns the current state of one limiter of the caller's tenant.
pub(crate) async fn state(
    app: &App,
    caller: &Principal,
    of: LimitScope,
    limits: &Limits,
) -> Result<LimiterStatus, Problem> {
    let kept = app.backend.limiters.read(&LimiterKey { tenant: caller.tenant.clone(), scope: of }).await?;
    Ok(kept.limiter.state(limits, app.clock.now()))
}

async fn get(app: &App, caller: &Principal, kind: RecordKind, name: &Name) -> Result<QueueConfig, Problem> {
    Ok(app.backend.config.queue_config(&QueueConfig::record_name(&caller.tenant, kind, name)).await?)
}

/// Writes a change and its audit entry. `said` turns the parsed body into the change.
async fn put<T: for<'de> Deserialize<'de>>(
    app: &App,
    caller: &Principal,
    kind: RecordKind,
    action: Action,
    name: &Name,
    request: Request,
    said: impl Fn(T) -> QueueSubmission,
) -> Result<QueueConfig, Problem> {
    let (head, body) = request.into_parts();
    let body = body::json(app, &caller.tenant, &head.headers, body).await?;
    let submission = said(read_object(&body)?);
    // JSON pointer of the limits in the request's body, for error texts.
    let root = if kind == RecordKind::LimitKey { "" } else { "/limits" };
    let record_name = QueueConfig::record_name(&caller.tenant, kind, name);
    let read = || app.backend.config.queue_config(&record_name);
    let (current, queue_config) = update(app, "the configuration", read, |current| {
        let queue_config = submission.queue_config(root, &current)?;
        let record = queue_config.record(record_name.clone());
        Ok((
            Change::Write(vec![record]),
            caller.entry(&caller.tenant, action, name, app.clock.now()),
            (current, queue_config),
        ))
    })
    .await?;
    let of = match kind {
        RecordKind::LimitKey => WakeTarget::LimitKey(name),
        RecordKind::Queue => WakeTarget::Queue(name),
        _ => WakeTarget::Kind(name),
    };
    let is_other = (queue_config.paused, queue_config.limits) != (current.paused, current.limits);
    // For a limit key, a request with the same limits still ends a pause that an endpoint requested.
    if kind == RecordKind::LimitKey || is_other && !queue_config.paused {
        wake(app, caller, of).await;
    }
    Ok(queue_config)
}

impl QueueView {
    fn new(name: Name, queue_config: &QueueConfig) -> Self {
        Self {
            name,
            paused: queue_config.paused,
            limits: queue_config.limits.into(),
            retry: queue_config.retry.as_ref().map(RetryView::from),
            state: None,
        }
    }
}

impl KindView {
    fn new(name: Name, queue_config: &QueueConfig) -> Self {
        Self { name, paused: queue_config.paused, limits: queue_config.limits.into(), state: None }
    }
}
