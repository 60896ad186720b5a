//! Events: publishing, reading, and replay for one subscription.

pub(crate) mod publish;
pub(crate) mod tasks;
pub(crate) mod view;

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::auth::audit::Action;
use nobat_core::ports::{InsertResult, ListQuery};
use nobat_core::service::fan_out::{StoredEvent, task_key};
use nobat_core::submission::event::{SOURCE_LABEL, TYPE_LABEL};
use nobat_core::task::event::EVENT_KIND;
use nobat_core::task::lifecycle::{Event, ReplayKey};
use nobat_core::task::view::TaskView;
use nobat_core::task::{Task, TaskKey};
use nobat_core::types::field_error::FieldError;
use nobat_core::types::id::EventId;
use nobat_core::types::name::Name;
use nobat_core::types::time::Timestamp;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::extract::{Authorized, TasksRead, TasksReplay};
use crate::auth::principal::Principal;
use crate::http::cursor::{self, List};
use crate::http::options::keyed_options;
use crate::http::page::{DEFAULT_LIMIT, MOMENT, PageRequest};
use crate::http::path::PathParam;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::response;
use crate::routes::events::tasks::{fan_out, of_event};
use crate::routes::events::view::{EventPage, EventSummary, EventTask, EventView};
use crate::routes::tasks::submit::{may_wait, quota_exceeded};

/// Approximate size of an event in a response, in bytes, without the event's content.
const EVENT_BYTES: usize = 600;

/// Route, as a part of the stored idempotency key. The same key on another route counts as another key.
const REPLAY: &str = "/v1/events/{id}/replay";

const PARAMETERS: [&str; 6] = ["type", "source", "created_after", "created_before", "limit", "cursor"];

/// Subscription whose task is to run again.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayEvent {
    /// Name of the subscription.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    subscription: String,
}

/// List events
///
/// Lists events, newest first, without their data. A page may be shorter than `limit`, or empty, although
/// more pages follow. `next_cursor` is `null` only on the last page.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "list_events",
    tag = "events",
    security(("key" = ["tasks:read"])),
    params(
        ("type" = Option<String>, Query, description = "Only events of this type."),
        ("source" = Option<String>, Query, description = "Only events of this source."),
        ("created_after" = Option<String>, Query, format = DateTime, description = "Only events accepted at or after this time (RFC 3339)."),
        ("created_before" = Option<String>, Query, format = DateTime, description = "Only events accepted before this time (RFC 3339)."),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Maximum number of events in a page. Default 50."),
        ("cursor" = Option<String>, Query, pattern = "^([0-9a-f]{2}){16,}$", description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page of events.", body = EventPage<'static>)),
)]
pub(crate) async fn page(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksRead>,
    RawQuery(text): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::read(text.as_deref(), &PARAMETERS);
    let moment = |text: &str| text.parse::<Timestamp>().ok();
    let any = |text: &str| Some(text.to_owned());
    let labels = [TYPE_LABEL, SOURCE_LABEL]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), query.get(name, "a text", any)?)))
        .collect();
    let list = ListQuery {
        kind: Some(EVENT_KIND.clone()),
        labels,
        created_after: query.get("created_after", MOMENT, moment),
        created_before: query.get("created_before", MOMENT, moment),
        ..ListQuery::all(caller.tenant, DEFAULT_LIMIT)
    };
    let page = PageRequest::read(&mut query);
    query.finish()?;
    let after = page.after(&app, &List::tasks(&list), Some)?;
    let list = ListQuery { limit: page.limit, after, ..list };
    let found = app.backend.store.list(&list, app.clock.now()).await?;
    let view = EventPage {
        data: found.tasks.iter().map(EventSummary::new).collect(),
        next_cursor: found.next.map(|next| cursor::seal(&app.cursor_key, &List::tasks(&list), &next)),
    };
    response::value(StatusCode::OK, EVENT_BYTES * (1 + view.data.len()), &view)
}

/// Get an event and its tasks
///
/// The field `status` says if the event's tasks exist. Only keys with the scope `payload:view` see the field
/// `event`.
#[utoipa::path(
    get,
    path = "/v1/events/{id}",
    operation_id = "get_event",
    tag = "events",
    security(("key" = ["tasks:read"])),
    params(("id" = String, Path, pattern = "^event_[0-9a-z]{26}$", description = "The event's id.", example = "event_01jd8rkz5m3q4v9x2y7w6t0abc")),
    responses((status = 200, description = "The event.", body = EventView<'static>)),
)]
pub(crate) async fn one(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksRead>,
    PathParam(id): PathParam<EventId>,
) -> Result<Response, Problem> {
    let now = app.clock.now();
    let event = find(&app, &caller, id, now).await?;
    let tasks = of_event(&app, &event, now).await?;
    let view = EventView {
        summary: EventSummary::new(&event),
        event: caller.sees_bodies().then_some(&event.payload),
        tasks: tasks.iter().map(|(name, task)| EventTask::new(name, task, now)).collect(),
    };
    response::value(StatusCode::OK, EVENT_BYTES + event.payload.get().len(), &view)
}

/// Run an event again for one subscription
///
/// Replays the task that the subscription has for this event. If no such task exists, for example because the
/// subscription is newer than the event, nobat creates the task.
#[utoipa::path(
    post,
    path = "/v1/events/{id}/replay",
    operation_id = "replay_event",
    tag = "events",
    security(("key" = ["tasks:replay"])),
    params(
        ("id" = String, Path, pattern = "^event_[0-9a-z]{26}$", description = "The event's id.", example = "event_01jd8rkz5m3q4v9x2y7w6t0abc"),
        ("Idempotency-Key" = String, Header, description = crate::routes::tasks::examples::CHANGE_KEY, example = "\"replay-7\""),
    ),
    request_body(content = ReplayEvent, example = json!({"subscription": "stock"})),
    responses((
        status = 202,
        description = "The subscription's task. The task runs again.",
        body = TaskView<'static>,
        headers(("Idempotency-Replayed" = String, description = "`true` if the same request was carried out before.")),
    )),
)]
pub(crate) async fn replay(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksReplay>,
    PathParam(id): PathParam<EventId>,
    request: Request,
) -> Result<Response, Problem> {
    let (options, keyed): (ReplayEvent, _) = keyed_options(&app, &caller.tenant, request, REPLAY).await?;
    let name = Name::new(&options.subscription)
        .map_err(|error| Problem::from(vec![FieldError::new("/subscription", error.to_string())]))?;
    let now = app.clock.now();
    let event = find(&app, &caller, id, now).await?;
    let key = task_key(&event, &name);
    if app.backend.store.get(&key, now).await?.is_some() {
        let entry = caller.entry(&caller.tenant, Action::TaskReplayed, &key.id, now);
        let replay = Event::Replay { key: ReplayKey::Same, generation: None };
        let replayed = app.backend.apply_on_record(&key, None, replay, entry, keyed, now).await?;
        return response::changed(&replayed, |_| StatusCode::ACCEPTED, &caller, now);
    }
    let found = app.backend.config.subscription(&caller.tenant, &name).await?;
    let subscription = found.ok_or_else(Problem::subscription_not_found)?;
    let stored = StoredEvent::read(&event)?;
    if !stored.is_selected_by(&subscription)? {
        let detail = "the subscription's `topic` or `filter` does not match the event; name a subscription that selects the event";
        return Err(vec![FieldError::new("/subscription", detail)].into());
    }
    let made = fan_out(&app, now).task(&stored, &name, &subscription).await?;
    let mut task = made.map_err(|errors| {
        Problem::from(errors.into_iter().map(|error| error.under("/task")).collect::<Vec<_>>())
    })?;
    task.options.submitted_by = caller.key();
    if let Some(request) = keyed {
        task.remember(request);
    }
    if !may_wait(&app, &caller.tenant, caller.settings, 1, now).await? {
        return Err(quota_exceeded(&app));
    }
    let (InsertResult::Created(tasks) | InsertResult::Existing(tasks)) =
        app.backend.accept(vec![task], now).await?;
    let task = tasks.first().ok_or_else(|| Problem::internal("the store returned no task"))?;
    response::task(StatusCode::ACCEPTED, task, &caller, now)
}

/// Returns the task of kind `event` that stores the event.
async fn find(app: &App, caller: &Principal, id: EventId, now: Timestamp) -> Result<Task, Problem> {
    let key = TaskKey { tenant: caller.tenant.clone(), id: id.0 };
    let found = app.backend.store.get(&key, now).await?;
    found.filter(|task| task.kind == *EVENT_KIND).ok_or_else(Problem::event_not_found)
}
