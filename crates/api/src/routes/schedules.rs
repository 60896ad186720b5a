//! Schedules: tasks at planned times.

mod view;

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::try_join_all;
use nobat_core::auth::audit::Action;
use nobat_core::config::record::RecordKind;
use nobat_core::config::schedule::Schedule;
use nobat_core::json::decode::read_object;
use nobat_core::ports::{InsertResult, StoreError};
use nobat_core::schedules::advance::ScheduleState;
use nobat_core::service::schedules::{Schedules, Start, task_key};
use nobat_core::submission::SubmissionContext;
use nobat_core::submission::schedule::ScheduleSubmission;
use nobat_core::task::lifecycle::Event;
use nobat_core::task::view::TaskView;
use nobat_core::task::{Task, TaskKey};
use nobat_core::types::field_error::FieldError;
use nobat_core::types::name::Name;
use nobat_core::types::time::Timestamp;

use crate::app::App;
use crate::auth::extract::{Authorized, ConfigWrite};
use crate::auth::principal::Principal;
use crate::http::cursor::List;
use crate::http::idempotency::{Identity, refuse_key};
use crate::http::options::{Nothing, options, options_without_key};
use crate::http::page::PageRequest;
use crate::http::path::PathParam;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::{body, response};
use crate::routes::config_update::{Change, check_size, template_context, update};
use crate::routes::schedules::view::{DecisionView, PageView, ScheduleView};
use crate::routes::tasks::submit::{may_wait, quota_exceeded};

/// Approximate size of a schedule in a response, in bytes.
const SCHEDULE_BYTES: usize = 900;

/// Route, as a part of the stored idempotency key. The same key on another route counts as another key.
const RUN: &str = "/v1/schedules/{name}/run";

/// Error text for a pause or a resumption with an `Idempotency-Key`.
const STATE_INSTEAD: &str =
    "send the request without the header Idempotency-Key; a repeated request has no further effect";

/// Create or replace a schedule
///
/// Replaces the whole configuration. Omitted fields reset to their defaults, except `paused`, which keeps its
/// value. If the planned times change, only planned times after the response create tasks.
#[utoipa::path(
    put,
    path = "/v1/schedules/{name}",
    operation_id = "put_schedule",
    tag = "schedules",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The schedule's name.", example = "report")),
    request_body(content = ScheduleSubmission, example = json!({
        "cron": "5 * * * *",
        "timezone": "Asia/Ashgabat",
        "task": {"kind": "noop"},
    })),
    responses(
        (status = 200, description = "The schedule is changed.", body = ScheduleView),
        (status = 201, description = "The schedule is created.", body = ScheduleView),
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
    let submission: ScheduleSubmission = read_object(&body)?;
    // `into_schedule` reports a template that cannot be read.
    let template = submission.template().unwrap_or_default();
    let config = app.config_cache().for_submission(&caller.tenant, &template).await?;
    let (is_new, schedule) = change(&app, &caller, &name, |current, now| {
        // `into_schedule` consumes the submission, so each try reads it again.
        let submission: ScheduleSubmission = read_object(&body)?;
        let context = SubmissionContext {
            max_payload: caller.settings.max_payload_bytes,
            ..template_context(&app, &caller.tenant, &config, now)
        };
        let schedule = submission.into_schedule(current, rand::random(), &context)?;
        check_size(&schedule.record(&caller.tenant, &name))?;
        Ok(schedule)
    })
    .await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    shown(&app, &caller, status, name, &schedule).await
}

/// Get a schedule
///
/// Shows the next five planned times, and the last five decisions.
#[utoipa::path(
    get,
    path = "/v1/schedules/{name}",
    operation_id = "get_schedule",
    tag = "schedules",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The schedule's name.", example = "report")),
    responses((status = 200, description = "The schedule.", body = ScheduleView)),
)]
pub(crate) async fn one(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
) -> Result<Response, Problem> {
    let found = app.backend.config.schedule(&caller.tenant, &name).await?;
    let schedule = found.ok_or_else(Problem::schedule_not_found)?;
    shown(&app, &caller, StatusCode::OK, name, &schedule).await
}

/// List schedules
///
/// Returns the schedules of the caller's tenant in the order of their names, without their last decisions.
#[utoipa::path(
    get,
    path = "/v1/schedules",
    operation_id = "list_schedules",
    tag = "schedules",
    security(("key" = ["config:write"])),
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Maximum number of schedules in a page. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page of schedules.", body = PageView)),
)]
pub(crate) async fn page(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::read(query.as_deref(), &["limit", "cursor"]);
    let page = PageRequest::read(&mut query);
    query.finish()?;
    let list = List::schedules(&caller.tenant);
    let (found, next_cursor) =
        page.records(&app, &list, Some(&caller.tenant), RecordKind::Schedule, Schedule::from_text).await?;
    let now = app.clock.now();
    let data: Vec<ScheduleView> = found
        .into_iter()
        .map(|(name, schedule)| ScheduleView::new(name, &schedule, Vec::new(), now))
        .collect();
    response::value(StatusCode::OK, SCHEDULE_BYTES * (1 + data.len()), &PageView { data, next_cursor })
}

/// Remove a schedule
///
/// The schedule creates no task after the response. The tasks that it has created stay.
#[utoipa::path(
    delete,
    path = "/v1/schedules/{name}",
    operation_id = "remove_schedule",
    tag = "schedules",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The schedule's name.", example = "report")),
    responses((status = 200, description = "The schedule is removed. The response shows its last configuration.", body = ScheduleView)),
)]
pub(crate) async fn remove(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let Nothing {} = options(&app, &caller.tenant, request).await?;
    let now = app.clock.now();
    let read = || app.backend.config.schedule(&caller.tenant, &name);
    let schedule = update(&app, "the schedule", read, |schedule| {
        let schedule = schedule.ok_or_else(Problem::schedule_not_found)?;
        let change = Change::Remove(Schedule::record_name(&caller.tenant, &name), schedule.version);
        Ok((change, caller.entry(&caller.tenant, Action::ScheduleRemoved, &name, now), schedule))
    })
    .await?;
    end(&app, &task_key(&caller.tenant, &name, &schedule), now).await;
    response::value(
        StatusCode::OK,
        SCHEDULE_BYTES,
        &ScheduleView::new(name, &Schedule { paused: true, ..schedule }, Vec::new(), now),
    )
}

/// Pause a schedule
///
/// A paused schedule creates no task until a client resumes it.
#[utoipa::path(
    post,
    path = "/v1/schedules/{name}/pause",
    operation_id = "pause_schedule",
    tag = "schedules",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The schedule's name.", example = "report")),
    responses((status = 200, description = "The schedule is paused.", body = ScheduleView)),
)]
pub(crate) async fn pause(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    set_paused(&app, &caller, name, request, true).await
}

/// Resume a schedule
///
/// The schedule creates tasks for the planned times after the response. The planned times during the pause
/// create no tasks.
#[utoipa::path(
    post,
    path = "/v1/schedules/{name}/resume",
    operation_id = "resume_schedule",
    tag = "schedules",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The schedule's name.", example = "report")),
    responses((status = 200, description = "The schedule is not paused.", body = ScheduleView)),
)]
pub(crate) async fn resume(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    set_paused(&app, &caller, name, request, false).await
}

/// Run a schedule now
///
/// Creates a task of the schedule at once, also if the schedule is paused. The planned times do not change.
#[utoipa::path(
    post,
    path = "/v1/schedules/{name}/run",
    operation_id = "run_schedule",
    tag = "schedules",
    security(("key" = ["config:write"])),
    params(
        ("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The schedule's name.", example = "report"),
        ("Idempotency-Key" = String, Header, description = crate::routes::tasks::examples::IDEMPOTENCY_KEY, example = "\"report-of-today\""),
    ),
    responses((
        status = 202,
        description = "The task is accepted.",
        body = TaskView<'static>,
        headers(("Idempotency-Replayed" = String, description = "`true` if an earlier request with the same key created this task.")),
    )),
)]
pub(crate) async fn run(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = body::optional_json(&app, &caller.tenant, &head.headers, body).await?;
    let body = body.as_deref().unwrap_or_default();
    let identity = Identity::of(&head.headers, RUN, &[name.as_str().as_bytes(), body].concat())?;
    if !body.is_empty() {
        let Nothing {} = read_object(body)?;
    }
    let now = app.clock.now();
    let id = identity.id(&caller.tenant, 0, now);
    let fingerprint = identity.fingerprint();
    let repeated = |stored: &Task| {
        if stored.options.fingerprint != fingerprint {
            return Err(Problem::key_reused());
        }
        let mut response = response::task(StatusCode::ACCEPTED, stored, &caller, now)?;
        response::mark_replayed(&mut response);
        Ok(response)
    };
    if fingerprint.is_some() {
        // A repeated request gets its task, also if the schedule has changed since.
        let key = TaskKey { tenant: caller.tenant.clone(), id };
        if let Some(stored) = app.backend.store.get(&key, now).await? {
            return repeated(&stored);
        }
    }
    let found = app.backend.config.schedule(&caller.tenant, &name).await?;
    let schedule = found.ok_or_else(Problem::schedule_not_found)?;
    let made =
        schedules(&app, now).task(&caller.tenant, &name, &schedule, Start { id, planned_at: None }).await?;
    let mut task = made.map_err(|errors| {
        Problem::from(errors.into_iter().map(|error| error.under("/task")).collect::<Vec<FieldError>>())
    })?;
    (task.options.fingerprint, task.options.submitted_by) = (fingerprint, caller.key());
    if !may_wait(&app, &caller.tenant, caller.settings, 1, now).await? {
        return Err(quota_exceeded(&app));
    }
    match app.backend.accept(vec![task], now).await? {
        InsertResult::Created(tasks) => {
            let task = tasks.first().ok_or_else(|| Problem::internal("the store returned no task"))?;
            response::task(StatusCode::ACCEPTED, task, &caller, now)
        }
        InsertResult::Existing(tasks) => {
            let task = tasks.first().ok_or_else(|| Problem::internal("the store returned no task"))?;
            repeated(task)
        }
    }
}

async fn set_paused(
    app: &App,
    caller: &Principal,
    name: Name,
    request: Request,
    paused: bool,
) -> Result<Response, Problem> {
    refuse_key(request.headers(), STATE_INSTEAD)?;
    let Nothing {} = options_without_key(app, &caller.tenant, request, STATE_INSTEAD).await?;
    let found = app.backend.config.schedule(&caller.tenant, &name).await?;
    let known = found.ok_or_else(Problem::schedule_not_found)?;
    if known.paused == paused {
        return shown(app, caller, StatusCode::OK, name, &known).await;
    }
    let (_, schedule) = change(app, caller, &name, |current, now| {
        let (current, mut state) = current.ok_or_else(Problem::schedule_not_found)?;
        if current.paused && !paused {
            state.resume(&current.rules.timing, now);
        }
        Ok(Schedule { paused, state, version: current.version + 1, ..current.clone() })
    })
    .await?;
    shown(app, caller, StatusCode::OK, name, &schedule).await
}

/// Writes a new version of a schedule together with the task that runs it, and ends the task of the previous
/// version. Returns true if the schedule is new.
async fn change(
    app: &App,
    caller: &Principal,
    name: &Name,
    new: impl Fn(Option<(&Schedule, ScheduleState)>, Timestamp) -> Result<Schedule, Problem>,
) -> Result<(bool, Schedule), Problem> {
    let tenant = &caller.tenant;
    let read = || async {
        let Some(schedule) = app.backend.config.schedule(tenant, name).await? else { return Ok(None) };
        let state = schedules(app, app.clock.now()).state(tenant, name, &schedule).await?;
        Ok(Some((schedule, state)))
    };
    let now = app.clock.now();
    let (current, schedule) = update(app, "the schedule", read, |current| {
        let known = current.as_ref().map(|(schedule, state)| (schedule, state.clone()));
        let schedule = new(known, now)?;
        let record = schedule.record(tenant, name);
        let tasks: Vec<Task> = schedules(app, now).runner(tenant, name, &schedule).into_iter().collect();
        let entry = caller.entry(tenant, Action::ScheduleChanged, name, now);
        Ok((Change::WriteWithTasks(vec![record], tasks), entry, (current, schedule)))
    })
    .await?;
    if let Some((before, _)) = &current {
        end(app, &task_key(tenant, name, before), now).await;
    }
    Ok((current.is_none(), schedule))
}

/// Ends the task that ran an earlier version of a schedule. If the write fails, this task ends by itself at
/// the next planned time.
async fn end(app: &App, key: &TaskKey, now: Timestamp) {
    let _ = app.backend.apply(key, None, Event::Cancel, now).await;
}

/// Returns the response that shows a schedule with its last decisions.
async fn shown(
    app: &App,
    caller: &Principal,
    status: StatusCode,
    name: Name,
    schedule: &Schedule,
) -> Result<Response, Problem> {
    let now = app.clock.now();
    let state = schedules(app, now).state(&caller.tenant, &name, schedule).await?;
    let decisions = state.decisions.iter().map(async |decision| {
        let task = match decision.task {
            Some(id) => {
                let key = TaskKey { tenant: caller.tenant.clone(), id };
                app.backend.store.get(&key, now).await?
            }
            None => None,
        };
        Ok::<_, StoreError>(DecisionView::new(decision, task.map(|task| task.status(now))))
    });
    let decisions = try_join_all(decisions).await?;
    let schedule = Schedule { state, ..schedule.clone() };
    response::value(status, SCHEDULE_BYTES, &ScheduleView::new(name, &schedule, decisions, now))
}

fn schedules(app: &App, now: Timestamp) -> Schedules<'_> {
    Schedules {
        backend: &app.backend,
        config_cache: app.config_cache(),
        kinds: &*app.kinds,
        max_timeout: app.max_timeout,
        clock: &*app.clock,
        now,
    }
}
