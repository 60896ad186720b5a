//! Submission of tasks: one, or a batch that is accepted as a whole or not at all.

use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use nobat_core::config::tenant::TenantSettings;
use nobat_core::json::decode::read_object;
use nobat_core::ports::{InsertResult, StoreError};
use nobat_core::submission::{Submission, SubmissionContext};
use nobat_core::task::view::TaskView;
use nobat_core::task::{Task, TaskKey, TaskOptions};
use nobat_core::types::field_error::FieldError;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::extract::{Authorized, TasksWrite};
use crate::auth::principal::Principal;
use crate::http::error_code::Code;
use crate::http::idempotency::Identity;
use crate::http::problem::{Problem, whole_seconds};
use crate::http::{body, response};
use crate::quotas::pending_quota::SubmittedTasks;

const ONE: &str = "/v1/tasks";
const BATCH: &str = "/v1/tasks/batch";
const MAX_BATCH: usize = 100;
/// Header that nobat adds to the requests of tasks: the number of tasks that led to the request. The server
/// refuses a request above [`TaskOptions::MAX_HOPS`], which stops loops.
static HOPS: HeaderName = HeaderName::from_static("nobat-hops");

/// Several tasks. nobat accepts all of them or none.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    /// Tasks.
    #[schema(min_items = 1, max_items = 100)]
    tasks: Vec<Submission>,
}

/// Tasks of a batch, in the order of the request.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskBatch)]
pub(crate) struct BatchView<'a> {
    /// Tasks.
    data: Vec<TaskView<'a>>,
}

/// Submit a task
///
/// When the client gets the response, the task is stored and nobat will run it. A repeated request with the
/// same `Idempotency-Key` creates no second task. Its response shows the task of the first request in its
/// current state.
#[utoipa::path(
    post,
    path = "/v1/tasks",
    operation_id = "submit_task",
    tag = "tasks",
    security(("key" = ["tasks:write"])),
    params(("Idempotency-Key" = String, Header, description = crate::routes::tasks::examples::IDEMPOTENCY_KEY, example = "\"order-7\"")),
    request_body(content = Submission, examples(
        ("simplest" = (summary = "Only `kind` is required", value = json!({"kind": "noop"}))),
        ("complete" = (summary = "All common fields", value = json!(crate::routes::tasks::examples::submission()))),
    )),
    responses((
        status = 202,
        description = "The task is accepted. `Location` is its path.",
        body = TaskView<'static>,
        headers(
            ("Location" = String, description = "The path of the task."),
            ("Idempotency-Replayed" = String, description = "`true` if an earlier request with the same key created this task."),
        ),
        example = json!(crate::routes::tasks::examples::accepted()),
    )),
)]
pub(crate) async fn one(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksWrite>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = body::json(&app, &caller.tenant, &head.headers, body).await?;
    let identity = Identity::of(&head.headers, ONE, &body)?;
    let submission: Submission = read_object(&body)?;
    let intake = SubmitRequest::new(&app, &identity, &caller, &head.headers)?;
    // The store may take a while, and needs neither of them.
    drop(head);
    let _reservation = body.into_reservation();
    let accepted = intake.accept(1, intake.task(submission, 0).await?.map(|task| vec![task])).await?;
    let Some(task) = accepted.tasks.first() else {
        return Err(Problem::internal("the store returned no task"));
    };
    let mut response = accepted.marked(response::task(StatusCode::ACCEPTED, task, &caller, intake.now)?);
    // A relative path. An absolute URL would repeat the client's `Host` header, which can name another
    // server.
    if let Ok(location) = HeaderValue::try_from([ONE, "/", &task.id.to_string()].concat()) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Submit up to 100 tasks
///
/// nobat accepts all of them or none. If one task is not valid, nobat refuses the batch, and `errors` gives
/// the index of that task. An `Idempotency-Key` applies to the whole batch.
#[utoipa::path(
    post,
    path = "/v1/tasks/batch",
    operation_id = "submit_batch",
    tag = "tasks",
    security(("key" = ["tasks:write"])),
    params(("Idempotency-Key" = String, Header, description = crate::routes::tasks::examples::IDEMPOTENCY_KEY, example = "\"orders-of-monday\"")),
    request_body(content = Batch, example = json!({"tasks": [{"kind": "noop"}, {"kind": "noop", "delay": 60}]})),
    responses((
        status = 202,
        description = "All tasks are accepted. They are in the order of the request.",
        body = BatchView<'static>,
        headers(("Idempotency-Replayed" = String, description = "`true` if an earlier request with the same key created these tasks.")),
    )),
)]
pub(crate) async fn batch(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksWrite>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = body::json(&app, &caller.tenant, &head.headers, body).await?;
    let identity = Identity::of(&head.headers, BATCH, &body)?;
    let Batch { tasks: submissions } = read_object(&body)?;
    if !(1..=MAX_BATCH).contains(&submissions.len()) {
        return Err(vec![FieldError::new("/tasks", format!("expected 1 to {MAX_BATCH} tasks"))].into());
    }
    let intake = SubmitRequest::new(&app, &identity, &caller, &head.headers)?;
    // The store may take a while, and needs neither of them.
    drop(head);
    let _reservation = body.into_reservation();
    let accepted = intake.accept(submissions.len(), intake.tasks(submissions).await?).await?;
    let room = accepted.tasks.iter().map(response::room).sum();
    let data = accepted.tasks.iter().map(|task| response::view(task, &caller, intake.now)).collect();
    Ok(accepted.marked(response::value(StatusCode::ACCEPTED, room, &BatchView { data })?))
}

/// Submission in progress.
struct SubmitRequest<'a> {
    app: &'a App,
    identity: &'a Identity,
    caller: &'a Principal,
    hops: u8,
    now: Timestamp,
}

/// Accepted submission.
struct Accepted {
    tasks: Vec<Task>,
    history: History,
}

/// Distinguishes a first request from a repeated request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum History {
    New,
    Replayed,
}

impl<'a> SubmitRequest<'a> {
    fn new(
        app: &'a App,
        identity: &'a Identity,
        caller: &'a Principal,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        Ok(Self { app, identity, caller, hops: hops(headers)?, now: app.clock.now() })
    }

    /// Returns the task of a submission, or all errors in the submission. `place` is the index of the
    /// submission in the request.
    async fn task(
        &self,
        submission: Submission,
        place: usize,
    ) -> Result<Result<Task, Vec<FieldError>>, StoreError> {
        let config = self.app.config_cache().for_submission(&self.caller.tenant, &submission).await?;
        Ok(submission.into_task(&SubmissionContext {
            tenant: &self.caller.tenant,
            id: self.identity.id(&self.caller.tenant, place, self.now),
            fingerprint: self.identity.fingerprint(),
            submitted_by: self.caller.key(),
            max_payload: self.caller.settings.max_payload_bytes,
            max_timeout: self.app.max_timeout,
            kinds: &*self.app.kinds,
            endpoint: config.endpoint.as_deref(),
            then_endpoint: config.then_endpoint.as_deref(),
            queue: config.queue(),
            hops: self.hops,
            now: self.now,
        }))
    }

    async fn tasks(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Result<Vec<Task>, Vec<FieldError>>, StoreError> {
        let mut tasks = Vec::with_capacity(submissions.len());
        let mut wrong = Vec::new();
        for (place, submission) in submissions.into_iter().enumerate() {
            match self.task(submission, place).await? {
                Ok(task) => tasks.push(task),
                Err(invalid) => {
                    wrong
                        .extend(invalid.into_iter().map(|invalid| invalid.under(&format!("/tasks/{place}"))));
                }
            }
        }
        Ok(if wrong.is_empty() { Ok(tasks) } else { Err(wrong) })
    }

    async fn accept(
        &self,
        count: usize,
        tasks: Result<Vec<Task>, Vec<FieldError>>,
    ) -> Result<Accepted, Problem> {
        match tasks {
            // A repeated request gets the tasks of the first request, even if the tenant has reached its
            // limit since.
            Ok(_)
                if !may_wait(self.app, &self.caller.tenant, self.caller.settings, count, self.now)
                    .await? =>
            {
                self.remember(count).await?.unwrap_or_else(|| Err(quota_exceeded(self.app)))
            }
            Ok(tasks) => match self.app.backend.accept(tasks, self.now).await? {
                InsertResult::Created(tasks) => Ok(Accepted { tasks, history: History::New }),
                InsertResult::Existing(tasks) => self.recognise(count, tasks),
            },
            Err(wrong) => self.remember(count).await?.unwrap_or_else(|| Err(wrong.into())),
        }
    }

    /// Returns `found`: the stored tasks with this request's ids. Fails if a different request created these
    /// tasks, or if some of these tasks no longer exist.
    fn recognise(&self, count: usize, mut found: Vec<Task>) -> Result<Accepted, Problem> {
        let fingerprint = self.identity.fingerprint();
        if found.iter().any(|task| task.options.fingerprint != fingerprint) {
            return Err(Problem::key_reused());
        }
        // Without a key, ids are random. If a task with such an id already exists, the store has retried this
        // write.
        let history = if fingerprint.is_some() { History::Replayed } else { History::New };
        if found.len() != count {
            return Err(Problem::new(
                Code::IdempotencyKeyPartlyExpired,
                "the retention of some tasks of the batch has ended; to run the batch again, send it with a new Idempotency-Key",
            ));
        }
        if matches!(self.identity, Identity::Keyed { .. }) {
            found.sort_by_cached_key(|task| {
                (0..count).position(|place| self.identity.id(&self.caller.tenant, place, self.now) == task.id)
            });
        }
        Ok(Accepted { tasks: found, history })
    }

    /// Returns the tasks of an earlier request with the same key. Called if this request is not valid or
    /// exceeds the tenant's limit.
    ///
    /// A valid request can become invalid: a deadline passes, or a kind is removed. A client that repeats the
    /// request with the same key must still get the tasks.
    async fn remember(&self, count: usize) -> Result<Option<Result<Accepted, Problem>>, Problem> {
        let mut found = Vec::new();
        let keyed = matches!(self.identity, Identity::Keyed { .. });
        for place in (0..count).filter(|_| keyed) {
            let name = TaskKey {
                tenant: self.caller.tenant.clone(),
                id: self.identity.id(&self.caller.tenant, place, self.now),
            };
            found.extend(self.app.backend.store.get(&name, self.now).await?);
            // If the first task does not exist, the key is unknown. This check saves up to 99 reads.
            if found.is_empty() {
                return Ok(None);
            }
        }
        Ok(keyed.then(|| self.recognise(count, found)))
    }
}

/// Returns true if the tenant may have `count` more pending tasks.
pub(crate) async fn may_wait(
    app: &App,
    tenant: &Tenant,
    settings: TenantSettings,
    count: usize,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(limit) = settings.max_pending_tasks else { return Ok(true) };
    let store = &app.backend.store;
    let more = SubmittedTasks { tenant, limit, count, recount: app.recount, now };
    app.pending_quota().admits(&more, async |at_most| store.waiting(tenant, at_most).await).await
}

/// Returns the error for a request that [`may_wait`] does not admit.
pub(crate) fn quota_exceeded(app: &App) -> Problem {
    let detail = "the tenant would exceed its `max_pending_tasks`, so no task was accepted; try again after the time in Retry-After";
    Problem::new(Code::QuotaExceeded, detail).retry_after(whole_seconds(app.recount))
}

/// Returns the number of tasks that led to a request, from the header [`HOPS`]. Returns 0 without this
/// header. Fails above [`TaskOptions::MAX_HOPS`].
pub(crate) fn hops(headers: &HeaderMap) -> Result<u8, Problem> {
    let Some(said) = headers.get(&HOPS) else { return Ok(0) };
    let hops =
        said.to_str().ok().and_then(|text| text.parse().ok()).filter(|hops| *hops <= TaskOptions::MAX_HOPS);
    let detail = || {
        format!(
            "the request passed through too many tasks, which may be a loop; expected `nobat-hops` from 0 to {}",
            TaskOptions::MAX_HOPS
        )
    };
    hops.ok_or_else(|| Problem::new(Code::LoopDetected, detail()))
}

impl Accepted {
    fn marked(&self, mut response: Response) -> Response {
        if self.history == History::Replayed {
            response::mark_replayed(&mut response);
        }
        response
    }
}
