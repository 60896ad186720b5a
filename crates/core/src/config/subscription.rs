//! Subscriptions: tasks that events create.

use serde::{Deserialize, Serialize};

use crate::config::record::{Record, RecordKind, RecordName};
use crate::events::filter::{Filter, TooManyValues};
use crate::events::topic::Topic;
use crate::json::Json;
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;
use crate::types::unreadable::Unreadable;

/// Subscription: a selection of events, and the task that each selected event creates.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// Pattern for the type of events.
    pub topic: Topic,
    /// Conditions on the content of events.
    pub filter: Filter,
    /// The filter, as the client sent it. `None` if there is no filter.
    pub filter_text: Option<Json>,
    /// Template of the task, as the client sent it.
    pub task: Json,
    /// Body of a task of kind `http`.
    pub body: EventBody,
    /// True if paused: the subscription's tasks are created and held.
    pub paused: bool,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Number of writes to the record. Starts at 1.
    pub version: u64,
}

/// Body that a task of kind `http` sends for an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EventBody {
    /// The whole event in JSON, with the content type `application/cloudevents+json`.
    #[default]
    Event,
    /// The data of the event, with its content type. The attributes are headers with the prefix `ce-`.
    Data,
}

/// Stored form of a [`Subscription`]. The record stores the version separately.
#[derive(Serialize, Deserialize)]
struct Stored {
    topic: Topic,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<Json>,
    task: Json,
    #[serde(default)]
    body: EventBody,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    created_at: i64,
}

impl Subscription {
    /// Maximum number of subscriptions of a tenant. nobat compares every event with all subscriptions of the
    /// tenant.
    pub const MAX_PER_TENANT: usize = 200;

    /// Returns the name of the record.
    pub fn record_name(tenant: &Tenant, name: &Name) -> RecordName {
        RecordName { tenant: Some(tenant.clone()), kind: RecordKind::Subscription, name: name.clone() }
    }

    /// Returns the record.
    pub fn record(&self, tenant: &Tenant, name: &Name) -> Record {
        let stored = Stored {
            topic: self.topic.clone(),
            filter: self.filter_text.clone(),
            task: self.task.clone(),
            body: self.body,
            paused: self.paused,
            created_at: self.created_at.millis(),
        };
        let body = serde_json::to_string(&stored).unwrap_or_else(|_| unreachable!("texts and JSON values"));
        Record { name: Self::record_name(tenant, name), version: self.version, body }
    }

    /// Reads the body of a record.
    pub fn from_text(text: &str, version: u64) -> Result<Self, Unreadable> {
        const UNREADABLE: Unreadable = Unreadable("a subscription");
        let stored: Stored = serde_json::from_str(text).map_err(|_| UNREADABLE)?;
        let filter = stored.filter.as_ref().map(|filter| Filter::read(filter, None)).transpose();
        Ok(Self {
            topic: stored.topic,
            filter: filter.map_err(|_| UNREADABLE)?.unwrap_or_default(),
            filter_text: stored.filter,
            task: stored.task,
            body: stored.body,
            paused: stored.paused,
            created_at: Timestamp::from_millis(stored.created_at),
            version,
        })
    }

    /// Returns true if the subscription selects the event. `event` is the same event as JSON.
    pub fn selects(&self, event_type: &str, event: &serde_json::Value) -> Result<bool, TooManyValues> {
        Ok(self.topic.matches(event_type) && self.filter.matches(event)?)
    }
}
