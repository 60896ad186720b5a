//! Events, as the API shows them.

use std::collections::BTreeMap;

use nobat_core::json::Json;
use nobat_core::submission::event::{SOURCE_LABEL, SUBJECT_LABEL, TYPE_LABEL};
use nobat_core::task::view::{ErrorView, StatusWord};
use nobat_core::task::{Outcome, State, Task};
use nobat_core::types::id::{EventId, TaskId};
use nobat_core::types::name::Name;
use nobat_core::types::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// Event without its data and its tasks.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventSummary<'a> {
    /// Id that nobat gave the event.
    #[schema(value_type = String, pattern = "^event_[0-9a-z]{26}$")]
    id: EventId,
    /// Attribute `type`.
    r#type: &'a str,
    /// Attribute `source`.
    source: &'a str,
    /// Attribute `subject`.
    #[schema(required)]
    subject: Option<&'a str>,
    /// Time at which nobat accepted the event.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Status of the event's fan-out.
    status: EventStatus,
    /// Error of the last attempt of the fan-out.
    #[schema(required)]
    error: Option<ErrorView<'a>>,
}

/// Status of an event's fan-out.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum EventStatus {
    /// The event is stored. nobat will create a task for each subscription that selects the event.
    Accepted,
    /// Each subscription that selected the event has a task. There may be no such subscription.
    FannedOut,
    /// At least one subscription that selected the event has no task. `error` says why. A replay of the
    /// event's task of kind `event` creates the missing tasks.
    Failed,
    /// A client canceled the fan-out.
    Canceled,
}

/// Event with its tasks.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventView<'a> {
    #[serde(flatten)]
    pub(super) summary: EventSummary<'a>,
    /// The whole event in the JSON format of CloudEvents, with its data. Absent without the scope
    /// `payload:view`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, serde_json::Value>>, required = false)]
    pub(super) event: Option<&'a Json>,
    /// Tasks of the event, in the order of their subscriptions' names. Empty if no subscription selected the
    /// event.
    pub(super) tasks: Vec<EventTask<'a>>,
}

/// Task of an event.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventTask<'a> {
    /// Subscription that created the task.
    #[schema(value_type = String)]
    subscription: &'a Name,
    /// Id of the task.
    #[schema(value_type = String, pattern = "^task_[0-9a-z]{26}$")]
    id: TaskId,
    /// Status of the task.
    #[schema(value_type = StatusWord)]
    status: StatusWord,
}

/// One page of events.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventPage<'a> {
    /// Events, newest first.
    pub(super) data: Vec<EventSummary<'a>>,
    /// Cursor of the next page. `null` on the last page.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

/// Value of an extension attribute.
#[derive(ToSchema, Serialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the request, which `CloudEvent::from_json` reads")]
pub(crate) enum ExtensionValue {
    /// Text without control characters.
    Text(String),
    /// Whole number of 32 bits.
    Number(i32),
    /// Truth value.
    Bool(bool),
}

/// Event to publish: attributes as in CloudEvents 1.0, and data. Other fields are extension attributes.
#[derive(ToSchema, Serialize)]
pub(crate) struct EventSubmission {
    /// Version of the specification: `1.0`. Required except in plain JSON.
    specversion: Option<String>,
    /// Type, such as `order.created`. The topics of subscriptions select events by this type. At most 255
    /// bytes.
    r#type: String,
    /// Context in which the event happened, a URI reference. Required except in plain JSON, where `/` is the
    /// default. At most 1,024 bytes.
    source: Option<String>,
    /// Id, unique for the source. Required except in plain JSON, where nobat generates an id. At most 255
    /// bytes.
    id: Option<String>,
    /// Subject within the source. At most 1,024 bytes.
    subject: Option<String>,
    /// Time of the event (RFC 3339). Default: now.
    #[schema(value_type = Option<String>, format = DateTime)]
    time: Option<String>,
    /// Media type of the data. Default `application/json`.
    datacontenttype: Option<String>,
    /// URI of the schema of the data.
    dataschema: Option<String>,
    /// Data, stored byte for byte.
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<()>,
    /// Binary data in base64, in place of `data`.
    data_base64: Option<String>,
    /// Extension attributes. Their names are of the characters a-z 0-9.
    #[serde(flatten)]
    extensions: BTreeMap<String, ExtensionValue>,
}

/// Event that was accepted.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcceptedEvent<'a> {
    /// Id that nobat gave the event.
    #[schema(value_type = String, pattern = "^event_[0-9a-z]{26}$")]
    pub(super) id: EventId,
    /// Attribute `type`.
    pub(super) r#type: &'a str,
    /// Attribute `source`.
    pub(super) source: &'a str,
    /// Attribute `time`.
    pub(super) time: &'a str,
}

/// Events of a batch, in the order of the request.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcceptedEvents<'a> {
    /// Events.
    pub(super) data: Vec<AcceptedEvent<'a>>,
}

impl<'a> EventSummary<'a> {
    /// Returns the summary of the event that this task of kind `event` stores.
    pub(super) fn new(task: &'a Task) -> Self {
        let label = |name| task.options.labels.get(name).map(String::as_str);
        Self {
            id: EventId(task.id),
            r#type: label(TYPE_LABEL).unwrap_or_default(),
            source: label(SOURCE_LABEL).unwrap_or_default(),
            subject: label(SUBJECT_LABEL),
            created_at: task.created_at,
            status: match &task.state {
                State::Waiting(_) | State::Running(_) => EventStatus::Accepted,
                State::Ended(ended) => match ended.end {
                    Outcome::Succeeded => EventStatus::FannedOut,
                    Outcome::Canceled => EventStatus::Canceled,
                    Outcome::Failed | Outcome::Expired => EventStatus::Failed,
                },
            },
            error: task.error.as_ref().map(ErrorView::new),
        }
    }
}

impl<'a> EventTask<'a> {
    pub(super) fn new(subscription: &'a Name, task: &Task, now: Timestamp) -> Self {
        Self { subscription, id: task.id, status: StatusWord(task.status(now)) }
    }
}
