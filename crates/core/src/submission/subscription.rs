//! Conversion of a client's request into a subscription.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::subscription::{EventBody, Subscription};
use crate::events::cloud_event::{CloudEvent, EventData};
use crate::events::filter::Filter;
use crate::events::topic::Topic;
use crate::json::Json;
use crate::submission::template::{TemplateEvent, sample};
use crate::submission::{Submission, SubmissionContext};
use crate::types::field_error::{FieldError, ValidationErrors};
use crate::types::time::Timestamp;

/// Subscription: creates a task for each event that it selects. A request replaces the whole configuration:
/// omitted fields reset to their defaults, except `paused`, which keeps its value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubscriptionSubmission {
    /// Pattern for the type of events, by the rules of RabbitMQ's topic exchange: words with a `.` between
    /// them, `*` for exactly one word, `#` for any number of words.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub topic: String,
    /// Conditions on the content of events, in the syntax of Amazon EventBridge's event patterns. At most
    /// 8,192 bytes. Without a filter, every event that `topic` matches is selected.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, serde_json::Value>>))]
    pub filter: Option<Box<RawValue>>,
    /// Task to create. `{"$event": "/data/order_id"}` in the payload stands for the value at that JSON
    /// pointer (RFC 6901) of the event, or for `null` if the event has no such value. `run_at` and
    /// `expires_at` are not allowed.
    #[cfg_attr(feature = "openapi", schema(value_type = Submission))]
    pub task: Box<RawValue>,
    /// Body of a task of kind `http`, if the payload has no body. Default `event`.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_word")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<EventBody>, required = false))]
    pub body: Option<EventBody>,
    /// True to pause the subscription: the subscription's tasks are created and held. False to resume the
    /// subscription. If omitted, the value does not change.
    pub paused: Option<bool>,
}

impl SubscriptionSubmission {
    /// Returns the submission that the template makes for a sample event, or all errors in the template. The
    /// caller must find the endpoint and the queue of this submission before it calls
    /// [`SubscriptionSubmission::into_subscription`].
    pub fn sample_task(&self) -> Result<Submission, Vec<FieldError>> {
        let under = |errors: Vec<FieldError>| errors.into_iter().map(|error| error.under("/task")).collect();
        let template = Json::from_outside(&self.task)
            .map_err(|error| vec![FieldError::new("/task", error.to_string())])?;
        let event = sample_event();
        let json = event.to_json();
        sample(&template, self.body.unwrap_or_default(), &TemplateEvent { event: &event, json: &json })
            .map_err(under)
    }

    /// Returns the subscription, or all errors in the request.
    pub fn into_subscription(
        self,
        current: Option<&Subscription>,
        context: &SubmissionContext<'_>,
    ) -> Result<Subscription, Vec<FieldError>> {
        let mut wrong = ValidationErrors::default();
        let topic = wrong.take("/topic", self.topic.parse::<Topic>().map_err(|error| error.to_string()));
        let filter_text = self.filter.as_deref().map(Json::from_outside).transpose();
        let filter_text = wrong.take("/filter", filter_text.map_err(|error| error.to_string())).flatten();
        let filter = filter_text.as_ref().map(|filter| Filter::read(filter, topic.as_ref())).transpose();
        let filter = filter.unwrap_or_else(|errors| {
            wrong.0.extend(errors.into_iter().map(|error| error.under("/filter")));
            None
        });
        match self.sample_task() {
            Ok(sample) => {
                if let Err(errors) = sample.into_task(context) {
                    wrong.0.extend(errors.into_iter().map(|error| error.under("/task")));
                }
            }
            Err(errors) => wrong.0.extend(errors),
        }
        let task = Json::from_outside(&self.task);
        match (topic, task) {
            (Some(topic), Ok(task)) if wrong.0.is_empty() => Ok(Subscription {
                topic,
                filter: filter.unwrap_or_default(),
                filter_text,
                task,
                body: self.body.unwrap_or_default(),
                paused: self.paused.unwrap_or(current.is_some_and(|current| current.paused)),
                created_at: current.map_or(context.now, |current| current.created_at),
                version: current.map_or(0, |current| current.version) + 1,
            }),
            _ => Err(wrong.0),
        }
    }
}

/// Returns a sample event, to check a template before events exist.
pub(crate) fn sample_event() -> CloudEvent {
    CloudEvent {
        id: "sample".to_owned(),
        source: "/sample".to_owned(),
        event_type: "sample".to_owned(),
        subject: None,
        time: Timestamp::EPOCH.to_string(),
        content_type: None,
        others: std::collections::BTreeMap::new(),
        data: Some(EventData::Json(Json::null())),
    }
}
