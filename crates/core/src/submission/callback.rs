//! Callback, as a client sends it.

use serde::Deserialize;

use crate::task::retry_submission::RetrySubmission;

/// Callback that reports the end of a task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CallbackSubmission {
    /// URL to which nobat sends the ended task by `POST`. The callback is an `http` task of its own.
    #[cfg_attr(feature = "openapi", schema(format = "uri", max_length = 2048))]
    pub url: String,
    /// Ends of the task that the callback reports. Default: all four.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_words")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<EndWord>>, required = false, min_items = 1))]
    pub on: Option<Vec<EndWord>>,
    /// Retry policy of the callback. Default: the defaults of its fields.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<RetrySubmission>, required = false))]
    pub retry: Option<RetrySubmission>,
}

/// End of a task.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EndWord {
    /// The handler did the work.
    Succeeded,
    /// No attempt succeeded, and nobat no longer retries the task.
    Failed,
    /// A client canceled the task.
    Canceled,
    /// The deadline passed before the task could start.
    Expired,
}

impl EndWord {
    pub(super) const ALL: [Self; 4] = [Self::Succeeded, Self::Failed, Self::Canceled, Self::Expired];
}
