//! Endpoints: the servers that tasks of kind `http` call, and their configuration.
//!
//! nobat stores the secrets and the header values of endpoints encrypted, and never shows them again.

pub(crate) mod view;

use std::time::Duration;

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::auth::audit::Action;
use nobat_core::config::endpoint::{
    Endpoint, EndpointStatus, EndpointSubmission, EndpointTest, EndpointUpdate, EndpointUpdateContext,
    TestResult,
};
use nobat_core::config::kind::{KindError, Target};
use nobat_core::config::record::RecordKind;
use nobat_core::json::Json;
use nobat_core::json::decode::read_object;
use nobat_core::limits::LimitScope;
use nobat_core::secrets::secret_set::MAX_LIVE;
use nobat_core::secrets::webhook::WebhookSecret;
use nobat_core::task::callback::HTTP;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Name;
use nobat_core::types::time::Timestamp;
use serde_json::value::RawValue;

use crate::app::App;
use crate::auth::extract::{Authorized, ConfigWrite};
use crate::auth::principal::Principal;
use crate::http::cursor::List;
use crate::http::error_code::Code;
use crate::http::idempotency::refuse_key;
use crate::http::options::{Nothing, options, options_without_key};
use crate::http::page::PageRequest;
use crate::http::path::PathParam;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::{body, response};
use crate::routes::callback_secret::Rotate;
use crate::routes::config_update::{Change, check_size, update};
use crate::routes::endpoints::view::{EndpointView, PageView};
use crate::routes::queues;
use crate::routes::rotation::{ROTATE_INSTEAD, grace_period};
use crate::routes::wake::{WakeTarget, wake};

/// Approximate size of an endpoint in a response, in bytes.
const ENDPOINT_BYTES: usize = 700;

/// Maximum duration of a test call, because a client waits for its result.
const MAX_TRIAL: Duration = Duration::from_secs(10);

/// Create or replace an endpoint
///
/// Replaces the whole configuration. Omitted fields reset to their defaults, except `secret` and `paused`,
/// which keep their values. Every process applies the change within 10 seconds, also to waiting tasks.
///
/// If the endpoint's limits, batching or URL change, nobat also wakes the endpoint's held tasks, newest
/// first. nobat wakes up to about 1,000 tasks, for at most five seconds. It checks woken tasks within 10
/// seconds, and other held tasks within 15 minutes. The same applies to a new endpoint, and to an endpoint
/// that is no longer paused or gone.
#[utoipa::path(
    put,
    path = "/v1/endpoints/{name}",
    operation_id = "put_endpoint",
    tag = "endpoints",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The endpoint's name.", example = "billing")),
    request_body(content = EndpointSubmission, example = json!({
        "url": "https://billing.example/api",
        "headers": {"authorization": "Bearer …"},
        "timeout": 30,
        "retry": {"max_attempts": 8},
        "limits": {"rate": 10, "period": 1, "concurrency": 4},
        "circuit_breaker": {"failure_rate": 0.5, "window": 60, "minimum_calls": 10, "open_duration": 30},
        "batch": {"max_items": 100, "max_wait": 5, "per_item_results": false},
    })),
    responses(
        (status = 200, description = "The endpoint is changed.", body = EndpointView),
        (status = 201, description = "The endpoint is created. The response shows its secret if nobat generated it.", body = EndpointView),
    ),
)]
pub(crate) async fn put(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = body::json(&app, &caller.tenant, &head.headers, body).await?;
    // Refuses an invalid body before the store is read.
    read_object::<EndpointSubmission>(&body)?;
    let (now, place) = (app.clock.now(), Endpoint::secret_context(&caller.tenant, &name));
    let vault = app.vault.vault().await?;
    let seal = |secret: &[u8]| vault.seal(&place, secret, rand::random());
    let read = || app.backend.config.endpoint(&caller.tenant, &name);
    let (current, EndpointUpdate { endpoint, made }) = update(&app, "the endpoint", read, |current| {
        // `into_endpoint` consumes the submission, so each try reads it again.
        let submission: EndpointSubmission = read_object(&body)?;
        let receiving = EndpointUpdateContext {
            current: current.as_ref(),
            kinds: &*app.kinds,
            max_timeout: app.max_timeout,
            seal: &seal,
            random: rand::random(),
            now,
        };
        let changed = submission.into_endpoint(&receiving)?;
        let record = changed.endpoint.record(&caller.tenant, &name);
        check_size(&record)?;
        let entry = caller.entry(&caller.tenant, Action::EndpointChanged, &name, app.clock.now());
        Ok((Change::Write(vec![record]), entry, (current, changed)))
    })
    .await?;
    match &current {
        _ if !endpoint.is_open() => {}
        Some(before) if before.is_open() && before.is_same_destination(&endpoint) => {
            if (before.limits, before.batch) != (endpoint.limits, endpoint.batch) {
                wake(&app, &caller, WakeTarget::Endpoint(&name)).await;
            }
        }
        // For a new, resumed or moved endpoint, an earlier `Retry-After` or open circuit breaker no longer
        // applies.
        _ => wake(&app, &caller, WakeTarget::EndpointAnew(&name)).await,
    }
    let status = if current.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let secret = made.map(|secret| secret.to_text());
    response::value(
        status,
        ENDPOINT_BYTES,
        &EndpointView { secret, ..EndpointView::new(name, &endpoint, now) },
    )
}

/// Get an endpoint and the state of its limits
///
/// The response never contains the endpoint's secrets or header values.
#[utoipa::path(
    get,
    path = "/v1/endpoints/{name}",
    operation_id = "get_endpoint",
    tag = "endpoints",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The endpoint's name.", example = "billing")),
    responses((status = 200, description = "The endpoint.", body = EndpointView)),
)]
pub(crate) async fn one(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
) -> Result<Response, Problem> {
    let endpoint = app.backend.config.endpoint(&caller.tenant, &name).await?.ok_or_else(not_found)?;
    let state =
        Some(queues::state(&app, &caller, LimitScope::Endpoint(name.clone()), &endpoint.limits).await?);
    response::value(
        StatusCode::OK,
        ENDPOINT_BYTES,
        &EndpointView { state, ..EndpointView::new(name, &endpoint, app.clock.now()) },
    )
}

/// List endpoints
///
/// Returns the endpoints of the caller's tenant in the order of their names.
#[utoipa::path(
    get,
    path = "/v1/endpoints",
    operation_id = "list_endpoints",
    tag = "endpoints",
    security(("key" = ["config:write"])),
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Maximum number of endpoints in a page. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page of endpoints.", body = PageView)),
)]
pub(crate) async fn page(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::read(query.as_deref(), &["limit", "cursor"]);
    let page = PageRequest::read(&mut query);
    query.finish()?;
    let list = List::endpoints(&caller.tenant);
    let (found, next_cursor) =
        page.records(&app, &list, Some(&caller.tenant), RecordKind::Endpoint, Endpoint::from_text).await?;
    let now = app.clock.now();
    let data: Vec<EndpointView> =
        found.into_iter().map(|(name, endpoint)| EndpointView::new(name, &endpoint, now)).collect();
    response::value(StatusCode::OK, ENDPOINT_BYTES * (1 + data.len()), &PageView { data, next_cursor })
}

/// Remove an endpoint
///
/// nobat holds the endpoint's waiting tasks with the reason `endpoint_missing`. The tasks wait until an
/// endpoint with this name exists again, or until a client cancels the tasks.
#[utoipa::path(
    delete,
    path = "/v1/endpoints/{name}",
    operation_id = "remove_endpoint",
    tag = "endpoints",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The endpoint's name.", example = "billing")),
    responses((status = 200, description = "The endpoint is removed. The response shows its last configuration.", body = EndpointView)),
)]
pub(crate) async fn remove(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let Nothing {} = options(&app, &caller.tenant, request).await?;
    let now = app.clock.now();
    let read = || app.backend.config.endpoint(&caller.tenant, &name);
    let endpoint = update(&app, "the endpoint", read, |endpoint| {
        let endpoint = endpoint.ok_or_else(not_found)?;
        let change = Change::Remove(Endpoint::record_name(&caller.tenant, &name), endpoint.version);
        Ok((change, caller.entry(&caller.tenant, Action::EndpointRemoved, &name, now), endpoint))
    })
    .await?;
    response::value(StatusCode::OK, ENDPOINT_BYTES, &EndpointView::new(name, &endpoint, now))
}

/// Replace the secret of an endpoint
///
/// The process that handles the request signs with the new secret at once, other processes within 10 seconds.
/// The older secrets also sign for `grace_period` seconds, so that the endpoint can switch over in the
/// meantime. After that, no process signs with the older secrets.
#[utoipa::path(
    post,
    path = "/v1/endpoints/{name}/rotate",
    operation_id = "rotate_endpoint_secret",
    tag = "endpoints",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The endpoint's name.", example = "billing")),
    request_body(content = Rotate, description = "May be left out.", example = json!({"grace_period": 86400})),
    responses((status = 200, description = "The secret is replaced. The older secrets sign until their grace period ends.", body = EndpointView)),
)]
pub(crate) async fn rotate(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let Rotate { secret, grace_period: seconds } =
        options_without_key(&app, &caller.tenant, request, ROTATE_INSTEAD).await?;
    let overlap = grace_period(seconds)?;
    let given = secret.map(|text| text.parse::<WebhookSecret>()).transpose();
    let given = given.map_err(|error| Problem::from(vec![FieldError::new("/secret", error.to_string())]))?;
    let is_given = given.is_some();
    let secret = given.unwrap_or_else(|| WebhookSecret::new(rand::random()));
    let (vault, place) = (app.vault.vault().await?, Endpoint::secret_context(&caller.tenant, &name));
    let change = |endpoint: Endpoint, now| {
        let sealed = vault.seal(&place, secret.as_bytes(), rand::random());
        let secrets = endpoint
            .secrets
            .renewed(|sealed| vault.renew(&place, sealed, rand::random()))
            .with(sealed, overlap, now);
        let secrets = secrets.map_err(|_| {
            Problem::new(
                Code::TooManySecrets,
                format!("{MAX_LIVE} secrets are in use, which is the maximum; wait until a secret expires, or replace all secrets by PUT"),
            )
        })?;
        let headers = endpoint
            .headers
            .into_iter()
            .map(|(name, sealed)| (name, vault.renew(&place, &sealed, rand::random())));
        Ok(Endpoint { secrets, headers: headers.collect(), ..endpoint })
    };
    let view = change_one(&app, &caller, name, Action::EndpointSecretRotated, change).await?;
    let view = EndpointView { secret: (!is_given).then(|| secret.to_text()), ..view };
    response::value(StatusCode::OK, ENDPOINT_BYTES, &view)
}

/// Error text for a pause or a resumption with an `Idempotency-Key`.
const STATE_INSTEAD: &str =
    "send the request without the header Idempotency-Key; a repeated request has no further effect";

/// Pause an endpoint
///
/// nobat holds the endpoint's tasks with the reason `paused`. Held tasks spend no attempt. Running tasks
/// continue.
#[utoipa::path(
    post,
    path = "/v1/endpoints/{name}/pause",
    operation_id = "pause_endpoint",
    tag = "endpoints",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The endpoint's name.", example = "billing")),
    responses((status = 200, description = "The endpoint is paused.", body = EndpointView)),
)]
pub(crate) async fn pause(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let Nothing {} = options_without_key(&app, &caller.tenant, request, STATE_INSTEAD).await?;
    let change = |endpoint, _| Ok(Endpoint { status: EndpointStatus::Paused, ..endpoint });
    let view = change_one(&app, &caller, name, Action::EndpointPaused, change).await?;
    response::value(StatusCode::OK, ENDPOINT_BYTES, &view)
}

/// Resume an endpoint
///
/// Ends a client's pause, and the effect of a 410 (Gone) or a `Retry-After`. If the endpoint's circuit
/// breaker is open, nobat starts one attempt at once as a probe.
///
/// nobat also wakes the endpoint's held tasks, newest first. nobat wakes up to about 1,000 tasks, for at most
/// five seconds. It checks woken tasks within 10 seconds, and other held tasks within 15 minutes.
#[utoipa::path(
    post,
    path = "/v1/endpoints/{name}/resume",
    operation_id = "resume_endpoint",
    tag = "endpoints",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The endpoint's name.", example = "billing")),
    responses((status = 200, description = "The endpoint is resumed.", body = EndpointView)),
)]
pub(crate) async fn resume(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let Nothing {} = options_without_key(&app, &caller.tenant, request, STATE_INSTEAD).await?;
    let change = |endpoint, _| Ok(Endpoint { status: EndpointStatus::Open, ..endpoint });
    let view = change_one(&app, &caller, name.clone(), Action::EndpointResumed, change).await?;
    wake(&app, &caller, WakeTarget::EndpointAnew(&name)).await;
    response::value(StatusCode::OK, ENDPOINT_BYTES, &view)
}

/// Call an endpoint as a test
///
/// Sends the request that a task with this payload would send, signed and with the endpoint's headers, even
/// if the endpoint is paused or gone. The call ignores the limits and does not count for the circuit breaker.
/// It takes at most ten seconds. Without a body, nobat sends a sample.
///
/// At most two tests of an endpoint, eight of a tenant and 64 of a process run at a time.
#[utoipa::path(
    post,
    path = "/v1/endpoints/{name}/test",
    operation_id = "test_endpoint",
    tag = "endpoints",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The endpoint's name.", example = "billing")),
    request_body(
        content = serde_json::Value,
        description = "The payload of a task of kind `http` that names the endpoint. May be left out.",
        example = json!({"path": "/charge", "method": "POST", "body": {"order": 7}}),
    ),
    responses((status = 200, description = "The request and its result.", body = TestResult)),
)]
pub(crate) async fn test(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    refuse_key(
        &head.headers,
        "send the request without the header Idempotency-Key; a repeated request calls the endpoint again",
    )?;
    let body = body::optional_json(&app, &caller.tenant, &head.headers, body).await?;
    let endpoint = app.backend.config.endpoint(&caller.tenant, &name).await?.ok_or_else(not_found)?;
    let call: Box<RawValue> = read_object(body.as_deref().unwrap_or(b"{}"))?;
    let call = Json::from_outside(&call)
        .map_err(|error| Problem::from(vec![FieldError::new("", error.to_string())]))?;
    app.kinds.check(&HTTP, &call, Target::Endpoint).map_err(|unfit| match unfit {
        KindError::Payload(invalid) => Problem::from(invalid),
        KindError::UnknownKind(_) | KindError::EndpointNotSupported => vec![FieldError::new(
            "",
            "this server does not run tasks of kind `http`, so it cannot call endpoints",
        )]
        .into(),
    })?;
    let _slot = app.test_slots().acquire(&caller.tenant, &name)?;
    let now = app.clock.now();
    let trial = EndpointTest {
        tenant: caller.tenant,
        name,
        endpoint,
        call,
        id: TaskId::new(now, rand::random()),
        limit: MAX_TRIAL,
        now,
    };
    response::value(StatusCode::OK, ENDPOINT_BYTES, &app.tester.test(trial).await)
}

/// Changes an existing endpoint and writes an audit entry.
async fn change_one(
    app: &App,
    caller: &Principal,
    name: Name,
    action: Action,
    change: impl Fn(Endpoint, Timestamp) -> Result<Endpoint, Problem>,
) -> Result<EndpointView, Problem> {
    let now = app.clock.now();
    let read = || app.backend.config.endpoint(&caller.tenant, &name);
    let changed = update(app, "the endpoint", read, |endpoint| {
        let changed = change(endpoint.ok_or_else(not_found)?, now)?;
        let changed = Endpoint { version: changed.version + 1, ..changed };
        let entry = caller.entry(&caller.tenant, action, &name, app.clock.now());
        Ok((Change::Write(vec![changed.record(&caller.tenant, &name)]), entry, changed))
    })
    .await?;
    Ok(EndpointView::new(name, &changed, now))
}

pub(crate) fn not_found() -> Problem {
    Problem::new(Code::EndpointNotFound, "no endpoint has this name; `GET /v1/endpoints` lists all endpoints")
}
