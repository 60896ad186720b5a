//! Lists tasks, newest first, in pages.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::ports::{ListQuery, Page, StoreError};
use nobat_core::task::view::{StatusWord, TaskView};
use nobat_core::task::{Status, TaskKey};
use nobat_core::types::id::EventId;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::extract::{Authorized, TasksRead};
use crate::http::cursor::List;
use crate::http::page::{DEFAULT_LIMIT, EXPECTED_NAME, MOMENT, PageRequest};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::{cursor, response};
use crate::routes::events::tasks::of_event as of_event_task;

const PARAMETERS: [&str; 8] =
    ["status", "queue", "kind", "event", "created_after", "created_before", "limit", "cursor"];

/// Approximate size in bytes of a task in a response, without its payload, result and attempts.
const SUMMARY_BYTES: usize = 512;

/// One page of tasks.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskPage)]
pub(crate) struct PageView<'a> {
    /// Tasks, newest first, without payload, result and attempts.
    data: Vec<TaskView<'a>>,
    /// Cursor of the next page. `null` on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// List tasks
///
/// Lists tasks, newest first. A page may be shorter than `limit`, or empty, although more pages follow.
/// `next_cursor` is `null` only on the last page. A cursor is valid only with the same filters.
#[utoipa::path(
    get,
    path = "/v1/tasks",
    operation_id = "list_tasks",
    tag = "tasks",
    security(("key" = ["tasks:read"])),
    params(
        ("status" = Option<StatusWord>, Query, description = "Only tasks with this status."),
        ("queue" = Option<String>, Query, description = "Only tasks of this queue.", pattern = "^[A-Za-z0-9._-]{1,64}$"),
        ("kind" = Option<String>, Query, description = "Only tasks of this kind.", pattern = "^[A-Za-z0-9._-]{1,64}$"),
        ("event" = Option<String>, Query, pattern = "^event_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "Only tasks that subscriptions created from this event. All these tasks are in one page, in the order of their subscriptions' names."),
        ("created_after" = Option<String>, Query, format = DateTime, description = "Only tasks accepted at or after this time (RFC 3339)."),
        ("created_before" = Option<String>, Query, format = DateTime, description = "Only tasks accepted before this time (RFC 3339)."),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Maximum number of tasks in a page. Default 50."),
        ("cursor" = Option<String>, Query, pattern = "^([0-9a-f]{2}){16,}$", description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page of tasks.", body = PageView<'static>)),
)]
pub(crate) async fn page(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksRead>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (query, event) = list_query(&app, caller.tenant, query.as_deref())?;
    let now = app.clock.now();
    let page = match event {
        Some(event) => of_event(&app, &query, event, now).await?,
        None => app.backend.store.list(&query, now).await?,
    };
    let view = PageView {
        data: page.tasks.iter().map(|task| TaskView::summary(task, now)).collect(),
        next_cursor: page.next.map(|next| cursor::seal(&app.cursor_key, &List::tasks(&query), &next)),
    };
    response::value(StatusCode::OK, SUMMARY_BYTES * (1 + view.data.len()), &view)
}

/// Returns the tasks of an event that pass the filters. Reads each task by its id, which derives from the
/// event.
async fn of_event(app: &App, query: &ListQuery, event: EventId, now: Timestamp) -> Result<Page, StoreError> {
    let key = TaskKey { tenant: query.tenant.clone(), id: event.0 };
    let mut tasks = match app.backend.store.get(&key, now).await? {
        Some(event) => of_event_task(app, &event, now).await?.into_iter().map(|(_, task)| task).collect(),
        None => Vec::new(),
    };
    tasks.retain(|task| query.matches(task, now));
    Ok(Page { tasks, next: None })
}

fn list_query(
    app: &App,
    tenant: Tenant,
    text: Option<&str>,
) -> Result<(ListQuery, Option<EventId>), Problem> {
    let name = |text: &str| Name::new(text).ok();
    let moment = |text: &str| text.parse::<Timestamp>().ok();
    let statuses = || Status::ALL.map(Status::as_str).join(", ");

    let mut query = Query::read(text, &PARAMETERS);
    let list = ListQuery {
        status: query.get("status", &format!("one of {}", statuses()), Status::from_word),
        queue: query.get("queue", EXPECTED_NAME, name),
        kind: query.get("kind", EXPECTED_NAME, name),
        created_after: query.get("created_after", MOMENT, moment),
        created_before: query.get("created_before", MOMENT, moment),
        ..ListQuery::all(tenant, DEFAULT_LIMIT)
    };
    let event = query.get("event", "the id of an event", |text| text.parse().ok());
    let page = PageRequest::read(&mut query);
    query.finish()?;
    let after = page.after(app, &List::tasks(&list), Some)?;
    Ok((ListQuery { limit: page.limit, after, ..list }, event))
}
