//! Endpoints, as the API shows them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use nobat_core::config::endpoint::{Endpoint, EndpointStatus};
use nobat_core::limits::{BatchPolicy, BreakerView, LimiterStatus, LimitsView};
use nobat_core::secrets::secret_set::StoredSecret;
use nobat_core::task::view::RetryView;
use nobat_core::types::name::Name;
use nobat_core::types::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::routes::callback_secret::SecretView;

/// Endpoint, without its secrets and the values of its headers.
#[derive(Serialize, ToSchema)]
#[schema(as = Endpoint)]
pub(crate) struct EndpointView {
    /// Name of the endpoint.
    #[schema(value_type = String)]
    pub(super) name: Name,
    /// URL of the endpoint. nobat appends the path of a task to this URL.
    pub(super) url: String,
    /// Headers that nobat adds to every request. Their values are shown as `null`.
    pub(super) headers: BTreeMap<String, Option<String>>,
    /// Secrets that sign requests, newest first.
    pub(super) secrets: Vec<SecretView>,
    /// Generated secret. Only in the response to the request that generated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub(super) secret: Option<String>,
    /// Maximum duration of an attempt in seconds, for tasks that set no timeout. `null`: the default of 30.
    #[schema(required)]
    pub(super) timeout: Option<f64>,
    /// Retry policy of tasks that set no retry policy. `null`: the retry policy of the task's queue.
    #[schema(required)]
    pub(super) retry: Option<RetryView>,
    /// HTTP statuses that count as success.
    pub(super) success_statuses: Vec<String>,
    /// HTTP statuses after which nobat retries the task.
    pub(super) retry_statuses: Vec<String>,
    /// Start rate and concurrency of the endpoint's tasks.
    pub(super) limits: LimitsView,
    /// Circuit breaker. It holds the endpoint's tasks when too many attempts fail.
    pub(super) circuit_breaker: BreakerView,
    /// Current state of the endpoint's limits and circuit breaker. Only in responses to `GET` of one
    /// endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub(super) state: Option<LimiterStatus>,
    /// Batching of tasks into one request. `null`: one request for each task.
    #[schema(required)]
    pub(super) batch: Option<BatchView>,
    /// Certificate authorities that must have signed the endpoint's certificate, as PEM. `null`: the
    /// authorities that the operating system trusts.
    #[schema(required)]
    pub(super) ca_certificates: Option<String>,
    /// True if a client paused the endpoint. nobat then holds the endpoint's tasks.
    pub(super) paused: bool,
    /// True if the endpoint responded with 410 (Gone). nobat holds the endpoint's tasks until a client
    /// resumes the endpoint or changes its URL.
    pub(super) gone: bool,
    /// Time at which the endpoint was created.
    #[schema(value_type = String, format = DateTime)]
    pub(super) created_at: Timestamp,
}

/// Batching of tasks into one request, whose body is an array.
#[derive(Serialize, ToSchema)]
#[schema(as = EndpointBatch)]
pub(super) struct BatchView {
    /// Maximum number of tasks in one request.
    #[schema(value_type = u32)]
    pub(super) max_items: NonZeroU32,
    /// Maximum time in seconds that the first task of a batch waits for other tasks.
    pub(super) max_wait: f64,
    /// True if the endpoint's response contains a result for each task.
    pub(super) per_item_results: bool,
}

impl From<BatchPolicy> for BatchView {
    fn from(batch: BatchPolicy) -> Self {
        Self {
            max_items: batch.max_items,
            max_wait: batch.max_wait.as_secs_f64(),
            per_item_results: batch.per_item_results,
        }
    }
}

/// One page of endpoints.
#[derive(Serialize, ToSchema)]
#[schema(as = EndpointPage)]
pub(crate) struct PageView {
    /// Endpoints, in the order of their names.
    pub(super) data: Vec<EndpointView>,
    /// Cursor of the next page. `null` on the last page.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

impl EndpointView {
    pub(super) fn new(name: Name, endpoint: &Endpoint, now: Timestamp) -> Self {
        let secret =
            |kept: &StoredSecret| SecretView { created_at: kept.created_at, expires_at: kept.expires_at };
        let texts = |statuses: &nobat_core::types::http_status::Statuses| {
            statuses.texts().map(str::to_owned).collect()
        };
        Self {
            name,
            url: endpoint.url.to_string(),
            headers: endpoint.headers.keys().map(|name| (name.clone(), None)).collect(),
            secrets: endpoint.secrets.live(now).map(secret).collect(),
            secret: None,
            timeout: endpoint.timeout.as_ref().map(Duration::as_secs_f64),
            retry: endpoint.retry.as_ref().map(RetryView::from),
            success_statuses: texts(&endpoint.answers.success_statuses),
            retry_statuses: texts(&endpoint.answers.retry_statuses),
            limits: endpoint.limits.into(),
            circuit_breaker: endpoint.limits.breaker.into(),
            state: None,
            batch: endpoint.batch.map(BatchView::from),
            ca_certificates: endpoint.authority.clone(),
            paused: endpoint.status == EndpointStatus::Paused,
            gone: endpoint.status == EndpointStatus::Gone,
            created_at: endpoint.created_at,
        }
    }
}
