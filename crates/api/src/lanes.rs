//! What is laid down for queues, kinds and flow keys: whether their tasks start at all, how often, and how many at once.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::audit::Action;
use nobat_core::flow::{FlowName, FlowOf, FlowState, FlowSubmission, FlowView, Limits};
use nobat_core::lane::{Lane, LaneSubmission};
use nobat_core::name::Name;
use nobat_core::read::{Said, read_object};
use nobat_core::registry::Sort;
use nobat_core::view::RetryView;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::body;
use crate::door::{Allowed, Caller, ConfigWrite};
use crate::endpoints::{Named, too_busy, write};
use crate::problem::Problem;
use crate::reply;
use crate::wake::{Of, wake};

/// What is laid down for one of them is shown in so many bytes, about.
const LANE_BYTES: usize = 400;
/// How often a change is tried that others are in the way of.
const MAX_CONFLICTS: usize = 5;

/// What is to hold for the tasks of a kind. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutKind)]
pub(crate) struct PutKind {
    /// Whether none of them start.
    paused: Option<bool>,
    /// How often they start, and how many at once; `null` takes all limits away.
    #[serde(default, deserialize_with = "nobat_core::read::said_object")]
    #[schema(value_type = Option<FlowSubmission>, required = false)]
    flow: Said<FlowSubmission>,
}

/// What holds for a queue.
#[derive(Serialize, ToSchema)]
#[schema(as = Queue)]
pub(crate) struct QueueView {
    /// Its name.
    #[schema(value_type = String)]
    name: Name,
    /// Whether none of its tasks start: they are held.
    paused: bool,
    /// How often they start, and how many at once.
    flow: FlowView,
    /// When to try again, for tasks that do not say and whose endpoint does not; `null` is the usual.
    #[schema(required)]
    retry: Option<RetryView>,
    /// How its flow stands now. Shown by `GET` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    state: Option<FlowState>,
}

/// What holds for a kind.
#[derive(Serialize, ToSchema)]
#[schema(as = Kind)]
pub(crate) struct KindView {
    /// Its name.
    #[schema(value_type = String)]
    name: Name,
    /// Whether none of its tasks start: they are held.
    paused: bool,
    /// How often they start, and how many at once.
    flow: FlowView,
    /// How its flow stands now. Shown by `GET` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    state: Option<FlowState>,
}

/// What holds for the tasks of a flow key.
#[derive(Serialize, ToSchema)]
#[schema(as = FlowKey)]
pub(crate) struct FlowKeyView {
    /// The key.
    #[schema(value_type = String)]
    key: Name,
    /// How often tasks that name it start, and how many at once.
    #[serde(flatten)]
    flow: FlowView,
    /// How its flow stands now. Shown by `GET` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    state: Option<FlowState>,
}

/// Lay down what holds for a queue
///
/// What is left out stays as it is, and what is `null` is as usual. It holds within 10 seconds, and those that were held ask again by then,
/// as many of them as can be told while this is answered, for up to five seconds.
#[utoipa::path(
    put,
    path = "/v1/queues/{name}",
    operation_id = "put_queue",
    tag = "flows",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The queue's name.", example = "default")),
    request_body(content = LaneSubmission, example = json!({"paused": false, "flow": {"parallelism": 10}, "retry": {"max_attempts": 8}})),
    responses((status = 200, description = "It holds.", body = QueueView)),
)]
pub(crate) async fn put_queue(
    State(app): State<App>,
    Allowed(caller, _): Allowed<ConfigWrite>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Problem> {
    let lane = put(&app, &caller, Sort::Queue, Action::QueueChanged, &name, request, |said| said).await?;
    reply::value(StatusCode::OK, LANE_BYTES, &QueueView::new(name, &lane))
}

/// Get what holds for a queue, and how its flow stands
///
/// Of one for which nothing is laid down, that it is not paused and not limited.
#[utoipa::path(
    get,
    path = "/v1/queues/{name}",
    operation_id = "get_queue",
    tag = "flows",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The queue's name.", example = "default")),
    responses((status = 200, description = "What holds.", body = QueueView)),
)]
pub(crate) async fn get_queue(
    State(app): State<App>,
    Allowed(caller, _): Allowed<ConfigWrite>,
    Named(name): Named,
) -> Result<Response, Problem> {
    let lane = get(&app, &caller, Sort::Queue, &name).await?;
    let state = Some(state(&app, &caller, FlowOf::Queue(name.clone()), &lane.limits).await?);
    reply::value(StatusCode::OK, LANE_BYTES, &QueueView { state, ..QueueView::new(name, &lane) })
}

/// Lay down what holds for a kind
///
/// For the tasks of the caller's tenant. What is left out stays as it is, and what is `null` is as usual. It holds within 10 seconds, and
/// those that were held ask again by then, as many of them as can be told while this is answered, for up to five seconds.
#[utoipa::path(
    put,
    path = "/v1/kinds/{name}",
    operation_id = "put_kind",
    tag = "flows",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The kind's name.", example = "http")),
    request_body(content = PutKind, example = json!({"paused": true})),
    responses((status = 200, description = "It holds.", body = KindView)),
)]
pub(crate) async fn put_kind(
    State(app): State<App>,
    Allowed(caller, _): Allowed<ConfigWrite>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Problem> {
    let said = |PutKind { paused, flow }| LaneSubmission { paused, flow, ..LaneSubmission::default() };
    let lane = put(&app, &caller, Sort::Kind, Action::KindChanged, &name, request, said).await?;
    reply::value(StatusCode::OK, LANE_BYTES, &KindView::new(name, &lane))
}

/// Get what holds for a kind, and how its flow stands
///
/// Of one for which nothing is laid down, that it is not paused and not limited.
#[utoipa::path(
    get,
    path = "/v1/kinds/{name}",
    operation_id = "get_kind",
    tag = "flows",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The kind's name.", example = "http")),
    responses((status = 200, description = "What holds.", body = KindView)),
)]
pub(crate) async fn get_kind(
    State(app): State<App>,
    Allowed(caller, _): Allowed<ConfigWrite>,
    Named(name): Named,
) -> Result<Response, Problem> {
    let lane = get(&app, &caller, Sort::Kind, &name).await?;
    let state = Some(state(&app, &caller, FlowOf::Kind(name.clone()), &lane.limits).await?);
    reply::value(StatusCode::OK, LANE_BYTES, &KindView { state, ..KindView::new(name, &lane) })
}

/// Lay down how often the tasks of a flow key start
///
/// Tasks name it as `flow_key`, whatever their kind, queue and endpoint. What is left out is not limited. It holds within 10 seconds, and
/// those that were held ask again by then, as many of them as can be told while this is answered, for up to five seconds. If the other side
/// asked to be left alone (`Retry-After`), that ends, whether the limits change or not.
#[utoipa::path(
    put,
    path = "/v1/flows/{name}",
    operation_id = "put_flow",
    tag = "flows",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The flow key.", example = "customer-42")),
    request_body(content = FlowSubmission, example = json!({"rate": 10, "period": 1, "parallelism": 4})),
    responses((status = 200, description = "It holds.", body = FlowKeyView)),
)]
pub(crate) async fn put_flow(
    State(app): State<App>,
    Allowed(caller, _): Allowed<ConfigWrite>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Problem> {
    let said = |flow| LaneSubmission { flow: Said::This(flow), ..LaneSubmission::default() };
    let lane = put(&app, &caller, Sort::FlowKey, Action::FlowChanged, &name, request, said).await?;
    reply::value(StatusCode::OK, LANE_BYTES, &FlowKeyView { key: name, flow: lane.limits.into(), state: None })
}

/// Get how often the tasks of a flow key start, and how its flow stands
///
/// Of one for which nothing is laid down, that it is not limited.
#[utoipa::path(
    get,
    path = "/v1/flows/{name}",
    operation_id = "get_flow",
    tag = "flows",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The flow key.", example = "customer-42")),
    responses((status = 200, description = "What holds.", body = FlowKeyView)),
)]
pub(crate) async fn get_flow(
    State(app): State<App>,
    Allowed(caller, _): Allowed<ConfigWrite>,
    Named(name): Named,
) -> Result<Response, Problem> {
    let lane = get(&app, &caller, Sort::FlowKey, &name).await?;
    let state = Some(state(&app, &caller, FlowOf::Key(name.clone()), &lane.limits).await?);
    reply::value(StatusCode::OK, LANE_BYTES, &FlowKeyView { key: name, flow: lane.limits.into(), state })
}

/// How a flow of the caller's tenant stands.
pub(crate) async fn state(app: &App, caller: &Caller, of: FlowOf, limits: &Limits) -> Result<FlowState, Problem> {
    let kept = app.backend.flows.read(&FlowName { tenant: caller.tenant.clone(), of }).await?;
    Ok(kept.flow.state(limits, app.clock.now()))
}

async fn get(app: &App, caller: &Caller, sort: Sort, name: &Name) -> Result<Lane, Problem> {
    Ok(app.backend.registry.lane(&Lane::record_name(&caller.tenant, sort, name)).await?)
}

/// Writes what is laid down, on record. `said` is what the body says.
async fn put<T: for<'de> Deserialize<'de>>(
    app: &App,
    caller: &Caller,
    sort: Sort,
    action: Action,
    name: &Name,
    request: Request,
    said: impl Fn(T) -> LaneSubmission,
) -> Result<Lane, Problem> {
    let (head, body) = request.into_parts();
    let body = body::json(app, &caller.tenant, &head.headers, body).await?;
    let submission = said(read_object(&body)?);
    // Whatever it becomes, it is named and judged as what it was sent as.
    let root = if sort == Sort::FlowKey { "" } else { "/flow" };
    for _ in 0..MAX_CONFLICTS {
        let current = get(app, caller, sort, name).await?;
        let lane = submission.lane(root, &current)?;
        if write(app, caller, lane.record(Lane::record_name(&caller.tenant, sort, name)), action, name).await? {
            let of = match sort {
                Sort::FlowKey => Of::FlowKey(name),
                Sort::Queue => Of::Queue(name),
                _ => Of::Kind(name),
            };
            let is_other = (lane.paused, lane.limits) != (current.paused, current.limits);
            // Of a flow key, to say the same again ends a rest.
            if sort == Sort::FlowKey || is_other && !lane.paused {
                wake(app, caller, of).await;
            }
            return Ok(lane);
        }
    }
    Err(too_busy())
}

impl QueueView {
    fn new(name: Name, lane: &Lane) -> Self {
        Self { name, paused: lane.paused, flow: lane.limits.into(), retry: lane.retry.as_ref().map(RetryView::from), state: None }
    }
}

impl KindView {
    fn new(name: Name, lane: &Lane) -> Self {
        Self { name, paused: lane.paused, flow: lane.limits.into(), state: None }
    }
}
