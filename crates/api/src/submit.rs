//! Taking tasks in: one, or a batch of which all are taken or none.

use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use nobat_core::name::Name;
use nobat_core::ports::{Inserted, StoreError, TaskName};
use nobat_core::read::read_object;
use nobat_core::submit::{Intake, Invalid, Submission};
use nobat_core::task::{Settings, Task};
use nobat_core::time::Timestamp;
use nobat_core::view::TaskView;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::body;
use crate::code::Code;
use crate::door::{Allowed, Caller, TasksWrite, whole_seconds};
use crate::identity::Identity;
use crate::problem::Problem;
use crate::quota::More;
use crate::reply;

const ONE: &str = "/v1/tasks";
const BATCH: &str = "/v1/tasks/batch";
const MAX_BATCH: usize = 100;
/// What the requests of tasks carry: how many tasks they came through.
static HOPS: HeaderName = HeaderName::from_static("nobat-hops");

/// Several tasks, of which all are taken or none.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    /// The tasks.
    #[schema(min_items = 1, max_items = 100)]
    tasks: Vec<Submission>,
}

/// The tasks of a batch, in the order they were sent in.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskBatch)]
pub(crate) struct BatchView<'a> {
    /// The tasks.
    data: Vec<TaskView<'a>>,
}

/// Submit a task
///
/// The task is on disk once this is answered, and will be done. With an `Idempotency-Key`, the same request sent again
/// is answered with the task that it made the first time, as it stands by then.
#[utoipa::path(
    post,
    path = "/v1/tasks",
    operation_id = "submit_task",
    tag = "tasks",
    security(("key" = ["tasks:write"])),
    params(("Idempotency-Key" = String, Header, description = crate::openapi::IDEMPOTENCY_KEY, example = "\"order-7\"")),
    request_body(content = Submission, examples(
        ("simplest" = (summary = "Only `kind` is required", value = json!({"kind": "noop"}))),
        ("complete" = (summary = "Everything that can be said", value = json!(crate::openapi::submission()))),
    )),
    responses((
        status = 202,
        description = "Accepted: it will be done. `Location` is where to watch it.",
        body = TaskView<'static>,
        headers(
            ("Location" = String, description = "The path of the task."),
            ("Idempotency-Replayed" = String, description = "`true` if the same request came before, and made this task then."),
        ),
        example = json!(crate::openapi::accepted()),
    )),
)]
pub(crate) async fn one(State(app): State<App>, Allowed(caller, _): Allowed<TasksWrite>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = body::json(&app, &caller.tenant, &head.headers, body).await?;
    let identity = Identity::of(&head.headers, ONE, &body)?;
    let submission: Submission = read_object(&body)?;
    let intake = Taking::new(&app, &identity, &caller, &head.headers)?;
    let accepted = intake.accept(1, intake.task(submission, 0).await?.map(|task| vec![task])).await?;
    let Some(task) = accepted.tasks.first() else { return Err(Problem::internal("the store gave no task back")) };
    let mut response = accepted.marked(reply::task(StatusCode::ACCEPTED, task, &caller, intake.now)?);
    // Relative, so that no Host header that a client sends can lead another one astray.
    if let Ok(location) = HeaderValue::try_from(format!("{ONE}/{}", task.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Submit up to 100 tasks
///
/// All of them are taken, or none: one that is not valid refuses all, and is named by its place. An `Idempotency-Key`
/// stands for the batch as a whole.
#[utoipa::path(
    post,
    path = "/v1/tasks/batch",
    operation_id = "submit_batch",
    tag = "tasks",
    security(("key" = ["tasks:write"])),
    params(("Idempotency-Key" = String, Header, description = crate::openapi::IDEMPOTENCY_KEY, example = "\"orders-of-monday\"")),
    request_body(content = Batch, example = json!({"tasks": [{"kind": "noop"}, {"kind": "noop", "delay": 60}]})),
    responses((
        status = 202,
        description = "Accepted: all of them will be done. They stand in the order they were sent in.",
        body = BatchView<'static>,
        headers(("Idempotency-Replayed" = String, description = "`true` if the same request came before, and made these tasks then.")),
    )),
)]
pub(crate) async fn batch(State(app): State<App>, Allowed(caller, _): Allowed<TasksWrite>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = body::json(&app, &caller.tenant, &head.headers, body).await?;
    let identity = Identity::of(&head.headers, BATCH, &body)?;
    let Batch { tasks: submissions } = read_object(&body)?;
    if !(1..=MAX_BATCH).contains(&submissions.len()) {
        return Err(vec![Invalid::new("/tasks", format!("expected 1 to {MAX_BATCH} tasks"))].into());
    }
    let intake = Taking::new(&app, &identity, &caller, &head.headers)?;
    let accepted = intake.accept(submissions.len(), intake.tasks(submissions).await?).await?;
    let room = accepted.tasks.iter().map(reply::room).sum();
    let data = accepted.tasks.iter().map(|task| reply::view(task, &caller, intake.now)).collect();
    Ok(accepted.marked(reply::value(StatusCode::ACCEPTED, room, &BatchView { data })?))
}

/// One request on its way in.
struct Taking<'a> {
    app: &'a App,
    identity: &'a Identity<'a>,
    caller: &'a Caller,
    hops: u8,
    now: Timestamp,
}

/// What a request has come to.
struct Accepted {
    tasks: Vec<Task>,
    history: History,
}

/// Whether a request was seen before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum History {
    New,
    Replayed,
}

impl<'a> Taking<'a> {
    fn new(app: &'a App, identity: &'a Identity<'a>, caller: &'a Caller, headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self { app, identity, caller, hops: hops(headers)?, now: app.clock.now() })
    }

    /// The task, or what is wrong with it.
    async fn task(&self, submission: Submission, place: usize) -> Result<Result<Task, Vec<Invalid>>, StoreError> {
        let (tenant, directory) = (&self.caller.tenant, self.app.directory());
        // What is no name leads to nothing, and is found out below.
        let endpoint = match submission.endpoint.as_deref().map(Name::new) {
            Some(Ok(name)) => directory.endpoint(tenant, &name).await?,
            _ => None,
        };
        let lanes = match (submission.queue(), Name::new(&submission.kind)) {
            (Ok(queue), Ok(kind)) if submission.retry.is_none() => Some(directory.lanes(tenant, &queue, &kind).await?),
            _ => None,
        };
        Ok(submission.into_task(&Intake {
            tenant: &self.caller.tenant,
            id: self.identity.id(&self.caller.tenant, place, self.now),
            fingerprint: self.identity.fingerprint(),
            submitted_by: self.caller.key(),
            max_payload: self.caller.settings.payload_bytes,
            max_timeout: self.app.max_timeout,
            kinds: &*self.app.kinds,
            endpoint: endpoint.as_deref(),
            queue: lanes.as_ref().map(|lanes| &lanes.queue),
            hops: self.hops,
            now: self.now,
        }))
    }

    async fn tasks(&self, submissions: Vec<Submission>) -> Result<Result<Vec<Task>, Vec<Invalid>>, StoreError> {
        let mut tasks = Vec::with_capacity(submissions.len());
        let mut wrong = Vec::new();
        for (place, submission) in submissions.into_iter().enumerate() {
            match self.task(submission, place).await? {
                Ok(task) => tasks.push(task),
                Err(invalid) => wrong.extend(invalid.into_iter().map(|invalid| invalid.under(&format!("/tasks/{place}")))),
            }
        }
        Ok(if wrong.is_empty() { Ok(tasks) } else { Err(wrong) })
    }

    async fn accept(&self, count: usize, tasks: Result<Vec<Task>, Vec<Invalid>>) -> Result<Accepted, Problem> {
        match tasks {
            // What came before with its key is there already, however much waits by now.
            Ok(_) if !self.may_wait(count).await? => self.remember(count).await?.unwrap_or_else(|| Err(self.too_much_waits())),
            Ok(tasks) => match self.app.backend.accept(tasks, self.now).await? {
                Inserted::Created(tasks) => Ok(Accepted { tasks, history: History::New }),
                Inserted::Existing(tasks) => self.recognise(count, tasks),
            },
            Err(wrong) => self.remember(count).await?.unwrap_or_else(|| Err(wrong.into())),
        }
    }

    /// Whether the tenant may have so many tasks more.
    async fn may_wait(&self, count: usize) -> Result<bool, StoreError> {
        let Some(limit) = self.caller.settings.waiting else { return Ok(true) };
        let (tenant, store) = (&self.caller.tenant, &self.app.backend.store);
        let more = More { tenant, limit, count, recount: self.app.recount, now: self.now };
        self.app.quota().admits(&more, async |at_most| store.waiting(tenant, at_most).await).await
    }

    fn too_much_waits(&self) -> Problem {
        let detail = "as many tasks of this tenant wait as may; nothing of the request was taken";
        Problem::new(Code::QuotaExceeded, detail).retry_after(whole_seconds(self.app.recount))
    }

    /// Whether these tasks, found under this request's ids, are what it made when it came before.
    fn recognise(&self, count: usize, mut found: Vec<Task>) -> Result<Accepted, Problem> {
        let fingerprint = self.identity.fingerprint();
        if found.iter().any(|task| task.settings.fingerprint != fingerprint) {
            return Err(Problem::key_reused());
        }
        // Without a key, what is there already can only be the store's own second try at writing it.
        let history = if fingerprint.is_some() { History::Replayed } else { History::New };
        if found.len() != count {
            return Err(Problem::new(
                Code::IdempotencyKeyPartlyExpired,
                "some tasks of the batch ended so long ago that they are kept no longer; to have it done again, send it with a new key",
            ));
        }
        if matches!(self.identity, Identity::Keyed { .. }) {
            found.sort_by_cached_key(|task| (0..count).position(|place| self.identity.id(&self.caller.tenant, place, self.now) == task.id));
        }
        Ok(Accepted { tasks: found, history })
    }

    /// A request that was valid when it first came may be so no longer: its deadline has passed, its kind is gone.
    /// With its key it is still the same request, and is answered as one.
    async fn remember(&self, count: usize) -> Result<Option<Result<Accepted, Problem>>, Problem> {
        let mut found = Vec::new();
        let keyed = matches!(self.identity, Identity::Keyed { .. });
        for place in (0..count).filter(|_| keyed) {
            let name = TaskName { tenant: self.caller.tenant.clone(), id: self.identity.id(&self.caller.tenant, place, self.now) };
            found.extend(self.app.backend.store.get(&name, self.now).await?);
            // A key that was never used is found out by its first task, without asking for a hundred.
            if found.is_empty() {
                return Ok(None);
            }
        }
        Ok(keyed.then(|| self.recognise(count, found)))
    }
}

/// Through how many tasks a request came, by what the last of them says of itself.
fn hops(headers: &HeaderMap) -> Result<u8, Problem> {
    let Some(said) = headers.get(&HOPS) else { return Ok(0) };
    let hops = said.to_str().ok().and_then(|text| text.parse().ok()).filter(|hops| *hops <= Settings::MAX_HOPS);
    let detail = || format!("tasks made one another: expected `nobat-hops` to be 0 to {}", Settings::MAX_HOPS);
    hops.ok_or_else(|| Problem::new(Code::TooManyHops, detail()))
}

impl Accepted {
    fn marked(&self, mut response: Response) -> Response {
        if self.history == History::Replayed {
            reply::mark_replayed(&mut response);
        }
        response
    }
}
