//! Limits of tenants. Requires the scope `admin`. A tenant without limits has no record.

use std::num::NonZeroU32;

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::auth::audit::Action;
use nobat_core::config::record::{Record, RecordKind, RecordName};
use nobat_core::config::tenant::TenantSettings;
use nobat_core::json::decode::read_object;
use nobat_core::limits::token_bucket::TokenRate;
use nobat_core::limits::{Limits, LimitsSubmission, LimitsView};
use nobat_core::types::bounds::Bounds;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::name::Tenant;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::extract::{Admin, Authorized};
use crate::http::cursor::List;
use crate::http::page::PageRequest;
use crate::http::path::PathParam;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::{body, response};
use crate::routes::config_update::{Change, update};

/// Approximate size of a tenant in a response, in bytes.
const TENANT_BYTES: usize = 200;
/// Bounds of the fields `rate` and `burst` of `request_rate`.
const RATES: Bounds = Bounds::count(100_000);
/// Bounds of `max_pending_tasks` and `max_payload_bytes`.
const COUNTS: Bounds = Bounds::count(u32::MAX);

/// Limits of a tenant. Omitted fields are not limited.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TenantSettings)]
pub(crate) struct Put {
    /// Rate limit of the tenant's API requests.
    #[serde(default, deserialize_with = "nobat_core::json::decode::maybe_object")]
    #[schema(value_type = Option<PutRate>, required = false)]
    request_rate: Option<PutRate>,
    /// Maximum number of the tenant's pending tasks, which wait to run.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    max_pending_tasks: Option<f64>,
    /// Maximum size of the payload of a task, in bytes.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    max_payload_bytes: Option<f64>,
    /// Start rate and concurrency of the tenant's tasks.
    #[serde(default, deserialize_with = "nobat_core::json::decode::maybe_object")]
    #[schema(value_type = Option<LimitsSubmission>, required = false)]
    limits: Option<LimitsSubmission>,
}

/// Rate limit to set for the tenant's API requests.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutRate)]
pub(crate) struct PutRate {
    /// Requests per second. From 1 to 100,000.
    #[schema(value_type = u32, minimum = 1, maximum = 100_000)]
    rate: f64,
    /// Maximum number of requests at once after a pause. Default: `rate`. From 1 to 100,000.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100_000)]
    burst: Option<f64>,
}

/// Rate limit in effect for the tenant's API requests.
#[derive(Serialize, ToSchema)]
#[schema(as = Rate)]
pub(crate) struct RateView {
    /// Requests per second.
    #[schema(value_type = u32)]
    rate: NonZeroU32,
    /// Maximum number of requests at once after a pause.
    #[schema(value_type = u32)]
    burst: NonZeroU32,
}

/// Tenant and its limits.
#[derive(Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(crate) struct TenantView {
    /// Name.
    #[schema(value_type = String)]
    name: Tenant,
    /// Rate limit of the tenant's API requests. `null`: no limit.
    #[schema(required)]
    request_rate: Option<RateView>,
    /// Maximum number of the tenant's pending tasks, which wait to run. `null`: no limit.
    #[schema(value_type = Option<u64>, required)]
    max_pending_tasks: Option<NonZeroU32>,
    /// Maximum size of the payload of a task, in bytes. `null`: only the limit of every request body applies
    /// (256 KiB).
    #[schema(value_type = Option<u64>, required)]
    max_payload_bytes: Option<NonZeroU32>,
    /// Start rate and concurrency of the tenant's tasks.
    limits: LimitsView,
}

/// One page of tenants.
#[derive(Serialize, ToSchema)]
#[schema(as = TenantPage)]
pub(crate) struct PageView {
    /// Tenants that have a record, in the order of their names.
    data: Vec<TenantView>,
    /// Cursor of the next page. `null` on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Replace the limits of a tenant
///
/// Replaces all limits: omitted fields are not limited. The process that handles the request applies the
/// change at once. Other processes with the same DynamoDB table apply the change within 10 seconds.
#[utoipa::path(
    put,
    path = "/v1/tenants/{name}",
    operation_id = "put_tenant",
    tag = "tenants",
    security(("key" = ["admin"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The tenant's name.", example = "acme")),
    request_body(content = Put, example = json!({"request_rate": {"rate": 100, "burst": 200}, "max_pending_tasks": 10000, "max_payload_bytes": 65536})),
    responses((status = 200, description = "The limits are replaced.", body = TenantView)),
)]
pub(crate) async fn put(
    State(app): State<App>,
    Authorized(caller, _): Authorized<Admin>,
    PathParam(tenant): PathParam<Tenant>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = body::json(&app, &caller.tenant, &head.headers, body).await?;
    let put: Put = read_object(&body)?;
    let settings = put.settings()?;
    let now = app.clock.now();
    let read = || app.backend.config.tenant(&tenant);
    let updated = update(&app, "the tenant", read, |current| {
        let version = current.version + 1;
        let settings = TenantSettings { version, ..settings };
        let record = Record { name: RecordName::from(&tenant), version, body: settings.to_text() };
        Ok((
            Change::Write(vec![record]),
            caller.entry(&tenant, Action::TenantChanged, &tenant, now),
            settings,
        ))
    })
    .await;
    app.auth_cache().forget_tenant(&tenant);
    let settings = updated?;
    response::value(StatusCode::OK, TENANT_BYTES, &TenantView::new(tenant, settings))
}

/// Get a tenant
///
/// Returns the limits of the tenant, or no limits if the tenant has no record.
#[utoipa::path(
    get,
    path = "/v1/tenants/{name}",
    operation_id = "get_tenant",
    tag = "tenants",
    security(("key" = ["admin"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The tenant's name.", example = "acme")),
    responses((status = 200, description = "The limits of the tenant.", body = TenantView)),
)]
pub(crate) async fn one(
    State(app): State<App>,
    _: Authorized<Admin>,
    PathParam(tenant): PathParam<Tenant>,
) -> Result<Response, Problem> {
    let settings = app.backend.config.tenant(&tenant).await?;
    response::value(StatusCode::OK, TENANT_BYTES, &TenantView::new(tenant, settings))
}

/// List tenants
///
/// Returns the tenants that have a record, in the order of their names.
#[utoipa::path(
    get,
    path = "/v1/tenants",
    operation_id = "list_tenants",
    tag = "tenants",
    security(("key" = ["admin"])),
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Maximum number of tenants in a page. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page of tenants.", body = PageView)),
)]
pub(crate) async fn page(
    State(app): State<App>,
    _: Authorized<Admin>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::read(query.as_deref(), &["limit", "cursor"]);
    let page = PageRequest::read(&mut query);
    query.finish()?;
    let (found, next_cursor) =
        page.records(&app, &List::tenants(), None, RecordKind::Tenant, TenantSettings::from_text).await?;
    let data: Vec<TenantView> =
        found.into_iter().map(|(name, settings)| TenantView::new(name.into(), settings)).collect();
    response::value(StatusCode::OK, TENANT_BYTES * (1 + data.len()), &PageView { data, next_cursor })
}

impl Put {
    /// Returns the settings, or all errors in the request.
    fn settings(self) -> Result<TenantSettings, Vec<FieldError>> {
        let (limits, mut wrong) = match self.limits.unwrap_or_default().checked("/limits") {
            Ok(limits) => (limits, Vec::new()),
            Err(wrong) => (Limits::default(), wrong),
        };
        let mut whole = |pointer: &str, bounds: Bounds, number: Option<f64>| {
            bounds.whole(number?).map_err(|detail| wrong.push(FieldError::new(pointer, detail))).ok()
        };
        let request_rate = self.request_rate.and_then(|PutRate { rate, burst }| {
            let (rate, burst) =
                (whole("/request_rate/rate", RATES, Some(rate)), whole("/request_rate/burst", RATES, burst));
            Some(TokenRate { per_second: rate?, burst: burst.or(rate)? })
        });
        let (max_pending_tasks, max_payload_bytes) = (
            whole("/max_pending_tasks", COUNTS, self.max_pending_tasks),
            whole("/max_payload_bytes", COUNTS, self.max_payload_bytes),
        );
        let settings =
            TenantSettings { request_rate, max_pending_tasks, max_payload_bytes, limits, version: 0 };
        if wrong.is_empty() { Ok(settings) } else { Err(wrong) }
    }
}

impl TenantView {
    fn new(name: Tenant, settings: TenantSettings) -> Self {
        let request_rate =
            settings.request_rate.map(|rate| RateView { rate: rate.per_second, burst: rate.burst });
        Self {
            name,
            request_rate,
            max_pending_tasks: settings.max_pending_tasks,
            max_payload_bytes: settings.max_payload_bytes,
            limits: settings.limits.into(),
        }
    }
}
