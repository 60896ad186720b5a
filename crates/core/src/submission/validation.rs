//! Checks of the fields of a submission.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;

use crate::config::endpoint::Endpoint;
use crate::config::kind::{KindError, KindRegistry, Target};
use crate::json::Json;
use crate::submission::callback::{CallbackSubmission, EndWord};
use crate::task::callback::Callback;
use crate::task::retry_submission::DELAYS;
use crate::task::{Outcome, TaskOptions, Wait};
use crate::types::bounds::Bounds;
use crate::types::field_error::{FieldError, ValidationErrors, is_invisible};
use crate::types::http_url::HttpUrl;
use crate::types::intervals::MAX_SCHEDULE_AHEAD;
use crate::types::name::Name;
use crate::types::time::Timestamp;

/// Queue of a submission that names no queue.
pub(crate) static DEFAULT_QUEUE: LazyLock<Name> = LazyLock::new(|| Name::constant("default"));

pub(crate) const MAX_LABELS: usize = 20;

pub(crate) const MAX_LABEL_BYTES: usize = 256;

impl ValidationErrors {
    pub(super) fn name(&mut self, pointer: &str, text: Option<&str>) -> Option<Name> {
        let Some(text) = text else { return Some(DEFAULT_QUEUE.clone()) };
        Name::new(text).map_err(|error| self.add(pointer, error.to_string())).ok()
    }

    pub(super) fn endpoint(&mut self, text: Option<&str>, found: Option<&Endpoint>) -> Option<Name> {
        let name = self.name("/endpoint", Some(text?))?;
        if found.is_none() {
            let detail = format!("no endpoint has this name; create it with `PUT /v1/endpoints/{name}`");
            self.0
                .push(FieldError { code: Some("unknown_endpoint"), ..FieldError::new("/endpoint", detail) });
        }
        Some(name)
    }

    pub(super) fn payload(
        &mut self,
        payload: Option<Box<serde_json::value::RawValue>>,
        max: Option<NonZeroU32>,
    ) -> Json {
        let Some(payload) = payload else { return Json::null() };
        if let Some(max) = max.filter(|max| payload.get().len() > max.get() as usize) {
            self.add("/payload", format!("expected at most {max} bytes, the limit of this tenant"));
        }
        Json::from_outside(&payload).unwrap_or_else(|error| {
            self.0.push(FieldError {
                code: Some("malformed_json"),
                ..FieldError::new("/payload", error.to_string())
            });
            Json::null()
        })
    }

    pub(super) fn due(&mut self, delay: Option<f64>, run_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
        match (delay, run_at) {
            (None, None) => now,
            (Some(_), Some(_)) => {
                self.add("/run_at", "`delay` and `run_at` cannot be combined; send one of them");
                now
            }
            (Some(delay), None) => now + self.take("/delay", DELAYS.seconds(delay)).unwrap_or_default(),
            (None, Some(run_at)) if run_at > now + MAX_SCHEDULE_AHEAD => {
                self.add(
                    "/run_at",
                    format!("expected a time within the next {} days", MAX_SCHEDULE_AHEAD.as_secs() / 86_400),
                );
                now
            }
            (None, Some(run_at)) => run_at.max(now),
        }
    }

    pub(super) fn timeout(
        &mut self,
        timeout: Option<f64>,
        usual: Option<Duration>,
        max: Duration,
    ) -> Duration {
        let default = usual.unwrap_or(TaskOptions::DEFAULT_TIMEOUT).min(max);
        timeout
            .and_then(|timeout| self.take("/timeout", Bounds::timeout(max).seconds(timeout)))
            .unwrap_or(default)
    }

    pub(super) fn deadline(
        &mut self,
        deadline: Option<Timestamp>,
        due_at: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.add("/expires_at", "expected a time in the future");
        } else if deadline.is_some_and(|deadline| deadline <= due_at) {
            self.add(
                "/expires_at",
                "expected a time after the earliest start, which `delay` or `run_at` sets",
            );
        }
        deadline
    }

    /// Checks a callback. The callback is an `http` task, so its URL must obey the rules for `http` tasks.
    pub(super) fn callback(
        &mut self,
        callback: CallbackSubmission,
        kinds: &dyn KindRegistry,
    ) -> Option<Callback> {
        let probe = Json::from_value(&BTreeMap::from([("url", &callback.url)])).ok()?;
        if let Err(KindError::Payload(invalid)) =
            kinds.check(&crate::task::callback::HTTP, &probe, Target::Payload)
        {
            self.0.extend(invalid.into_iter().map(|invalid| invalid.under("/callback")));
        }
        let mut on: Vec<Outcome> = match callback.on {
            None => EndWord::ALL.map(Outcome::from).to_vec(),
            Some(words) => words.into_iter().map(Outcome::from).collect(),
        };
        on.sort_unstable();
        on.dedup();
        if on.is_empty() {
            self.add(
                "/callback/on",
                "expected at least one end: `succeeded`, `failed`, `canceled` or `expired`",
            );
        }
        let retry = callback.retry.map(|retry| self.retry("/callback/retry", &retry)).unwrap_or_default();
        // The check above has reported a URL that cannot be parsed.
        let url = HttpUrl::parse(&callback.url).map_or(callback.url, String::from);
        Some(Callback { url, on, retry })
    }

    pub(super) fn labels(&mut self, labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
        if labels.len() > MAX_LABELS {
            self.add("/labels", format!("expected at most {MAX_LABELS} labels"));
        }
        for (name, text) in &labels {
            let pointer = format!("/labels/{}", name.replace('~', "~0").replace('/', "~1"));
            if let Err(error) = Name::new(name) {
                self.add(&pointer, error.to_string());
            }
            if text.len() > MAX_LABEL_BYTES || text.chars().any(is_invisible) {
                self.add(
                    &pointer,
                    format!("expected at most {MAX_LABEL_BYTES} bytes of text without control characters"),
                );
            }
        }
        labels
    }

    /// Returns the wait of the payload, or records the errors.
    pub(super) fn fit(&mut self, checked: Result<Option<Wait>, KindError>) -> Option<Wait> {
        match checked {
            Ok(wait) => return wait,
            Err(KindError::UnknownKind(known)) => {
                let detail = format!(
                    "this installation has no handler for this kind; expected one of: {}",
                    known.join(", ")
                );
                self.0.push(FieldError { code: Some("unknown_kind"), ..FieldError::new("/kind", detail) });
            }
            Err(KindError::EndpointNotSupported) => {
                self.add("/endpoint", "tasks of this kind take no endpoint; omit it, or send kind `http`");
            }
            Err(KindError::Payload(invalid)) => {
                self.0.extend(invalid.into_iter().map(|invalid| invalid.under("/payload")));
            }
        }
        None
    }
}
