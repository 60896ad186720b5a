//! Conversion of a client's submission into a task.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

use crate::bounds::Bounds;
use crate::callback::Callback;
use crate::endpoint::Endpoint;
use crate::http_url::HttpUrl;
use crate::id::TaskId;
use crate::json::Json;
use crate::key::KeyId;
use crate::lane::QueueConfig;
use crate::name::{InvalidName, Name, Tenant};
use crate::ports::TaskKey;
use crate::retry::{Exponential, Jitter, RetryPolicy, Schedule};
use crate::task::{Fingerprint, InheritedDefaults, Outcome, Task, TaskOptions};
use crate::time::Timestamp;

/// Task to submit. Durations are in seconds. Unknown fields are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Submission {
    /// Handler that runs the task: `http`, `noop`, or a kind that the program registered.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub kind: String,
    /// Queue in which the task waits. Default `default`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub queue: Option<String>,
    /// Input of the handler, kept byte for byte. Default `null`. Kind `http` takes an object with `url`, or for an endpoint optionally
    /// `path`. Its other fields are optional: `method` (default `POST`), `headers`, `timeout`, `success_statuses` and `retry_statuses`;
    /// `body`, or `body_base64` for a binary body (default type `application/octet-stream`); `idempotency_key` (1 to 255 visible ASCII
    /// characters, default a key made by nobat).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub payload: Option<Box<serde_json::value::RawValue>>,
    /// Minimum delay before the start, in seconds. At most 366 days. Excludes `run_at`.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_622_400))]
    pub delay: Option<f64>,
    /// Earliest start, at most 366 days ahead. A time in the past means now. Excludes `delay`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub run_at: Option<Timestamp>,
    /// Endpoint that a task of kind `http` calls. Its payload then has a `path` instead of a `url`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub endpoint: Option<String>,
    /// Limit key. All tasks of the tenant with this key share the limits of `/v1/limits/{key}`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub limit_key: Option<String>,
    /// Maximum duration of one attempt, in seconds. Default: the endpoint's timeout, else 30. At most the server's maximum, 43,200 by
    /// default.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.001))]
    pub timeout: Option<f64>,
    /// Deadline for starting: no attempt starts at or after this time. Must be in the future and after `run_at` or `delay`. A task that
    /// waits at this time ends as `expired`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub expires_at: Option<Timestamp>,
    /// Retry policy. Default: the endpoint's policy, else the queue's, else the defaults of its fields.
    #[serde(default, deserialize_with = "crate::read::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<RetrySubmission>, required = false))]
    pub retry: Option<RetrySubmission>,
    /// Callback that reports the end of the task.
    #[serde(default, deserialize_with = "crate::read::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<CallbackSubmission>, required = false))]
    pub callback: Option<CallbackSubmission>,
    /// Labels for the client's own use: at most 20, each with a text of at most 256 bytes without control characters.
    #[serde(default, deserialize_with = "crate::read::maybe_texts")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::labels, required = false))]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Retry policy: either a list of `delays`, or fields of a growing delay.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetrySubmission {
    /// Maximum number of attempts, including the first. Default 5.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 50))]
    pub max_attempts: Option<f64>,
    /// Delay before the first retry, in seconds. Default 10. With `jitter` `full`, this is the maximum.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_622_400))]
    pub initial_delay: Option<f64>,
    /// Factor by which the delay grows from one retry to the next. Default 2.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub multiplier: Option<f64>,
    /// Maximum delay before a retry, in seconds. Default 3600.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_622_400))]
    pub max_delay: Option<f64>,
    /// Randomness of delays. `full`: random between 0 and the computed delay. `none`: exactly the computed delay. Default `full`.
    #[serde(default, deserialize_with = "crate::read::maybe_word")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<JitterWord>, required = false))]
    pub jitter: Option<JitterWord>,
    /// Maximum age for retries, in seconds since acceptance or the last replay. No retry is scheduled for later.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.001, maximum = 31_622_400))]
    pub max_age: Option<f64>,
    /// Delays before the retries, in seconds, at most 49. The task has one attempt more than delays. Excludes the other fields except
    /// `max_age`.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::delays, required = false))]
    pub delays: Option<Vec<f64>>,
}

/// Randomness of delays.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum JitterWord {
    /// Random between 0 and the computed delay.
    Full,
    /// Exactly the computed delay.
    None,
}

/// Callback that reports the end of a task.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CallbackSubmission {
    /// URL that receives the task by `POST`. The callback is an `http` task of its own.
    #[cfg_attr(feature = "openapi", schema(format = "uri", max_length = 2048))]
    pub url: String,
    /// Ends to report. Default: all four.
    #[serde(default, deserialize_with = "crate::read::maybe_words")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<EndWord>>, required = false, min_items = 1))]
    pub on: Option<Vec<EndWord>>,
    /// Retry policy of the callback. Default: the defaults of its fields.
    #[serde(default, deserialize_with = "crate::read::maybe_object")]
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
    /// nobat gave up: no attempt succeeded.
    Failed,
    /// A client canceled the task.
    Canceled,
    /// The deadline passed before the task could start.
    Expired,
}

/// Error in one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Field, as a JSON pointer (RFC 6901) into the submission.
    pub pointer: String,
    /// Description of the error and of a valid value.
    pub detail: String,
    /// Code that is more specific than "invalid", if there is one.
    pub code: Option<&'static str>,
}

impl FieldError {
    /// Creates an error for a field.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into(), code: None }
    }

    /// Moves the pointer below `parent`, the pointer of the value that contains the checked one.
    #[must_use]
    pub fn under(self, parent: &str) -> Self {
        Self { pointer: format!("{parent}{}", self.pointer), ..self }
    }
}

/// Registry of the kinds that run here, and of their payloads.
pub trait KindRegistry: Send + Sync {
    /// Checks that a task of this kind with this payload can run here. Pointers in errors start in the payload.
    fn check(&self, kind: &Name, payload: &Json, aim: Target) -> Result<(), KindError>;

    /// Checks that the text is PEM with certificate authorities that an endpoint's certificate can be verified against. Returns the
    /// expected format as the error.
    fn check_authority(&self, pem: &str) -> Result<(), String>;
}

/// Place that names the destination of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The payload, if the task calls a destination at all.
    Payload,
    /// The endpoint of the task.
    Endpoint,
}

/// Reason why a task cannot run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KindError {
    /// No handler runs this kind. Holds the known kinds.
    UnknownKind(Vec<String>),
    /// Tasks of this kind take no endpoint.
    EndpointMissing,
    /// The payload is not valid for the kind.
    Payload(Vec<FieldError>),
}

/// Data that the server adds to a submission.
pub struct SubmissionContext<'a> {
    /// Tenant that will own the task.
    pub tenant: &'a Tenant,
    /// Id of the task.
    pub id: TaskId,
    /// SHA-256 of the request, if it has an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    /// API key of the request, if the server required one.
    pub submitted_by: Option<KeyId>,
    /// Maximum length of the payload in bytes, if the tenant has such a limit.
    pub max_payload: Option<NonZeroU32>,
    /// Maximum timeout of an attempt.
    pub max_timeout: Duration,
    /// Kinds that run here.
    pub kinds: &'a dyn KindRegistry,
    /// Endpoint that the submission names, if it exists.
    pub endpoint: Option<&'a Endpoint>,
    /// Configuration of the queue. May be missing if the submission has a retry policy of its own.
    pub queue: Option<&'a QueueConfig>,
    /// Length of the chain of tasks that led to the request. 0 if there was none.
    pub hops: u8,
    /// Current time.
    pub now: Timestamp,
}

/// Queue of a submission that names none.
static DEFAULT_QUEUE: LazyLock<Name> = LazyLock::new(|| Name::constant("default"));

/// Maximum time from now to the start of a task, and maximum of all durations: 366 days.
pub const MAX_AHEAD: Duration = Duration::from_hours(366 * 24);
pub(crate) const MAX_ATTEMPTS: u32 = 50;
/// Bounds of every delay, in seconds.
const DELAYS: Bounds = Bounds::delay(MAX_AHEAD);
/// Bounds of `max_age`, in seconds.
const AGES: Bounds = Bounds::timeout(MAX_AHEAD);
/// Bounds of the factor by which delays grow.
const FACTORS: Bounds = Bounds::new(1.0, 100.0);
pub(crate) const MAX_LABELS: usize = 20;
pub(crate) const MAX_LABEL_BYTES: usize = 256;

impl Submission {
    /// Returns the queue of the submission, `default` if it names none.
    pub fn queue(&self) -> Result<Name, InvalidName> {
        self.queue.as_deref().map_or_else(|| Ok(DEFAULT_QUEUE.clone()), Name::new)
    }

    /// Returns the task, or all errors in the submission.
    pub fn into_task(self, intake: &SubmissionContext<'_>) -> Result<Task, Vec<FieldError>> {
        let mut wrong = ValidationErrors(Vec::new());
        let now = intake.now;
        let kind = wrong.name("/kind", Some(&self.kind));
        let queue = wrong.name("/queue", self.queue.as_deref());
        let endpoint = wrong.endpoint(self.endpoint.as_deref(), intake.endpoint);
        let found = intake.endpoint.filter(|_| endpoint.is_some());
        let payload = wrong.payload(self.payload, intake.max_payload);
        let due_at = wrong.due(self.delay, self.run_at, now);
        let settings = TaskOptions {
            timeout: wrong.timeout(self.timeout, found.and_then(|endpoint| endpoint.timeout), intake.max_timeout),
            expires_at: wrong.deadline(self.expires_at, due_at, now),
            retry: match &self.retry {
                Some(retry) => wrong.retry("/retry", retry),
                None => found.and_then(|endpoint| endpoint.retry.clone()).or_else(|| intake.queue?.retry.clone()).unwrap_or_default(),
            },
            left: InheritedDefaults { timeout: found.is_some() && self.timeout.is_none(), retry: found.is_some() && self.retry.is_none() },
            limit_key: self.limit_key.as_deref().and_then(|key| wrong.name("/limit_key", Some(key))),
            endpoint,
            callback: self.callback.and_then(|callback| wrong.callback(callback, intake.kinds)),
            labels: wrong.labels(self.labels.unwrap_or_default()),
            fingerprint: intake.fingerprint,
            parent: None,
            submitted_by: intake.submitted_by,
            key_generation: None,
            hops: intake.hops,
        };
        if let Some(kind) = &kind {
            let aim = if self.endpoint.is_some() { Target::Endpoint } else { Target::Payload };
            wrong.fit(intake.kinds.check(kind, &payload, aim));
        }
        match (kind, queue) {
            (Some(kind), Some(queue)) if wrong.0.is_empty() => {
                let name = TaskKey { tenant: intake.tenant.clone(), id: intake.id };
                Ok(Task { due_at, ..Task::new(name, kind, queue, payload, settings, now) })
            }
            _ => Err(wrong.0),
        }
    }
}

/// Collects all errors, so that a client learns all of them at once.
#[derive(Default)]
pub(crate) struct ValidationErrors(pub(crate) Vec<FieldError>);

impl ValidationErrors {
    pub(crate) fn add(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(FieldError::new(pointer, detail));
    }

    fn name(&mut self, pointer: &str, text: Option<&str>) -> Option<Name> {
        let Some(text) = text else { return Some(DEFAULT_QUEUE.clone()) };
        Name::new(text).map_err(|error| self.add(pointer, error.to_string())).ok()
    }

    fn endpoint(&mut self, text: Option<&str>, found: Option<&Endpoint>) -> Option<Name> {
        let name = self.name("/endpoint", Some(text?))?;
        if found.is_none() {
            let detail = format!("no endpoint has this name; create it with `PUT /v1/endpoints/{name}`");
            self.0.push(FieldError { code: Some("unknown_endpoint"), ..FieldError::new("/endpoint", detail) });
        }
        Some(name)
    }

    fn payload(&mut self, payload: Option<Box<serde_json::value::RawValue>>, max: Option<NonZeroU32>) -> Json {
        let Some(payload) = payload else { return Json::null() };
        if let Some(max) = max.filter(|max| payload.get().len() > max.get() as usize) {
            self.add("/payload", format!("expected at most {max} bytes, the limit of this tenant"));
        }
        Json::from_outside(&payload).unwrap_or_else(|error| {
            self.0.push(FieldError { code: Some("malformed_json"), ..FieldError::new("/payload", error.to_string()) });
            Json::null()
        })
    }

    /// Returns the value, or records the error under `pointer` and returns `None`.
    pub(crate) fn take<T>(&mut self, pointer: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|detail| self.add(pointer, detail)).ok()
    }

    fn due(&mut self, delay: Option<f64>, run_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
        match (delay, run_at) {
            (None, None) => now,
            (Some(_), Some(_)) => {
                self.add("/run_at", "`delay` and `run_at` exclude each other; send one of them");
                now
            }
            (Some(delay), None) => now + self.take("/delay", DELAYS.seconds(delay)).unwrap_or_default(),
            (None, Some(run_at)) if run_at > now + MAX_AHEAD => {
                self.add("/run_at", "expected a time within the next 366 days");
                now
            }
            (None, Some(run_at)) => run_at.max(now),
        }
    }

    fn timeout(&mut self, timeout: Option<f64>, usual: Option<Duration>, max: Duration) -> Duration {
        let default = usual.unwrap_or(TaskOptions::DEFAULT_TIMEOUT).min(max);
        timeout.and_then(|timeout| self.take("/timeout", Bounds::timeout(max).seconds(timeout))).unwrap_or(default)
    }

    fn deadline(&mut self, deadline: Option<Timestamp>, due_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.add("/expires_at", "expected a time in the future");
        } else if deadline.is_some_and(|deadline| deadline <= due_at) {
            self.add("/expires_at", "expected a time after the earliest start, which `delay` or `run_at` sets");
        }
        deadline
    }

    pub(crate) fn retry(&mut self, pointer: &str, retry: &RetrySubmission) -> RetryPolicy {
        let max_age = retry.max_age.and_then(|age| self.take(&format!("{pointer}/max_age"), AGES.seconds(age)));
        let grows = retry.max_attempts.is_some()
            || retry.initial_delay.is_some()
            || retry.multiplier.is_some()
            || retry.max_delay.is_some()
            || retry.jitter.is_some();
        let schedule = match &retry.delays {
            Some(_) if grows => {
                self.add(
                    &format!("{pointer}/delays"),
                    "`delays` excludes `max_attempts`, `initial_delay`, `multiplier`, `max_delay` and `jitter`",
                );
                Schedule::Delays(Vec::new())
            }
            Some(delays) => Schedule::Delays(self.delays(pointer, delays)),
            None => Schedule::Exponential(self.exponential(pointer, retry)),
        };
        RetryPolicy { schedule, max_age }
    }

    fn delays(&mut self, pointer: &str, delays: &[f64]) -> Vec<Duration> {
        if delays.len() >= MAX_ATTEMPTS as usize {
            self.add(&format!("{pointer}/delays"), format!("expected at most {} delays", MAX_ATTEMPTS - 1));
        }
        let read = |(place, delay): (usize, &f64)| self.take(&format!("{pointer}/delays/{place}"), DELAYS.seconds(*delay));
        delays.iter().enumerate().filter_map(read).collect()
    }

    fn exponential(&mut self, pointer: &str, retry: &RetrySubmission) -> Exponential {
        let default = Exponential::default();
        let at = |field: &str| format!("{pointer}/{field}");
        let max_attempts = retry.max_attempts.and_then(|count| self.take(&at("max_attempts"), Bounds::count(MAX_ATTEMPTS).whole(count)));
        let multiplier = retry.multiplier.and_then(|factor| self.take(&at("multiplier"), FACTORS.number(factor)));
        let mut delay = |field: &str, seconds: Option<f64>| self.take(&at(field), DELAYS.seconds(seconds?));
        Exponential {
            max_attempts: max_attempts.unwrap_or(default.max_attempts),
            initial_delay: delay("initial_delay", retry.initial_delay).unwrap_or(default.initial_delay),
            multiplier: multiplier.unwrap_or(default.multiplier),
            max_delay: delay("max_delay", retry.max_delay).unwrap_or(default.max_delay),
            jitter: match retry.jitter {
                Some(JitterWord::None) => Jitter::None,
                Some(JitterWord::Full) | None => Jitter::Full,
            },
        }
    }

    /// Checks a callback. It is an `http` task, so its URL must obey the same rules.
    fn callback(&mut self, callback: CallbackSubmission, kinds: &dyn KindRegistry) -> Option<Callback> {
        let probe = Json::from_value(&BTreeMap::from([("url", &callback.url)])).ok()?;
        if let Err(KindError::Payload(invalid)) = kinds.check(&crate::callback::HTTP, &probe, Target::Payload) {
            self.0.extend(invalid.into_iter().map(|invalid| invalid.under("/callback")));
        }
        let mut on: Vec<Outcome> = match callback.on {
            None => EndWord::ALL.map(Outcome::from).to_vec(),
            Some(words) => words.into_iter().map(Outcome::from).collect(),
        };
        on.sort_unstable();
        on.dedup();
        if on.is_empty() {
            self.add("/callback/on", "expected at least one end");
        }
        let retry = callback.retry.map(|retry| self.retry("/callback/retry", &retry)).unwrap_or_default();
        // The check above has refused a URL that cannot be parsed.
        let url = HttpUrl::parse(&callback.url).map_or(callback.url, String::from);
        Some(Callback { url, on, retry })
    }

    fn labels(&mut self, labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
        if labels.len() > MAX_LABELS {
            self.add("/labels", format!("expected at most {MAX_LABELS} labels"));
        }
        for (name, text) in &labels {
            let pointer = format!("/labels/{}", name.replace('~', "~0").replace('/', "~1"));
            if let Err(error) = Name::new(name) {
                self.add(&pointer, error.to_string());
            }
            if text.len() > MAX_LABEL_BYTES || text.chars().any(is_invisible) {
                self.add(&pointer, format!("expected at most {MAX_LABEL_BYTES} bytes of text without control characters"));
            }
        }
        labels
    }

    fn fit(&mut self, checked: Result<(), KindError>) {
        match checked {
            Ok(()) => {}
            Err(KindError::UnknownKind(known)) => {
                let detail = format!("this installation has no handler for this kind; known kinds are: {}", known.join(", "));
                self.0.push(FieldError { code: Some("unknown_kind"), ..FieldError::new("/kind", detail) });
            }
            Err(KindError::EndpointMissing) => self.add("/endpoint", "tasks of this kind take no endpoint; omit it, or send kind `http`"),
            Err(KindError::Payload(invalid)) => self.0.extend(invalid.into_iter().map(|invalid| invalid.under("/payload"))),
        }
    }
}

/// Returns true for control characters, and for marks that change the direction in which text is displayed.
pub fn is_invisible(character: char) -> bool {
    character.is_control() || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl EndWord {
    const ALL: [Self; 4] = [Self::Succeeded, Self::Failed, Self::Canceled, Self::Expired];
}

impl From<EndWord> for Outcome {
    fn from(word: EndWord) -> Self {
        match word {
            EndWord::Succeeded => Self::Succeeded,
            EndWord::Failed => Self::Failed,
            EndWord::Canceled => Self::Canceled,
            EndWord::Expired => Self::Expired,
        }
    }
}
