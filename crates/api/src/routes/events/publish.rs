//! Publishing of events, in plain JSON and in all modes of the HTTP binding of CloudEvents 1.0.

use std::borrow::Cow;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use nobat_core::config::source::SOURCE_PREFIX;
use nobat_core::events::cloud_event::{CloudEvent, Defaults};
use nobat_core::json::decode::read;
use nobat_core::ports::InsertResult;
use nobat_core::submission::event::{EventContext, event_task};
use nobat_core::submission::template::CLOUD_EVENT_TYPE;
use nobat_core::task::Task;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::id::{EventId, TaskId};
use nobat_core::types::time::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use crate::app::App;
use crate::auth::extract::{Authorized, TasksWrite};
use crate::auth::principal::Principal;
use crate::http::error_code::Code;
use crate::http::idempotency::Identity;
use crate::http::problem::Problem;
use crate::http::{body, response, structured_field};
use crate::routes::events::view::{AcceptedEvent, AcceptedEvents, EventSubmission};
use crate::routes::tasks::submit::{hops, may_wait, quota_exceeded};

const ROUTE: &str = "/v1/events";

/// Maximum number of events in one request.
const MAX_BATCH: usize = 100;

/// Media type of several events in one request (JSON format of CloudEvents, section 4).
const BATCH_TYPE: &str = "application/cloudevents-batch+json";

/// Prefix of the headers that carry the event's attributes in binary mode.
const ATTRIBUTE: &str = "ce-";

/// Approximate size of an accepted event in a response, in bytes.
const ACCEPTED_BYTES: usize = 300;

/// Format of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A JSON object with `type`, and optionally `data` and other attributes.
    Plain,
    /// One event in the JSON format of CloudEvents.
    Structured,
    /// Several events in the JSON format of CloudEvents.
    Batch,
    /// The attributes are headers, and the body is the data.
    Binary,
}

impl Mode {
    /// Returns the mode of a request. The content types of CloudEvents select structured or batch mode.
    /// Otherwise the header `ce-specversion` selects binary mode.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let content_type = match (types.next(), types.next()) {
            (Some(one), None) => one.to_str().unwrap_or_default(),
            (None, _) => "",
            (Some(_), Some(_)) => return Err(unsupported()),
        };
        let mut parts = content_type.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_utf8 = parts
            .filter_map(|parameter| parameter.split_once('='))
            .all(|(name, value)| !name.trim().eq_ignore_ascii_case("charset") || body::is_utf8(value));
        match essence.as_str() {
            CLOUD_EVENT_TYPE if is_utf8 => Ok(Self::Structured),
            BATCH_TYPE if is_utf8 => Ok(Self::Batch),
            other if other.starts_with("application/cloudevents") => Err(unsupported()),
            _ if headers.contains_key("ce-specversion") => Ok(Self::Binary),
            "application/json" if is_utf8 => Ok(Self::Plain),
            _ => Err(unsupported()),
        }
    }
}

fn unsupported() -> Problem {
    let detail = format!(
        "expected Content-Type: application/json, {CLOUD_EVENT_TYPE} or {BATCH_TYPE}, or a header ce-specversion"
    );
    Problem::new(Code::UnsupportedMediaType, detail)
}

/// Publish an event
///
/// When the client gets the response, the event is stored. nobat then creates one task for each subscription
/// that selects the event. An event with the `source` and `id` of a stored event is a repetition: the
/// response shows the stored event, and nobat creates no task.
///
/// The request is plain JSON, or an event of `CloudEvents` 1.0 in structured, batch (up to 100 events) or
/// binary mode. In plain JSON, only `type` is required. Without `id`, an `Idempotency-Key` makes the request
/// safe to repeat. With `id`, the key has no effect.
#[utoipa::path(
    post,
    path = "/v1/events",
    operation_id = "publish_event",
    tag = "events",
    security(("key" = ["tasks:write"])),
    params(("Idempotency-Key" = String, Header, description = crate::routes::tasks::examples::IDEMPOTENCY_KEY, example = "\"order-7-created\"")),
    request_body(
        description = "The event.",
        content(
            (EventSubmission = "application/json", example = json!({"type": "order.created", "source": "/shop", "subject": "order/7", "data": {"order_id": 7, "amount": 120}})),
            (EventSubmission = "application/cloudevents+json"),
            (Vec<EventSubmission> = "application/cloudevents-batch+json"),
        ),
    ),
    responses((
        status = 202,
        description = "The event is accepted. `Location` is its path. For a batch, `data` has the events in the order of the request.",
        body = AcceptedEvent<'static>,
        headers(
            ("Location" = String, description = "The path of the event, unless the request is a batch."),
            ("Idempotency-Replayed" = String, description = "`true` if all events of the request were stored before."),
        ),
    )),
)]
pub(crate) async fn publish(
    State(app): State<App>,
    Authorized(caller, _): Authorized<TasksWrite>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let mode = Mode::of(&head.headers)?;
    let body = body::whole(&app, &caller.tenant, &head.headers, body).await?;
    let identity = Identity::of(&head.headers, ROUTE, &body)?;
    let publication = Publication { app: &app, caller: &caller, identity, now: app.clock.now() };
    let events = publication.read(mode, &head.headers, &body)?;
    let tasks = publication.tasks(&events, hops(&head.headers)?)?;
    // The store may take a while, and needs neither of them.
    drop(head);
    let _reservation = body.into_reservation();
    let (tasks, is_new) = publication.accept(tasks).await?;
    // The response shows a repeated event as nobat first stored it.
    let stored: Vec<_> = tasks.iter().map(|task| CloudEvent::from_stored(&task.payload)).collect();
    let views = events.iter().zip(&tasks).zip(&stored).map(|((event, task), stored)| {
        let event = stored.as_ref().unwrap_or(event);
        let (id, time) = (EventId(task.id), &*event.time);
        AcceptedEvent { id, r#type: &event.event_type, source: &event.source, time }
    });
    let mut views: Vec<_> = views.collect();
    let mut response = match (mode, views.pop()) {
        (Mode::Batch, last) => {
            let data = views.into_iter().chain(last).collect();
            response::value(StatusCode::ACCEPTED, ACCEPTED_BYTES * tasks.len(), &AcceptedEvents { data })?
        }
        (_, None) => return Err(Problem::internal("the store returned no event")),
        (_, Some(view)) => {
            let mut response = response::value(StatusCode::ACCEPTED, ACCEPTED_BYTES, &view)?;
            if let Ok(location) = HeaderValue::try_from([ROUTE, "/", &view.id.to_string()].concat()) {
                response.headers_mut().insert(LOCATION, location);
            }
            response
        }
    };
    if !is_new {
        response::mark_replayed(&mut response);
    }
    Ok(response)
}

/// Publication in progress.
struct Publication<'a> {
    app: &'a App,
    caller: &'a Principal,
    identity: Identity,
    now: Timestamp,
}

impl Publication<'_> {
    /// Returns the events of the request, or all errors in them.
    fn read(&self, mode: Mode, headers: &HeaderMap, body: &[u8]) -> Result<Vec<CloudEvent>, Problem> {
        let one = |event: &RawValue, index: usize, is_structured: bool| {
            CloudEvent::from_json(event, is_structured, &self.defaults(index)).and_then(not_of_a_source)
        };
        let event = match mode {
            Mode::Plain | Mode::Structured => one(&read::<Box<RawValue>>(body)?, 0, mode == Mode::Structured),
            Mode::Binary => self.binary(headers, body).and_then(not_of_a_source),
            Mode::Batch => {
                let events: Vec<Box<RawValue>> = read(body)?;
                if !(1..=MAX_BATCH).contains(&events.len()) {
                    return Err(vec![FieldError::new("", format!("expected 1 to {MAX_BATCH} events"))].into());
                }
                let (mut all, mut wrong) = (Vec::with_capacity(events.len()), Vec::new());
                for (index, event) in events.into_iter().enumerate() {
                    match one(&event, index, true) {
                        Ok(event) => all.push(event),
                        Err(errors) => {
                            wrong.extend(errors.into_iter().map(|error| error.under(&format!("/{index}"))));
                        }
                    }
                }
                return if wrong.is_empty() { Ok(all) } else { Err(wrong.into()) };
            }
        };
        Ok(vec![event?])
    }

    /// Returns the attributes that nobat adds to the event at this index.
    fn defaults(&self, index: usize) -> Defaults {
        Defaults { id: id_text(self.identity.id(&self.caller.tenant, index, self.now)), time: self.now }
    }

    fn binary(&self, headers: &HeaderMap, body: &[u8]) -> Result<CloudEvent, Vec<FieldError>> {
        let mut attributes = Vec::new();
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix(ATTRIBUTE) else { continue };
            let value = value.to_str().ok().and_then(decoded).ok_or_else(|| {
                vec![FieldError::new(
                    format!("/{name}"),
                    "expected printable ASCII; percent-encode all other characters",
                )]
            })?;
            attributes.push((name.to_owned(), value));
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        CloudEvent::from_binary(attributes, content_type, body, &self.defaults(0))
    }

    /// Returns the tasks of the events. An `Idempotency-Key` identifies an event without `id`. An event with
    /// `id` is identified by `source` and `id`, and the key has no effect.
    fn tasks(&self, events: &[CloudEvent], hops: u8) -> Result<Vec<Task>, Problem> {
        let (tenant, submitted_by) = (&self.caller.tenant, self.caller.key());
        let context = EventContext { tenant, submitted_by, hops, now: self.now };
        let max = self.caller.settings.max_payload_bytes;
        let task = |(index, event): (usize, &CloudEvent)| {
            let keyed = match &self.identity {
                Identity::Keyed { .. } => Some(self.identity.id(tenant, index, self.now)),
                Identity::Fresh => None,
            };
            let id = keyed.filter(|id| id_text(*id) == event.id);
            let mut task = event_task(event, id, context);
            task.options.fingerprint = id.and_then(|_| self.identity.fingerprint());
            if let Some(max) = max.filter(|max| task.payload.get().len() > max.get() as usize) {
                let pointer = if events.len() > 1 { format!("/{index}") } else { String::new() };
                let detail = format!("expected an event of at most {max} bytes, the limit of this tenant");
                return Err(vec![FieldError::new(pointer, detail)].into());
            }
            Ok(task)
        };
        events.iter().enumerate().map(task).collect()
    }

    /// Stores the tasks, and returns them in the same order. The flag is false if all events were stored
    /// before.
    async fn accept(&self, tasks: Vec<Task>) -> Result<(Vec<Task>, bool), Problem> {
        let ids: Vec<_> = tasks.iter().map(|task| (task.id, task.options.fingerprint)).collect();
        // The same event twice in one request is one event.
        let mut new: Vec<Task> = Vec::with_capacity(tasks.len());
        for task in tasks {
            if new.iter().all(|other| other.id != task.id) {
                new.push(task);
            }
        }
        let (mut stored, mut is_new) = (Vec::with_capacity(new.len()), false);
        if !may_wait(self.app, &self.caller.tenant, self.caller.settings, new.len(), self.now).await? {
            // A repeated event creates no task, so the limit does not apply to it.
            for task in &new {
                stored.extend(self.app.backend.store.get(&task.key(), self.now).await?);
            }
            if stored.len() < new.len() {
                return Err(quota_exceeded(self.app));
            }
            new.clear();
        }
        while !new.is_empty() {
            match self.app.backend.accept(new.clone(), self.now).await? {
                InsertResult::Created(tasks) => {
                    is_new = true;
                    stored.extend(tasks);
                    new.clear();
                }
                // The store wrote nothing. The tasks that it did not return are new.
                InsertResult::Existing(tasks) => {
                    new.retain(|task| tasks.iter().all(|known| known.id != task.id));
                    stored.extend(tasks);
                }
            }
        }
        let mut in_order = Vec::with_capacity(ids.len());
        for (id, fingerprint) in ids {
            let Some(task) = stored.iter().find(|task| task.id == id) else {
                return Err(Problem::internal("the store returned no event"));
            };
            if task.options.fingerprint != fingerprint {
                return Err(Problem::key_reused());
            }
            in_order.push(task.clone());
        }
        Ok((in_order, is_new))
    }
}

/// Refuses an event that pretends to be a webhook. Only a source, which verifies its requests, publishes those.
fn not_of_a_source(event: CloudEvent) -> Result<CloudEvent, Vec<FieldError>> {
    if event.source.starts_with(SOURCE_PREFIX) {
        let detail = "expected a source that does not begin with /in/; such events come from the sources of /v1/sources";
        return Err(vec![FieldError::new("/source", detail)]);
    }
    Ok(event)
}

/// Returns the attribute `id` of an event that a client published without an `id`.
fn id_text(id: TaskId) -> String {
    id.to_string().trim_start_matches("task_").to_owned()
}

/// Decodes the value of a header with an attribute (HTTP binding, section 3.1.3.2). The value may be a quoted
/// string (RFC 9110, section 5.6.4).
fn decoded(text: &str) -> Option<String> {
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let text = quoted.and_then(structured_field::unquote).unwrap_or(Cow::Borrowed(text));
    percent_decode_str(&text).decode_utf8().ok().map(Cow::into_owned)
}
