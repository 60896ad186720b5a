//! Health checks.

use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use nobat_core::ports::QueueLoad;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::http::problem::Problem;
use crate::http::response;
use crate::readiness::{BELIEVED, Cause};

/// Result of the liveness check.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

const OK: Health = Health { status: "ok" };

/// Liveness
///
/// Returns 200 as long as the process runs. Checks nothing else, so that an unavailable store does not make
/// an orchestrator restart the process.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "health", responses((status = 200, description = "The process runs.", body = Health)))]
pub(crate) async fn live() -> Result<Response, Problem> {
    response::value(StatusCode::OK, 16, &OK)
}

/// Readiness
///
/// Returns 200 if a write to the store and a read from it succeeded within the last second, and the message
/// queue is available. Otherwise returns 503 with the cause.
///
/// The response also shows the load of each resource that tenants share.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "health",
    responses(
        (status = 200, description = "The server accepts and runs tasks.", body = ReadinessView),
        (status = 503, description = "The server accepts no tasks, or runs them late. `cause` is the reason.", body = ReadinessView),
    ),
)]
pub(crate) async fn ready(State(app): State<App>) -> Result<Response, Problem> {
    let cause = app.readiness().check(&app.backend, &app.clock, app.clock.now()).await.err();
    let status = if cause.is_none() { "ok" } else { "unavailable" };
    let queues = app.loads().into_iter().map(QueueView::from).collect();
    let view = ReadinessView { status, cause: cause.map(Cause::as_str), queues };
    let mut response = response::value(
        if cause.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
        512,
        &view,
    )?;
    if cause.is_some() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(BELIEVED.as_secs()));
    }
    Ok(response)
}

/// Readiness, and the load of shared resources.
#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(crate) struct ReadinessView {
    /// `ok` with status 200, `unavailable` with status 503.
    #[schema(pattern = "^(ok|unavailable)$", example = "ok")]
    status: &'static str,
    /// Reason for a 503. `null` with 200.
    ///
    /// `store_write_failed`: a write failed, for example on a full disk. `store_read_failed`: a read failed.
    /// `store_overloaded`: too many operations wait for the store. `queue_unavailable`: the message queue
    /// does not respond; the server accepts tasks, which run late. `timeout`: no response within 5 seconds.
    #[schema(
        required,
        pattern = "^(store_write_failed|store_read_failed|store_overloaded|queue_unavailable|timeout)$"
    )]
    cause: Option<&'static str>,
    /// Load of each resource of this process that tenants share.
    queues: Vec<QueueView>,
}

/// Load of a resource of this process that tenants share.
#[derive(Serialize, ToSchema)]
#[schema(as = QueueLoad)]
pub(crate) struct QueueView {
    /// Name of the resource.
    ///
    /// SQLite: `write`, `read_record` (keys, tenants, configuration, limiters), `read_task` (one task),
    /// `read_scan` (lists, counts). DynamoDB: `list` (lists of tasks; a tenant reads four at a time). Always:
    /// `body_bytes` (bytes of request bodies in memory), `key_lookup` (look-ups of unknown keys),
    /// `endpoint_test` (tests of endpoints).
    #[schema(example = "write")]
    name: &'static str,
    /// Number of waiting operations. For `key_lookup` and `endpoint_test`: operations in progress. For
    /// `body_bytes`: bytes.
    length: usize,
    /// Maximum of `length`. Above this maximum, the server returns 503 `overloaded`, or 429 for an endpoint
    /// test. A request first waits up to 5 seconds for a key look-up. Then the server returns 503, or 429 if
    /// too many requests from the client's address had no valid key.
    limit: usize,
    /// Maximum of `length` for one tenant.
    tenant_limit: usize,
    /// Number of operations refused since the process started, at once or after too long a wait.
    refused: u64,
}

impl From<QueueLoad> for QueueView {
    fn from(QueueLoad { name, length, limit, tenant_limit, refused }: QueueLoad) -> Self {
        Self { name, length, limit, tenant_limit, refused }
    }
}
