//! Subscriptions: which events create which tasks.

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::auth::audit::Action;
use nobat_core::config::record::RecordKind;
use nobat_core::config::subscription::{EventBody, Subscription};
use nobat_core::events::cloud_event::{CloudEvent, Defaults};
use nobat_core::json::Json;
use nobat_core::json::decode::{read, read_object};
use nobat_core::service::fan_out::StoredEvent;
use nobat_core::submission::Submission;
use nobat_core::submission::event::{EventContext, event_task};
use nobat_core::submission::subscription::SubscriptionSubmission;
use nobat_core::task::view::TaskView;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::name::Name;
use nobat_core::types::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::extract::{Authorized, ConfigWrite};
use crate::http::cursor::List;
use crate::http::idempotency::refuse_key;
use crate::http::options::{Nothing, options};
use crate::http::page::PageRequest;
use crate::http::path::PathParam;
use crate::http::problem::{FieldErrorView, Problem};
use crate::http::query::Query;
use crate::http::{body, response};
use crate::routes::config_update::{Change, check_size, template_context, update};
use crate::routes::events::tasks::fan_out;
use crate::routes::events::view::EventSubmission;
use crate::routes::wake::{WakeTarget, wake};

/// Approximate size of a subscription in a response, in bytes.
const SUBSCRIPTION_BYTES: usize = 500;

/// Subscription.
#[derive(Serialize, ToSchema)]
#[schema(as = Subscription)]
pub(crate) struct SubscriptionView {
    /// Name.
    #[schema(value_type = String)]
    name: Name,
    /// Pattern for the type of events.
    topic: String,
    /// Conditions on the content of events. `null` if there are none.
    #[schema(value_type = Option<BTreeMap<String, serde_json::Value>>, required)]
    filter: Option<Json>,
    /// Template of the task that each selected event creates, unchanged.
    #[schema(value_type = Submission)]
    task: Json,
    /// Body that a task of kind `http` sends if its template has no body.
    body: EventBody,
    /// True if a client paused the subscription. nobat then creates the subscription's tasks and holds them.
    paused: bool,
    /// Time of creation.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// One page of subscriptions.
#[derive(Serialize, ToSchema)]
#[schema(as = SubscriptionPage)]
pub(crate) struct PageView {
    /// Subscriptions, in the order of their names.
    data: Vec<SubscriptionView>,
    /// Cursor of the next page. `null` on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Result of a test: what the subscription would do with the event.
#[derive(Serialize, ToSchema)]
pub(crate) struct SubscriptionTest<'a> {
    /// True if `topic` matches the type of the event.
    topic_matches: bool,
    /// True if `filter` matches the event.
    filter_matches: bool,
    /// Task that the event would create. `null` if the subscription does not select the event, or if the task
    /// would not be valid.
    #[schema(required)]
    task: Option<TaskView<'a>>,
    /// Errors that make the task invalid. Their pointers are relative to the subscription's `task`.
    errors: Vec<FieldErrorView<'a>>,
}

/// Create or replace a subscription
///
/// Replaces the whole configuration. Omitted fields reset to their defaults, except `paused`, which keeps its
/// value. The new configuration applies to all events that are published after the response.
#[utoipa::path(
    put,
    path = "/v1/subscriptions/{name}",
    operation_id = "put_subscription",
    tag = "subscriptions",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The subscription's name.", example = "stock")),
    request_body(content = SubscriptionSubmission, example = json!({
        "topic": "order.*",
        "filter": {"data": {"amount": [{"numeric": [">", 100]}]}},
        "task": {"kind": "http", "endpoint": "stock"},
    })),
    responses(
        (status = 200, description = "The subscription is changed.", body = SubscriptionView),
        (status = 201, description = "The subscription is created.", body = SubscriptionView),
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
    let submission: SubscriptionSubmission = read_object(&body)?;
    let now = app.clock.now();
    // A template that cannot be read counts as empty here. `into_subscription` reports the error below.
    let sample = submission.sample_task().unwrap_or_default();
    let config = app.config_cache().for_submission(&caller.tenant, &sample).await?;
    let known = app.backend.config.subscriptions(&caller.tenant).await?;
    if known.len() >= Subscription::MAX_PER_TENANT && known.iter().all(|(other, _)| *other != name) {
        let detail = format!(
            "the tenant has {} subscriptions, which is the maximum; remove a subscription first",
            known.len()
        );
        return Err(vec![FieldError::new("", detail)].into());
    }
    let read = || app.backend.config.subscription(&caller.tenant, &name);
    let (current, subscription) = update(&app, "the subscription", read, |current| {
        // `into_subscription` consumes the submission, so each try reads it again.
        let submission: SubscriptionSubmission = read_object(&body)?;
        let context = template_context(&app, &caller.tenant, &config, now);
        let subscription = submission.into_subscription(current.as_ref(), &context)?;
        let record = subscription.record(&caller.tenant, &name);
        check_size(&record)?;
        let entry = caller.entry(&caller.tenant, Action::SubscriptionChanged, &name, now);
        Ok((Change::Write(vec![record]), entry, (current, subscription)))
    })
    .await?;
    if current.as_ref().is_some_and(|current| current.paused) && !subscription.paused {
        wake(&app, &caller, WakeTarget::Subscription(&name)).await;
    }
    let status = if current.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    response::value(status, SUBSCRIPTION_BYTES, &SubscriptionView::new(name, subscription))
}

/// Get a subscription
///
/// The template is shown as it was sent.
#[utoipa::path(
    get,
    path = "/v1/subscriptions/{name}",
    operation_id = "get_subscription",
    tag = "subscriptions",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The subscription's name.", example = "stock")),
    responses((status = 200, description = "The subscription.", body = SubscriptionView)),
)]
pub(crate) async fn one(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
) -> Result<Response, Problem> {
    let found = app.backend.config.subscription(&caller.tenant, &name).await?;
    let subscription = found.ok_or_else(Problem::subscription_not_found)?;
    response::value(StatusCode::OK, SUBSCRIPTION_BYTES, &SubscriptionView::new(name, subscription))
}

/// List subscriptions
///
/// Returns the subscriptions of the caller's tenant in the order of their names.
#[utoipa::path(
    get,
    path = "/v1/subscriptions",
    operation_id = "list_subscriptions",
    tag = "subscriptions",
    security(("key" = ["config:write"])),
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Maximum number of subscriptions in a page. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page of subscriptions.", body = PageView)),
)]
pub(crate) async fn page(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::read(query.as_deref(), &["limit", "cursor"]);
    let page = PageRequest::read(&mut query);
    query.finish()?;
    let list = List::subscriptions(&caller.tenant);
    let (found, next_cursor) = page
        .records(&app, &list, Some(&caller.tenant), RecordKind::Subscription, Subscription::from_text)
        .await?;
    let data: Vec<SubscriptionView> =
        found.into_iter().map(|(name, subscription)| SubscriptionView::new(name, subscription)).collect();
    response::value(StatusCode::OK, SUBSCRIPTION_BYTES * (1 + data.len()), &PageView { data, next_cursor })
}

/// Remove a subscription
///
/// Events that are published after the response create no task for the subscription. Its existing tasks stay.
#[utoipa::path(
    delete,
    path = "/v1/subscriptions/{name}",
    operation_id = "remove_subscription",
    tag = "subscriptions",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The subscription's name.", example = "stock")),
    responses((status = 200, description = "The subscription is removed. The response shows its last configuration.", body = SubscriptionView)),
)]
pub(crate) async fn remove(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let Nothing {} = options(&app, &caller.tenant, request).await?;
    let now = app.clock.now();
    let read = || app.backend.config.subscription(&caller.tenant, &name);
    let subscription = update(&app, "the subscription", read, |subscription| {
        let subscription = subscription.ok_or_else(Problem::subscription_not_found)?;
        let change = Change::Remove(Subscription::record_name(&caller.tenant, &name), subscription.version);
        let entry = caller.entry(&caller.tenant, Action::SubscriptionRemoved, &name, now);
        Ok((change, entry, subscription))
    })
    .await?;
    if subscription.paused {
        wake(&app, &caller, WakeTarget::Subscription(&name)).await;
    }
    response::value(StatusCode::OK, SUBSCRIPTION_BYTES, &SubscriptionView::new(name, subscription))
}

/// Test a subscription with an event
///
/// Returns the task that the event would create. The event is in plain JSON. Nothing is stored.
#[utoipa::path(
    post,
    path = "/v1/subscriptions/{name}/test",
    operation_id = "test_subscription",
    tag = "subscriptions",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The subscription's name.", example = "stock")),
    request_body(content = EventSubmission, example = json!({"type": "order.created", "data": {"order_id": 7, "amount": 120}})),
    responses((status = 200, description = "The result of the test.", body = SubscriptionTest<'static>)),
)]
pub(crate) async fn test(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    refuse_key(
        request.headers(),
        "a test stores nothing and can be repeated; send the request without the header Idempotency-Key",
    )?;
    let (head, body) = request.into_parts();
    let body = body::json(&app, &caller.tenant, &head.headers, body).await?;
    let now = app.clock.now();
    let event: Box<RawValue> = read(&body)?;
    let event = CloudEvent::from_json(&event, false, &Defaults { id: "test".to_owned(), time: now })?;
    let found = app.backend.config.subscription(&caller.tenant, &name).await?;
    let subscription = found.ok_or_else(Problem::subscription_not_found)?;
    let context = EventContext { tenant: &caller.tenant, submitted_by: caller.key(), hops: 0, now };
    let task = event_task(&event, None, context);
    let stored = StoredEvent::read(&task)?;
    let topic_matches = subscription.topic.matches(&stored.event.event_type);
    let filter_matches = subscription
        .filter
        .matches(&stored.value)
        .map_err(|error| vec![FieldError::new("/data", error.to_string())])?;
    let made = if topic_matches && filter_matches {
        Some(fan_out(&app, now).task(&stored, &name, &subscription).await?)
    } else {
        None
    };
    let (task, errors) = match &made {
        Some(Ok(task)) => (Some(response::view(task, &caller, now)), &[][..]),
        Some(Err(errors)) => (None, &errors[..]),
        None => (None, &[][..]),
    };
    let errors = errors.iter().map(FieldErrorView::from).collect();
    let view = SubscriptionTest { topic_matches, filter_matches, task, errors };
    response::value(StatusCode::OK, SUBSCRIPTION_BYTES + body.len(), &view)
}

impl SubscriptionView {
    fn new(name: Name, subscription: Subscription) -> Self {
        let Subscription { topic, filter_text, task, body, paused, created_at, .. } = subscription;
        Self { name, topic: topic.to_string(), filter: filter_text, task, body, paused, created_at }
    }
}
